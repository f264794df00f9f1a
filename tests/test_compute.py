from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adafocus_env.recognition.recipes import Stage3Config
from adafocus_env.run_folder import write_csv
from agents import Evaluation, evaluate
from agents.baselines import RandomPolicy, ScheduledPolicy
from agents.experiments.compute import (
    Point,
    Tried,
    accuracy_at,
    compute_at,
    compute_ratios,
    differences_at_equal_compute,
    exit_points,
    frontier,
    mean_points,
    merged,
    merged_exits,
    on_read_frames,
    read_points,
)
from agents.experiments.savings import OTHERS, OURS, Savings, points_of, points_of_families

CURVE = [(4.0, 80.0), (1.0, 60.0), (2.0, 70.0), (3.0, 65.0)]  # the last one costs more than (2, 70) and reaches less


def point(method: str, setting: str, seed: int, gflops: float, accuracy: float) -> Point:
    """One that is the same on validation videos."""
    return Point(method, setting, seed, gflops, accuracy, gflops, accuracy)


def at(accuracy: float, places: list[tuple[float, float]]) -> float:
    return compute_at(accuracy, frontier(point("a", "", 0, *place) for place in places))


def test_compute_is_interpolated_along_the_best_points() -> None:
    assert at(65.0, CURVE) == pytest.approx(1.5)
    assert at(70.0, CURVE) == pytest.approx(2.0)
    assert at(75.0, CURVE) == pytest.approx(3.0)
    assert at(60.0, CURVE) == pytest.approx(1.0)


def test_what_a_mixture_of_its_neighbours_beats_does_not_count() -> None:
    assert at(75.0, [*CURVE, (3.2, 74.0)]) == pytest.approx(3.0)
    assert at(72.0, [*CURVE, (2.5, 74.0)]) == pytest.approx(2.25)
    assert at(65.0, [*CURVE, (1.5, 69.0)]) == pytest.approx(1.0 + 0.5 * 5 / 9)


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
        found = at(accuracy, points)
        if not mixtures or accuracy < min(points)[1]:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(min(mixtures))


def test_a_curve_says_nothing_beyond_its_ends() -> None:
    assert math.isnan(at(59.9, CURVE))
    assert math.isnan(at(80.1, CURVE))


def test_the_test_videos_choose_nothing() -> None:
    """The policy that is best by luck on the test videos isn't among those that validation videos choose."""
    good, lucky = Point("a", "good", 0, 1.0, 60.0, 1.1, 61.0), Point("a", "lucky", 0, 1.0, 90.0, 1.2, 55.0)
    dear, worse = Point("a", "dear", 0, 3.0, 70.0, 3.1, 71.0), Point("a", "worse", 0, 4.0, 69.0, 4.1, 72.0)
    assert frontier([lucky, good]) == [(1.0, 60.0)]
    assert frontier([lucky, worse, good, dear]) == [(1.0, 60.0), (3.0, 70.0), (4.0, 69.0)]
    assert at(65.0, [*CURVE, (5.0, 90.0)]) == pytest.approx(1.5)


def points(method: str, seed: int, factor: float) -> list[Point]:
    return [point(method, str(gflops), seed, factor * gflops, accuracy) for gflops, accuracy in CURVE]


def test_ratios_are_of_means_and_span_the_pairs_of_seeds() -> None:
    everything = [
        *points("ours", 0, 1.0), *points("ours", 1, 1.2),
        *points("theirs", 0, 3.0), *points("theirs", 1, 4.0), *points("single", 0, 2.0),
    ]  # fmt: skip
    rows = compute_ratios(everything, ["ours"], ["theirs", "single"], [65.0, 90.0])
    assert [(row["other"], row["accuracy"]) for row in rows if row["ratio"]] == [("theirs", 65.0), ("single", 65.0)]
    rows = [row for row in rows if row["ratio"]]
    assert rows[0]["gflops"] == pytest.approx(1.1 * 1.5)
    assert rows[0]["other_gflops"] == pytest.approx(3.5 * 1.5)
    assert (rows[0]["ratio"], rows[0]["low"], rows[0]["high"]) == (3.18, 2.5, 4.0)
    assert (rows[1]["ratio"], rows[1]["low"], rows[1]["high"]) == (1.82, 1.67, 2.0)


