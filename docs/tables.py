"""The tables and values that documents take from results files, and their markers.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, where NAME is one of :data:`TABLES`; a value
between ``<!-- value: FILE NAME=TEXT … COLUMN FORMAT -->`` and ``<!-- end -->``: the file is relative to docs/, the
conditions choose one row of it, and the format is Python's. ``python docs/generate.py`` writes what is between them.
No line may begin with a value's marker, at which Markdown would begin a new block.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from safetensors import safe_open

from agents.experiments.report import Row, by_name, markdown_table, read_csv, what_differs, with_interval
from agents.experiments.statistics import mean_interval

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- (table|value): ([^>]+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def read(file: str) -> list[Row]:
    """The rows of a results file under docs/."""
    return read_csv(DOCS / file)


# ----------------------------------------------------------------------------------------------------------- tables


def evaluated(file: str) -> str:
    """A table that the quickstart or evaluate.py has written."""
    columns = {
        "accuracy % (95 %)": "{accuracy:.1f} ({accuracy_low:.1f} to {accuracy_high:.1f})",
        "mAP %": "{map:.1f}",
        "confidence %": "{confidence:.1f}",
        "GFLOPs/video": "{gflops:.4f}",
        "frames focused %": "{focused:.0f}",
    }
    rows = []
    for row in read(file):
        name = row.pop("policy")
        values = {key: float(text) for key, text in row.items()}
        rows.append([name, *(column.format(**values) for column in columns.values())])
    return markdown_table(["policy", *columns], rows)


def per_seed(file: str, columns: dict[str, tuple[str, float, str]]) -> str:
    """Accuracies of ``results.csv`` by name, with those of the seeds and their 95 % interval, and further columns.

    Args:
        file: The file.
        columns: The column, a factor and a format, by heading.
    """
    rows = []
    for row in read(file):
        seeds = np.array(row["accuracy_per_seed"].split(), dtype=float)
        text = f"{float(row['accuracy']):.1f}"
        if len(seeds) > 1:
            low, high = mean_interval(seeds)
            text += f" ({low:.1f} to {high:.1f})"
        more = [format(factor * float(row[column]), form) for column, factor, form in columns.values()]
        rows.append([row["name"], text, *more])
    return markdown_table(["", "accuracy %, mean (95 % interval over seeds)", *columns], rows)


def claims(file: str) -> str:
    """Gaps and differences with their intervals."""
    rows = [
        [row["claim"], f"{row['value']} ({row['low']} to {row['high']})" if row["low"] else row["value"]]
        for row in read(file)
    ]
    return markdown_table(["", "value (95 % interval)"], rows)


def scores(file: str, pages: Mapping[str, str]) -> str:
    """The learners of a comparison by falling score, with what a video takes where they differ in it, and how long
    training took.

    Args:
        file: A ``runs.csv``.
        pages: Links for some names.
    """
    runs = read(file)
    headings, rows = scored(runs)
    score, taken = by_name(runs, "score"), by_name(runs, "seconds")
    ranked = [
        [
            f"[{name}]({pages[name]})" if name in pages else name,
            *rows[name],
            f"{taken[name].mean():.0f}" if taken[name].any() else "",
        ]
        for name in sorted(score, key=lambda name: -score[name].mean())
    ]
    return markdown_table([*headings, "training, s"], ranked)


def ablation(name: str) -> str:
    """The rows of an ablation in their order, with what a video takes where they differ in it."""
    headings, rows = scored(read(f"ablate/{name}/runs.csv"))
    return markdown_table(headings, [[row, *cells] for row, cells in rows.items()])


def scored(runs: list[Row]) -> tuple[list[str], dict[str, list[str]]]:
    """The headings of a table of runs, and the cells by name: score, accuracy, and what a video takes."""
    score, accuracy, spent = by_name(runs, "score"), by_name(runs, "accuracy"), what_differs(runs)
    rows = {
        name: [
            with_interval(float(values.mean()), mean_interval(values)),
            f"{accuracy[name].mean():.1f}",
            *(f"{each[name].mean():.3f}" for each in spent.values()),
        ]
        for name, values in score.items()
    }
    return ["", "score (95 %)", "accuracy %", *spent], rows


def noise() -> str:
    """Variances of the return and of the gradient for each estimator, as shares of the first one's."""
    runs = read("ablate/baseline/noise.csv")
    names = list(dict.fromkeys(row["name"] for row in runs))
    rows = []
    for episodes in dict.fromkeys(row["episodes"] for row in runs):
        own = [row for row in runs if row["episodes"] == episodes]
        shares = [
            {name: values.mean() / found[names[0]].mean() for name, values in found.items()}
            for found in (by_name(own, column) for column in ("return_variance", "gradient_variance"))
        ]
        rows += [[f"{int(episodes):,}", name, *(f"{share[name]:.2f}" for share in shares)] for name in names]
    return markdown_table(["trained for, episodes", "", "variance of the return", "variance of the gradient"], rows)


