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


def can_stop(action_space: spaces.Space[Any]) -> bool:
    """Whether actions of a space can end the episode: their second component is look, skip or stop."""
    return isinstance(action_space, spaces.MultiDiscrete) and bool(action_space.nvec[1] > 2)


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
    if corners.is_floating_point() or corners.dtype == torch.bool:
        raise ValueError(f"corners must be integers (pixels), not {corners.dtype}")
    corners, source = _checked_places(frames, corners, patch_size, source)
    windows = frames.unfold(2, patch_size, 1).unfold(3, patch_size, 1)
    return windows[source, :, corners[:, 0], corners[:, 1]]


def interpolated_crop(frames: Tensor, corners: Tensor, patch_size: int, source: Tensor | None = None) -> Tensor:
    """Cut square patches at real-valued corners by bilinear interpolation: :func:`crop` between the pixels.

    A corner's fractional parts weigh each pixel of the patch between the four around it, so gradients flow to the
    corners (AdaFocusV2, CVPR 2022, Sec. 3.2, after the sampler of Spatial Transformer Networks, NeurIPS 2015). At
    integer corners the patch is that of :func:`crop`.

    Args:
        frames: (M, 3, H, W), any dtype.
        corners: (B, 2) floating point, top and left of each patch, pixels.
        patch_size: P, pixels.
        source: As for :func:`crop`.

    Returns:
        (B, 3, P, P) of the corners' dtype, on the scale of the frames' values, with the channels last in memory.

    Raises:
        ValueError: The patch is larger than the frame, or corners are not real numbers.
        IndexError: A patch leaves its frame.
    """
    if not corners.is_floating_point():
        raise ValueError(f"corners must be floating-point numbers (pixels), not {corners.dtype}")
    corners, source = _checked_places(frames, corners, patch_size, source)
    start = corners.detach().floor()
    share = (corners - start)[:, :, None, None, None]
    offsets = torch.arange(patch_size + 1, device=frames.device)
    # One row and column more than the patch; beyond the border there is none, and there its weight is 0.
    rows, columns = ((start[:, axis, None].long() + offsets).clamp(max=frames.shape[2 + axis] - 1) for axis in range(2))
    pixels = frames[source[:, None, None], :, rows[:, :, None], columns[:, None, :]].to(corners.dtype)
    pixels = torch.lerp(pixels[:, :-1], pixels[:, 1:], share[:, 0])
    return torch.lerp(pixels[:, :, :-1], pixels[:, :, 1:], share[:, 1]).permute(0, 3, 1, 2)


def _checked_places(frames: Tensor, corners: Tensor, patch_size: int, source: Tensor | None) -> tuple[Tensor, Tensor]:
    """Corners on the frames' device and the frames that patches are cut from, once no patch leaves its frame."""
    height, width = frames.shape[-2:]
    check_patch_size(patch_size, (height, width))
    corners = corners.to(frames.device)
    limit = torch.tensor((height - patch_size, width - patch_size), device=frames.device)
    if not bool(((corners >= 0) & (corners <= limit)).all()):  # NaN fails these comparisons too
        raise IndexError(
            f"corners must be between (0, 0) and {tuple(limit.tolist())} for patches of {patch_size} pixels in frames "
            f"of {height}×{width}"
        )
    return corners, torch.arange(len(frames), device=frames.device) if source is None else source


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


def real_corners(positions: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """Top-left corners of continuous positions, between pixels, with gradients to the positions.

    Args:
        positions: (…, 2), row and column, from −1 (top or left) to 1 (bottom or right).
        frame_size: (H, W), pixels.
        patch_size: P, pixels.

    Returns:
        (…, 2) of the positions' dtype: top and left, pixels, (position + 1) / 2 · (side − P).
    """
    check_patch_size(patch_size, frame_size)
    room = torch.tensor(frame_size, dtype=positions.dtype, device=positions.device) - patch_size
    return (positions + 1) / 2 * room


def position_corners(positions: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """Top-left pixels of continuous positions: :func:`real_corners`, rounded down, (…, 2) int64."""
    room = torch.tensor(frame_size, device=positions.device) - patch_size
    # The small term keeps float32's rounding from turning a corner into the one before it.
    return (real_corners(positions.double(), frame_size, patch_size) + 1e-4).floor().long().clamp(max=room)


def corner_positions(corners: Tensor, frame_size: tuple[int, int], patch_size: int) -> Tensor:
    """The inverse of :func:`position_corners`, (…, 2) float32; 0 where the patch fills the frame."""
    room = torch.tensor(frame_size, device=corners.device) - patch_size
    return torch.where(room > 0, 2 * corners / room.clamp(min=1) - 1, 0.0).float()


def grid_neighbours(places: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """The four candidates around places, and their weights in bilinear interpolation, with gradients to the places.

    Args:
        places: (B, 2), from top left, 0, to bottom right, 1.
        grid: g.

    Returns:
        (B, 4) int64 patch indices, and (B, 4) weights, which add up to 1.
    """
    cells = places * (grid - 1)
    low = cells.detach().floor().clamp(0, grid - 2)
    (down, right), (row, column) = (cells - low).unbind(dim=1), low.long().unbind(dim=1)
    first = row * grid + column
    weights = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
    return torch.stack((first, first + 1, first + grid, first + grid + 1), dim=1), torch.stack(weights, dim=1)


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
