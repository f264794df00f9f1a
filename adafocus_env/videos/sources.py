"""Sources of pictures one after the other: an encoded video, a folder of pictures, a webcam, clips of a data set."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

import av
import numpy as np
import numpy.typing as npt
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from adafocus_env.checks import Bounds, check_number
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.videos.decoding import opened, pictures, upright
from adafocus_env.videos.pictures import read_picture

USUAL_RATE = 25.0
"""Pictures a second of a source that doesn't say how many there are."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class TimedPicture:
    """A picture of a source.

    Attributes:
        number: Its place in the source, from 0.
        time: Seconds since the first picture.
        pixels: (H, W, 3) uint8 RGB.
    """

    number: int
    time: float
    pixels: npt.NDArray[np.uint8]


class Source(Protocol):
    """Where pictures come from."""

    name: str
    """For messages and results."""
    rate: float
    """Pictures a second."""
    expected: int | None
    """Number of pictures that the source promises; ``None`` if it doesn't say."""

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        """Every so many-th picture, from the first on; only one is held at a time.

        Raises:
            ValueError: A picture can't be decoded, or has another size than those before it.
        """
        ...


def open_source(name: str, rate: float | None = None) -> Source:
    """The source that a name means: a folder of pictures, a video file, or the number of a webcam.

    Args:
        name: Its name.
        rate: Pictures a second of a folder's pictures; ``None`` takes :data:`USUAL_RATE`. Others know their own.

    Raises:
        FileNotFoundError: There is no such file or folder.
        OSError: There is no such webcam, or it can't be used.
        ValueError: The file is no video, the folder has no picture in it, or the rate is of something else.
    """
    path = Path(name)
    if path.is_dir():
        return PictureFolder(path, USUAL_RATE if rate is None else check_number("rate", rate, Bounds(above=0)))
    if rate is not None:
        raise ValueError(f"rate: {name} is no folder of pictures and knows its own rate: leave it out")
    if name.isdecimal() and not path.exists():
        return Webcam(int(name))
    return VideoFile(path)


