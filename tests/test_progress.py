"""Progress bars where nothing can move."""

from __future__ import annotations

import io
import sys

import pytest

from adafocus_env.progress import LineAMinute, tqdm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, in a list so that a test can change them."""
    now = [1000.0]
    monkeypatch.setattr("adafocus_env.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(LineAMinute, "last", now[0])
    return now


def count(clock: list[float], steps: int, seconds: float) -> None:
    for _ in tqdm(range(steps), desc="counting"):
        clock[0] += seconds


def test_a_log_has_a_line_a_minute(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    count(clock, 500, 0.6)
    lines = log.getvalue().splitlines()
    assert len(lines) == 4  # bars show themselves once a second, so a line comes every 61 s
    assert all(line.startswith("counting:") and "500" in line for line in lines)
    assert "\r" not in log.getvalue()


def test_short_bars_share_a_line_a_minute(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for _ in range(13):
        count(clock, 10, 1.0)
    assert len(log.getvalue().splitlines()) == 2


def test_a_terminal_has_a_bar_that_moves(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    count(clock, 50, 0.6)
    assert terminal.getvalue().count("\r") > 20


def test_a_silent_bar_is_silent(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for _ in tqdm(range(5), disable=True):
        clock[0] += 100
    assert not log.getvalue()
