"""The convolutional networks f_G (global) and f_L (local), built from a name and a few numbers.

A backbone turns normalised images into a feature map. ``"tiny_resnet"`` is for 32² to 64² pixels and trains on a
laptop; every other name is a torchvision classification model, of which everything before the global pooling is used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import RegNet, ResNet, SwinTransformer
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.resnet import BasicBlock, conv1x1

_POOLINGS = ("avgpool", "mean", "classifier.0")
"""Names of the global pooling in those models of torchvision that are traced."""
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


class StridedBlock(BasicBlock):
    """torchvision's ``BasicBlock``, but its shortcut leaves out pixels before its 1×1 convolution, which has no stride.

    The result is the same. A strided 1×1 convolution of fewer than eight channels is not safe: on processors with AVX2
    but without AVX-512, oneDNN's backward pass writes outside its memory (seen with torch 2.14).
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        same_shape = stride == 1 and before == after
        shortcut = None if same_shape else nn.Sequential(conv1x1(before, after), nn.BatchNorm2d(after))
        super().__init__(before, after, stride, shortcut)

    def forward(self, images: Tensor) -> Tensor:
        """(B, before, h, w) -> (B, after, ⌈h / stride⌉, ⌈w / stride⌉)."""
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.bn2(self.conv2(maps))
        if self.downsample is not None:
            images = self.downsample(images[:, :, :: self.stride, :: self.stride])
        return self.relu(maps + images)


class TinyResNet(nn.Sequential):
    """A stem and one :class:`StridedBlock` per further width; the output is clipped to [0, 6]."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        if not widths or len(widths) != len(strides):
            raise ValueError(f"tiny_resnet needs as many widths as strides, not {widths} and {strides}")
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, strides[0], padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after, stride in zip(widths, widths[1:], strides[1:], strict=False):
            layers.append(StridedBlock(before, after, stride))
        super().__init__(*layers, nn.ReLU6())


class UpToPooling(nn.Module):
    """A traced torchvision model without its global pooling and what follows.

    Raises:
        ValueError: It has no global pooling, as vision transformers don't.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # auxiliary heads change the training graph, but only later
            names = get_graph_node_names(model)[1]
            poolings = [place for place, node in enumerate(names) if node in _POOLINGS]
            if not poolings:
                raise ValueError(f"backbone {name!r} has no feature map before a global pooling")
            self.layers = create_feature_extractor(model, [names[poolings[0] - 1]])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, C, h', w')."""
        (output,) = self.layers(images).values()
        return output


def build_backbone(config: BackboneConfig, weights: str | None = None) -> nn.Module:
    """Build the network that maps (B, 3, h, w) normalised images to a (B, C, h', w') feature map.

    Args:
        config: Which network.
        weights: Name of torchvision's weights to start from, such as ``"IMAGENET1K_V1"`` (the paper's) or
            ``"DEFAULT"`` (its best), downloaded once; ``None`` draws them at random.

    Raises:
        ValueError: The name is neither ``"tiny_resnet"`` nor a torchvision classification model with a feature map
            before a global pooling; or it has no such weights.
        ConnectionError: The weights can't be downloaded.
    """
    if config.name == "tiny_resnet":
        if weights is not None:
            raise ValueError("there are no weights of 'tiny_resnet' to start from: it is trained by this package")
        return TinyResNet(config.widths, config.strides)
    if config.name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"backbone name {config.name!r} is neither 'tiny_resnet' nor a torchvision model's name")
    without_heads = {"aux_logits": False, "init_weights": False} if config.name in ("googlenet", "inception_v3") else {}
    if weights is not None:
        without_heads = {}  # the files have auxiliary heads; they are cut off below
    known = list(torchvision.models.get_model_weights(config.name).__members__)
    if weights is not None and weights not in (*known, "DEFAULT"):
        raise ValueError(f"torchvision has no weights {weights!r} of {config.name!r}, but {known}")
    try:
        model: Any = torchvision.models.get_model(config.name, weights=weights, **without_heads)
    except (URLError, TimeoutError) as error:
        raise ConnectionError(
            f"can't download the weights {weights!r} of {config.name!r} ({error}): pass weights=None, or put the file "
            f"into {torch.hub.get_dir()}/checkpoints"
        ) from error
    if isinstance(model, (ResNet, RegNet)):  # their children run in order up to the pooling
        layers = dict(model.named_children())
        return nn.Sequential(*list(layers.values())[: list(layers).index("avgpool")])
    if isinstance(getattr(model, "features", None), nn.Module) and not isinstance(model, SwinTransformer):
        return model.features
    return UpToPooling(model, config.name)


def map_shape(backbone: nn.Module, image_size: int, num_images: int = 1) -> tuple[int, int, int]:
    """(C, h, w) of the feature map for a square image of ``image_size`` pixels, found by running it once.

    ``num_images`` go through it together, as a backbone with temporal shift reads whole clips.
    """
    training = backbone.training
    parameter = next(backbone.parameters())
    images = torch.zeros(num_images, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        output: Tensor = backbone.eval()(images)
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
