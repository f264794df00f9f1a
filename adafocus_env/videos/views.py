"""Segment sampling of a video's frames, and the views of them in evaluation and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of training crops, as shares of the frame's shorter side."""

Repeat = Literal["last", "first"]
"""How a video shorter than T is filled up: by repeats of its last frame; or all by its first (Something-Something)."""

Resize = Literal["torch", "pillow"]
"""Library that resizes frames, bilinearly and antialiased. The released checkpoints were trained and evaluated with
Pillow. Torch differs by one level in up to a hundredth of the values, and takes a fraction of the time."""


def middle_frames(available: int, num_frames: int, repeat: Repeat = "last") -> npt.NDArray[np.int64]:
    """Frames for evaluation, counted from 0: the middles of T segments, int(n/T/2 + n/T·k), if n > T.

    Args:
        available: n, frames of the video.
        num_frames: T.
        repeat: How a video with n ≤ T is filled up.

    Returns:
        (T,) int64.
    """
    if available <= num_frames:
        return _short(available, num_frames, repeat)
    length = available / num_frames
    return np.array([int(length / 2 + length * k) for k in range(num_frames)])


def random_frames(
    available: int, num_frames: int, random: np.random.Generator, repeat: Repeat = "last"
) -> npt.NDArray[np.int64]:
    """Frames for training, counted from 0: one from each of T segments of floor(n/T); the remainder is never drawn.

    Arguments and result are as for :func:`middle_frames`, and ``random`` draws. But a video with n = T gives all its
    frames, whatever ``repeat`` says.
    """
    if available < num_frames:
        return _short(available, num_frames, repeat)
    length = available // num_frames
    return np.arange(num_frames) * length + random.integers(length, size=num_frames)


def _short(available: int, num_frames: int, repeat: Repeat) -> npt.NDArray[np.int64]:
    return np.minimum(np.arange(num_frames), available - 1 if repeat == "last" else 0)


def evaluation_view(frames: Tensor, resized: int, size: int, resize: Resize = "torch") -> Tensor:
    """Resize the shorter side to ``resized`` pixels, and crop ``size`` pixels at the centre.

    Args:
        frames: (T, 3, H, W) uint8.
        resized: Shorter side, pixels, at least ``size``. The longer side is rounded down.
        size: Height and width of the view, pixels.
        resize: Library that resizes.

    Returns:
        (T, 3, size, size) uint8.
    """
    return _seen(frames, lambda images: functional.center_crop(functional.resize(images, [resized]), [size]), resize)


class Box(NamedTuple):
    """A rectangle in a picture, pixels; its borders may lie between two pixels."""

    top: float
    left: float
    height: float
    width: float


def in_original(box: Box, height: int, width: int, resized: int, size: int) -> Box:
    """Where a rectangle of :func:`evaluation_view` is in the frame that the view was made of.

    Args:
        box: The rectangle in the view; it may be the whole view.
        height: Height of the original frame, pixels.
        width: Width of the original frame, pixels.
        resized: As for :func:`evaluation_view`.
        size: As for :func:`evaluation_view`.
    """
    shorter = min(height, width)
    sides = [resized if side == shorter else int(resized * side / shorter) for side in (height, width)]
    rows, columns = height / sides[0], width / sides[1]
    top, left = (round((side - size) / 2) for side in sides)  # as torchvision rounds the crop's corner
    return Box((top + box.top) * rows, (left + box.left) * columns, box.height * rows, box.width * columns)


def training_crops(height: int, width: int, size: int) -> list[tuple[int, int, int, int]]:
    """The 130 crops that training draws from: ten shapes, each at 13 places (the recipe's multi-scale crop).

    Height and width are two of :data:`SCALES`, equal or adjacent, times the frame's shorter side. Those within two
    pixels of ``size`` are ``size``, unless the frame is smaller. Places are the corners, the middles of the sides, the
    centre, and the four between centre and corners, in steps of a quarter of the free space, rounded down.

    Args:
        height: Height of the frame, pixels.
        width: Width of the frame, pixels.
        size: Height and width of the view, pixels.

    Returns:
        Top, left, height and width of each.
    """
    shorter = min(height, width)
    sides = [max(1, int(shorter * scale)) for scale in SCALES]
    sides = [size if abs(side - size) < 3 and size <= shorter else side for side in sides]
    quarters = [(i, j) for steps in ((0, 2, 4), (1, 3)) for i in steps for j in steps]
    return [
        (i * ((height - tall) // 4), j * ((width - wide) // 4), tall, wide)
        for row, tall in enumerate(sides)
        for wide in sides[max(0, row - 1) : row + 2]
        for i, j in quarters
    ]


def training_view(
    frames: Tensor, size: int, random: np.random.Generator, *, flip: bool = True, resize: Resize = "torch"
) -> Tensor:
    """One of :func:`training_crops`, resized to ``size`` pixels, and mirrored in half of the cases.

    All frames get the same crop, and either all or none are mirrored.

    Args:
        frames: (T, 3, H, W) uint8.
        size: Height and width of the view, pixels.
        random: Generator of the draws.
        flip: Mirror at all; turn it off if labels depend on left and right.
        resize: Library that resizes.

    Returns:
        (T, 3, size, size) uint8.
    """
    height, width = frames.shape[-2:]
    crops = training_crops(height, width, size)
    crop = crops[random.integers(len(crops))]
    view = _seen(frames, lambda images: functional.resized_crop(images, *crop, size=[size, size]), resize)
    return functional.horizontal_flip(view) if flip and random.random() < 0.5 else view


def _seen(frames: Tensor, view: Callable[[Any], Any], resize: Resize) -> Tensor:
    """Apply a function of torchvision to (T, 3, H, W) frames, as a tensor or as Pillow's images."""
    if resize == "torch":
        seen: Tensor = view(frames)
        return seen
    images = (view(Image.fromarray(pixels)) for pixels in frames.permute(0, 2, 3, 1).numpy())
    return torch.stack([functional.pil_to_tensor(image) for image in images])
