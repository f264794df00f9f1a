"""``FrameFolders``: videos on disk as folders of JPEG frames, with a list file, as of ActivityNet or Mini-Kinetics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adafocus_env.videos.listed_videos import Choice, ListedVideos
from adafocus_env.videos.lists import Entry

_START_OF_JPEG, _END_OF_JPEG = b"\xff\xd8", b"\xff\xd9"


class FrameFolders(ListedVideos):
    """A list file's videos, each a folder of frames that are numbered from 1.

    :meth:`problems` looks at the first and the last frame and at those that evaluation reads: whether they are there,
    and whole.

    Args:
        root: Folder of the videos' folders.
        list_file: Lines of path, number of frames, and label or labels.
        template: Name of frame i, counted from 1.
        kwargs: See :class:`adafocus_env.videos.listed_videos.ListedVideos`, of which ``num_classes`` has no default.

    Raises:
        FileNotFoundError: No such folder or list file; later, no such frame.
        ValueError: An argument or a line can't be used; later, a frame can't be decoded, or has another size than the
            video's first.
    """

    counted: ClassVar[bool] = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        list_file: str | os.PathLike[str],
        *,
        template: str = "image_{:05d}.jpg",
        **kwargs: Any,
    ) -> None:
        try:
            names = {template.format(1), template.format(2)}
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"template {template!r} doesn't take one number: {error}") from error
        if len(names) < 2:
            raise ValueError(f"template {template!r} doesn't contain the frame's number")
        self._template = template
        super().__init__(root, list_file, **kwargs)

    def _read(self, entry: Entry, choose: Choice) -> Tensor:
        whole: np.ndarray | None = None
        chosen = choose(entry.num_frames)
        for place, number in enumerate(chosen.tolist()):
            path = self._path(entry, number + 1)
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            except FileNotFoundError:
                raise FileNotFoundError(f"{path} is missing ({self.where(entry)})") from None
            except (OSError, SyntaxError) as error:
                raise ValueError(f"{path} can't be decoded ({self.where(entry)}): {error}") from error
            if whole is None:
                whole = np.empty((len(chosen), *pixels.shape), dtype=np.uint8)
            if pixels.shape != whole.shape[1:]:
                raise ValueError(
                    f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, the video's first frame "
                    f"{whole.shape[2]}×{whole.shape[1]} ({self.where(entry)})"
                )
            whole[place] = pixels
        assert whole is not None
        return torch.from_numpy(whole).permute(0, 3, 1, 2)

    def _path(self, entry: Entry, number: int) -> str:
        return os.path.join(
            self.root, entry.path, self._template.format(number)
        )  # pathlib would be a tenth of the time

    def _file(self, entry: Entry) -> Path:
        return Path(self._path(entry, 1))

    def _problem(self, entry: Entry) -> str | None:
        chosen = {0, entry.num_frames - 1, *self.evaluated_frames(entry.num_frames).tolist()}
        for number in sorted(chosen):
            path = self._path(entry, number + 1)
            try:
                with open(path, "rb") as file:
                    start = file.read(2)
                    file.seek(max(0, os.path.getsize(path) - 2))
                    end = file.read(2)
            except FileNotFoundError:
                return f"{path} is missing ({self.where(entry)}, which says {entry.num_frames} frames)"
            except OSError as error:
                return f"{path} can't be read ({self.where(entry)}): {error}"
            if path.lower().endswith((".jpg", ".jpeg")) and (start, end) != (_START_OF_JPEG, _END_OF_JPEG):
                return f"{path} is no whole JPEG ({self.where(entry)})"
        return None
