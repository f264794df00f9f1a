"""List files: one line per video, with its path, its number of frames and its label or labels.

The fields of a line are separated by commas or tabs, with quotes as in CSV files where a path contains the separator;
or by spaces, and then the path is all that comes before the integers at the end, so that it may contain spaces itself.
These are the formats of the released code and of mmaction2:

====================================  ================================================
``v_1, 30, 7`` or ``v_1, 30, 7, 2``   ActivityNet, FCVID; labels after the frames
``riding a bike/x y 30 7``            Mini-Kinetics, Something-Something, mmaction2
``some/directory-1 163 1 3 5``        mmaction2 with several labels
``some/path/000.mp4 1``               mmaction2's videos, whose lines have no frames
====================================  ================================================

Between spaces, several labels look like one label of a path that ends in numbers (``day 3 30 7``). Such a line is
refused, unless ``multi_label`` says which it is.

Paths are relative to the data set's root. An absolute one, or one that leads out of the root by ``..``, is read where
it points. Every spelling of a path is one video: ``./a``, ``a/``, ``b/../a`` and the absolute one are ``a``.
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
"""Of a line with commas or tabs, unless ``multi_label`` says that there may be any number: as in the released code."""


@dataclass(frozen=True)
class Entry:
    """A line of a list file.

    Attributes:
        path: Of the video, relative to the data set's root, in its shortest spelling.
        num_frames: How many frames it has, as the list says; 0 where lists don't say.
        labels: One class or more, in the order of the line.
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
        too_short: Videos that were dropped, since they have too few frames.
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
        num_classes: Labels are between 0 and this, exclusive.
        separator: ``","``, ``"\\t"`` or ``" "``; ``None`` goes by the first line that ends in integers between commas
            or tabs, and where there is none it is ``" "``.
        counted: Whether lines say the number of frames; if not, they are a path and its labels.
        multi_label: ``True`` if lines may have any number of labels, ``False`` if each has one. ``None`` takes one to
            three between commas or tabs, and between spaces one; there, more integers at the end are refused.
        min_frames: Videos with fewer frames are dropped and counted (the reference drops those below 3).
        on_error: ``"raise"``, or ``"skip"`` lines that can't be used and count them.
        root: Folder of the videos, where lists have absolute paths: those inside it become relative to it.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line can't be used, or none is left; the message names file and lines. Or an argument is not
            allowed.
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
    """A line between commas for :func:`read_list`, which needs ``multi_label=True`` where labels are more than three.

    Args:
        path: Of the video; white space at its ends is not kept.
        num_frames: How many frames it has.
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
    """The one spelling that stands for all: without ``.``, ``//`` and ``x/..``, and relative if inside ``root``."""
    path = posixpath.normpath(path)
    if not os.path.isabs(path):
        return path
    inside = os.path.relpath(path, root or os.curdir)
    return "/" + path.lstrip("/") if inside.split(os.sep)[0] == os.pardir else inside


def _separator_of(lines: list[bytes], counted: bool) -> Separator:
    """What stands between the integers at the end of the first line that has a comma or a tab there."""
    separators: tuple[Separator, ...] = (",", "\t")
    ends = {
        separator: re.compile(rf'(?:{separator} *"?-?[0-9]+"? *){{{1 + counted},}}$'.encode())
        for separator in separators
    }
    return next((key for line in lines for key, end in ends.items() if end.search(line)), " ")


@dataclass(frozen=True)
class _Parser:
    """From lines of one list to entries."""

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
