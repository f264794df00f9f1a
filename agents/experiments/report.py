"""CSV files of trials' results, and the tables, figures and Markdown report that are made from these files alone."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from scipy.stats import spearmanr

from adafocus_env.files import write_atomically, write_figure
from adafocus_env.recognition.optimization import Log
from adafocus_env.run_folder import write_csv
from agents.experiments.bench import Bench
from agents.experiments.runner import Result
from agents.experiments.statistics import (
    first_reaching,
    gap_closed,
    interquartile_mean,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    ratio_of_means,
)
from agents.intervals import paired_difference

SPENT = {"GFLOPs": "gflops", "glances": "frames", "looks": "focused"}
"""What a video takes: headings and columns, which a report has where policies don't look at every frame."""
LINES = cycler(linestyle=["-", "--", ":"]) * cycler(color=matplotlib.color_sequences["tab10"])
"""Lines of figures: after ten colours, the same ones dashed, and then dotted."""
Array = npt.NDArray[np.float64]
Row = dict[str, str]


# ------------------------------------------------------------------------------------------------------- CSV files


def write_results(folder: Path, results: Sequence[Result], benches: Sequence[Bench]) -> None:
    """Write ``runs.csv`` (a row per trial), ``curves.csv`` (a row per point of a learning curve) and, where all trials
    are on one bench, ``differences.csv`` (a row per pair of learners).

    Args:
        folder: Folder to write to.
        results: All results. Random patches on the same bench have score 0, and the true location has score 1; where
            one of them is missing, the score is the accuracy itself.
        benches: Their benches.
    """
    on = [repr(bench) for bench in benches]
    known: dict[str, dict[str, float]] = {}
    for bench, result in zip(on, results, strict=True):
        known.setdefault(bench, {})[result.trial.algorithm] = float(result.correct.mean())
    bounds = {bench: (found.get("random", math.nan), found.get("oracle", math.nan)) for bench, found in known.items()}
    runs = [
        {
            "name": result.trial.name,
            "algorithm": result.trial.algorithm,
            "seed": result.trial.seed,
            "episodes": result.trial.episodes,
            "accuracy": round(100 * float(result.correct.mean()), 3),
            "score": round(_score(float(result.correct.mean()), *bounds[bench]), 5),
            "mean_return": round(float(result.returns.mean()), 5),
            "gflops": round(float(result.gflops.mean()), 5),
            "focused": round(float(result.focused.mean()), 3),
            "frames": round(float(result.frames.mean()), 3),
            "seconds": round(result.seconds, 1),
        }
        for bench, result in zip(on, results, strict=True)
    ]
    write_csv(folder / "runs.csv", runs)
    curves = [
        {
            "name": result.trial.name,
            "seed": result.trial.seed,
            "episodes": int(episodes),
            "seconds": round(float(seconds), 2),
            "accuracy": round(100 * float(accuracy), 3),
        }
        for result in results
        for episodes, seconds, accuracy in zip(
            result.curve_episodes, result.curve_seconds, result.curve_accuracy, strict=True
        )
    ]
    write_csv(folder / "curves.csv", curves)
    (folder / "differences.csv").unlink(missing_ok=True)
    if len(known) == 1:
        write_csv(folder / "differences.csv", _differences([result for result in results if result.seconds]))


def _score(accuracy: float, random: float, best: float) -> float:
    return float(accuracy if math.isnan(random + best) else gap_closed(accuracy, random, best))


def _differences(results: Sequence[Result]) -> list[dict[str, Any]]:
    """By how many points each learner is less accurate than each that is more accurate, over seeds and source images;
    the most accurate ones first."""
    correct: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for result in results:
        correct.setdefault(result.trial.name, []).append(result.correct)
    ranked = sorted(correct, key=lambda name: -np.mean(correct[name]))
    rows = []
    for better, name in itertools.combinations(ranked, 2):
        found = paired_difference(np.stack(correct[name]), np.stack(correct[better]), results[0].source_images)
        points, low, high = (round(100 * value, 2) for value in found)
        rows.append({"name": name, "of": better, "points": points, "low": low, "high": high})
    return rows


def log_results(log: Log, results: Sequence[Result]) -> None:
    """Log every trial's learning curve and its evaluation at the end."""
    for result in results:
        stage = f"{result.trial.name}/seed_{result.trial.seed}"
        for episodes, accuracy in zip(result.curve_episodes, result.curve_accuracy, strict=True):
            log(stage, int(episodes), {"val_accuracy": float(accuracy)})
        found = {"accuracy": result.correct, "mean_return": result.returns, "gflops": result.gflops}
        log(
            f"{stage}/{result.trial.split}",
            result.trial.episodes,
            {name: float(values.mean()) for name, values in found.items()},
        )