def test_an_accuracy_that_one_seed_misses_is_left_out() -> None:
    short = [point for point in points("theirs", 1, 1.0) if point.accuracy < 80]
    everything = [*points("ours", 0, 1.0), *points("theirs", 0, 1.0), *short]
    rows = compute_ratios(everything, ["ours"], ["theirs"], [65.0, 75.0])
    assert [row["ratio"] for row in rows] == [1.0, ""]
    assert rows[1]["note"] == "not on every seed's curve of theirs"


def test_curves_are_means_over_seeds() -> None:
    found = mean_points([Point("a", "x", 0, 1.0, 50.0, 2.0, 40.0), point("b", "x", 0, 9.0, 90.0),
                         Point("a", "x", 1, 3.0, 60.0, 4.0, 80.0), point("a", "y", 0, 4.0, 70.0)])  # fmt: skip
    assert found == {
        "a": [Point("a", "x", 0, 2.0, 55.0, 3.0, 60.0), point("a", "y", 0, 4.0, 70.0)],
        "b": [point("b", "x", 0, 9.0, 90.0)],
    }


def test_merged_methods_have_the_choice() -> None:
    small, large = [point("small", "x", 0, 1.0, 60.0)], [point("large", "x", 0, 3.0, 80.0)]
    alone = [point("small", "x", 1, 0.1, 99.0)]  # of a seed that the other doesn't have
    found = merged([*small, *alone, *large, *points("other", 0, 1.0)], ["small", "large"], "both")
    assert {point.method for point in found} == {"both"}
    assert len({point.setting for point in found}) == 2
    (row,) = compute_ratios([*found, *points("other", 0, 2.0)], ["both"], ["other"], [70.0])
    assert (row["gflops"], row["other_gflops"], row["ratio"]) == (2.0, 4.0, 2.0)


def test_the_hull_holds_what_no_mixture_beats() -> None:
    for more in ([], [(3.0, 74.0), (5.0, 80.0)]):
        found = frontier(point("a", "", 0, *place) for place in [*CURVE, *more])
        assert found == [(1.0, 60.0), (2.0, 70.0), (4.0, 80.0)]


def evaluation(confidences: list[list[float]], right: list[list[bool]], step_gflops: float) -> Evaluation:
    """Videos of class 0 with given confidences after every frame, and predictions that are right or not."""
    confidence, correct = np.array(confidences, dtype=np.float32), np.array(right)
    videos, steps = confidence.shape
    last = np.where(correct[:, -1, None], [0.6, 0.4], [0.4, 0.6]).astype(np.float32)
    return Evaluation(
        labels=np.zeros(videos, dtype=np.int64),
        label_sets=np.tile([True, False], (videos, 1)),
        probabilities=last,
        predictions=(~correct).astype(np.int64),
        returns=np.zeros(videos),
        gflops=np.full(videos, steps * step_gflops),
        focused=np.full(videos, steps),
        corners=np.zeros((videos, steps, 2), dtype=np.int64),
        skipped=np.zeros((videos, steps), dtype=bool),
        policy_gflops=0.0,
        confidences=confidence,
        step_gflops=np.full((videos, steps), step_gflops),
    )


