"""``VideoFiles``: encoded videos (MP4, WebM, AVI, …) with a list of path and label."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adafocus_env.videos.listed_videos import Choice, ListedVideos, every
from adafocus_env.videos.lists import Entry
from adafocus_env.videos.wholeness import decode_in_order, missing_end


class VideoFiles(ListedVideos):
    """A list file's videos, each a file that FFmpeg decodes.

    The index of frames comes from the packets, which are read but not decoded, so it is exact with variable frame
    rates too. Of the pictures, only those from the last key frame before a wanted one up to it are decoded. Rotation in
    the file's metadata is applied.

    :meth:`problems` decodes the frames that evaluation reads and those that lead to them, and compares the packets with
    what the file's header promises.

    Args:
        root: Folder of the files.
        list_file: Lines of path and label or labels, separated by commas (CSV) or spaces.
        kwargs: See :class:`adafocus_env.videos.listed_videos.ListedVideos`.

    Raises:
        FileNotFoundError: No such folder or list file; later, no such video.
        ValueError: An argument or a line can't be used; later, a video can't be decoded.
    """

    counted: ClassVar[bool] = False

    def _file(self, entry: Entry) -> Path:
        return self.root / entry.path

    def _read(self, entry: Entry, choose: Choice) -> Tensor:
        path = self._file(entry)
        try:
            return torch.from_numpy(read_frames(path, choose)).permute(0, 3, 1, 2)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing ({self.where(entry)})") from None
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(f"{path} can't be decoded ({self.where(entry)}): {error}") from error

    def _decode(self, entry: Entry, share: Callable[[int], int] = every, *, strict: bool = False) -> int:
        available = 0

        def count(found: int) -> npt.NDArray[np.int64]:
            nonlocal available
            available = found
            return np.zeros(1, dtype=np.int64)

        self._read(entry, count)
        path, frames = self._file(entry), share(available)
        try:
            decode_in_order(path, frames, strict=strict)
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(f"{path} can't be decoded ({self.where(entry)}): {error}") from error
        return frames

    def _contradiction(self, entry: Entry) -> str | None:
        path = self._file(entry)
        try:
            missing = missing_end(path)
        except av.error.FFmpegError as error:
            missing = str(error)
        return missing and f"{path} is not whole ({self.where(entry)}): {missing}"


def read_frames(path: Path, choose: Choice) -> np.ndarray:
    """Decode some frames of a video file.

    Args:
        path: The file.
        choose: Takes the number of frames in the file, gives those that are wanted, counted from 0.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: No such file.
        av.error.FFmpegError: FFmpeg can't read it.
        ValueError: There is no picture in it, or fewer than its packets promise.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        if not packets:
            raise ValueError("no frames")
        wanted = choose(len(packets)).tolist()
        stream.thread_type = "NONE"  # videos are decoded side by side
        if any(pts is None for pts, _ in packets):  # the format has no times: count pictures from the start
            container.seek(0)
            numbers = set(wanted)
            pictures = enumerate(container.decode(stream))
            found = {number: np.asarray(upright(frame)) for number, frame in pictures if number in numbers}
        else:
            times = sorted(pts for pts, _ in packets if pts is not None)
            keys = sorted(pts for pts, is_key in packets if is_key and pts is not None)
            found = _seek_and_decode(container, stream, wanted, times, keys)
        if missing := [number for number in wanted if number not in found]:
            raise ValueError(f"frame {missing[0] + 1} of {len(packets)} is not there: the file is damaged")
        return np.stack([found[number] for number in wanted])


def _seek_and_decode(
    container: Any, stream: Any, wanted: list[int], times: list[int], keys: list[int]
) -> dict[int, np.ndarray]:
    """Wanted pictures by number; those that aren't there are left out."""
    found: dict[int, np.ndarray] = {}
    pictures: Iterator[Any] = iter(())
    position: int | None = None  # time of the picture that was decoded last
    for number in sorted(set(wanted)):
        target = times[number]
        before = bisect_right(keys, target)
        key = keys[before - 1] if before else times[0]
        if position is None or key > position:  # nearer from the key frame than from here
            container.seek(key, stream=stream)
            pictures = container.decode(stream)
        for frame in pictures:
            position = frame.pts
            if position is not None and position >= target:
                found[number] = np.asarray(upright(frame))
                break
    return found


def upright(frame: av.VideoFrame) -> Image.Image:
    """A decoded frame as an RGB picture, turned as the file's metadata asks for."""
    pixels = frame.to_ndarray(format="rgb24")
    return Image.fromarray(np.rot90(pixels, k=round(frame.rotation / 90)))
