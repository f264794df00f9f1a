"""``Terminal``, which shows on the terminal what is watched."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from agents.watching.watcher import Seen, Watched, Watcher

_HEIGHTS = "▁▂▃▄▅▆▇█"
_LONGEST = 20  # characters of a class's name


class Terminal:
    """A line for each window, policies side by side; a progress bar below; at the end a table, and how fast it was.

    Args:
        watcher: What watches.
        expected: Number of frames that will be read; ``None`` if nobody knows.
        console: Where to print; ``None`` makes one for standard output.
    """

    def __init__(self, watcher: Watcher, expected: int | None, console: Console | None = None) -> None:
        self._watcher, self.console = watcher, console or Console()
        columns = (TextColumn("watching"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"))
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self._bar = self._progress.add_task("", total=expected)
        self._width = min(_LONGEST, max(map(len, watcher.class_names)))
        self._windows = self._frames = self._steps = 0
        self._gflops = dict.fromkeys(watcher.policies, 0.0)
        self._taken = dict.fromkeys(watcher.policies, 0)
        self._ended = dict.fromkeys(watcher.policies, 0)

    def __enter__(self) -> Terminal:
        self._started = time.perf_counter()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._started
        self._progress.stop()
        if self._windows:
            self._summarize(seconds)

    def show(self, window: Watched) -> None:
        """Print a window, and move the bar."""
        first, last = window.frames[0].time, window.frames[-1].time
        if not self._windows and len(window.seen) > 1:
            names = "  │  ".join(f"{name:<{self._line_width(seen)}}" for name, seen in window.seen.items())
            self._print(f"{'':>13}  {escape(names)}".rstrip())
        seen = "  │  ".join(self._line(each) for each in window.seen.values())
        self._print(f"{first:6.1f}–{last:<6.1f}  {seen}")
        self._windows, self._frames = self._windows + 1, self._frames + window.fresh
        for name, each in window.seen.items():
            self._gflops[name] += each.gflops
            self._taken[name] += each.taken
            self._ended[name] += each.ended is not None
        self._steps += len(each.steps)
        self._progress.update(self._bar, completed=self._frames)

    def _line(self, seen: Seen) -> str:
        """Class, its confidence step by step and at the end, looks, and compute against whole frames."""
        best = int(seen.probabilities.argmax())
        confidence = float(seen.probabilities[best])
        course = "".join(
            "·" if step.choice == "left" else _HEIGHTS[min(7, int(8 * step.probabilities[best]))] for step in seen.steps
        )
        name = escape(f"{self._watcher.class_names[best][: self._width]:<{self._width}}")
        share = seen.gflops / (self._watcher.whole_gflops * len(seen.steps))
        ended = f"{seen.ended or '':<4}"
        looks = f"{seen.taken:2d} {'look ' if seen.taken == 1 else 'looks'}"
        colour = "green" if confidence >= 0.5 else "yellow"
        return f"[{colour}]{name} {course} {confidence:4.0%}[/]  {looks} {share:4.0%} {ended}"

    def _line_width(self, seen: Seen) -> int:
        return self._width + len(seen.steps) + 25

    def _summarize(self, seconds: float) -> None:
        table = Table()
        table.add_column("policy", overflow="fold")
        for heading in ("looks\ntaken", "left\nearly", "GFLOPs/\nwindow", "of whole\nframes"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, gflops in self._gflops.items():
            table.add_row(
                escape(name),
                f"{self._taken[name] / self._steps:.0%}",
                f"{self._ended[name] / self._windows:.0%}",
                f"{gflops / self._windows:.4g}",
                f"{gflops / (self._watcher.whole_gflops * self._steps):.0%}",
            )
        self.console.print(table)
        self._print(
            f"{self._windows} windows, {self._windows / seconds:.2f} a second; {self._frames} frames, "
            f"{self._frames / seconds:.1f} a second"
        )

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)
