"""List files: one line per video, with its path, its number of frames and its label or labels."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Separator = Literal[",", " "]
OnError = Literal["raise", "skip"]
MIN_FRAMES = 3
_WITH_COMMAS = {True: re.compile(r",\s*\d+\s*(,\s*\d+\s*)+$"), False: re.compile(r"(,\s*\d+\s*)+$")}


@dataclass(frozen=True)
class Entry:
    """A line of a list file.

    Attributes:
        path: Of the video, relative to the data set's root.
        num_frames: How many frames it has, as the list says; 0 where lists don't say.
        labels: One to three classes, in the order of the line.
        line: Its number, from 1.
    """

    path: str
    num_frames: int
    labels: tuple[int, ...]
    line: int


@dataclass(frozen=True)
class VideoList:
    """What :func:`read_list` found.

    Attributes:
        entries: The videos.
        problems: A sentence for every line that was skipped.
        short: How many videos were dropped as too short.
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]
    short: int


def read_list(
    path: str | os.PathLike[str],
    num_classes: int,
    *,
    separator: Separator | None = None,
    counted: bool = True,
    min_frames: int = MIN_FRAMES,
    on_error: OnError = "raise",
) -> VideoList:
    """Read a list file of ActivityNet, FCVID (``path, frames, label[, label[, label]]``), Mini-Kinetics or
    Something-Something (``path frames label``, where the path may contain spaces).

    Args:
        path: The file, UTF-8.
        num_classes: Labels are between 0 and this, exclusive.
        separator: ``","`` or ``" "``; ``None`` goes by the first line.
        counted: Whether lines say the number of frames; if not, they are a path and its labels.
        min_frames: Videos with fewer frames are dropped and counted (the reference drops those below 3).
        on_error: ``"raise"``, or ``"skip"`` lines that can't be used and count them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line can't be used, or none is left; the message names file and lines. Or an argument is not
            allowed.
    """
    if separator not in (*get_args(Separator), None):
        raise ValueError(f"separator must be one of {get_args(Separator)} or None, not {separator!r}")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error must be one of {get_args(OnError)}, not {on_error!r}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list file at {path}")
    entries, problems, short = [], [], 0
    first: dict[str, int] = {}
    for number, raw in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        try:
            line = raw.decode("utf-8").strip()
            if not line:
                continue
            if separator is None:
                separator = "," if _WITH_COMMAS[counted].search(line) else " "
            entry = _parse(line, separator, counted, number, num_classes)
            if entry.path in first:
                raise ValueError(f"{entry.path!r} is in line {first[entry.path]} already")
        except UnicodeDecodeError:
            problems.append(f"{path}, line {number}: not UTF-8")
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
        else:
            first[entry.path] = number
            if counted and entry.num_frames < min_frames:
                short += 1
            else:
                entries.append(entry)
    if problems and on_error == "raise":
        raise ValueError(summary(problems))
    if not entries:
        raise ValueError(f"{path} lists no video of at least {min_frames} frames")
    return VideoList(tuple(entries), tuple(problems), short)


def summary(problems: list[str]) -> str:
    """The first ten problems, a line each, and how many more there are."""
    more = [f"… and {len(problems) - 10} more"] if len(problems) > 10 else []
    return "\n".join([*problems[:10], *more])


def _parse(line: str, separator: Separator, counted: bool, number: int, num_classes: int) -> Entry:
    wanted = "a path, a number of frames" if counted else "a path"
    if separator == ",":
        fields = [field.strip() for field in line.split(",")]
        if not 2 + counted <= len(fields) <= 4 + counted:
            raise ValueError(f"needs {wanted} and one to three labels, between commas, not {line!r}")
    else:
        fields = line.rsplit(maxsplit=1 + counted)
        if len(fields) != 2 + counted:
            raise ValueError(f"needs {wanted} and a label, between spaces, not {line!r}")
    name, *numbers = fields
    frames, *labels = _integers(numbers if counted else ["0", *numbers], line)
    if not name or frames < 0:
        raise ValueError(f"needs a path and a number of frames that is not negative, not {line!r}")
    if outside := [label for label in labels if not 0 <= label < num_classes]:
        raise ValueError(f"label {outside[0]} is not between 0 and {num_classes - 1}")
    return Entry(name, frames, tuple(labels), number)


def _integers(fields: list[str], line: str) -> Iterator[int]:
    for field in fields:
        if not re.fullmatch(r"-?\d+", field):
            raise ValueError(f"{field!r} is not an integer in {line!r}")
        yield int(field)
