"""Extracts the frames of an encoded video into a folder of JPEG files."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from adafocus_env.files import naming
from adafocus_env.videos.decoding import missing_end, pictures, upright
from adafocus_env.videos.lists import MIN_FRAMES, Entry

TEMPLATE = "image_{:05d}.jpg"
RECORD = "extraction.json"
"""File in a folder of frames that says from which file they are, with what settings, and how many they are."""
_OURS = re.compile(r"image_\d{5,}\.jpg|" + re.escape(RECORD))


def folder_names(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """Name a folder for the frames of each video: the video's path without its suffix, relative to one folder.

    Args:
        entries: The videos of a list.

    Returns:
        The names, and a sentence for every problem, such as a path that leads out of the videos' folder, or two videos
        of which one's folder would be the other's or inside it.
    """
    names, problems = [], []
    lines: dict[Path, int] = {}
    for entry in entries:
        path = Path(entry.path)
        if path.is_absolute() or path.drive or ".." in re.split(r"[/\\]", entry.path):
            problems.append(f"line {entry.line}: {entry.path!r} leads out of the folder of the videos")
        elif not path.name:
            problems.append(f"line {entry.line}: {entry.path!r} names no file")
        else:
            folder = path.with_suffix("")
            names.append(str(folder))
            if names[-1] != names[-1].strip():
                problems.append(
                    f"line {entry.line}: {names[-1]!r} can't be written into a list: white space at its end"
                )
            if folder in lines:
                problems.append(
                    f"lines {lines[folder]} and {entry.line}: {names[-1]!r} would be the folder of both videos"
                )
            lines.setdefault(folder, entry.line)
    problems += [
        f"lines {lines[parent]} and {line}: {str(folder)!r} would be inside {str(parent)!r}"
        for folder, line in lines.items()
        for parent in folder.parents
        if parent in lines
    ]
    return names, problems


def extract_frames(path: Path, folder: Path, short_side: int = 360, quality: int = 90) -> int:
    """Write all frames of a video, numbered from 1.

    Nothing is done if the folder's record matches this file (its name, size and time of change) and these settings, and
    all frames are there. Otherwise all frames are written anew and replace the old ones, also in a folder without a
    record, as earlier versions wrote it. If the process is killed, it leaves the old folder, the new one or none.

    Args:
        path: The video.
        folder: Folder of the frames, which appears under its name only when it is complete.
        short_side: Frames whose shorter side is longer than this are shrunk to it, pixels.
        quality: JPEG quality, 1 to 100.

    Returns:
        The number of frames.

    Raises:
        FileNotFoundError: There is no such video.
        OSError: The frames can't be written, for example on a full disk.
        ValueError: FFmpeg can't decode the video, it ends earlier than its header says, it has fewer frames than lists
            need, its pictures change their size, the folder holds anything other than frames, or a setting is out of
            range.
    """
    if short_side < 1 or not 1 <= quality <= 100:
        raise ValueError(f"short_side must be at least 1 and quality 1 to 100, not {short_side} and {quality}")
    status = path.stat()
    record: dict[str, Any] = {
        "source": path.name,
        "bytes": status.st_size,
        "changed_ns": status.st_mtime_ns,
        "short_side": short_side,
        "quality": quality,
    }
    unfinished, replaced = (folder.with_name(f".{folder.name}.{what}") for what in ("unfinished", "replaced"))
    for left in (unfinished, replaced):  # left by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    there = os.listdir(folder) if folder.exists() else []
    foreign = [name for name in there if not _OURS.fullmatch(name)]
    if RECORD in there:
        frames = _recorded(folder / RECORD, record)
        expected = {RECORD, *(TEMPLATE.format(k + 1) for k in range(frames or 0))}
        if frames and expected == set(there) - set(foreign):
            return frames
    if foreign:
        raise ValueError(f"{folder} holds something else than frames of this video, {foreign[0]!r}: move it away")
    if missing := missing_end(path):
        raise ValueError(f"{missing}: copy it again, or leave it out")
    unfinished.mkdir(parents=True)
    try:
        number = 0
        for number, frame in enumerate(pictures(path), start=1):
            picture = Image.fromarray(upright(frame))
            picture.thumbnail(_fitting(picture.size, short_side))
            data = io.BytesIO()  # Pillow itself does not notice when a full disk cuts a file off
            picture.save(data, "JPEG", quality=quality)
            with naming(folder):
                (unfinished / TEMPLATE.format(number)).write_bytes(data.getvalue())
        if number < MIN_FRAMES:
            raise ValueError(f"{number} frames, fewer than the {MIN_FRAMES} that lists of frames need")
        with naming(folder):
            (unfinished / RECORD).write_text(json.dumps({**record, "frames": number}))
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return number


def _recorded(path: Path, expected: dict[str, Any]) -> int | None:
    """The number of frames in a record; ``None`` if the record differs from what is expected."""
    try:
        record = json.loads(path.read_text())
        frames = record.pop("frames")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return frames if record == expected and isinstance(frames, int) else None


def _fitting(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height with the shorter side at most ``short_side``."""
    share = min(1.0, short_side / min(size))
    return round(size[0] * share), round(size[1] * share)
