"""95 % intervals of accuracies on a split, over videos, their source images and training seeds.

Videos of one source image are no independent draws: on the embedded benchmark, whether they are recognised correlates
with 0.6. So it is source images that are resampled, with all their videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

_AT_ONCE = 500
"""Bootstrap samples that are drawn together."""


def paired_difference(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    source_images: npt.NDArray[Any] | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``first − second`` over the same videos, with a hierarchical bootstrap's 95 % interval.

    Training seeds and source images are resampled. Equal numbers of seeds are taken for pairs (a policy before and
    after stage 3, say) and resampled together; of different numbers, each is resampled alone. A single seed stays.

    Args:
        first: (V,) or (seeds, V) values per video.
        second: Likewise.
        source_images: (V,) int, the image that each video is made of; ``None`` if each has its own.
        samples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Mean, lower and upper bound.

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
    random = np.random.default_rng(seed)
    pairs = len(one) == len(other)
    sums = [_by_source(values, sources) for values in ((one - other,) if pairs else (one, other))]
    sizes = np.bincount(sources)
    found = []
    for drawn in _resampled(sizes, samples, random):
        means = [_over_seeds(drawn @ part.T, random) for part in sums]
        found.append((means[0] if pairs else means[0] - means[1]) / (drawn @ sizes))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(one.mean() - other.mean()), float(low), float(high)


def accuracy_interval(
    correct: npt.NDArray[Any], source_images: npt.NDArray[Any] | None = None, *, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the accuracy of one policy on a split.

    Args:
        correct: (V,) bool.
        source_images: As in :func:`paired_difference`. If no two videos share an image, the interval is the exact one
            of Clopper and Pearson; else it is the bootstrap's over images.
        samples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    if source_images is None or len(np.unique(source_images)) == len(correct):
        exact = binomtest(int(np.sum(correct)), len(correct)).proportion_ci(0.95)
        return float(exact.low), float(exact.high)
    nothing = np.zeros(len(correct))
    _, low, high = paired_difference(correct, nothing, source_images, samples=samples, seed=seed)
    return low, high


def _numbered(source_images: npt.NDArray[Any] | None, videos: int) -> npt.NDArray[np.int64]:
    """(V,) source images, numbered from 0 without gaps."""
    return np.arange(videos) if source_images is None else np.unique(source_images, return_inverse=True)[1]


def _by_source(values: npt.NDArray[np.float64], sources: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(seeds, V) values as sums over the videos of each image, (seeds, images)."""
    return np.stack([np.bincount(sources, weights=row) for row in values])


def _resampled(
    sizes: npt.NDArray[np.int64], samples: int, random: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    """How often each bootstrap sample holds each image: (samples, images), in parts."""
    images = len(sizes)
    for start in range(0, samples, _AT_ONCE):
        yield random.multinomial(images, np.full(images, 1 / images), size=min(_AT_ONCE, samples - start)).astype(float)


def _over_seeds(sums: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """(samples,) means of (samples, seeds) sums over seeds drawn with replacement."""
    seeds = sums.shape[1]
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(sums))
    mean: npt.NDArray[np.float64] = (sums * drawn).sum(axis=1) / seeds
    return mean