def test_exit_is_chosen_on_validation_videos_and_reported_on_others() -> None:
    """Two policies: the cheap one is right only on the validation videos, and only if its videos are left early."""
    confidences = [[0.9, 0.5], [0.4, 0.5]]
    early, late = [[True, False], [False, True]], [[False, True], [False, True]]
    cheap = Tried("cheap", "λ", 0, evaluation(confidences, late, 1.0), evaluation(confidences, early, 1.0))
    dear = Tried("dear", "λ", 0, evaluation(confidences, late, 4.0), evaluation(confidences, late, 4.0))
    points = exit_points([cheap, dear], "both", [0.5, 1.0, 1.5, 2.0, 7.9, 8.0])
    assert [(point.setting, point.gflops, point.accuracy) for point in points] == [
        ("1 GFLOPs", 1.0, 0.0),  # both videos are left after the first frame
        ("1.5 GFLOPs", 1.5, 50.0),  # the certain one is
        ("2 GFLOPs", 1.5, 50.0),  # on validation videos that is more accurate than no exit
        ("7.9 GFLOPs", 1.5, 50.0),
        ("8 GFLOPs", 1.5, 50.0),
    ]
    assert [(point.val_gflops, point.val_accuracy) for point in points[:2]] == [(1.0, 50.0), (1.5, 100.0)]
    assert {point.method for point in points} == {"both"}
    assert points[1].chosen == "cheap, λ, τ = 0.9000"
    assert cheap.point == Point("cheap", "λ", 0, 2.0, 100.0, 2.0, 50.0)
    (best,) = exit_points([dear], "dear with exit", [8.0])
    assert (best.gflops, best.accuracy) == (8.0, 100.0)


def test_methods_with_exit_are_merged_as_validation_videos_choose() -> None:
    lucky, good = Point("a", "1 GFLOPs", 0, 0.9, 80.0, 0.9, 60.0), Point("b", "1 GFLOPs", 0, 0.8, 70.0, 0.8, 61.0)
    equal, alone = Point("a", "2 GFLOPs", 0, 1.5, 75.0, 1.5, 61.0), Point("b", "2 GFLOPs", 0, 1.2, 70.0, 1.2, 61.0)
    other = Point("c", "1 GFLOPs", 0, 0.1, 99.0, 0.1, 99.0)
    found = merged_exits([lucky, good, equal, alone, other], ["a", "b"], "both")
    assert found == [dataclasses.replace(good, method="both"), dataclasses.replace(alone, method="both")]
    second = dataclasses.replace(lucky, seed=1)  # which lacks the larger budget
    assert [(point.setting, point.seed) for point in merged_exits([lucky, second, equal], ["a"], "a")] == [
        ("1 GFLOPs", 0), ("1 GFLOPs", 1),
    ]  # fmt: skip


def test_points_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [Point("AdaFocus+, 24²", "λ = 0.01", 2, 0.1, 70.5, 0.2, 71.0, "τ = 0.5"), *points("b", 0, 1.0)]
    write_csv(tmp_path / "compute.csv", [dataclasses.asdict(point) for point in written])
    assert read_points(tmp_path / "compute.csv") == written
    (tmp_path / "other.csv").write_text("method,setting\na,b\n")
    with pytest.raises(ValueError, match=r"other\.csv is no table of points"):
        read_points(tmp_path / "other.csv")


def test_a_budget_that_one_seed_cannot_keep_is_left_out() -> None:
    found = {gflops: evaluation([[0.9, 0.5]], [[True, True]], gflops) for gflops in (1.0, 3.0)}
    tried = [Tried("a", "λ", seed, each, each) for seed, each in enumerate(found.values())]
    points = exit_points(tried, "a with exit", [1.0, 3.0])
    assert [(point.setting, point.seed) for point in points] == [("3 GFLOPs", 0), ("3 GFLOPs", 1)]
    single = evaluation([[0.9]], [[True]], 1.0)
    assert not exit_points([Tried("a", "λ", 0, single, single)], "a with exit", [9.0])


