"""95 % intervals of accuracies on a split, over videos, their source images and training seeds.

Videos of one source image are no independent draws: on the embedded benchmark, whether they are recognised correlates
with 0.6. So a source image with all its videos counts as one draw. A percentile bootstrap of five training seeds covers
the truth in about 84 % of cases; these intervals are Student's, with the degrees of freedom of Welch and Satterthwaite,
and cover it in 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, t

Variance = tuple[float, int]
"""An estimate of a mean's variance, and its degrees of freedom."""


def paired_difference(
    first: npt.NDArray[Any], second: npt.NDArray[Any], source_images: npt.NDArray[Any] | None = None
) -> tuple[float, float, float]:
    """Mean of ``first − second`` over the same videos, with its 95 % interval over training seeds and source images.

    Equal numbers of seeds are taken for pairs (a policy before and after stage 3, say). Of a single seed, what other
    seeds would have given is unknown, and the interval is over source images alone.

    Args:
        first: (V,) or (seeds, V) values per video.
        second: Likewise.
        source_images: (V,) int, the image that each video is made of; ``None`` if each has its own.

    Returns:
        Mean, lower and upper bound. The bounds are NaN if all videos are of one image.

    Raises:
        ValueError: The numbers of videos differ.
    """
    one, other = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (first, second))
    sources = _numbered(source_images, one.shape[1])
    if not one.shape[1] == other.shape[1] == len(sources):
        raise ValueError(
            f"first, second and source_images must be of the same videos, not of {one.shape[1]}, {other.shape[1]} and "
            f"{len(sources)}"
        )
    difference = one.mean(axis=0) - other.mean(axis=0)
    of_seeds = (one - other,) if len(one) == len(other) else (one, other)
    variances = [_over_images(difference, sources), *(_over_seeds(part.mean(axis=1)) for part in of_seeds)]
    mean, half = float(difference.mean()), _half_width(variances)
    return mean, mean - half, mean + half


def accuracy_interval(correct: npt.NDArray[Any], source_images: npt.NDArray[Any] | None = None) -> tuple[float, float]:
    """95 % interval of the accuracy of one policy on a split.

    Args:
        correct: (V,) bool.
        source_images: As in :func:`paired_difference`. If no two videos share an image, the interval is the exact one
            of Clopper and Pearson.

    Returns:
        Lower and upper bound, in [0, 1]: both ends if all videos are of one image.
    """
    if source_images is None or len(np.unique(source_images)) == len(correct):
        exact = binomtest(int(np.sum(correct)), len(correct)).proportion_ci(0.95)
        return float(exact.low), float(exact.high)
    _, low, high = paired_difference(correct, np.zeros(len(correct)), source_images)
    return max(0.0, low), min(1.0, high)  # of NaN too


def _numbered(source_images: npt.NDArray[Any] | None, videos: int) -> npt.NDArray[np.int64]:
    """(V,) source images, numbered from 0 without gaps."""
    return np.arange(videos) if source_images is None else np.unique(source_images, return_inverse=True)[1]


def _over_images(values: npt.NDArray[np.float64], sources: npt.NDArray[np.int64]) -> Variance:
    """Of the mean of (V,) values, if images are drawn with all their videos: that of a ratio of two sums."""
    totals = np.bincount(sources, weights=values - values.mean())
    images = len(totals)
    if images < 2:  # nothing says how images differ
        return float("nan"), 1
    return float((totals**2).sum() / len(values) ** 2 * images / (images - 1)), images - 1


def _over_seeds(means: npt.NDArray[np.float64]) -> Variance:
    """Of the mean of (seeds,) values; 0 for a single one."""
    seeds = len(means)
    return (float(means.var(ddof=1)) / seeds, seeds - 1) if seeds > 1 else (0.0, 1)


def _half_width(variances: Sequence[Variance]) -> float:
    """Half of the 95 % interval of a mean whose variance is the sum of independent estimates."""
    whole = sum(variance for variance, _ in variances)
    if whole == 0:
        return 0.0
    freedom = whole**2 / sum(variance**2 / degrees for variance, degrees in variances)
    return float(t.ppf(0.975, freedom) * np.sqrt(whole))
