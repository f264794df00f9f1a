"""Accuracy against compute: points and curves of methods, and the compute that each needs for the same accuracy.

Which of a method's policies count is chosen on validation videos, and what they lead to is read on others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation import Evaluation
from agents.exits import exit_curve, outcomes
from agents.experiments.report import read_csv

Place = tuple[float, float]
"""GFLOPs per video, and accuracy in percent."""
_KINDS: dict[str, Any] = {"str": str, "int": int, "float": float}


@dataclass(frozen=True)
class Point:
    """Accuracy and compute of one evaluated policy.

    Attributes:
        method: Name of the compared method.
        setting: Name of the point on the method's curve, such as a price of a frame or a number of frames.
        seed: Seed of the policy's training.
        gflops: Mean multiply-adds / 1e9 per video.
        accuracy: Accuracy in percent.
        val_gflops: The same on validation videos.
        val_accuracy: Likewise.
        chosen: What was chosen for it on validation videos.
    """

    method: str
    setting: str
    seed: int
    gflops: float
    accuracy: float
    val_gflops: float
    val_accuracy: float
    chosen: str = ""


@dataclass(frozen=True)
class Tried:
    """One trained policy, evaluated without exit.

    Attributes:
        method: As of a :class:`Point`, and so are the next two.
        setting: See there.
        seed: See there.
        test: The evaluation whose figures are reported.
        val: That on the videos on which settings and thresholds are chosen.
    """

    method: str
    setting: str
    seed: int
    test: Evaluation
    val: Evaluation

    @property
    def point(self) -> Point:
        """What was found without exit."""
        test, val = ((found.gflops_per_video, 100 * found.accuracy) for found in (self.test, self.val))
        return Point(self.method, self.setting, self.seed, *test, *val)


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
        tried: The method's policies; those of one step a video are left out.
        method: Name of the method with exit.
        budgets: GFLOPs per video; those that some seed can't keep are left out.
    """
    curves = [(each, exit_curve(each.val)) for each in tried if each.val.confidences.shape[1] > 1]
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
                val_accuracy, val_gflops, threshold, each = max(kept, key=lambda candidate: candidate[:2])
                _, (accuracy,), (gflops,) = outcomes(each.test, [threshold])
                test, val = (float(gflops), 100 * float(accuracy)), (-float(val_gflops), 100 * float(val_accuracy))
                chosen = f"{each.method}, {each.setting}, τ = {threshold:.4f}"
                found.append(Point(method, f"{budget:g} GFLOPs", seed, *test, *val, chosen))
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


def merged_exits(points: Sequence[Point], methods: Sequence[str], name: str) -> list[Point]:
    """The points of several methods with conditional exit, merged into those of a single method: for each budget and
    seed the one that is most accurate on validation videos, as :func:`exit_points` chooses.

    Budgets that some seed can't keep are left out.
    """
    own = [point for point in points if point.method in methods]
    seeds = {point.seed for point in own}
    budgets: dict[str, dict[int, list[Point]]] = {}
    for point in own:
        budgets.setdefault(point.setting, {}).setdefault(point.seed, []).append(point)
    return [
        replace(max(found, key=lambda point: (point.val_accuracy, -point.val_gflops)), method=name)
        for by_seed in budgets.values()
        if by_seed.keys() == seeds
        for found in by_seed.values()
    ]