def looks() -> str:
    """Accuracy on still pictures after every look."""
    table: dict[str, dict[str, Row]] = {}
    for row in read("reproduce_stills/steps.csv"):
        table.setdefault(row["name"], {})[row["step"]] = row
    steps = list(table["random"])

    def line(name: str, form: str) -> list[str]:
        return [
            form.format(**{key: float(row[key]) for key in ("accuracy", "low", "high")})
            for row in (table[name][step] for step in steps)
        ]

    return markdown_table(
        ["looks", *steps],
        [
            ["learned, mean", *line("learned", "{accuracy:.1f}")],
            ["learned, range of seeds", *line("learned", "{low:.1f} to {high:.1f}")],
            ["random", *line("random", "{accuracy:.1f}")],
            ["true location", *line("true location", "{accuracy:.1f}")],
            ["learned − random (95 %)", *line("learned - random", "{low:.1f} to {high:.1f}")],
        ],
    )


def ratios(ours: str, others: Sequence[str]) -> str:
    """The compute that methods need for equal accuracies, as multiples of that of one of ours."""
    found = {
        (row["other"], float(row["accuracy"])): row
        for row in read("compare_compute/ratios.csv")
        if row["method"] == ours
    }
    rows = []
    for accuracy in sorted({accuracy for _, accuracy in found}):
        cells = [found.get((other, accuracy), {}) for other in others]
        own = next((cell["gflops"] for cell in cells if cell.get("gflops")), "")
        texts = [part for cell in cells for part in (_ratio(cell) if cell.get("ratio") else ("", ""))]
        rows.append([f"{accuracy:g} %", f"{float(own):.3f}" if own else "", *texts])
    return markdown_table(["accuracy", ours, *(part for other in others for part in (other, "ratio"))], rows)


def _ratio(row: Row) -> tuple[str, str]:
    """The compute of another method, and its ratio to ours with the extremes over pairs of seeds."""
    compute, ratio, low, high = (float(row[key]) for key in ("other_gflops", "ratio", "low", "high"))
    return f"{compute:.3f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def prices() -> str:
    """One policy for every price beside those of one price each, with the compute of each of these."""
    rows = [
        [
            row["other"],
            row["setting"],
            row["gflops"],
            row["other_accuracy"],
            f"{row['accuracy']} ({float(row['points']):+.2f}; {float(row['low']):+.2f} to {float(row['high']):+.2f})",
        ]
        for row in read("compare_compute/prices.csv")
    ]
    every = "one for every price, % (points; range of seeds)"
    return markdown_table(["", "price", "GFLOPs", "one policy for this price, %", every], rows)


ADDED = {"": "plain", " + log-odds": "log-odds", " + map": "map", " + log-odds + map": "both"}
"""What the ablation of ingredients adds to the name of a learner, and the headings of the columns."""


def ingredients(file: str) -> str:
    """Scores of learners, a row each, without and with each ingredient, a column each."""
    found = by_name(read(file), "score")
    learners = [name for name in found if f"{name} + map" in found and " + " not in name]

    def cell(name: str) -> str:
        return with_interval(float(found[name].mean()), mean_interval(found[name])) if name in found else ""

    rows = [[name, *(cell(name + added) for added in ADDED)] for name in learners]
    return markdown_table(["score (95 %)", *ADDED.values()], rows)


