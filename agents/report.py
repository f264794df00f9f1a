"""The table that evaluations end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from agents.evaluation import Evaluation


def table_row(name: str, found: Evaluation) -> dict[str, Any]:
    """One row: percentages, with the exact (Clopper-Pearson) 95 % interval of the accuracy over videos."""
    interval = binomtest(int(found.correct.sum()), found.num_videos).proportion_ci(0.95)
    return {
        "policy": name,
        "accuracy": round(100 * found.accuracy, 2),
        "accuracy_low": round(100 * interval.low, 2),
        "accuracy_high": round(100 * interval.high, 2),
        "map": round(100 * found.mean_average_precision, 2),
        "confidence": round(100 * found.mean_confidence, 2),
        "gflops": round(found.gflops_per_video, 4),
        "focused": round(100 * found.focused_per_video / found.skipped.shape[1], 1),
    }


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows of :func:`table_row` on the terminal."""
    table = Table(title=title)
    table.add_column("policy")
    for heading in ("accuracy % (95 %)", "mAP %", "confidence %", "GFLOPs/video", "frames focused %"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["policy"],
            f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})",
            f"{row['map']:.1f}",
            f"{row['confidence']:.1f}",
            f"{row['gflops']:.4f}",
            f"{row['focused']:.0f}",
        )
    Console(width=110).print(table)