def read_points(path: Path) -> list[Point]:
    """Read a table of points, ``compute.csv``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such table.
    """
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(Point)}
    try:
        return [Point(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in read_csv(path)]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no table of points (compute.csv of compare_compute.py): {error}") from error


def mean_points(points: Iterable[Point]) -> dict[str, list[Point]]:
    """The points of every method, as means over seeds at each of its settings, in order of appearance."""
    found: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        found.setdefault(point.method, {}).setdefault(point.setting, []).append(point)
    return {method: [_mean(each) for each in settings.values()] for method, settings in found.items()}


def _mean(points: Sequence[Point]) -> Point:
    means: dict[str, Any] = {
        name: float(np.mean([getattr(point, name) for point in points]))
        for name in ("gflops", "accuracy", "val_gflops", "val_accuracy")
    }
    return replace(points[0], **means)


def frontier(points: Iterable[Point]) -> list[Place]:
    """What a method's best policies lead to, from the cheapest to the most accurate on validation videos.

    They are those on the upper convex hull of the validation places: every place on the line between two of them can be
    reached by drawing at random which of the two policies a video gets, so points below such a line don't count. The
    other videos choose nothing, so what is found on them may rise less evenly.
    """
    hull: list[Point] = []
    for point in sorted(points, key=lambda point: (point.val_gflops, -point.val_accuracy)):
        if hull and point.val_accuracy <= hull[-1].val_accuracy:
            continue  # costs more and reaches no more
        while len(hull) > 1 and _is_below(hull[-1], hull[-2], point):
            hull.pop()
        hull.append(point)
    return [(point.gflops, point.accuracy) for point in hull]


def _is_below(point: Point, left: Point, right: Point) -> bool:
    """Whether a point is on or below the line between two others, on validation videos."""
    along, above = right.val_gflops - left.val_gflops, right.val_accuracy - left.val_accuracy
    return (point.val_accuracy - left.val_accuracy) * along <= (point.val_gflops - left.val_gflops) * above


def compute_at(accuracy: float, places: Sequence[Place]) -> float:
    """GFLOPs at which a :func:`frontier` first reaches an accuracy.

    Args:
        accuracy: Accuracy in percent.
        places: The frontier.

    Returns:
        GFLOPs per video, or ``nan`` if it never reaches the accuracy or exceeds it at its cheapest place.
    """
    if places[0][1] > accuracy:
        return np.nan
    for (cheap, low), (dear, high) in itertools.pairwise((places[0], *places)):
        if low <= accuracy <= high:
            return cheap + (accuracy - low) / (high - low or 1.0) * (dear - cheap)
    return np.nan


def accuracy_at(gflops: float, places: Sequence[Place]) -> float:
    """Accuracy in percent that a :func:`frontier` reaches with no more than some GFLOPs per video; ``nan`` if its
    cheapest place takes more."""
    compute, reached = np.array(sorted(places)).T
    return float(np.interp(gflops, compute, reached, left=np.nan))


def differences_at_equal_compute(points: Sequence[Point], method: str, other: str) -> list[dict[str, Any]]:
    """By how many points one method is more accurate than another with the compute of each of the other's settings.

    Both are read along their :func:`frontier`, seed by seed; ``low`` and ``high`` are the extremes over seeds. Settings
    whose compute some seed's frontier doesn't cover are left out.

    Args:
        points: Points of all methods.
        method: The method.
        other: The method whose settings say with how much compute.

    Returns:
        A row for every setting.
    """
    ours, theirs = ({seed: frontier(own) for seed, own in _by_seed(points, name).items()} for name in (method, other))
    settings: dict[str, list[Point]] = {}
    for point in points:
        if point.method == other and point.seed in ours:
            settings.setdefault(point.setting, []).append(point)
    rows = []
    for setting, own in settings.items():
        reached, to_compare = (
            np.array([accuracy_at(point.gflops, frontiers[point.seed]) for point in own])
            for frontiers in (ours, theirs)
        )
        differences = reached - to_compare
        if not np.isnan(differences).any():
            values = {
                "accuracy": reached.mean(),
                "other_accuracy": to_compare.mean(),
                "points": differences.mean(),
                "low": differences.min(),
                "high": differences.max(),
            }
            row = {"method": method, "other": other, "setting": setting, "gflops": round(_mean(own).gflops, 4)}
            rows.append(row | {name: round(float(value), 2) for name, value in values.items()})
    return rows


def compute_ratios(
    points: Sequence[Point], ours: Sequence[str], others: Sequence[str], accuracies: Sequence[float]
) -> list[dict[str, Any]]:
    """How many times as much compute as our methods the others need for the same accuracy.

    The ratio is that of the means over seeds; ``low`` and ``high`` are its extremes over all pairs of one method's
    seed and the other's. At an accuracy that some seed's curve doesn't cover, figures are empty, and ``note`` says
    whose.

    Args:
        points: Points of all methods.
        ours: Methods in the denominator.
        others: Methods in the numerator.
        accuracies: Accuracies in percent.

    Returns:
        A row for every pair of methods and every accuracy.
    """
    needed = {
        (method, accuracy): np.array([compute_at(accuracy, places) for places in frontiers] or [np.nan])
        for method in (*ours, *others)
        for frontiers in [[frontier(own) for own in _by_seed(points, method).values()]]
        for accuracy in accuracies
    }
    rows = []
    for method in ours:
        for other in others:
            for accuracy in accuracies:
                own, theirs = needed[method, accuracy], needed[other, accuracy]
                lacking = [name for name, found in ((method, own), (other, theirs)) if np.isnan(found).any()]
                figures = {
                    "gflops": _rounded(own.mean(), 4),
                    "other_gflops": _rounded(theirs.mean(), 4),
                    "ratio": _rounded(theirs.mean() / own.mean(), 2),
                    "low": _rounded(theirs.min() / own.max(), 2),
                    "high": _rounded(theirs.max() / own.min(), 2),
                    "note": f"not on every seed's curve of {' and '.join(lacking)}" if lacking else "",
                }
                rows.append({"method": method, "other": other, "accuracy": accuracy, **figures})
    return rows


def _rounded(value: Any, places: int) -> float | str:
    """A figure for a table; empty if there is none."""
    return "" if np.isnan(value) else round(float(value), places)


def _by_seed(points: Iterable[Point], method: str) -> dict[int, list[Point]]:
    by_seed: dict[int, list[Point]] = {}
    for point in points:
        if point.method == method:
            by_seed.setdefault(point.seed, []).append(point)
    return by_seed