class VideoFile:
    """An encoded video, decoded by :func:`adafocus_env.videos.decoding.pictures`; see :class:`Source`.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: FFmpeg can't read the file.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        if not path.exists():
            raise FileNotFoundError(f"no video, and no folder of pictures, at {path}")
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty: it has 0 bytes")
        try:
            with opened(path) as (container, stream):
                self.rate = float(stream.average_rate or 0) or USUAL_RATE
                seconds = (container.duration or 0) / av.time_base
                self.expected = stream.frames or round(seconds * self.rate) or None
        except ValueError as error:
            raise ValueError(self._unreadable(error)) from error

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        """See :meth:`Source.read`."""
        start: float | None = None
        try:
            with closing(pictures(self._path)) as decoded:
                for number, picture in enumerate(decoded):
                    if number % every:
                        continue
                    stated = picture.time
                    start = stated if start is None else start
                    time = number / self.rate if stated is None or start is None else stated - start
                    yield TimedPicture(number, time, np.ascontiguousarray(upright(picture)))
        except ValueError as error:
            raise ValueError(self._unreadable(error)) from error

    def _unreadable(self, error: ValueError) -> str:
        return f"{self._path} can't be read as a video: {error}"


class PictureFolder:
    """A folder of pictures in the order of the numbers in their names; see :class:`Source`.

    Files whose names end as pictures' do are taken, and are read as stored
    (:func:`adafocus_env.videos.pictures.read_picture`).

    Args:
        folder: The folder.
        rate: Pictures a second.

    Raises:
        ValueError: There is no picture in it.
    """

    def __init__(self, folder: Path, rate: float = USUAL_RATE) -> None:
        self.name, self.rate = str(folder), rate
        found = (path for path in folder.iterdir() if path.name.lower().endswith(IMG_EXTENSIONS))
        self._paths = sorted(found, key=_with_numbers)
        if not self._paths:
            raise ValueError(f"{folder} has no picture in it; names end in {', '.join(IMG_EXTENSIONS)}")
        self.expected: int | None = len(self._paths)

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        """See :meth:`Source.read`."""
        first: tuple[int, ...] | None = None
        for number, path in list(enumerate(self._paths))[::every]:
            try:
                pixels = read_picture(path)
            except ValueError as error:
                raise ValueError(f"{path} can't be decoded: {error}") from error
            first = first or pixels.shape
            if pixels.shape != first:
                raise ValueError(
                    f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, a picture before it {first[1]}×{first[0]}"
                )
            yield TimedPicture(number, number / self.rate, np.array(pixels))  # Pillow's memory can't be written


class Webcam:
    """A webcam of Linux, by its number; see :class:`Source`. It goes on until it is unplugged.

    Args:
        number: 0 for ``/dev/video0``.

    Raises:
        OSError: There is no such webcam, or it can't be used.
    """

    driver: ClassVar[str] = "v4l2"
    device: ClassVar[str] = "/dev/video{}"

    def __init__(self, number: int) -> None:
        self.name, self._device = f"webcam {number}", self.device.format(number)
        self.expected: int | None = None
        try:
            self._container = av.open(self._device, format=self.driver)
            self.rate = float(self._container.streams.video[0].average_rate or 0) or USUAL_RATE
        except (av.error.FFmpegError, ValueError) as error:
            raise OSError(f"no webcam {number}: {self._device} can't be opened ({error})") from error

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        """See :meth:`Source.read`."""
        start: float | None = None
        with self._container:
            for number, picture in enumerate(self._container.decode(video=0)):
                if number % every == 0:
                    time = picture.time or 0.0
                    start = time if start is None else start
                    yield TimedPicture(number, time - start, np.ascontiguousarray(upright(picture)))


class Clips:
    """Some videos of a data set one after the other; see :class:`Source`.

    Args:
        videos: The data set. Of videos that are sampled several times, the last sampling is taken.
        indices: Which of its videos.
        rate: Pictures a second.
    """

    def __init__(self, videos: VideoDataset, indices: Iterable[int], rate: float = 4.0) -> None:
        self._videos, self._indices, self.rate = videos, tuple(indices), rate
        self.length = getattr(videos, "samplings", (videos.num_frames,))[-1]
        self.expected: int | None = self.length * len(self._indices)
        self.name = f"{len(self._indices)} clips of the embedded benchmark"
        self.labels = videos.labels[list(self._indices)].tolist()

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        """See :meth:`Source.read`."""
        number = 0
        for index in self._indices:
            for pixels in self._videos.frames(torch.tensor([index]))[0, -self.length :].permute(0, 2, 3, 1):
                if number % every == 0:
                    yield TimedPicture(number, number / self.rate, np.ascontiguousarray(pixels))
                number += 1


@dataclass(frozen=True)
class Window(Generic[_T]):
    """Items that follow each other.

    Attributes:
        items: The items.
        fresh: How many of them, at the end, no window before had.
    """

    items: tuple[_T, ...]
    fresh: int


def windows(items: Iterable[_T], length: int, stride: int) -> Iterator[Window[_T]]:
    """Sliding windows that cover all items; no more than ``length`` items are kept.

    The last window ends with the last item, and may overlap the one before by more than the others do. Fewer items than
    ``length`` make one shorter window.

    Args:
        items: The items, which may never end.
        length: Items in a window.
        stride: Items from the beginning of one window to that of the next, at most ``length``.
    """
    kept: deque[_T] = deque(maxlen=length)
    fresh, wanted = 0, length
    for item in items:
        kept.append(item)
        fresh += 1
        if fresh == wanted:
            yield Window(tuple(kept), fresh)
            fresh, wanted = 0, stride
    if fresh:
        yield Window(tuple(kept), fresh)


def _with_numbers(path: Path) -> list[tuple[int, str]]:
    """A key that sorts ``frame_10`` after ``frame_9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
