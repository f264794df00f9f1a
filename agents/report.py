"""The table that evaluations end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from agents.evaluation import Evaluation
from agents.intervals import accuracy_interval


def table_row(name: str, found: Evaluation, exit_threshold: float | None = None) -> dict[str, Any]:
    """One row: percentages, with the 95 % interval of the accuracy over videos (:func:`agents.accuracy_interval`); with
    conditional exit also its threshold and the frames that are glanced at."""
    low, high = accuracy_interval(found.correct, found.source_images)
    with_exit = {"frames": round(found.frames_per_video, 3), "exit_threshold": exit_threshold}
    return {
        "policy": name,
        "accuracy": round(100 * found.accuracy, 2),
        "accuracy_low": round(100 * low, 2),
        "accuracy_high": round(100 * high, 2),
        "map": round(100 * found.mean_average_precision, 2),
        "confidence": round(100 * found.mean_confidence, 2),
        "gflops": round(found.gflops_per_video, 4),
        "focused": round(100 * found.focused_per_video / found.skipped.shape[1], 1),
        **(with_exit if exit_threshold is not None else {}),
    }


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows of :func:`table_row` on the terminal."""
    table = Table(title=title)
    table.add_column("policy", overflow="fold")
    with_exit = any("frames" in row for row in rows)
    headings = ["accuracy % (95 %)", "mAP %", "confidence %", "GFLOPs/video", "frames focused %"]
    for heading in [*headings, "frames glanced at"] if with_exit else headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["policy"],
            f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})",
            f"{row['map']:.1f}",
            f"{row['confidence']:.1f}",
            f"{row['gflops']:.4f}",
            f"{row['focused']:.0f}",
            *([f"{row['frames']:.2f}"] if with_exit else []),
        )
    Console(width=110).print(table)
