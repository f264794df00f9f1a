"""List files: one line per video, with its path, its number of frames and its label or labels.

The fields of a line are separated by commas or tabs, with quotes as in CSV files if a path contains the separator. Or
they are separated by spaces; then the path is everything before the integers at the end, and may contain spaces. These
are the formats of the released code and of mmaction2:

====================================  ================================================
``v_1, 30, 7`` or ``v_1, 30, 7, 2``   ActivityNet, FCVID; labels after the frames
``riding a bike/x y 30 7``            Mini-Kinetics, Something-Something, mmaction2
``some/directory-1 163 1 3 5``        mmaction2 with several labels
``some/path/000.mp4 1``               mmaction2's videos, without a number of frames
====================================  ================================================

With spaces, several labels can't be told from one label after a path that ends in numbers (``day 3 30 7``). Such a
line is refused, unless ``multi_label`` says which is meant.

Paths are relative to the data set's root. An absolute path, or one that leads out of the root by ``..``, is read where
it points. All spellings of a path mean one video: ``./a``, ``a/``, ``b/../a`` and the absolute path mean ``a``.
"""

from __future__ import annotations

import codecs
import csv
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Separator = Literal[",", "\t", " "]
OnError = Literal["raise", "skip"]
MIN_FRAMES = 3
MAX_LABELS = 3
"""Limit for a line with commas or tabs, as in the released code, unless ``multi_label`` allows any number."""


@dataclass(frozen=True)
class Entry:
    """A line of a list file.

    Attributes:
        path: Path of the video, relative to the data set's root, in its shortest spelling.
        num_frames: Number of frames that the list states; 0 if lists state none.
        labels: One class or more, in the order of the line.
        line: Number of the line, from 1.
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
        too_short: Videos that were dropped because they have too few frames.
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]
    too_short: tuple[Entry, ...]

    @property
    def short(self) -> int:
        """How many videos were dropped as too short."""
        return len(self.too_short)


def read_list(
    path: str | os.PathLike[str],
    num_classes: int,
    *,
    separator: Separator | None = None,
    counted: bool = True,
    multi_label: bool | None = None,
    min_frames: int = MIN_FRAMES,
    on_error: OnError = "raise",
    root: str | os.PathLike[str] = "",
) -> VideoList:
    """Read a list file; see the module's description for the formats.

    Args:
        path: The file, UTF-8.
        num_classes: Number of classes; labels count from 0.
        separator: ``","``, ``"\\t"`` or ``" "``; ``None`` takes it from the first line that ends in integers after
            commas or tabs, and takes ``" "`` if there is no such line.
        counted: Whether lines state the number of frames; if not, they hold a path and its labels.
        multi_label: ``True`` if lines may have any number of labels, ``False`` if each has one. ``None`` allows one to
            three with commas or tabs, but only one with spaces, where further integers at the end are refused.
        min_frames: Videos with fewer frames are dropped and listed (the reference drops those below 3).
        on_error: ``"raise"`` an error at lines that can't be used, or ``"skip"`` and list them.
        root: Folder of the videos; absolute paths inside it become relative to it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line can't be used, or no video is left, and the message names file and lines; or an argument is
            not allowed.
    """
    if separator not in (*get_args(Separator), None):
        raise ValueError(f"separator must be one of {get_args(Separator)} or None, not {separator!r}")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error must be one of {get_args(OnError)}, not {on_error!r}")
    if multi_label is not None and not isinstance(multi_label, bool):
        raise ValueError(f"multi_label must be True, False or None, not {multi_label!r}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list file at {path}")
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    parser = _Parser(separator or _separator_of(lines, counted), counted, multi_label, num_classes, os.fspath(root))
    entries: list[Entry] = []
    too_short: list[Entry] = []
    problems: list[str] = []
    first: dict[str, int] = {}
    for number, raw in enumerate(lines, start=1):
        try:
            line = raw.decode("utf-8").strip()
            if not line:
                continue
            entry = parser.parse(line, number)
            if entry.path in first:
                raise ValueError(f"{entry.path!r} is in line {first[entry.path]} already")
        except UnicodeDecodeError:
            problems.append(f"{path}, line {number}: not UTF-8")
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
        else:
            first[entry.path] = number
            (too_short if counted and entry.num_frames < min_frames else entries).append(entry)
    if problems and on_error == "raise":
        raise ValueError(summary(problems))
    if not entries:
        enough = f" of at least {min_frames} frames" if counted else ""
        raise ValueError("\n".join([f"{path} lists no video{enough}", *filter(None, [summary(problems)])]))
    return VideoList(tuple(entries), tuple(problems), tuple(too_short))


def list_line(path: str, num_frames: int, labels: Sequence[int]) -> str:
    """Write a line with commas for :func:`read_list`, which needs ``multi_label=True`` for more than three labels.

    Args:
        path: Path of the video; white space at its ends is not kept.
        num_frames: Number of frames of the video.
        labels: One class or more.
    """
    if path.startswith("#") or any(character in path for character in ',"'):
        path = '"' + path.replace('"', '""') + '"'
    return ", ".join([path, str(num_frames), *map(str, labels)])


def summary(problems: Sequence[str]) -> str:
    """The first ten problems, a line each, and how many more there are."""
    more = [f"… and {len(problems) - 10} more"] if len(problems) > 10 else []
    return "\n".join([*problems[:10], *more])


def shortest_path(path: str, root: str = "") -> str:
    """The shortest spelling of a path: without ``.``, ``//`` and ``x/..``, and relative if it is inside ``root``."""
    path = posixpath.normpath(path)
    if not os.path.isabs(path):
        return path
    inside = os.path.relpath(path, root or os.curdir)
    return "/" + path.lstrip("/") if inside.split(os.sep)[0] == os.pardir else inside