def test_a_schedule_pays_for_the_frames_that_it_reads(env_kwargs: dict[str, Any]) -> None:
    whole = evaluate(functools.partial(ScheduledPolicy, candidate=5, frames=2), skip=True, **env_kwargs)
    every = evaluate(RandomPolicy, skip=False, **env_kwargs)
    found = on_read_frames(whole)
    assert found.predictions.shape == (len(found.labels), 2)
    np.testing.assert_allclose(found.gflops, every.gflops / every.predictions.shape[1] * 2)
    np.testing.assert_allclose(found.step_gflops.sum(axis=1), found.gflops)
    np.testing.assert_array_equal(found.predictions[:, -1], whole.probabilities.argmax(axis=1))
    assert (found.frames == 2).all()
    assert found.accuracy == whole.accuracy
    exit_points([Tried("schedule", "2 frames", 0, found, found)], "with exit", [1.0])  # its steps are all paid for


@pytest.mark.parametrize("stage3", [Stage3Config(epochs=0), Stage3Config(epochs=5)])
def test_all_networks_are_trained_on_equally_many_videos(stage3: Stage3Config) -> None:
    savings = Savings(stage3=stage3, policy_videos=3000)
    whole, patches = savings.stage1("whole_frames"), savings.stage1("patches")
    assert whole.steps * whole.videos_per_step == savings.network_videos
    left = savings.network_videos - patches.steps * patches.videos_per_step - 3000 * stage3.epochs
    assert 0 <= left < patches.videos_per_step


def test_stage_3_may_not_take_everything() -> None:
    with pytest.raises(ValueError, match="network_videos must be at least 15032"):
        Savings(network_videos=15_000, policy_videos=3000, stage3=Stage3Config(epochs=5)).stage1("patches")


def test_families_are_compared_with_and_without_exit() -> None:
    """Exit halves the compute of patches and of whole frames here, and no threshold is tried with learned stopping."""
    certain = functools.partial(evaluation, [[0.9, 0.9]], [[True, True]])
    costs = {
        "AdaFocus+, 24²": 1.0, "AdaFocus+, 32²": 2.0, "AdaFocus+ with learned stopping, 24²": 1.5,
        "whole frames at 1": 6.0, "whole frames at 0.5": 4.0, "adaptive resolution": 3.0,
    }  # fmt: skip
    tried = [
        Tried(method, "λ", seed, certain(gflops), certain(gflops))
        for method, gflops in costs.items()
        for seed in ((0, 1) if "AdaFocus" in method else (0,))
    ]
    points = points_of(tried, [1.0, 3.0, 4.0])
    rows = compute_ratios([*points, *points_of_families(points)], OURS, OTHERS, [100.0])
    ratios = {(row["method"], row["other"]): row["ratio"] for row in rows}
    assert ratios["AdaFocus+, any P", "adaptive resolution"] == 3.0
    assert ratios["AdaFocus+, any P, with exit", "adaptive resolution"] == 6.0
    assert ratios["AdaFocus+, any P, with exit", "adaptive resolution, with exit"] == 3.0
    assert ratios["AdaFocus+ with learned stopping, any P", "whole frames, any size"] == 2.67
    assert ratios["AdaFocus+, any P, with exit", "whole frames, any size, with exit"] == 4.0
    assert len(ratios) == len(OURS) * len(OTHERS)


def test_accuracy_is_interpolated_along_the_best_points() -> None:
    places = frontier(point("a", "", 0, *place) for place in CURVE)
    assert accuracy_at(1.5, places) == pytest.approx(65.0)
    assert accuracy_at(9.0, places) == pytest.approx(80.0)
    assert math.isnan(accuracy_at(0.9, places))


def test_one_policy_is_compared_with_those_of_each_setting_at_their_compute() -> None:
    every = [*points("every", 0, 1.0), *points("every", 1, 1.0)]
    own = [point("own", "x", 0, 1.5, 64.0), point("own", "x", 1, 3.0, 76.0), point("own", "cheap", 0, 0.5, 50.0)]
    (row,) = differences_at_equal_compute([*every, *own], "every", "own")
    assert (row["setting"], row["gflops"]) == ("x", 2.25)
    assert (row["accuracy"], row["other_accuracy"]) == (70.0, 70.0)
    assert (row["points"], row["low"], row["high"]) == (0.0, -1.0, 1.0)
