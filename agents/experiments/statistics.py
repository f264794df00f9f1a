"""Statistics of results with few training seeds: means and their intervals, profiles, comparisons of algorithms.

Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", resample the runs of many tasks. Here there is
one task, and a bootstrap of five runs covers the truth in about 84 % of cases instead of 95 %. So intervals over seeds
are Student's; of figures for which there is none, the extremes are given, or nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu, t, trim_mean

Scores = NDArray[np.float64]


def _as_scores(scores: ArrayLike) -> Scores:
    """Scores of runs, (runs,).

    Raises:
        ValueError: There are no runs, or some scores are not finite.
    """
    runs = np.asarray(scores, dtype=np.float64)
    if runs.ndim != 1 or not runs.size or not np.isfinite(runs).all():
        raise ValueError(f"scores must be finite numbers of shape (runs,), not {scores!r}")
    return runs


def gap_closed(accuracy: ArrayLike, random: float, best: float) -> Scores:
    """The share of the gap between two references that accuracies close; the accuracies themselves if there is none."""
    reached = np.asarray(accuracy, dtype=np.float64)
    return reached if best == random else (reached - random) / (best - random)


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all runs, (runs,), which a run that failed hardly moves."""
    return float(trim_mean(_as_scores(scores), 0.25))


def mean_interval(scores: ArrayLike) -> tuple[float, float]:
    """Student's 95 % interval of the mean.

    Args:
        scores: (runs,).

    Returns:
        Lower and upper bound; NaN for a single run, whose spread is unknown.
    """
    runs = _as_scores(scores)
    if len(runs) == 1:
        return float("nan"), float("nan")
    half = float(t.ppf(0.975, len(runs) - 1) * runs.std(ddof=1) / np.sqrt(len(runs)))
    return float(runs.mean()) - half, float(runs.mean()) + half


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Scores:
    """Share of runs, (runs,), whose score is above each threshold."""
    return np.asarray((_as_scores(scores) > np.asarray(thresholds, dtype=np.float64)[:, None]).mean(axis=1))


def probability_of_improvement(first: ArrayLike, second: ArrayLike) -> float:
    """Share of the pairs of a run of the first algorithm and one of the second in which the first is better; ties count
    half.

    Args:
        first: (runs,).
        second: Likewise; the number of runs may differ.
    """
    one, other = _as_scores(first), _as_scores(second)
    return float(mannwhitneyu(one, other, method="asymptotic").statistic / (len(one) * len(other)))


def ratio_of_means(first: ArrayLike, second: ArrayLike) -> tuple[float, float, float]:
    """Ratio of two algorithms' means, such as of the episodes that they need, and its extremes over pairs of runs.

    Args:
        first: (runs,) values of the numerator.
        second: (runs,) positive values of the denominator.
    """
    one, other = _as_scores(first), _as_scores(second)
    return (
        float(one.mean() / other.mean()),
        float(one.min() / other.max()),
        float(one.max() / other.min()),
    )


def first_reaching(episodes: ArrayLike, accuracy: ArrayLike, target: float) -> float:
    """Episodes after which a learning curve first reaches a target, interpolated linearly; infinite if it never does.

    Args:
        episodes: (points,) in rising order.
        accuracy: (points,).
        target: In the units of ``accuracy``.
    """
    x, y = np.asarray(episodes, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(x[0])
    share = (target - y[at - 1]) / (y[at] - y[at - 1])
    return float(x[at - 1] + share * (x[at] - x[at - 1]))
