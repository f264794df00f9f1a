"""Pictures of steps: the frame enlarged, the patch boxed, and what the recogniser makes of it; drawn or in a window."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw, ImageFont

_logger = logging.getLogger(__name__)

_WIDTH = 384  # least width of a picture, pixels; small frames are enlarged by a whole factor to reach it
_PANEL = 74
_GREEN, _RED, _GREY, _WHITE, _DARK = (64, 220, 96), (240, 88, 72), (150, 150, 150), (240, 240, 240), (24, 24, 28)
_REMARKS = {"look": "", "skip": ", skipped", "stop": ", stopped"}


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
        factor = max(1, -(-_WIDTH // (count * width)))
        shown = Image.fromarray(np.concatenate(list(frames), axis=1))
        shown = shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
        dimmed = choice != "look"
        if dimmed:
            shown = Image.blend(shown, Image.new("RGB", shown.size, _DARK), 0.6)
        picture = Image.new("RGB", (shown.width, shown.height + _PANEL), _DARK)
        picture.paste(shown)
        pen = ImageDraw.Draw(picture)
        if corner is not None:
            top, left = (factor * edge for edge in corner)
            size = factor * self._patch_size
            colour = _GREY if dimmed else _GREEN
            for start in range(left, shown.width, factor * width):
                pen.rectangle((start, top, start + size - 1, top + size - 1), outline=colour, width=min(3, factor))

        base = shown.height
        pen.rectangle((8, base + 8, picture.width - 8, base + 20), outline=_GREY)
        pen.rectangle((8, base + 8, 8 + round((picture.width - 16) * confidence), base + 20), fill=_GREEN)
        pen.text((8, base + 25), f"label: {self._class_names[label]} ({confidence:.0%})", _WHITE, self._font)
        if prediction is not None:
            colour = _GREEN if prediction == label else _RED
            pen.text((8, base + 47), f"prediction: {self._class_names[prediction]}", colour, self._font)
        status = f"step {progress[0]}/{progress[1]}{_REMARKS[choice]}"
        pen.text((picture.width - 8, base + 25), status, _GREY, self._font, anchor="ra")
        pen.text((picture.width - 8, base + 47), f"{gflops:.4g} GFLOPs", _GREY, self._font, anchor="ra")
        return np.asarray(picture)

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
