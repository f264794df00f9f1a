from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.experiments.statistics import (
    first_reaching,
    gap_closed,
    interquartile_mean,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    ratio_of_means,
)

SCORES = st.lists(st.floats(-5, 5), min_size=2, max_size=12)


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    assert interquartile_mean([-1e9, 1.0, 3.0, 1e9]) == 2.0


@pytest.mark.parametrize("runs", [3, 5])
def test_the_interval_of_few_runs_covers_the_truth_as_often_as_it_says(runs: int) -> None:
    random = np.random.default_rng(0)
    found = [mean_interval(random.normal(size=runs)) for _ in range(2000)]
    assert np.mean([low <= 0 <= high for low, high in found]) == pytest.approx(0.95, abs=0.015)


def test_the_interval_is_students() -> None:
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low + high) / 2 == pytest.approx(3)
    assert high - 3 == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)  # a table's t of 4 degrees of freedom


def test_a_single_run_has_no_interval() -> None:
    assert all(math.isnan(bound) for bound in mean_interval([1.0]))


def test_the_gap() -> None:
    np.testing.assert_allclose(gap_closed([0.5, 0.6, 0.9], 0.5, 0.7), [0, 0.5, 2])
    np.testing.assert_array_equal(gap_closed([0.5, 0.6], 0.7, 0.7), [0.5, 0.6])


@given(SCORES, SCORES)
def test_probability_of_improvement_counts_pairs(first: list[float], second: list[float]) -> None:
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in first for y in second])
    assert probability_of_improvement(first, second) == pytest.approx(wins)
    assert probability_of_improvement(second, first) == pytest.approx(1 - wins)


def test_performance_profile_falls_from_one_to_zero() -> None:
    np.testing.assert_array_equal(performance_profile([0.2, 0.4, 0.4, 0.9], [0, 0.3, 0.4, 1]), [1, 0.75, 0.25, 0])


def test_a_ratio_of_means_and_its_extremes() -> None:
    assert ratio_of_means([1.0, 2.0, 3.0], [8.0, 4.0]) == (1 / 3, 1 / 8, 3 / 4)


def test_first_reaching_interpolates() -> None:
    episodes, accuracy = [0, 100, 200, 300], [0.1, 0.3, 0.2, 0.5]
    assert first_reaching(episodes, accuracy, 0.2) == pytest.approx(50)
    assert first_reaching(episodes, accuracy, 0.4) == pytest.approx(200 + 200 / 3)
    assert first_reaching(episodes, accuracy, 0.05) == 0
    assert math.isinf(first_reaching(episodes, accuracy, 0.6))


@pytest.mark.parametrize("scores", [[], [float("nan")], [[[1.0]]]])
def test_scores_must_be_numbers(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        interquartile_mean(scores)
