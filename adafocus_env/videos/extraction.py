"""From an encoded video to a folder of JPEG frames: whole, or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import av
from PIL import Image

from adafocus_env.videos.video_files import pictures, upright

TEMPLATE = "image_{:05d}.jpg"


def extract_frames(path: Path, folder: Path, short_side: int = 360, quality: int = 90) -> int:
    """Write all frames of a video, numbered from 1; nothing is done if the folder is there already.

    Args:
        path: The video.
        folder: Appears under its name when it is complete.
        short_side: Frames whose shorter side is longer than this are shrunk to it, pixels.
        quality: Of the JPEGs.

    Returns:
        The number of frames.

    Raises:
        FileNotFoundError: No such video.
        ValueError: FFmpeg can't decode it, or there is no picture in it.
    """
    if folder.is_dir():
        return sum(1 for _ in folder.glob("*.jpg"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        number = 0
        for number, frame in enumerate(pictures(path), start=1):
            picture = Image.fromarray(upright(frame))
            picture.thumbnail(_fitting(picture.size, short_side))
            picture.save(unfinished / TEMPLATE.format(number), quality=quality)
        if not number:
            raise ValueError("no frames")
        unfinished.chmod(0o755)
        os.replace(unfinished, folder)
    except av.error.FFmpegError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return number


def _fitting(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height with the shorter side at most ``short_side``."""
    share = min(1.0, short_side / min(size))
    return round(size[0] * share), round(size[1] * share)
