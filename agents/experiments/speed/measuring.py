"""The benchmark's runner: alternating timings, the ratios between them, and their tables and figure."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from adafocus_env.files import write_figure
from adafocus_env.run_folder import RunFolder

STEPS = "env steps/s"
_console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Timing:
    """A call to be timed, the amount of work in it (in the unit of its comparison), and its number of lanes, if any."""

    call: Callable[[], Any]
    amount: float
    num_envs: int | str = ""


@dataclass(frozen=True)
class Ratio:
    """One timing's speed over another's (or over the fastest of several), and what is asked of it, perhaps by scale."""

    name: str
    above: str
    below: str | tuple[str, ...]
    asked: str | Mapping[str, str] = ""


class Results:
    """The figures of one run of the benchmark, printed as they are found.

    Args:
        seconds: Seconds for each timing, over all of its repeats.
        repeats: Number of repeats, whose median counts.
        device: torch device that the timings run on.

    Attributes:
        rows: Every figure: ``scale`` (or another part), ``what``, ``num_envs``, ``value`` and ``unit``.
        ratios: Every ratio: ``ratio``, ``measured`` and ``asked``.
    """

    def __init__(self, seconds: float, repeats: int, device: str = "cpu") -> None:
        self._seconds, self._repeats, self._device = seconds, repeats, torch.device(device)
        self.rows: list[dict[str, Any]] = []
        self.ratios: list[dict[str, Any]] = []

    @property
    def scales(self) -> frozenset[str]:
        """Scales, and other parts, that have figures."""
        return frozenset(row["scale"] for row in self.rows)

    def add(self, scale: str, what: str, value: float, unit: str, num_envs: int | str = "") -> None:
        """Add a figure."""
        self.rows.append({"scale": scale, "what": what, "num_envs": num_envs, "value": value, "unit": unit})
        _console.print(f"  {scale:9}{what:62}{num_envs!s:>5} {value:14,.2f} {unit}")

    def add_ratio(self, scale: str, name: str, value: float, asked: str = "") -> None:
        """Add a ratio, with what is asked of it."""
        self.ratios.append({"ratio": f"{scale}: {name}", "measured": round(value, 3), "asked": asked})
        _console.print(f"  [bold]{scale}: {name}: {value:.3f}[/bold] ({asked or 'nothing asked'})")

    def compare(
        self, scale: str, unit: str, timings: Mapping[str, Timing], ratios: Iterable[Ratio] = ()
    ) -> dict[str, float]:
        """Measure timings in alternation; add their speeds, and those ratios whose timings are all among them.

        Returns:
            Every timing's speed, in ``unit`` per second.
        """
        speeds = {}
        for (what, timing), seconds in zip(timings.items(), self._side_by_side(timings.values()), strict=True):
            speeds[what] = timing.amount / seconds
            self.add(scale, what, speeds[what], unit, timing.num_envs)
        for ratio in ratios:
            below = (ratio.below,) if isinstance(ratio.below, str) else ratio.below
            if {ratio.above, *below} <= speeds.keys():
                asked = ratio.asked if isinstance(ratio.asked, str) else ratio.asked.get(scale, "")
                self.add_ratio(scale, ratio.name, speeds[ratio.above] / max(speeds[name] for name in below), asked)
        return speeds

    def _side_by_side(self, timings: Iterable[Timing]) -> list[float]:
        """Median seconds of one call of each timing, measured in alternation."""

        def seconds_of(timing: Timing, calls: int) -> float:
            started = time.perf_counter()
            for _ in range(calls):
                timing.call()
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - started) / calls

        share = self._seconds / self._repeats
        work: list[tuple[Timing, int, list[float]]] = []
        for timing in timings:
            seconds_of(timing, 1)
            work.append((timing, max(1, min(200, int(share / max(seconds_of(timing, 1), 1e-6)))), []))
        for repeat in range(self._repeats):
            for timing, calls, found in work:
                if repeat < 3 or calls > 1:  # long calls vary less: three repeats suffice
                    found.append(seconds_of(timing, calls))
        return [float(np.median(found)) for _, _, found in work]

    def write(self, run: RunFolder) -> None:
        """Write ``ratios.csv``, ``benchmark.csv`` and ``benchmark.png``; what the second has, the first has, too."""
        run.write_table("ratios", self.ratios)
        run.write_table("benchmark", [{**row, "value": float(f"{row['value']:.5g}")} for row in self.rows])
        self._draw(run.path / "benchmark.png")

    def read(self, run: RunFolder) -> None:
        """Add what :meth:`write` has left in a run's folder, if anything."""
        for row in _rows(run.path / "benchmark.csv"):
            lanes = int(row["num_envs"]) if row["num_envs"] else ""
            self.rows.append({**row, "num_envs": lanes, "value": float(row["value"])})
        for row in _rows(run.path / "ratios.csv"):
            self.ratios.append({**row, "measured": float(row["measured"])})

    def print_ratios(self) -> None:
        """Print the ratios as a table."""
        table = Table("ratio", "measured", "asked", title="ratios of this run")
        for row in self.ratios:
            table.add_row(row["ratio"], f"{row['measured']:g}", row["asked"])
        _console.print(table)

    def _draw(self, path: Path) -> None:
        """Bar chart of all environment steps per second at 64 lanes."""
        rows = [row for row in self.rows if row["unit"] == STEPS and row["num_envs"] == 64]
        scales = list(dict.fromkeys(row["scale"] for row in rows))
        if not scales:
            return
        figure = Figure(figsize=(7 * len(scales), 4), layout="constrained")
        for place, scale in enumerate(scales, start=1):
            speeds = {row["what"]: row["value"] for row in rows if row["scale"] == scale}
            axes = figure.add_subplot(1, len(scales), place, title=scale)
            bars = axes.barh(list(speeds), list(speeds.values()))
            axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds.values()], padding=3)
            axes.set(xscale="log", xlabel="environment steps per second, 64 lanes")
            axes.margins(x=0.2)
            axes.invert_yaxis()
        write_figure(path, figure, 120)


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none if it doesn't exist."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