def _separator_of(lines: list[bytes], counted: bool) -> Separator:
    """The separator of the integers at the end of the first line that has commas or tabs there; else a space."""
    separators: tuple[Separator, ...] = (",", "\t")
    ends = {
        separator: re.compile(rf'(?:{separator} *"?-?[0-9]+"? *){{{1 + counted},}}$'.encode())
        for separator in separators
    }
    return next((key for line in lines for key, end in ends.items() if end.search(line)), " ")


@dataclass(frozen=True)
class _Parser:
    """Turns lines of one list into entries."""

    separator: Separator
    counted: bool
    multi_label: bool | None
    num_classes: int
    root: str

    def parse(self, line: str, number: int) -> Entry:
        if line.startswith("#"):
            raise ValueError("lists have no comments (if it is a path that starts with #, write ./#)")
        name, fields = self._at_spaces(line) if self.separator == " " else self._at_separators(line)
        for field in fields:
            if not re.fullmatch(r"-?[0-9]+", field):
                raise ValueError(f"{field!r} is not an integer in {line!r}")
        frames, *labels = map(int, fields if self.counted else ["0", *fields])
        if not name or "\0" in name or frames < 0:
            raise ValueError(f"needs a path and a number of frames that is not negative, not {line!r}")
        if outside := [label for label in labels if not 0 <= label < self.num_classes]:
            raise ValueError(f"label {outside[0]} is not between 0 and {self.num_classes - 1}")
        return Entry(shortest_path(name, self.root), frames, tuple(labels), number)

    @property
    def _wanted(self) -> str:
        return "a path, a number of frames" if self.counted else "a path"

    def _at_separators(self, line: str) -> tuple[str, list[str]]:
        try:
            found = next(csv.reader([line], delimiter=self.separator, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise ValueError(f"{error} in {line!r}") from None
        name, *fields = (field.strip() for field in found)
        labels = len(fields) - self.counted
        most = 1 if self.multi_label is False else labels if self.multi_label else MAX_LABELS
        if not 1 <= labels <= most:
            asked = {None: "one to three labels", True: "labels", False: "one label"}[self.multi_label]
            between = "commas" if self.separator == "," else "tabs"
            more = "; multi_label=True takes any number of labels" if labels > most else ""
            raise ValueError(f"needs {self._wanted} and {asked}, between {between}, not {line!r}{more}")
        return name, fields

    def _at_spaces(self, line: str) -> tuple[str, list[str]]:
        """The path, and the integers that follow it."""
        needed = 1 + self.counted
        name, end = re.fullmatch(r"(\S.*?)((?:\s+-?[0-9]+)*)", line).groups()  # type: ignore[union-attr]
        fields = end.split()
        if len(fields) < needed:
            raise ValueError(f"needs {self._wanted} and a label, between spaces, not {line!r}")
        if self.multi_label or len(fields) == needed:
            return name, fields
        whole, *last = line.rsplit(maxsplit=needed)
        if self.multi_label is None:
            raise ValueError(
                f"is it {self._reading(name, fields)}, or {self._reading(whole, last)}? multi_label=True takes the "
                "first, multi_label=False the second; commas between the fields leave no doubt"
            )
        return whole, last

    def _reading(self, name: str, fields: list[str]) -> str:
        labels = fields[self.counted :]
        frames = f"{fields[0]} frames and " if self.counted else ""
        return f"{name!r} with {frames}label{'s' if len(labels) > 1 else ''} {', '.join(labels)}"
