"""``FrameFolders``: videos on disk as folders of JPEG frames, with a list file, as for ActivityNet or Mini-Kinetics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from adafocus_env.videos.listed_videos import Choice, ListedVideos, every
from adafocus_env.videos.lists import Entry
from adafocus_env.videos.pictures import picture_size, read_picture

_T = TypeVar("_T")


class FrameFolders(ListedVideos):
    """A list file's videos, each a folder of frames that are numbered from 1.

    Frames may have any format that Pillow reads, and are used as stored: as with torchvision's ``ImageFolder`` and
    ``decode_image``, an orientation in EXIF data is not applied. Of 16-bit grey the upper 8 bits are used; see
    :func:`adafocus_env.videos.pictures.read_picture`.

    :meth:`problems` decodes the frames that evaluation reads, and reads the headers of all frames. Each must exist, be
    a picture and have the same size, and there must be no more frames than the list says.

    Args:
        root: Folder that holds the videos' folders.
        list_file: Lines of path, number of frames, and label or labels.
        template: File name of a frame, in which a format field stands for its number, counted from 1.
        kwargs: See :class:`adafocus_env.videos.listed_videos.ListedVideos`; ``num_classes`` is required.

    Raises:
        FileNotFoundError: The folder or the list file is missing; later, a frame is missing.
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
        if not isinstance(template, str):
            raise ValueError(f"template must be a string, not {template!r}")
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
            pixels = self._look(entry, number, read_picture)
            if whole is None:
                whole = np.empty((len(chosen), *pixels.shape), dtype=np.uint8)
            self._check_size(entry, number, pixels.shape[:2], whole.shape[1:3])
            whole[place] = pixels
        assert whole is not None
        return torch.from_numpy(whole).permute(0, 3, 1, 2)

    def _decode(self, entry: Entry, share: Callable[[int], int] = every) -> int:
        frames = share(entry.num_frames)
        self._check_sizes(entry, (self._look(entry, number, read_picture).shape[:2] for number in range(frames)))
        return frames

    def _contradiction(self, entry: Entry) -> str | None:
        try:
            self._check_sizes(entry, (self._look(entry, number, picture_size) for number in range(entry.num_frames)))
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        there = entry.num_frames
        while os.path.exists(self._path(entry, there + 1)):
            there += 1
        if there > entry.num_frames:
            return f"{self._path(entry, there)} is there, but {self.where(entry)} says {entry.num_frames} frames"
        return None

    def _look(self, entry: Entry, number: int, look: Callable[[str], _T]) -> _T:
        """What ``look`` finds in the file of a frame, whose number is counted from 0."""
        path = self._path(entry, number + 1)
        try:
            return look(path)
        except FileNotFoundError:
            counted = f"{self.where(entry)}, which says {entry.num_frames} frames"
            raise FileNotFoundError(f"{path} is missing ({counted})") from None
        except ValueError as error:
            raise ValueError(f"{path} can't be decoded ({self.where(entry)}): {error}") from error

    def _check_sizes(self, entry: Entry, sizes: Iterable[tuple[int, ...]]) -> None:
        """Raise ``ValueError`` unless all frames, whose sizes are given in order, have the size of the first."""
        first: tuple[int, ...] | None = None
        for number, size in enumerate(sizes):
            first = first or size
            self._check_size(entry, number, size, first)

    def _check_size(self, entry: Entry, number: int, size: tuple[int, ...], first: tuple[int, ...]) -> None:
        if size != first:
            raise ValueError(
                f"{self._path(entry, number + 1)} has {size[1]}×{size[0]} pixels, a frame before it "
                f"{first[1]}×{first[0]} ({self.where(entry)})"
            )

    def _path(self, entry: Entry, number: int) -> str:
        # pathlib would add a tenth to the time that reading a frame takes
        return os.path.join(self.root, entry.path, self._template.format(number))

    def _file(self, entry: Entry) -> Path:
        return Path(self._path(entry, 1))
