"""Statistics for results with few training seeds: interquartile means, intervals, profiles, comparisons of algorithms.

They follow Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice". A score matrix is (runs, tasks):
one row per training seed, one column per benchmark. Intervals are 95 % bootstrap intervals that resample the runs of
each task separately (stratified).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, mannwhitneyu, trim_mean

Scores = NDArray[np.float64]
Interval = tuple[float, float]
LEAST_SEEDS = 5
"""With fewer, a bootstrap over seeds covers too little, and an interquartile mean of one task is the mean of all."""


def _as_scores(scores: ArrayLike) -> Scores:
    """Scores as a (runs, tasks) matrix; a plain list of runs is one task.

    Raises:
        ValueError: There are no runs, or some scores are not finite.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"scores must be finite numbers of shape (runs,) or (runs, tasks), not {scores!r}")
    return matrix


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all runs of all tasks."""
    return float(trim_mean(_as_scores(scores).ravel(), 0.25))


def interval(
    scores: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]] | None = None,
    *,
    samples: int = 5000,
    seed: int = 0,
) -> Interval:
    """Stratified bootstrap 95 % interval of a statistic.

    Args:
        scores: (runs,) or (runs, tasks).
        statistic: Function of one array per task, with runs on the last axis; by default the interquartile mean.
        samples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound; NaN for a single run, whose spread is unknown.
    """

    def middle(*tasks: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1))

    return _interval(list(_as_scores(scores).T), statistic or middle, samples, seed)


def spread(scores: Scores, statistic: Callable[..., NDArray[np.float64]] | None = None) -> Interval:
    """What is reported beside the middle of some seeds' scores, (runs,): with at least :data:`LEAST_SEEDS` of them the
    :func:`interval`, else their range."""
    return interval(scores, statistic) if len(scores) >= LEAST_SEEDS else (float(scores.min()), float(scores.max()))


def _interval(
    strata: list[NDArray[np.float64]], statistic: Callable[..., NDArray[np.float64]], samples: int, seed: int
) -> Interval:
    if min(len(stratum) for stratum in strata) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        strata,
        lambda *parts, axis: statistic(*(np.moveaxis(part, axis, -1) for part in parts)),
        n_resamples=samples,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of runs, over all tasks, whose score is above each threshold."""
    return (_as_scores(scores).ravel() > np.asarray(thresholds, dtype=np.float64)[:, None]).mean(axis=1)


def probability_of_improvement(
    first: ArrayLike, second: ArrayLike, *, samples: int = 5000, seed: int = 0
) -> tuple[float, float, float]:
    """Probability that a run of the first algorithm beats one of the second on a random task; ties count half.

    Args:
        first: (runs,) or (runs, tasks).
        second: Likewise, with the same tasks; the number of runs may differ.
        samples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Estimate, lower and upper bound.

    Raises:
        ValueError: The numbers of tasks differ.
    """
    one, other = _as_scores(first), _as_scores(second)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"both need the same tasks, not {one.shape[1]} and {other.shape[1]}")
    tasks = one.shape[1]

    def probability(*parts: NDArray[np.float64]) -> NDArray[np.float64]:
        wins = [
            mannwhitneyu(x, y, axis=-1, method="asymptotic").statistic / (x.shape[-1] * y.shape[-1])
            for x, y in zip(parts[:tasks], parts[tasks:], strict=True)
        ]
        return np.mean(wins, axis=0)

    strata = [*one.T, *other.T]
    return (float(probability(*strata)), *_interval(strata, probability, samples, seed))


def ratio_interval(
    first: ArrayLike, second: ArrayLike, *, samples: int = 5000, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of two algorithms' means, such as of the episodes that they need, with its bootstrap interval.

    Args:
        first: (runs,) values of the numerator.
        second: (runs,) values of the denominator.
        samples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Estimate, lower and upper bound.
    """

    def ratio(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return x.mean(axis=-1) / y.mean(axis=-1)

    strata = [np.asarray(part, dtype=np.float64) for part in (first, second)]
    return (float(ratio(*strata)), *_interval(strata, ratio, samples, seed))


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
