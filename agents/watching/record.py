"""``Record``, a JSON file with everything that was watched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from adafocus_env.files import unfinished
from adafocus_env.videos.views import Box
from agents.watching.watcher import Frame, Seen, Step, Watched, Watcher

DIGITS = 6
"""Significant digits of probabilities and GFLOPs, and decimals of times and places."""


class Record:
    """A JSON object, written window by window: the settings, then ``windows``, a line for each, and ``finished``.

    Every window has ``start`` and ``end``, seconds, ``new_frames``, how many of its frames are in no window before, and
    ``policies``. By policy, that is ``prediction``, ``confidence``, ``top`` (classes with their probabilities),
    ``gflops``, ``whole_frames_gflops``, ``ended`` (``"stop"``, ``"exit"`` or null) and ``steps``. Every step has
    ``frame``, ``time``, ``choice`` (``"look"``, ``"skip"``, ``"stop"`` or ``"left"``), ``patch`` and ``original_patch``
    (pixels of the network's view and of the video's frame, or null), ``top`` and ``gflops``.

    The file takes its name when the record is closed; if watching ends early, what was watched is kept, and
    ``finished`` is false. A record without any window leaves no file.

    Args:
        path: The file.
        watcher: What watches.
        about: What else to write, such as the name of the video.
        top: Number of classes whose probabilities are written.

    Raises:
        OSError: The file can't be written.
    """

    def __init__(self, path: Path, watcher: Watcher, about: Mapping[str, Any], top: int = 5) -> None:
        self.path, self._watcher, self._top, self._windows = path, watcher, top, 0
        patch = watcher.recognizer.config.patch_size
        self._head = {**about, **asdict(watcher.reading), "patch_size": patch, "classes": list(watcher.class_names)}

    def __enter__(self) -> Record:
        self._stack = ExitStack()
        temporary = self._stack.enter_context(unfinished(self.path))
        self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._windows:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # whatever has ended it
            self._file.write(f'\n], "finished": {json.dumps(kind is None)}}}\n')

    def add(self, window: Watched) -> None:
        """Add a window."""
        text = json.dumps(self._window(window), ensure_ascii=False)
        head = ",\n"
        if not self._windows:
            size = {"original_size": window.frames[0].size}
            head = json.dumps(self._head | size, ensure_ascii=False).removesuffix("}") + ', "windows": [\n'
        self._file.write(head + text)
        self._windows += 1

    def _window(self, window: Watched) -> dict[str, Any]:
        return {
            "start": round(window.frames[0].time, DIGITS),
            "end": round(window.frames[-1].time, DIGITS),
            "new_frames": window.fresh,
            "policies": {name: self._seen(window, seen) for name, seen in window.seen.items()},
        }

    def _seen(self, window: Watched, seen: Seen) -> dict[str, Any]:
        top = self._best(seen.probabilities)
        return {
            "prediction": top[0][0],
            "confidence": top[0][1],
            "top": top,
            "gflops": _short(seen.gflops),
            "whole_frames_gflops": _short(self._watcher.whole_gflops * len(seen.steps)),
            "ended": seen.ended,
            "steps": [self._step(window.frames[step.place], step) for step in seen.steps],
        }

    def _step(self, frame: Frame, step: Step) -> dict[str, Any]:
        patch, original = self._watcher.boxes(frame, step) or (None, None)
        return {
            "frame": frame.number,
            "time": round(frame.time, DIGITS),
            "choice": step.choice,
            "patch": patch and patch._asdict(),
            "original_patch": original and _rounded(original),
            "top": self._best(step.probabilities),
            "gflops": _short(step.gflops),
        }

    def _best(self, probabilities: npt.NDArray[np.float32]) -> list[tuple[str, float]]:
        best = np.argsort(-probabilities, kind="stable")[: self._top]
        return [(self._watcher.class_names[each], _short(float(probabilities[each]))) for each in best]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _rounded(box: Box) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in box._asdict().items()}