def pipelines(file: str) -> str:
    """Ways to train everything from the same warmed-up networks: means over seeds, beside the accuracies of each."""
    columns = {
        "accuracy %": ("accuracy", 1, ".1f"),
        "the same on random patches": ("accuracy on random patches", 1, ".1f"),
        "GFLOPs": ("gflops", 1, ".3f"),
        "visits to videos": ("visits", 1, ",.0f"),
        "minutes": ("seconds", 1 / 60, ".0f"),
    }
    found = read(file)
    means = {
        heading: {
            name: format(factor * values.mean(), form) for name, values in by_name(found, column, "pipeline").items()
        }
        for heading, (column, factor, form) in columns.items()
    }
    for name, values in by_name(found, "accuracy", "pipeline").items():
        if len(values) > 1:
            means["accuracy %"][name] += f" ({', '.join(f'{value:.2f}' for value in values)})"
    names = means["accuracy %"]
    return markdown_table(["", *columns], [[name, *(values[name] for values in means.values())] for name in names])


ALGORITHM_PAGES = {
    "supervised localiser": "../algorithms/localizer.md",
    "all-action (ours)": "../algorithms/all_action.md",
    "soft targets (ours)": "../algorithms/soft_targets.md",
    "gradients through the vectors (ours)": "../algorithms/differentiable.md",
    "advantage-weighted regression (ours)": "../algorithms/advantage_weighted.md",
    "REINFORCE (ours)": "../algorithms/reinforce.md",
    "SB3 PPO": "../algorithms/sb3.md",
    "paper's PPO, as published": "../algorithms/paper_ppo.md",
}
EXITS = "adaptive resolution", "adaptive resolution, with exit", "whole frames, any size, with exit"
FOCUS = {"GFLOPs/video": ("gflops", 1.0, ".4f"), "frames focused %": ("focused", 100 / 8, ".0f")}
SPEEDS = {
    "memoised step / plain procedure, 64 lanes": "memoised sampled / reference procedure, 64 envs",
    "the same without the procedure's glance": "memoised sampled / reference procedure without the global CNN, 64 envs",
    "memoised step / its bare arithmetic, 256 lanes": "memoised sample / floor, 256 envs",
    "the same with the exact baseline": "memoised exact / floor, 256 envs",
    "memoised step / its bare arithmetic, 8,192 lanes": "memoised sample / floor, 8192 envs",
    "online step / plain procedure": "online / reference procedure, 64 envs",
    "the same in bfloat16": "online bfloat16 / reference procedure, 64 envs",
    "filling a table / bare local network": "bank building / bare local CNN at its best",
    "`recognize` / bare network calls": "recognize / bare network calls",
    "`recognize`, deployed / local network on full frames, plain float32": (
        "recognize with everything on / plain float32 local CNN on full frames"
    ),
    "the same, both in bfloat16": "recognize / local CNN on full frames, both, deployed, bfloat16",
    "time with exit / without, over GFLOPs with exit / without": (
        "recognize with exit / without: ratio of times over ratio of GFLOPs"
    ),
    "epochs after which a table filled ahead has paid for itself": "break-even of a table built ahead",
    "the same, filled on demand": "break-even of a lazy table",
}
"""Rows of a table of speeds, and the names of the ratios and figures of ``benchmark.py`` that they show."""


def speeds(folder: str) -> str:
    """Ratios of the benchmark at both scales.

    Args:
        folder: Folder of the benchmark's results.
    """
    ratios = {row["ratio"]: row["measured"] for row in read(f"{folder}/ratios.csv")}
    figures = {f"{row['scale']}: {row['what']}": row["value"] for row in read(f"{folder}/benchmark.csv")}
    rows = []
    for label, name in SPEEDS.items():
        found = [{**figures, **ratios}.get(f"{scale}: {name}") for scale in ("embedded", "paper")]
        if any(found):
            rows.append([label, *(_short(text) if text else "–" for text in found)])
    return markdown_table(["", "embedded", "paper scale"], rows)