def read_csv(path: Path) -> list[Row]:
    """Rows of a CSV file, as dictionaries by column name.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}: run the comparison first")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def by_name(rows: Sequence[Row], column: str, key: str = "name") -> dict[str, Array]:
    """Values of a column, (runs,), for every name, in order of appearance; ``key`` is the column of the names."""
    names = dict.fromkeys(row[key] for row in rows)
    return {name: np.array([float(row[column]) for row in rows if row[key] == name]) for name in names}


def what_differs(runs: Sequence[Row]) -> dict[str, dict[str, Array]]:
    """What a video takes, by heading and by name, as far as not looking at frames makes a difference to it."""
    found = {heading: by_name(runs, column) for heading, column in SPENT.items() if column in runs[0]}
    looks = found["looks"].values()
    return found if len({values.mean() for values in looks}) > 1 else {}


def _curves(rows: Sequence[Row], x: str) -> dict[str, tuple[Array, Array]]:
    """Values of ``x`` and of the accuracy, (runs, points) each, for every name."""
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        seeds = dict.fromkeys(row["seed"] for row in own)
        lines = [[(float(row[x]), float(row["accuracy"])) for row in own if row["seed"] == seed] for seed in seeds]
        array = np.array(lines)
        found[name] = (array[..., 0], array[..., 1])
    return found


# ---------------------------------------------------------------------------------------------------------- report


def write_report(
    folder: Path, *, title: str, anchors: Sequence[str] = (), note: str = "", comparable_returns: bool = True
) -> Path:
    """Write ``report.md`` and its figures from ``runs.csv`` and ``curves.csv``, and from ``differences.csv`` and
    ``noise.csv`` where there are any.

    Args:
        folder: Folder of the CSV files and of the report.
        title: Heading of the report.
        anchors: Names that all others are compared with in sample efficiency.
        note: A paragraph under the heading that says what was run.
        comparable_returns: All runs are on the same videos and candidates, so that a correlation of returns with
            accuracies means something.

    Returns:
        The report's path.
    """
    runs, points = read_csv(folder / "runs.csv"), read_csv(folder / "curves.csv")
    score, accuracy, returns, seconds = (
        by_name(runs, column) for column in ("score", "accuracy", "mean_return", "seconds")
    )
    learners = {name: scores for name, scores in score.items() if seconds[name].any()}
    spent = what_differs(runs)
    parts = [f"# {title}", note] if note else [f"# {title}"]
    parts += [
        "Score: 0 is random patches, 1 the item's true location (where these are in the table; else the accuracy). "
        "Figures are means over training seeds, with Student's 95 % interval over seeds; beside them the mean of the "
        "middle half of the seeds' scores, which a single failed run hardly moves.",
        markdown_table(
            ("", "score (95 %)", "middle half", "accuracy %", *spent, "mean return", "seeds", "training, s"),
            [
                (
                    name,
                    with_interval(float(scores.mean()), mean_interval(scores)),
                    f"{interquartile_mean(scores):.3f}" if name in learners else "",
                    f"{accuracy[name].mean():.2f}",
                    *(f"{values[name].mean():.3f}" for values in spent.values()),
                    f"{returns[name].mean():.3f}",
                    str(len(scores)),
                    f"{seconds[name].mean():.0f}" if name in learners else "",
                )
                for name, scores in sorted(score.items(), key=lambda item: -item[1].mean())
            ],
        ),
    ]
    if comparable_returns and len(returns) > 2:
        parts += [_return_against_accuracy(returns, accuracy)]
    if (folder / "differences.csv").exists():
        parts += _against_the_best(read_csv(folder / "differences.csv"))
    if points:
        _draw_curves(folder / "curves.png", points)
        _draw_profiles(folder / "profiles.png", learners)
        parts += [
            "## Learning curves", "Validation accuracy, mean over seeds, with the range of the seeds.",
            "![learning curves](curves.png)", "## Performance profiles", "![profiles](profiles.png)",
        ]  # fmt: skip
    if (folder / "noise.csv").exists():
        parts += _noise(folder)
    if (folder / "clips.png").exists():
        parts += ["## Clips", "What the shipped policy looks at in four videos.", "![clips](clips.png)"]
    for anchor in anchors:
        parts += _against(anchor, learners, points)
    path = folder / "report.md"
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    return path


def _against(anchor: str, learners: Mapping[str, Array], points: Sequence[Row]) -> list[str]:
    """The section on sample efficiency and on the probability of improvement over one algorithm."""
    efficiency = sample_efficiency(points, anchor)
    rows = []
    for name, scores in learners.items():
        if name == anchor:
            continue
        ratio = efficiency.get(name)
        rows.append(
            (
                name,
                "never reached by some seed" if ratio is None else with_interval(ratio[0], ratio[1:]),
                f"{probability_of_improvement(scores, learners[anchor]):.2f}",
            )
        )
    return [
        f"## Against {anchor}",
        f"Episodes needed to reach the validation accuracy with which {anchor} ends, as a share of the episodes that "
        "it needs itself, with the extremes over pairs of runs; and the share of pairs of runs in which it is less "
        "accurate in the end.",
        markdown_table(("", "episodes, ratio", "probability of improvement"), rows),
    ]


def _against_the_best(rows: Sequence[Row]) -> list[str]:
    """The section on ``differences.csv``."""
    if not rows:
        return []
    best = rows[0]["of"]
    return [
        f"## Against {best}",
        f"Points of accuracy that others reach less than {best}, which is the most accurate learner on these videos; "
        "95 % intervals over training seeds and source images. All pairs are in differences.csv.",
        markdown_table(
            ("", "points (95 %)"),
            [(row["name"], f"{row['points']} ({row['low']} to {row['high']})") for row in rows if row["of"] == best],
        ),
    ]


def sample_efficiency(points: Sequence[Row], anchor: str) -> dict[str, tuple[float, float, float]]:
    """Ratio of the episodes that each algorithm needs to those that the anchor needs, with its extremes.

    The target is the mean of the last three points of the anchor's curves, over all its seeds. Each curve is smoothed
    by the mean of three neighbouring points. An algorithm is left out if one of its seeds never reaches the target. If
    one of the anchor's seeds never does, it counts with its whole budget, which favours the anchor.
    """
    smooth = {
        name: (episodes[:, 1:-1], np.stack([np.convolve(line, np.ones(3) / 3, "valid") for line in lines]))
        for name, (episodes, lines) in _curves(points, "episodes").items()
    }
    target = float(smooth[anchor][1][:, -1].mean())
    needed = {
        name: np.array([first_reaching(x, y, target) for x, y in zip(*curves, strict=True)])
        for name, curves in smooth.items()
    }
    own = np.minimum(needed[anchor], smooth[anchor][0].max())
    return {
        name: ratio_of_means(values, own)
        for name, values in needed.items()
        if name != anchor and np.isfinite(values).all()
    }


def with_interval(value: float, bounds: tuple[float, ...]) -> str:
    """A value with its bounds; alone if these say nothing."""
    if any(math.isnan(bound) for bound in bounds) or bounds[0] == bounds[1] == value:
        return f"{value:.3f}"
    return f"{value:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _draw_curves(path: Path, points: Sequence[Row]) -> None:
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for place, (x, label) in enumerate((("episodes", "episodes"), ("seconds", "seconds of training")), start=1):
        axes = figure.add_subplot(1, 2, place, xlabel=label, ylabel="validation accuracy, %")
        axes.set_prop_cycle(LINES)
        for name, (at, lines) in _curves(points, x).items():
            middle = at.mean(axis=0)
            (line,) = axes.plot(middle, lines.mean(axis=0), label=name)
            axes.fill_between(middle, lines.min(axis=0), lines.max(axis=0), color=line.get_color(), alpha=0.15)
        axes.grid(alpha=0.3)
        if x == "seconds":
            axes.set_xscale("log")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    write_figure(path, figure, 130)


def _draw_profiles(path: Path, scores: Mapping[str, Array]) -> None:
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="score τ", ylabel="share of runs above τ")
    axes.set_prop_cycle(LINES)
    thresholds = np.linspace(0, 1, 201)
    for name, values in scores.items():
        axes.step(thresholds, performance_profile(values, thresholds), where="post", label=name)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    write_figure(path, figure, 130)


def _noise(folder: Path) -> list[str]:
    """The section on ``noise.csv``: means over seeds, as shares of the first estimator's."""
    rows = read_csv(folder / "noise.csv")
    names = list(dict.fromkeys(row["name"] for row in rows))
    lines = []
    for episodes in dict.fromkeys(row["episodes"] for row in rows):
        own = [row for row in rows if row["episodes"] == episodes]
        returns, gradient, signal = (
            {name: float(values.mean()) for name, values in by_name(own, column).items()}
            for column in ("return_variance", "gradient_variance", "signal")
        )
        lines += [
            (
                episodes,
                name,
                f"{returns[name]:.4f}",
                f"{returns[name] / returns[names[0]]:.2f}",
                f"{gradient[name] / gradient[names[0]]:.2f}",
                f"{signal[name] / gradient[name]:.4f}",
            )
            for name in names
        ]
    heading = (
        "trained for, episodes", "estimator", "variance of the return", "ratio", "variance of the gradient, ratio",
        "squared mean gradient / variance",
    )  # fmt: skip
    return [
        "## How noisy the estimates are",
        "At one policy for all estimators, each with its own critic; a gradient is that of one update's episodes.",
        markdown_table(heading, lines),
    ]


def _return_against_accuracy(returns: Mapping[str, Array], accuracy: Mapping[str, Array]) -> str:
    """A sentence on whether the return is worth maximising: its rank correlation with accuracy over all rows."""
    found = spearmanr(*([values.mean() for values in each.values()] for each in (returns, accuracy)))
    return f"Mean return and accuracy of these {len(returns)} rows: rank correlation {found.statistic:.2f}."
