"""Which frames of a video are read, and what of them is seen: segment sampling, evaluation and training views."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchvision.transforms.v2 import functional

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of training crops, as shares of the frame's shorter side."""


Repeat = Literal["last", "first"]
"""What a video shorter than T gives: all its frames and the last again; or the first for all (Something-Something)."""


def middle_frames(available: int, num_frames: int, repeat: Repeat = "last") -> npt.NDArray[np.int64]:
    """Frames for evaluation, counted from 0: the middles of T segments, int(n/T/2 + n/T·k).

    Args:
        available: n, frames of the video.
        num_frames: T.
        repeat: Of a video shorter than T.

    Returns:
        (T,) int64.
    """
    if available < num_frames:
        return _short(available, num_frames, repeat)
    length = available / num_frames
    return np.array([int(length / 2 + length * k) for k in range(num_frames)])


def random_frames(
    available: int, num_frames: int, random: np.random.Generator, repeat: Repeat = "last"
) -> npt.NDArray[np.int64]:
    """Frames for training, counted from 0: one of each of T segments of floor(n/T); the remainder is never drawn.

    Args and returns as :func:`middle_frames`; ``random`` draws.
    """
    if available < num_frames:
        return _short(available, num_frames, repeat)
    length = available // num_frames
    return np.arange(num_frames) * length + random.integers(length, size=num_frames)


def _short(available: int, num_frames: int, repeat: Repeat) -> npt.NDArray[np.int64]:
    return np.minimum(np.arange(num_frames), available - 1 if repeat == "last" else 0)


def evaluation_view(frames: Tensor, resized: int, size: int) -> Tensor:
    """Shorter side to ``resized`` pixels, centre crop of ``size`` pixels.

    Args:
        frames: (T, 3, H, W) uint8.
        resized: Pixels, at least ``size``.
        size: Pixels.

    Returns:
        (T, 3, size, size) uint8.
    """
    return functional.center_crop(functional.resize(frames, [resized]), [size, size])


def training_view(frames: Tensor, size: int, random: np.random.Generator, *, flip: bool = True) -> Tensor:
    """A square crop of one of :data:`SCALES`, anywhere, resized to ``size`` pixels, mirrored in half of the cases.

    All frames get the same crop and the same side.

    Args:
        frames: (T, 3, H, W) uint8.
        size: Pixels.
        random: Draws.
        flip: Mirror at all (not where left and right are labels).

    Returns:
        (T, 3, size, size) uint8.
    """
    height, width = frames.shape[-2:]
    side = max(1, int(min(height, width) * random.choice(SCALES)))
    top, left = random.integers(height - side + 1), random.integers(width - side + 1)
    view = functional.resized_crop(frames, int(top), int(left), side, side, [size, size])
    return functional.horizontal_flip(view) if flip and random.random() < 0.5 else view
