from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adafocus_env.patches import (
    best_candidate,
    crop,
    grid_corners,
    grid_neighbours,
    interpolated_crop,
    overlap,
    position_corners,
    random_corners,
    real_corners,
)


@given(st.integers(2, 10), st.integers(8, 300), st.integers(8, 300), st.data())
def test_grid_follows_the_documented_formula(grid: int, height: int, width: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, min(height, width)))
    corners = grid_corners(grid, (height, width), size)
    # Multiplied before divided, so that no rounding comes before the floor.
    wanted = [
        (math.floor(k // grid * (height - size) / (grid - 1)), math.floor(k % grid * (width - size) / (grid - 1)))
        for k in range(grid * grid)
    ]
    assert [tuple(corner) for corner in corners.tolist()] == wanted


def test_grid_of_the_paper() -> None:
    corners = grid_corners(7, (224, 224), 128)
    assert corners[:3].tolist() == [[0, 0], [0, 16], [0, 32]]
    assert corners[-1].tolist() == [96, 96]


@given(st.integers(0, 20), st.integers(0, 12), st.integers(1, 8))
def test_crop_equals_slicing(top: int, left: int, size: int) -> None:
    frames = torch.arange(3 * 3 * 28 * 20).reshape(3, 3, 28, 20)
    patches = crop(frames, torch.tensor([[top, left]] * 3), size)
    assert torch.equal(patches, frames[:, :, top : top + size, left : left + size])


def test_crop_outside_the_frame_is_an_error() -> None:
    frames = torch.zeros(1, 3, 28, 20)
    with pytest.raises(IndexError, match=r"between \(0, 0\) and \(20, 12\)"):
        crop(frames, torch.tensor([[0, 13]]), 8)
    with pytest.raises(ValueError, match="patch_size"):
        crop(frames, torch.tensor([[0, 0]]), 21)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_corners_are_integers(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"corners must be integers \(pixels\), not torch"):
        crop(torch.zeros(1, 3, 28, 20), torch.zeros(1, 2, dtype=dtype), 8)


@pytest.mark.parametrize("grid", [0, 1, True, 7.0])
def test_bad_grid_is_an_error(grid: object) -> None:
    with pytest.raises(ValueError, match="grid"):
        grid_corners(grid, (96, 96), 32)  # type: ignore[arg-type]


@given(st.integers(0, 68), st.integers(0, 68))
def test_best_candidate_is_the_brute_force_best(top: int, left: int) -> None:
    corners = grid_corners(7, (96, 96), 32)
    box = torch.tensor([top, left, 28, 28])
    shown = [
        max(0, min(t + 32, top + 28) - max(t, top)) * max(0, min(c + 32, left + 28) - max(c, left))
        for t, c in corners.tolist()
    ]
    assert shown[int(best_candidate(corners, 32, box))] == max(shown)


@given(st.integers(0, 84), st.integers(0, 84), st.sampled_from([32, 48, 80]))
def test_among_equals_the_nearest_to_the_centre_is_best(top: int, left: int, size: int) -> None:
    """Patches larger than the item: several candidates show all of it."""
    corners = grid_corners(7, (112, 112), size)
    box = torch.tensor([top, left, 28, 28])
    shown = [
        max(0, min(t + size, top + 28) - max(t, top)) * max(0, min(c + size, left + 28) - max(c, left))
        for t, c in corners.tolist()
    ]
    distance = [(t + size / 2 - top - 14) ** 2 + (c + size / 2 - left - 14) ** 2 for t, c in corners.tolist()]
    equals = [k for k in range(49) if shown[k] == max(shown)]
    assert distance[int(best_candidate(corners, size, box))] == min(distance[k] for k in equals)


def test_overlap_is_a_share_of_the_box() -> None:
    boxes = torch.tensor([[4, 0, 8, 2], [0, 0, 40, 20]])
    corners = torch.tensor([[0, 0], [8, 1], [30, 0]])
    assert overlap(corners, 10, boxes).tolist() == [[0.75, 0.25, 0.0], [0.125, 0.125, 0.125]]


def test_overlap_known_answers() -> None:
    boxes = torch.tensor([[0, 0, 10, 10]])
    corners = torch.tensor([[0, 0], [5, 0], [5, 5], [10, 0]])
    assert overlap(corners, 10, boxes).tolist() == [[1.0, 0.5, 0.25, 0.0]]


def test_random_corners_stay_inside_and_reach_the_reference_range() -> None:
    corners = random_corners((40, 30), 28, torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(corners[:, 0].unique(), torch.arange(12))  # 0 … H − P − 1
    assert torch.equal(corners[:, 1].unique(), torch.arange(2))
    assert int(random_corners((28, 28), 28, torch.rand(5, 2)).max()) == 0


@given(st.floats(0, 20), st.floats(0, 12), st.integers(1, 8))
def test_interpolated_crop_weighs_the_four_pixels_around(top: float, left: float, size: int) -> None:
    frames = torch.rand(2, 3, 28, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patches = interpolated_crop(frames, torch.tensor([[top, left]] * 2, dtype=torch.float64), size)
    around = torch.nn.functional.pad(frames, (0, 1, 0, 1), mode="replicate")
    (row, down), (column, right) = ((math.floor(each), each - math.floor(each)) for each in (top, left))
    wanted = sum(
        (down if i else 1 - down)
        * (right if j else 1 - right)
        * around[:, :, row + i : row + i + size, column + j : column + j + size]
        for i in (0, 1)
        for j in (0, 1)
    )
    torch.testing.assert_close(patches, wanted)


@pytest.mark.parametrize("size", [1, 8, 20])  # the last one fills the frame's width
def test_interpolated_crop_equals_crop_at_every_pixel(size: int) -> None:
    frames = torch.randint(256, (3, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    corners = torch.cartesian_prod(torch.arange(24 - size + 1), torch.arange(20 - size + 1))
    source = torch.arange(len(corners)) % 3
    patches = interpolated_crop(frames, corners.float(), size, source)
    assert torch.equal(patches, crop(frames, corners, size, source).float())


def test_gradients_of_corners_are_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(4, 3, 28, 20, generator=generator, dtype=torch.float64)
    room = torch.tensor([20.0, 12.0], dtype=torch.float64)
    pixels = (room * torch.rand(4, 2, generator=generator, dtype=torch.float64)).floor()
    corners = (pixels + 0.1 + 0.8 * torch.rand(4, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda corners: interpolated_crop(frames, corners, 8), corners)


def test_gradients_reach_positions() -> None:
    """A frame that brightens by 2 per row and 3 per column: moving a patch by a pixel brightens it just so."""
    frames = (2 * torch.arange(28.0)[:, None] + 3 * torch.arange(20.0)).expand(1, 3, 28, 20)
    positions = torch.tensor([[0.25, -0.5]], requires_grad=True)
    interpolated_crop(frames, real_corners(positions, (28, 20), 8), 8).mean().backward()
    torch.testing.assert_close(positions.grad, torch.tensor([[2 * 10.0, 3 * 6.0]]))  # half the room per unit


def test_interpolated_crop_refuses_what_leaves_the_frame() -> None:
    frames = torch.zeros(1, 3, 28, 20)
    for corner in ([0.0, 12.01], [-0.01, 0.0], [math.nan, 0.0]):
        with pytest.raises(IndexError, match=r"between \(0, 0\) and \(20, 12\)"):
            interpolated_crop(frames, torch.tensor([corner]), 8)
    with pytest.raises(ValueError, match="floating-point"):
        interpolated_crop(frames, torch.tensor([[0, 1]]), 8)


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_pixels_of_positions_are_their_corners_rounded_down(row: float, column: float) -> None:
    positions = torch.tensor([row, column], dtype=torch.float64)
    real, pixels = real_corners(positions, (28, 20), 8), position_corners(positions, (28, 20), 8)
    assert bool(((pixels <= real + 1e-4) & (real < pixels + 1)).all())


def test_places_between_candidates_weigh_the_four_around() -> None:
    places = torch.tensor([[0.0, 1.0], [1 / 3, 2 / 3], [0.5, 0.25], [1.0, 1.0]], requires_grad=True)
    candidates, weights = grid_neighbours(places, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    cells = torch.stack((candidates // 4, candidates % 4), dim=2) / 3
    torch.testing.assert_close((weights[..., None] * cells).sum(dim=1), places)
    assert bool(((cells - places[:, None]).abs() <= 1 / 3 + 1e-6).all())
    (gradient,) = torch.autograd.grad((weights * cells[..., 0]).sum(), places)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 0.0]]).expand(4, 2))
