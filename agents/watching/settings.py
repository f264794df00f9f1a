"""What a video is watched with unless something else is asked for, and names of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adafocus_env import Recognizer, TSMRecognizer
from adafocus_env.recognition.trained_on import TrainedOn
from adafocus_env.videos import VideoDataset
from adafocus_env.videos.sources import Source

READ_PER_SECOND = 4
"""Frames of a second that are read unless more or fewer are asked for."""


def usual_videos(recognizer: Recognizer | TSMRecognizer, shipped: VideoDataset | None = None) -> TrainedOn:
    """How a recogniser is shown a video: as those that it was trained on, or, if its file doesn't say, as in the paper.

    AdaFocus-TSM draws its two samplings from a window that is as long as the longer one.

    Args:
        recognizer: The recogniser.
        shipped: The embedded videos, if they are what it was trained on.

    Raises:
        ValueError: Its file says something impossible, or it, or the embedded videos, have another number of classes.
    """
    config = recognizer.config
    found = TrainedOn.of(shipped) if shipped is not None else TrainedOn.read(recognizer.metadata)
    found = found or TrainedOn(tuple(map(str, range(config.num_classes))), 16, 224, 256, "torch")
    if len(found.class_names) != config.num_classes:
        number, known = len(found.class_names), config.num_classes
        raise ValueError(
            f"--demo shows videos of {number} classes, and this recogniser knows {known}: give a video of yours"
            if shipped is not None
            else f"the recogniser has {known} classes, but its file names {number}"
        )
    if isinstance(recognizer, TSMRecognizer):
        found = replace(found, num_frames=max(recognizer.config.global_frames, recognizer.config.local_frames))
    named = (name if name != str(number) else f"class {name}" for number, name in enumerate(found.class_names))
    return replace(found, class_names=tuple(named))


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
