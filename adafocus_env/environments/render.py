"""Pictures of steps: the frame enlarged, the patch boxed, and what the recogniser makes of it; drawn or in a window."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw, ImageFont

_logger = logging.getLogger(__name__)

_WIDTH = 384  # least width of a picture, pixels; small frames are enlarged by a whole factor to reach it
Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""
GREEN, RED, GREY, WHITE, DARK = (64, 220, 96), (240, 88, 72), (150, 150, 150), (240, 240, 240), (24, 24, 28)
_MARGIN = 8
_REMARKS = {"look": "", "skip": ", skipped", "stop": ", stopped"}


@dataclass(frozen=True)
class Bar:
    """A row of a panel: a bar that is filled up to a share, from 0 to 1, of its length."""

    share: float
    colour: Colour = GREEN
    height = 17

    def draw(self, pen: ImageDraw.ImageDraw, top: int, width: int, font: Any) -> None:
        """Draw the row into a picture of this width, pixels."""
        pen.rectangle((_MARGIN, top, width - _MARGIN, top + 12), outline=GREY)
        filled = round((width - 2 * _MARGIN) * min(1.0, self.share))
        pen.rectangle((_MARGIN, top, _MARGIN + filled, top + 12), fill=self.colour)


@dataclass(frozen=True)
class Text:
    """A row of a panel: text at its left and its right end; the left one is cut off where there is no room."""

    left: str
    right: str = ""
    colour: Colour = WHITE
    height = 22

    def draw(self, pen: ImageDraw.ImageDraw, top: int, width: int, font: Any) -> None:
        """Draw the row into a picture of this width, pixels."""
        room = width - 2 * _MARGIN - (pen.textlength(self.right, font) + _MARGIN if self.right else 0)
        left = self.left
        while left and pen.textlength(left, font) > room:
            left = f"{left[:-2]}…" if len(left) > 2 else ""
        pen.text((_MARGIN, top), left, self.colour, font)
        pen.text((width - _MARGIN, top), self.right, GREY, font, anchor="ra")


def draw_frame(
    frame: npt.NDArray[np.uint8],
    box: tuple[float, float, float, float] | None,
    *,
    dimmed: bool,
    factor: int = 1,
    line: int = 3,
) -> Image.Image:
    """Draw a frame with its patch boxed: in green, or in grey and dimmed where it is not looked at.

    Args:
        frame: (H, W, 3) uint8 RGB.
        box: Top, left, height and width of the patch, pixels of the frame; ``None`` for no box.
        dimmed: Whether the frame is not looked at.
        factor: How many times the frame is enlarged.
        line: Width of the box's line, inside the box, pixels of the enlarged frame.
    """
    shown = Image.fromarray(frame)
    shown = shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
    if dimmed:
        shown = Image.blend(shown, Image.new("RGB", shown.size, DARK), 0.6)
    if box is not None:
        top, left, bottom, right = (round(factor * edge) for edge in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        colour = GREY if dimmed else GREEN
        ImageDraw.Draw(shown).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
    return shown


def with_panel(pictures: Sequence[Image.Image], rows: Sequence[Bar | Text], font: Any) -> Image.Image:
    """Pictures of equal size side by side, above a dark panel with rows."""
    width, height = sum(picture.width for picture in pictures), pictures[0].height
    whole = Image.new("RGB", (width, height + _MARGIN + sum(row.height for row in rows) + 5), DARK)
    for place, picture in enumerate(pictures):
        whole.paste(picture, (place * picture.width, 0))
    pen, top = ImageDraw.Draw(whole), height + _MARGIN
    for row in rows:
        row.draw(pen, top, width, font)
        top += row.height
    return whole


def enlargement(width: int) -> int:
    """How many times pictures of this width, pixels, are enlarged to be wide enough to look at."""
    return max(1, -(-_WIDTH // width))


class SceneRenderer:
    """Draws steps of an episode as RGB pictures.

    Args:
        class_names: One name per class.
        patch_size: P, pixels.
    """

    def __init__(self, class_names: Sequence[str], patch_size: int) -> None:
        self._class_names = class_names
        self._patch_size = patch_size
        self._font = ImageFont.load_default(15)
        self._window: tuple[Figure, AxesImage] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy shows its pictures in a window of its own."""
        return type(self), (self._class_names, self._patch_size)

    def draw(
        self,
        frames: npt.NDArray[np.uint8],
        *,
        corner: tuple[int, int] | None,
        choice: str,
        label: int,
        prediction: int | None,
        confidence: float,
        gflops: float,
        progress: tuple[int, int],
    ) -> npt.NDArray[np.uint8]:
        """Draw one step.

        Args:
            frames: (k, H, W, 3) uint8 RGB, drawn side by side.
            corner: Top and left of the patch, pixels; ``None`` before the first step.
            choice: ``"look"``, or ``"skip"`` or ``"stop"``, which dim the frame and its box and are named.
            label: The true class.
            prediction: The predicted class; ``None`` before the first step.
            confidence: On the label, in [0, 1]: the length of the bar.
            gflops: Spent on this video so far.
            progress: Number of this frame, from 1, and of all frames.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        count, _, width = frames.shape[:3]
        factor = enlargement(count * width)
        box = None if corner is None else (*corner, self._patch_size, self._patch_size)
        shown = [
            draw_frame(frame, box, dimmed=choice != "look", factor=factor, line=min(3, factor)) for frame in frames
        ]
        rows: list[Bar | Text] = [
            Bar(confidence),
            Text(
                f"label: {self._class_names[label]} ({confidence:.0%})",
                f"step {progress[0]}/{progress[1]}{_REMARKS[choice]}",
            ),
            Text(
                "" if prediction is None else f"prediction: {self._class_names[prediction]}",
                f"{gflops:.4g} GFLOPs",
                GREEN if prediction == label else RED,
            ),
        ]
        return np.asarray(with_panel(shown, rows, self._font))

    def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Show a picture in a window, made when first called; without a display, draw it off-screen and say so once."""
        import matplotlib
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry

        interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
        visible = matplotlib.get_backend().lower() in {name.lower() for name in interactive}
        if self._window is None:
            if not visible:
                _logger.warning("no window system: render_mode='human' draws off-screen; use 'rgb_array' for pictures")
            figure = pyplot.figure()
            if (manager := figure.canvas.manager) is not None:
                manager.set_window_title("AdaFocus")
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._window = (figure, axes.imshow(picture))
        self._window[1].set_data(picture)
        if visible:
            pyplot.pause(0.25)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            from matplotlib import pyplot

            pyplot.close(self._window[0])
            self._window = None
