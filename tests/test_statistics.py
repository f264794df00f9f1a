from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.experiments.statistics import (
    first_reaching,
    interquartile_mean,
    interval,
    performance_profile,
    probability_of_improvement,
    ratio_interval,
)

SCORES = st.lists(st.floats(-5, 5), min_size=2, max_size=12)


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    assert interquartile_mean([-1e9, 1.0, 3.0, 1e9]) == 2.0
    assert interquartile_mean([[0.0, 10.0], [2.0, 12.0]]) == 6.0  # 0 and 12 are cut


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = interval(random.normal(size=30), samples=300)
        covered += low <= 0 <= high
    assert 0.87 < covered / 200 < 0.99


def test_interval_is_the_95_percent_one_of_the_interquartile_mean() -> None:
    """By a bootstrap of one's own; runs with outliers, which the mean of the middle half ignores."""
    random = np.random.default_rng(0)
    scores = np.concatenate((random.normal(size=35), [50.0, 60.0, 70.0, -90.0, 80.0]))
    resampled = np.sort(scores[random.integers(40, size=(20_000, 40))], axis=1)
    wanted = np.quantile(resampled[:, 10:30].mean(axis=1), (0.025, 0.975))
    np.testing.assert_allclose(interval(scores, samples=20_000), wanted, atol=0.03)


def test_resampling_is_stratified() -> None:
    """Tasks far apart, runs alike: resampling runs within tasks leaves nothing to vary."""
    low, high = interval(np.tile([0.0, 100.0], (5, 1)), samples=200)
    assert low == high == 50.0


def test_a_single_run_has_no_interval() -> None:
    assert all(math.isnan(bound) for bound in interval([1.0]))


@given(SCORES, SCORES)
def test_probability_of_improvement_counts_pairs(first: list[float], second: list[float]) -> None:
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in first for y in second])
    found, low, high = probability_of_improvement(first, second, samples=20)
    assert found == pytest.approx(wins)
    assert 0 <= low <= high <= 1
    assert probability_of_improvement(second, first, samples=20)[0] == pytest.approx(1 - wins)


def test_performance_profile_falls_from_one_to_zero() -> None:
    np.testing.assert_array_equal(performance_profile([0.2, 0.4, 0.4, 0.9], [0, 0.3, 0.4, 1]), [1, 0.75, 0.25, 0])


def test_ratio_interval() -> None:
    found, low, high = ratio_interval([1.0, 2.0, 3.0], [8.0, 8.0], samples=500)
    assert found == 0.25
    assert 1 / 8 <= low < found < high <= 3 / 8


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
