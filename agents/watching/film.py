"""``Film``, an annotated MP4 of what policies look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

from adafocus_env.environments.render import (
    DARK,
    GREEN,
    GREY,
    RED,
    Bar,
    Colour,
    Text,
    draw_frame,
    enlargement,
    with_panel,
)
from adafocus_env.files import unfinished
from adafocus_env.videos.views import Box
from agents.watching.watcher import Frame, Seen, Watched, Watcher

_GAP = 8
_BLUE: Colour = (84, 156, 240)
_ENCODER = {"preset": "veryfast", "crf": "18", "tune": "zerolatency"}
"""Without latency, every picture that was added is in the file, also if Ctrl-C arrives before the next one."""


class Film:
    """An MP4 file, H.264, with a picture for every step; policies are side by side.

    The file takes its name when the film is closed. If watching ends early, by Ctrl-C or an error, the film ends there
    too, and can be played; a film without any picture leaves no file.

    Args:
        path: The file.
        watcher: What watches.
        rate: Pictures a second.

    Attributes:
        pictures: Number of pictures so far.

    Raises:
        OSError: The file can't be written.
    """

    def __init__(self, path: Path, watcher: Watcher, rate: float) -> None:
        self.path, self._watcher, self.pictures = path, watcher, 0
        self._rate = Fraction(rate).limit_denominator(1001)
        self._font = ImageFont.load_default(15)
        self._stream: VideoStream | None = None
        self._broken = False

    def __enter__(self) -> Film:
        self._stack = ExitStack()
        temporary = self._stack.enter_context(unfinished(self.path))
        self._container = self._stack.enter_context(_container(temporary, self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.pictures or self._broken:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # whatever has ended it
            self._encode(None)

    def add(self, window: Watched) -> None:
        """Add the pictures of a window, except for those of frames that were in a window before."""
        old = len(window.frames) - window.fresh
        for number, step in enumerate(next(iter(window.seen.values())).steps):
            if step.place >= old:
                self._encode(self.draw(window, number))
                self.pictures += 1

    def draw(self, window: Watched, number: int) -> npt.NDArray[np.uint8]:
        """The picture of a window's step, (height, width, 3) uint8, with an even height and width."""
        parts: list[npt.NDArray[np.uint8]] = []
        for name, seen in window.seen.items():
            frame = window.frames[seen.steps[number].place]
            column = with_panel([self._drawn(frame, seen, number)], self._rows(name, frame, seen, number), self._font)
            parts += [np.full((column.height, _GAP, 3), DARK, dtype=np.uint8), np.asarray(column)]
        whole = np.concatenate(parts[1:], axis=1)
        return np.pad(whole, [(0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)], mode="edge")

    def _drawn(self, frame: Frame, seen: Seen, number: int) -> Image.Image:
        step, factor = seen.steps[number], enlargement(frame.shown.shape[1])
        rows, columns = (shown / side for shown, side in zip(frame.shown.shape, frame.size, strict=False))

        def scaled(box: Box) -> Box:
            return Box(box.top * rows, box.left * columns, box.height * rows, box.width * columns)

        boxes, read = self._watcher.boxes(frame, step), scaled(self._watcher.region(frame))
        patch = None if boxes is None else scaled(boxes[1])
        drawn = draw_frame(frame.shown, patch, dimmed=step.choice != "look", factor=factor)
        top, left, height, width = (round(factor * edge) for edge in read)
        ImageDraw.Draw(drawn).rectangle((left - 1, top - 1, left + width, top + height), outline=GREY)
        return drawn

    def _rows(self, name: str, frame: Frame, seen: Seen, number: int) -> list[Bar | Text]:
        step = seen.steps[number]
        best = int(step.probabilities.argmax())
        spent = sum(each.gflops for each in seen.steps[: number + 1])
        whole = self._watcher.whole_gflops * (number + 1)
        certain = seen.ended == "exit" and number + 1 == seen.length
        remark, colour = {
            "look": ("looked", GREEN),
            "skip": ("skipped", GREY),
            "stop": ("stopped", RED),
            "left": ("left before", RED),
        }[step.choice]
        return [
            Text(name, f"{frame.time:.1f} s, {number + 1} of {len(seen.steps)}"),
            Bar(float(step.probabilities[best])),
            Text(self._watcher.class_names[best], f"{step.probabilities[best]:.0%} confidence"),
            Bar(spent / whole, _BLUE),
            Text(f"{spent:.3g} GFLOPs", f"{spent / whole:.0%} of whole frames"),
            Text(f"{remark}, and left here: certain" if certain else remark, "", RED if certain else colour),
        ]

    def _encode(self, picture: npt.NDArray[np.uint8] | None) -> None:
        """Add a picture, or, without one, all that the encoder still holds."""
        try:
            if self._stream is None:
                assert picture is not None
                self._stream = self._container.add_stream("libx264", rate=self._rate, options=_ENCODER)
                self._stream.height, self._stream.width = picture.shape[:2]
                self._stream.pix_fmt = "yuv420p"
            frame = None
            if picture is not None:
                frame = VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = self.pictures, 1 / self._rate
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError:
            self._broken = True
            raise


@contextmanager
def _container(path: Path, name: Path) -> Iterator[OutputContainer]:
    """An MP4 file to write to, with errors that give it another name."""
    try:
        with av.open(str(path), "w", format="mp4") as container:
            yield container
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(name)) from error
