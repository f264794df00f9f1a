"""What a video is watched with unless something else is asked for, and names of classes."""

from __future__ import annotations

from pathlib import Path

from adafocus_env import Recognizer, TSMRecognizer
from adafocus_env.videos.sources import Source

READ_PER_SECOND = 4
"""Frames of a second that are read unless more or fewer are asked for."""
_USUAL_FRAMES = 16


def usual_frames(recognizer: Recognizer | TSMRecognizer) -> int:
    """Frames in a window of a recogniser's: the paper's 16, or as many as AdaFocus-TSM reads."""
    if isinstance(recognizer, TSMRecognizer):
        return max(recognizer.config.global_frames, recognizer.config.local_frames)
    return _USUAL_FRAMES


def usual_every(source: Source, num_frames: int) -> int:
    """Every how many-th frame is read: about four a second, but a window's worth of a short video, and all pictures
    where a window is a single one."""
    if num_frames == 1:
        return 1
    every = max(1, round(source.rate / READ_PER_SECOND))
    return every if source.expected is None else max(1, min(every, source.expected // num_frames))


def read_class_names(path: Path, num_classes: int) -> list[str]:
    """The names of a recogniser's classes from a text file: a name in each line, which may follow its number.

    Args:
        path: The file, UTF-8; empty lines don't count. Numbers are left out if all lines have them, in order from 0 or
            from 1.
        num_classes: Number of the recogniser's classes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds another number of names, or is not UTF-8.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text file with the name of a class in each line: {error}") from error
    if len(lines) != num_classes:
        raise ValueError(f"{path} names {len(lines)} classes, in a line each, but the recogniser has {num_classes}")
    numbers = [line.split(maxsplit=1)[0] for line in lines]
    for first in (0, 1):
        if numbers == [str(first + place) for place in range(num_classes)] and all(" " in line for line in lines):
            return [line.split(maxsplit=1)[1] for line in lines]
    return lines
