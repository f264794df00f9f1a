"""The convolutional networks f_G (global) and f_L (local), built from a name and a few numbers.

A backbone turns normalised images into a feature map. ``"tiny_resnet"`` is for 32² to 64² pixels and trains on a
laptop; every other name is a torchvision classification model, of which everything before the global pooling is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

FLOAT32_MAX = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, and its size.

    Attributes:
        name: ``"tiny_resnet"`` or the name of a torchvision classification model, such as ``"mobilenet_v2"``.
        widths: Channels after the stem and after each residual block; of ``"tiny_resnet"`` only.
        strides: Stride of the stem and of each residual block; of ``"tiny_resnet"`` only.
    """

    name: str = "tiny_resnet"
    widths: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()


class TinyResNet(nn.Sequential):
    """A stem and one torchvision ``BasicBlock`` per further width; the output is clipped to [0, 6]."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        if not widths or len(widths) != len(strides):
            raise ValueError(f"tiny_resnet needs as many widths as strides, not {widths} and {strides}")
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, strides[0], padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after, stride in zip(widths, widths[1:], strides[1:], strict=False):
            same_shape = stride == 1 and before == after
            shortcut = None if same_shape else nn.Sequential(conv1x1(before, after, stride), nn.BatchNorm2d(after))
            layers.append(BasicBlock(before, after, stride, shortcut))
        super().__init__(*layers, nn.ReLU6())


def build_backbone(config: BackboneConfig) -> nn.Module:
    """Build the network that maps (B, 3, h, w) normalised images to a (B, C, h', w') feature map.

    Raises:
        ValueError: The name is neither ``"tiny_resnet"`` nor a torchvision classification model with separable
            features.
    """
    if config.name == "tiny_resnet":
        return TinyResNet(config.widths, config.strides)
    if config.name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"backbone name {config.name!r} is neither 'tiny_resnet' nor a torchvision model's name")
    model: Any = torchvision.models.get_model(config.name, weights=None)
    if isinstance(getattr(model, "features", None), nn.Module):
        return model.features
    if hasattr(model, "avgpool"):  # the ResNet and RegNet families: their children run in order up to the pooling
        layers = dict(model.named_children())
        return nn.Sequential(*list(layers.values())[: list(layers).index("avgpool")])
    raise ValueError(f"backbone {config.name!r} has no part before a global pooling to use as a feature map")


def map_shape(backbone: nn.Module, image_size: int) -> tuple[int, int, int]:
    """(C, h, w) of the feature map for a square image of ``image_size`` pixels, discovered by running it once."""
    training = backbone.training
    parameter = next(backbone.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        output: Tensor = backbone.eval()(image)
    backbone.train(training)
    _, channels, height, width = output.shape
    return channels, height, width


def map_bounds(backbone: nn.Module) -> tuple[float, float]:
    """Finite bounds of the feature map's values: (0, 6) after a ReLU6, (0, largest float32) after a ReLU."""
    last = [module for module in backbone.modules() if not list(module.children())][-1]
    if isinstance(last, nn.ReLU6):
        return 0.0, 6.0
    if isinstance(last, nn.ReLU):
        return 0.0, FLOAT32_MAX
    return -FLOAT32_MAX, FLOAT32_MAX
