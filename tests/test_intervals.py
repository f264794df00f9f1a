from __future__ import annotations

import numpy as np
import pytest

from adafocus_env import RoamingFashion
from agents import Evaluation, accuracy_interval, evaluate, paired_difference
from agents.baselines import CenterPolicy


def test_paired_difference_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    base = random.random(2000) < 0.5
    better = base | (random.random(2000) < 0.1)
    mean, low, high = paired_difference(better, base)
    assert low < mean < high
    assert low > 0.03
    assert high < 0.07
    assert paired_difference(base, base) == (0.0, 0.0, 0.0)


def half_widths(*arguments: object) -> np.ndarray:
    mean, low, high = paired_difference(*arguments)  # type: ignore[arg-type]
    return np.array([mean - low, high - mean])


def test_the_interval_over_videos_is_that_of_the_standard_error() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 4000))
    error = (first - second).std() / np.sqrt(4000)
    np.testing.assert_allclose(half_widths(first, second) / error, 1.96, atol=0.12)


def test_videos_of_one_image_count_as_one() -> None:
    """Each value four times, under one image or under four."""
    once = np.random.default_rng(0).normal(size=1000)
    first, images = np.repeat(once, 4), np.repeat(np.arange(1000) * 7, 4)
    nothing = np.zeros(4000)
    np.testing.assert_allclose(half_widths(first, nothing, images), half_widths(once, nothing[:1000]), rtol=0.05)
    np.testing.assert_allclose(half_widths(first, nothing), half_widths(first, nothing, images) / 2, rtol=0.1)


@pytest.mark.parametrize("seeds", [(40, 40), (40, 30)])
def test_seeds_vary_too(seeds: tuple[int, int]) -> None:
    """Nothing but seeds differs: pairs of seeds have the error of their difference, others that of both means."""
    random = np.random.default_rng(0)
    shared = random.normal(size=40)
    first, second = shared + random.normal(size=40), (shared + random.normal(size=40))[: seeds[1]]
    found = half_widths(*(np.repeat(values[:, None], 50, axis=1) for values in (first, second)))
    if seeds[0] == seeds[1]:
        error = (first - second).std(ddof=1) / np.sqrt(40)
    else:
        error = np.sqrt(first.var(ddof=1) / 40 + second.var(ddof=1) / 30)
    np.testing.assert_allclose(found / error, 2.0, atol=0.03)  # Student's


def test_intervals_of_few_seeds_and_images_cover_the_truth() -> None:
    """In 95 % of 2,000 experiments with five seeds each, of which as much varies as over 40 images of 3 videos."""
    random, covered = np.random.default_rng(0), 0
    images = np.repeat(np.arange(40), 3)
    for _ in range(2000):
        seeds, shared = random.normal(size=(5, 1)), np.repeat(random.normal(size=40), 3) * np.sqrt(40 / 5)
        _, low, high = paired_difference(seeds + shared, np.zeros((5, 120)), images)
        covered += low < 0 < high
    assert 0.93 < covered / 2000 < 0.97


def test_other_videos_are_an_error() -> None:
    with pytest.raises(ValueError, match="same videos"):
        paired_difference(np.ones((2, 5)), np.ones(4))
    with pytest.raises(ValueError, match="same videos"):
        paired_difference(np.ones(5), np.ones(5), np.arange(4))


def test_one_image_says_nothing() -> None:
    mean, low, high = paired_difference(np.ones(5), np.zeros(5), np.zeros(5))
    assert mean == 1
    assert np.isnan((low, high)).all()
    assert accuracy_interval(np.ones(5, dtype=bool), np.zeros(5)) == (0.0, 1.0)


def test_accuracy_interval() -> None:
    """Clopper's and Pearson's for videos of their own (known answer); wider where images repeat."""
    correct = np.arange(100) < 80
    low, high = accuracy_interval(correct)
    assert (round(low, 4), round(high, 4)) == (0.7082, 0.8733)
    assert accuracy_interval(correct, np.arange(100)[::-1]) == (low, high)
    wide = accuracy_interval(correct, np.arange(100) // 5)
    assert wide[0] < low < 0.8 < wide[1]
    assert wide[0] < 0.65


def test_an_evaluation_knows_the_images(env_kwargs: dict[str, object], tmp_path: object) -> None:
    videos = env_kwargs["videos"]
    assert isinstance(videos, RoamingFashion)
    found = evaluate(CenterPolicy, **env_kwargs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.source_images, videos.source_images)
    path = f"{tmp_path}/found.npz"
    found.save(path)
    np.testing.assert_array_equal(Evaluation.load(path).source_images, videos.source_images)
