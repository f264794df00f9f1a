"""Temporal shift modules (Lin et al. 2019), which are inserted into residual networks without them.

Before the first convolution of every residual branch, an eighth of the channels is moved one frame back in time and an
eighth one frame forward, with zeros at the ends of the clip. 2D convolutions then mix neighbouring frames for free.
"""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

torch.fx.wrap("temporal_shift")  # traced as one operation, so that the batch norms around it can still be folded

SHARE = 8
"""One channel in this many is moved each way."""


def temporal_shift(features: Tensor, num_frames: int) -> Tensor:
    """Move an eighth of the channels one frame back, and the next eighth one frame forward, within every clip.

    Frame t gets channels 0 to C/8 of frame t+1 and channels C/8 to C/4 of frame t−1; the rest stays. Every value is
    written once.

    Args:
        features: (B·T, C, h, w), the frames of a clip one after the other.
        num_frames: T.

    Returns:
        (B·T, C, h, w), in the same memory format.

    Raises:
        ValueError: The frames don't divide into clips.
    """
    if features.shape[0] % num_frames:
        raise ValueError(f"{features.shape[0]} frames don't divide into clips of {num_frames}")
    moved = features.shape[1] // SHARE
    shifted = torch.empty_like(features)
    source, target = (tensor.unflatten(0, (-1, num_frames)) for tensor in (features, shifted))
    target[:, :-1, :moved] = source[:, 1:, :moved]
    target[:, -1, :moved] = 0
    target[:, 1:, moved : 2 * moved] = source[:, :-1, moved : 2 * moved]
    target[:, 0, moved : 2 * moved] = 0
    target[:, :, 2 * moved :] = source[:, :, 2 * moved :]
    return shifted


class TemporalShift(nn.Module):
    """A layer that :func:`temporal_shift` precedes.

    Args:
        net: The layer.
        num_frames: T, frames of a clip.
    """

    def __init__(self, net: nn.Module, num_frames: int) -> None:
        super().__init__()
        self.net, self.num_frames = net, num_frames

    def forward(self, features: Tensor) -> Tensor:
        """Shift (B·T, C, h, w) features, and apply the layer."""
        return self.net(temporal_shift(features, self.num_frames))


def insert_temporal_shift(backbone: nn.Module, num_frames: int) -> nn.Module:
    """Put a :class:`TemporalShift` into every residual branch of a torchvision ResNet or MobileNet-V2, in place.

    Args:
        backbone: Of any depth, or ``"tiny_resnet"``. Blocks of MobileNet-V2 without a shortcut are left as they are.
        num_frames: T, frames of a clip.

    Returns:
        The backbone.

    Raises:
        ValueError: The backbone has no such branch.
    """
    branches = 0
    for block in list(backbone.modules()):
        if isinstance(block, (BasicBlock, Bottleneck)):
            block.conv1 = TemporalShift(block.conv1, num_frames)
        elif isinstance(block, InvertedResidual) and block.use_res_connect:
            block.conv[0] = TemporalShift(block.conv[0], num_frames)
        else:
            continue
        branches += 1
    if branches == 0:
        raise ValueError(f"temporal shift needs the residual blocks of a ResNet or MobileNet-V2, not {type(backbone)}")
    return backbone
