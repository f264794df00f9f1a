"""``PictureFolders``: still pictures on disk in a folder per class, as videos of one frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from adafocus_env.checks import brief
from adafocus_env.videos.listed_videos import Choice, ListedVideos, check_names, every
from adafocus_env.videos.lists import Entry, OnError, VideoList, summary
from adafocus_env.videos.pictures import read_picture

ARGUMENTS = {"frame_size", "resized", "keep", "training", "flip", "resize", "seed", "num_workers", "processes",
             "on_error"}  # fmt: skip
"""What :class:`PictureFolders` takes of :class:`~adafocus_env.videos.listed_videos.ListedVideos`."""


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted: the classes, in the order of torchvision's ``ImageFolder``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no folder in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise ValueError(f"{folder} must have a folder for each class in it, and has none")
    return names


class PictureFolders(ListedVideos):
    """Pictures in the layout of torchvision's ``ImageFolder``, for ``GlanceFocus-v0``: ``root/split/class/…/file``.

    Files whose names end as pictures' do are taken, in folders of a class's folder too. They are read as stored; see
    :func:`adafocus_env.videos.pictures.read_picture`. Evaluation resizes the shorter side and crops the centre, so a
    picture always looks the same. With ``training=True`` every visit draws a new crop and whether to mirror.

    :meth:`problems` decodes every picture.

    Args:
        root: Folder of the data set.
        split: The folder in it that holds a folder for each class.
        class_names: The classes' folders, in the order of the labels; ``None`` takes all, sorted by name. Give those of
            the training split to a split that may lack a class.
        kwargs: Those of :class:`~adafocus_env.videos.listed_videos.ListedVideos` that :data:`ARGUMENTS` names.

    Raises:
        FileNotFoundError: A folder is missing; later, a picture is missing.
        ValueError: An argument can't be used, a folder is none of the classes', or a class's folder has no picture;
            later, a picture can't be decoded.
        TypeError: There is no such argument.
    """

    counted: ClassVar[bool] = False

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := sorted(kwargs.keys() - ARGUMENTS):
            raise TypeError(f"PictureFolders takes no {unknown}; it takes {sorted(ARGUMENTS)}")
        folder = Path(root) / split
        self._folders = class_folders(folder)
        names = self._folders if class_names is None else check_names(class_names)
        if len({*names}) < len(names):
            raise ValueError(f"class_names must name every class once, not {brief(class_names)}")
        super().__init__(root, folder, num_classes=len(names), class_names=names, num_frames=1, **kwargs)

    def _listed(self, separator: object, multi_label: object, on_error: OnError) -> VideoList:
        entries: list[Entry] = []
        problems = [
            f"{self.list_file / name} is the folder of no class; classes are {', '.join(self.class_names)}"
            for name in self._folders
            if name not in self.class_names
        ]
        for label, name in enumerate(self.class_names):
            before = len(entries)
            for path in self._pictures(self.list_file / name):
                entries.append(Entry(os.path.relpath(path, self.root), 1, (label,), len(entries) + 1))
            if name in self._folders and len(entries) == before:
                problems.append(
                    f"{self.list_file / name} has no picture in it; names end in {', '.join(IMG_EXTENSIONS)}"
                )
        if problems and on_error == "raise":
            raise ValueError(summary(problems))
        if not entries:
            raise ValueError("\n".join([f"{self.list_file} has no picture", summary(problems)]).strip())
        return VideoList(tuple(entries), tuple(problems), ())

    @staticmethod
    def _pictures(folder: Path) -> Iterator[str]:
        """Paths of the pictures in a folder and in folders of it, sorted."""
        for place, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            for name in sorted(files):
                if name.lower().endswith(IMG_EXTENSIONS):
                    yield os.path.join(place, name)

    def where(self, entry: Entry) -> str:
        """The class of a picture, for messages."""
        return f"class {self.class_names[entry.labels[0]]}"

    def _file(self, entry: Entry) -> Path:
        return self.root / entry.path

    def _read(self, entry: Entry, choose: Choice) -> Tensor:
        path = self._file(entry)
        pixels = np.array(self._found(entry, path, lambda: read_picture(path)))  # Pillow's memory can't be written
        return torch.from_numpy(pixels).permute(2, 0, 1)[None]

    def _decode(self, entry: Entry, share: Callable[[int], int] = every) -> int:
        return len(self._read(entry, self.evaluated_frames))

    def _contradiction(self, entry: Entry) -> None:
        return None
