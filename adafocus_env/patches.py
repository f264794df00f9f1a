"""Positions of patches in a frame, and the crop that cuts patches out."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from adafocus_env.checks import Bounds, check_integer


def grid_corners(grid: int, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """Top-left corners of the g×g candidates, row-major.

    Candidate k lies in row k // g and column k % g. Its corner is
    (floor(row / (g − 1) · (H − P)), floor(column / (g − 1) · (W − P))).

    Args:
        grid: g, from 2 to the larger of 16 and the frame's longer side. If a side has fewer than g positions
            (H − P + 1), candidates share them.
        frame_size: (H, W), pixels.
        patch_size: P, pixels.

    Returns:
        (g², 2) int64: top and left, pixels.

    Raises:
        ValueError: ``grid`` is out of range, or the patch doesn't fit into the frame.
    """
    check_patch_size(patch_size, frame_size)
    grid = check_integer("grid", grid, Bounds(at_least=2, at_most=max(16, *frame_size)))
    height, width = frame_size
    steps = torch.arange(grid)
    tops = steps * (height - patch_size) // (grid - 1)  # exact integer form of the floor above
    lefts = steps * (width - patch_size) // (grid - 1)
    return torch.cartesian_prod(tops, lefts)


def grid_of(action_space: spaces.Space[Any]) -> int | None:
    """g of an action space of patch indices, with or without a skip bit; ``None`` for any other space."""
    if isinstance(action_space, spaces.Discrete):
        return math.isqrt(int(action_space.n))
    if isinstance(action_space, spaces.MultiDiscrete):
        return math.isqrt(int(action_space.nvec[0]))
    return None


def check_patch_size(patch_size: int, frame_size: tuple[int, int]) -> None:
    """Raise ``ValueError`` unless a patch of ``patch_size`` pixels fits into a frame of ``frame_size``."""
    if not 1 <= patch_size <= min(frame_size):
        raise ValueError(
            f"patch_size must be between 1 and the frame's shorter side {min(frame_size)}, not {patch_size}"
        )


def scaled_size(frame_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width, in pixels, of a frame that is scaled by a factor."""
    return round(frame_size[0] * scale), round(frame_size[1] * scale)


def crop(frames: Tensor, corners: Tensor, patch_size: int, source: Tensor | None = None) -> Tensor:
    """Cut square patches from frames, without resizing.

    Args:
        frames: (M, 3, H, W), any dtype.
        corners: (B, 2) int64, top and left of each patch, pixels.
        patch_size: P, pixels.
        source: (B,) int64, the frame that each patch is cut from; ``None`` cuts one patch from every frame, B = M.

    Returns:
        (B, 3, P, P) of the frames' dtype.

    Raises:
        ValueError: The patch is larger than the frame, or corners are not integers.
        IndexError: A patch leaves its frame.
    """
    height, width = frames.shape[-2:]
    check_patch_size(patch_size, (height, width))
    if corners.is_floating_point() or corners.dtype == torch.bool:
        raise ValueError(f"corners must be integers (pixels), not {corners.dtype}")
    corners = corners.to(frames.device)
    limit = corners.new_tensor((height - patch_size, width - patch_size))
    if bool(((corners < 0) | (corners > limit)).any()):
        raise IndexError(
            f"corners must be between (0, 0) and {tuple(limit.tolist())} for patches of {patch_size} pixels in frames "
            f"of {height}×{width}"
        )
    if source is None:
        source = torch.arange(len(frames), device=frames.device)
    windows = frames.unfold(2, patch_size, 1).unfold(3, patch_size, 1)
    return windows[source, :, corners[:, 0], corners[:, 1]]


def overlap(corners: Tensor, patch_size: int, boxes: Tensor) -> Tensor:
    """Share of each box's area that each patch covers.

    Args:
        corners: (N, 2), top and left of the patches, pixels.
        patch_size: P, pixels.
        boxes: (…, 4), top, left, height and width, pixels.

    Returns:
        (…, N) float32 in [0, 1].
    """
    start, size = boxes[..., None, :2], boxes[..., None, 2:]
    covered = torch.minimum(corners + patch_size, start + size) - torch.maximum(corners, start)
    return (covered.clamp(min=0) / size).prod(dim=-1).float()


def best_candidate(corners: Tensor, patch_size: int, boxes: Tensor) -> Tensor:
    """Index of the candidate that shows most of each box; ties go to the one whose centre is nearest.

    Args:
        corners: (N, 2), as :func:`grid_corners` gives them.
        patch_size: P, pixels.
        boxes: (…, 4), top, left, height and width, pixels.

    Returns:
        (…,) int64.
    """
    centre = boxes[..., :2] + boxes[..., 2:] / 2
    distance = (corners + patch_size / 2 - centre[..., None, :]).square().sum(dim=-1)
    # In (0, 1]: it only breaks ties, as shares of area differ by at least 1 / (height·width).
    nearness = 1 / (1 + distance)
    return (overlap(corners, patch_size, boxes).double() * 1e6 + nearness).argmax(dim=-1)


def position_corners(positions: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """Top-left corners of continuous positions.

    Args:
        positions: (…, 2), row and column, from −1 (top or left) to 1 (bottom or right).
        frame_size: (H, W), pixels.
        patch_size: P, pixels.

    Returns:
        (…, 2) int64: top and left, pixels, floor((position + 1) / 2 · (side − P)).
    """
    check_patch_size(patch_size, frame_size)
    room = torch.tensor(frame_size, dtype=torch.float64, device=positions.device) - patch_size
    # The small term keeps float32's rounding from turning a corner into the one before it.
    return ((positions.double() + 1) / 2 * room + 1e-4).floor().long().clamp(max=room.long())


def corner_positions(corners: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """The inverse of :func:`position_corners`, (…, 2) float32; 0 where the patch fills the frame."""
    room = torch.tensor(frame_size, device=corners.device) - patch_size
    return torch.where(room > 0, 2 * corners / room.clamp(min=1) - 1, 0.0).float()


def centered_corners(boxes: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """Corners of the patches whose centres are nearest to those of boxes, without leaving the frame.

    Args:
        boxes: (…, 4) int64: top, left, height and width, pixels.
        frame_size: (H, W), pixels.
        patch_size: P, pixels.

    Returns:
        (…, 2) int64: top and left, pixels.
    """
    corners = boxes[..., :2] + (boxes[..., 2:] - patch_size) // 2
    return torch.minimum(corners.clamp(min=0), torch.tensor(frame_size) - patch_size)


def random_corners(frame_size: tuple[int, int], patch_size: int, draws: Tensor) -> Tensor:
    """Uniformly random pixel positions, as the reference code draws them: 0 … H − P − 1 (0 where H = P).

    Args:
        frame_size: (H, W), pixels.
        patch_size: P, pixels.
        draws: (…, 2) uniform numbers in [0, 1).

    Returns:
        (…, 2) int64, top and left.
    """
    check_patch_size(patch_size, frame_size)
    room = torch.tensor(frame_size, device=draws.device) - patch_size
    return (draws * room.clamp(min=1)).long()
