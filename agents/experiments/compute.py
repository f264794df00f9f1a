"""Accuracy against compute: points and curves of methods, and the compute that each needs for the same accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.evaluation import Evaluation
from agents.exits import exit_curve, outcomes

Place = tuple[float, float]
"""GFLOPs per video, and accuracy in percent."""


@dataclass(frozen=True)
class Point:
    """Accuracy and compute of one evaluated policy.

    Attributes:
        method: Name of the compared method.
        setting: Name of the point on the method's curve, such as a price of a frame or a number of frames.
        seed: Seed of the policy's training.
        gflops: Mean multiply-adds / 1e9 per video.
        accuracy: Accuracy in percent.
        chosen: What was chosen for it on validation videos.
    """

    method: str
    setting: str
    seed: int
    gflops: float
    accuracy: float
    chosen: str = ""


@dataclass(frozen=True)
class Tried:
    """One trained policy, evaluated without exit.

    Attributes:
        method: As of a :class:`Point`, and so are the next two.
        setting: See there.
        seed: See there.
        test: The evaluation whose figures are reported.
        val: That on the videos on which thresholds are chosen; ``None`` where there is nothing to choose.
    """

    method: str
    setting: str
    seed: int
    test: Evaluation
    val: Evaluation | None = None

    @property
    def point(self) -> Point:
        """What was found without exit."""
        return Point(self.method, self.setting, self.seed, self.test.gflops_per_video, 100 * self.test.accuracy)


def on_read_frames(found: Evaluation) -> Evaluation:
    """The evaluation of a fixed schedule, restricted to the frames that it reads: no policy has to see the others, so
    they cost nothing."""
    read = ~found.skipped[0]
    names = "predictions", "confidences", "corners", "skipped", "step_gflops"
    columns = {name: getattr(found, name)[:, read] for name in names}
    return replace(found, **columns, gflops=columns["step_gflops"].sum(axis=1), frames=found.focused)


def exit_points(tried: Sequence[Tried], method: str, budgets: Sequence[float]) -> list[Point]:
    """The points of a method with conditional exit, one for each budget and seed.

    Of all policies of a seed, at all thresholds, the pair is taken that is most accurate on the validation videos
    within the budget. What is reported is what it leads to on the others, which nothing is chosen on.

    Args:
        tried: The method's policies, with evaluations on validation videos; those of one step a video are left out.
        method: Name of the method with exit.
        budgets: GFLOPs per video; those that some seed can't keep are left out.
    """
    curves = [
        (each, exit_curve(each.val)) for each in tried if each.val is not None and each.val.confidences.shape[1] > 1
    ]
    seeds = list(dict.fromkeys(each.seed for each, _ in curves))
    points = []
    for budget in budgets:
        found = []
        for seed in seeds:
            kept = [
                (accuracy, -gflops, threshold, each)
                for each, curve in curves
                if each.seed == seed
                for threshold, accuracy, gflops in zip(*curve, strict=True)
                if gflops <= budget
            ]
            if kept:
                _, _, threshold, each = max(kept, key=lambda candidate: candidate[:2])
                _, (accuracy,), (gflops,) = outcomes(each.test, [threshold])
                chosen = f"{each.method}, {each.setting}, τ = {threshold:.4f}"
                found.append(Point(method, f"{budget:g} GFLOPs", seed, float(gflops), 100 * float(accuracy), chosen))
        if len(found) == len(seeds):
            points += found
    return points


def merged(points: Sequence[Point], methods: Sequence[str], name: str) -> list[Point]:
    """The points of several methods, merged into those of a single method, for the seeds that all of them have."""
    of_methods = [{point.seed for point in points if point.method == method} for method in methods]
    seeds = set.intersection(*of_methods) if of_methods else set()
    return [
        replace(point, method=name, setting=f"{point.method}, {point.setting}")
        for point in points
        if point.method in methods and point.seed in seeds
    ]


def mean_curves(points: Iterable[Point]) -> dict[str, list[Place]]:
    """The curve of every method: the mean over seeds at each of its settings, in order of appearance."""
    found: dict[str, dict[str, list[Place]]] = {}
    for point in points:
        places = found.setdefault(point.method, {}).setdefault(point.setting, [])
        places.append((point.gflops, point.accuracy))
    return {
        method: [
            (float(gflops), float(accuracy)) for gflops, accuracy in (np.mean(p, axis=0) for p in settings.values())
        ]
        for method, settings in found.items()
    }


def compute_at(accuracy: float, curve: Iterable[Place]) -> float:
    """GFLOPs at which a curve reaches an accuracy, along its upper convex hull.

    Args:
        accuracy: Accuracy in percent.
        curve: The points, in any order.

    Returns:
        GFLOPs per video, or ``nan`` if the curve never reaches the accuracy or exceeds it at its cheapest point.
    """
    gflops, reached = np.array(upper_hull(curve)).T
    return float(np.interp(accuracy, reached, gflops, left=np.nan, right=np.nan))


def upper_hull(curve: Iterable[Place]) -> list[Place]:
    """The upper convex hull of a curve's points, from the cheapest to the most accurate.

    Every place on the line between two points can be reached by drawing at random which of the two policies a video
    gets, so points below such a line don't count.
    """
    hull: list[Place] = []
    for place in sorted(curve):
        if hull and place[1] <= hull[-1][1]:
            continue  # costs more and reaches no more
        while len(hull) > 1 and _is_below(hull[-1], hull[-2], place):
            hull.pop()
        hull.append(place)
    return hull


def _is_below(place: Place, left: Place, right: Place) -> bool:
    """Whether a place is on or below the line between two others."""
    along, above = right[0] - left[0], right[1] - left[1]
    return (place[1] - left[1]) * along <= (place[0] - left[0]) * above


def compute_ratios(
    points: Sequence[Point], ours: Sequence[str], others: Sequence[str], accuracies: Sequence[float]
) -> list[dict[str, Any]]:
    """How many times as much compute as our methods the others need for the same accuracy.

    The ratio is that of the means over seeds; ``low`` and ``high`` are its extremes over all pairs of one method's
    seed and the other's. Accuracies that some seed's curve doesn't cover are left out.

    Args:
        points: Points of all methods.
        ours: Methods in the denominator.
        others: Methods in the numerator.
        accuracies: Accuracies in percent.

    Returns:
        A row for every pair of methods and every accuracy.
    """
    needed = {
        (method, accuracy): np.array([compute_at(accuracy, curve) for curve in _curves_of_seeds(points, method)])
        for method in (*ours, *others)
        for accuracy in accuracies
    }
    rows = []
    for method in ours:
        for other in others:
            for accuracy in accuracies:
                own, theirs = needed[method, accuracy], needed[other, accuracy]
                if np.isnan(own).any() or np.isnan(theirs).any():
                    continue
                rows.append(
                    {
                        "method": method,
                        "other": other,
                        "accuracy": accuracy,
                        "gflops": round(float(own.mean()), 4),
                        "other_gflops": round(float(theirs.mean()), 4),
                        "ratio": round(float(theirs.mean() / own.mean()), 2),
                        "low": round(float(theirs.min() / own.max()), 2),
                        "high": round(float(theirs.max() / own.min()), 2),
                    }
                )
    return rows


def _curves_of_seeds(points: Iterable[Point], method: str) -> list[list[Place]]:
    curves: dict[int, list[Place]] = {}
    for point in points:
        if point.method == method:
            curves.setdefault(point.seed, []).append((point.gflops, point.accuracy))
    return list(curves.values())
