from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.experiments.compute import Point, compute_at, compute_ratios, mean_curves, merged

CURVE = [(4.0, 80.0), (1.0, 60.0), (2.0, 70.0), (3.0, 65.0)]  # the last one costs more than (2, 70) and reaches less


def test_compute_is_interpolated_along_the_best_points() -> None:
    assert compute_at(65.0, CURVE) == pytest.approx(1.5)
    assert compute_at(70.0, CURVE) == pytest.approx(2.0)
    assert compute_at(75.0, CURVE) == pytest.approx(3.0)
    assert compute_at(60.0, CURVE) == pytest.approx(1.0)


def test_what_a_mixture_of_its_neighbours_beats_does_not_count() -> None:
    assert compute_at(75.0, [*CURVE, (3.2, 74.0)]) == pytest.approx(3.0)
    assert compute_at(72.0, [*CURVE, (2.5, 74.0)]) == pytest.approx(2.25)
    assert compute_at(65.0, [*CURVE, (1.5, 69.0)]) == pytest.approx(1.0 + 0.5 * 5 / 9)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=9, unique_by=lambda p: p[0]))
def test_compute_is_that_of_the_cheapest_mixture_of_two(points: list[tuple[int, int]]) -> None:
    """By trying all pairs; of a single point, both are the same."""
    for accuracy in range(31):
        mixtures = [
            low + (accuracy - reached) / max(1, beyond - reached) * (high - low)
            for low, reached in points
            for high, beyond in points
            if reached <= accuracy <= beyond
        ]
        found = compute_at(accuracy, points)
        if not mixtures or accuracy < min(points)[1]:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(min(mixtures))


def test_a_curve_says_nothing_beyond_its_ends() -> None:
    assert math.isnan(compute_at(59.9, CURVE))
    assert math.isnan(compute_at(80.1, CURVE))


def points(method: str, seed: int, factor: float) -> list[Point]:
    return [Point(method, str(gflops), seed, factor * gflops, accuracy) for gflops, accuracy in CURVE]


def test_ratios_are_of_means_and_span_the_pairs_of_seeds() -> None:
    everything = [
        *points("ours", 0, 1.0), *points("ours", 1, 1.2),
        *points("theirs", 0, 3.0), *points("theirs", 1, 4.0), *points("single", 0, 2.0),
    ]  # fmt: skip
    rows = compute_ratios(everything, ["ours"], ["theirs", "single"], [65.0, 90.0])
    assert [(row["other"], row["accuracy"]) for row in rows] == [("theirs", 65.0), ("single", 65.0)]
    assert rows[0]["gflops"] == pytest.approx(1.1 * 1.5)
    assert rows[0]["other_gflops"] == pytest.approx(3.5 * 1.5)
    assert (rows[0]["ratio"], rows[0]["low"], rows[0]["high"]) == (3.18, 2.5, 4.0)
    assert (rows[1]["ratio"], rows[1]["low"], rows[1]["high"]) == (1.82, 1.67, 2.0)


def test_an_accuracy_that_one_seed_misses_is_left_out() -> None:
    short = [point for point in points("theirs", 1, 1.0) if point.accuracy < 80]
    everything = [*points("ours", 0, 1.0), *points("theirs", 0, 1.0), *short]
    rows = compute_ratios(everything, ["ours"], ["theirs"], [65.0, 75.0])
    assert [row["accuracy"] for row in rows] == [65.0]


def test_curves_are_means_over_seeds() -> None:
    curves = mean_curves([Point("a", "x", 0, 1.0, 50.0), Point("b", "x", 0, 9.0, 90.0), Point("a", "x", 1, 3.0, 60.0),
                          Point("a", "y", 0, 4.0, 70.0)])  # fmt: skip
    assert curves == {"a": [(2.0, 55.0), (4.0, 70.0)], "b": [(9.0, 90.0)]}


def test_merged_methods_have_the_choice() -> None:
    small, large = [Point("small", "x", 0, 1.0, 60.0)], [Point("large", "x", 0, 3.0, 80.0)]
    alone = [Point("small", "x", 1, 0.1, 99.0)]  # of a seed that the other doesn't have
    found = merged([*small, *alone, *large, *points("other", 0, 1.0)], ["small", "large"], "both")
    assert {point.method for point in found} == {"both"}
    assert len({point.setting for point in found}) == 2
    (row,) = compute_ratios([*found, *points("other", 0, 2.0)], ["both"], ["other"], [70.0])
    assert (row["gflops"], row["other_gflops"], row["ratio"]) == (2.0, 4.0, 2.0)