def _short(text: str) -> str:
    """A figure with two digits, or three before the point."""
    number = float(text)
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.995 else f"{number:.2f}"


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": lambda: evaluated("quickstart/table.csv"),
    "results": lambda: per_seed("reproduce_results/results.csv", FOCUS),
    "differences": lambda: claims("reproduce_results/claims.csv"),
    "algorithms": lambda: scores("compare_algorithms/runs.csv", ALGORITHM_PAGES),
    "ingredients": lambda: ingredients("ablate/ingredients/runs.csv"),
    "noise": noise,
    "pipelines": lambda: pipelines("compare_pipelines/pipelines.csv"),
    "looks": looks,
    "clips": lambda: per_seed("reproduce_motion/results.csv", {"GFLOPs/clip": ("gflops", 1.0, ".4f")}),
    "differences on clips": lambda: claims("reproduce_motion/claims.csv"),
    "ratios with exit": lambda: ratios("AdaFocus+, any P, with exit", EXITS),
    "prices": prices,
    "speed": lambda: speeds("benchmark"),
    "speed on a GPU": lambda: speeds("benchmark_gpu"),
}  # fmt: skip
for folder in sorted(path.parent.name for path in DOCS.glob("shipped_*/final.csv")):
    TABLES[folder.replace("_", " ")] = functools.partial(evaluated, f"{folder}/final.csv")
for folder in sorted(path.parent.name for path in DOCS.glob("ablate/*/runs.csv")):
    TABLES[f"ablation {folder}"] = functools.partial(ablation, folder)


# ----------------------------------------------------------------------------------------------------------- markers


_OF_SEVERAL: dict[str, Callable[[list[float]], float]] = {"": sum, "min": min, "max": max, "mean": fmean}


def value(query: str) -> str:
    """One figure of a results file, formatted; a JSON file counts as one row, and so does what a file of weights notes.

    A condition ``NAME=LOW..HIGH`` chooses numbers between two others, ``min:COLUMN``, ``max:COLUMN`` and
    ``mean:COLUMN`` are of several rows, and ``COLUMN/60``, say, divides.

    Raises:
        ValueError: The query is not ``FILE NAME=TEXT … COLUMN FORMAT``, or not one row fits it, or none.
    """
    file, *conditions, column, form = shlex.split(query)
    wanted = dict(condition.split("=", 1) for condition in conditions)
    rows = [row for row in rows_of(file) if all(_fits(row[key], text) for key, text in wanted.items())]
    several, _, column = column.rpartition(":")
    name, _, divisor = column.partition("/")
    if several not in _OF_SEVERAL:
        raise ValueError(f"{several}: is none of min:, max: and mean:")
    if not rows or (len(rows) > 1 and not several):
        raise ValueError(f"{len(rows)} rows of {file} have {wanted}, not one")
    figures = [float(row[name]) / float(divisor or 1) for row in rows if row[name] != ""]
    return format(_OF_SEVERAL[several](figures), form)


def rows_of(file: str) -> list[Row]:
    """The rows of a file that a value may be taken from, given relative to docs/."""
    path = DOCS / file
    if path.suffix == ".json":
        return [json.loads(path.read_text(encoding="utf-8"))]
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as weights:
            return [weights.metadata()]
    return read(file)


def _fits(cell: str, text: str) -> bool:
    low, dots, high = text.partition("..")
    return float(low) <= float(cell) <= float(high) if dots else cell == text


def filled_in(text: str) -> str:
    """A document with its tables and values as the results files have them today.

    Raises:
        ValueError: There is no such table, or a query is wrong.
    """

    def fill(match: re.Match[str]) -> str:
        start, kind, query, _, end = match.groups()
        if kind == "value":
            return f"{start}{value(query)}{end}"
        if query not in TABLES:
            raise ValueError(f"there is no table {query!r}; there are {', '.join(TABLES)}")
        return f"{start}\n\n{TABLES[query]()}\n\n{end}"

    return MARKED.sub(fill, text)


def documents() -> list[Path]:
    """The documents that may hold markers."""
    return [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
