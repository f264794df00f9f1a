"""``FrameFolders``: videos on disk as folders of JPEG frames, with a list file, as of ActivityNet or Mini-Kinetics."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adafocus_env.videos.dataset import check_indices
from adafocus_env.videos.lists import Entry, OnError, Separator, read_list, summary
from adafocus_env.videos.views import evaluation_view, middle_frames, random_frames, training_view

_END_OF_JPEG = b"\xff\xd9"


class FrameFolders:
    """A list file's videos, each a folder of frames.

    Frames are numbered from 1. Evaluation reads the middles of T segments, resizes their shorter side and crops the
    centre: a video is then always the same. With ``training=True`` every visit of a video draws other frames, crop and
    side, by its own count of visits, so that batching and workers change nothing; such videos take the online path.

    Args:
        root: Folder of the videos' folders.
        list_file: See :func:`adafocus_env.videos.lists.read_list`.
        num_classes: Number of classes.
        class_names: One name per class; ``None`` names them by number.
        num_frames: T.
        frame_size: Height and width of what is seen, pixels.
        resized: Shorter side before the centre crop, pixels.
        template: Name of frame i, counted from 1.
        separator: Of the list file; ``None`` goes by its first line.
        keep: Which of the list's videos to take; ``None`` takes all.
        training: Random frames and views.
        flip: Mirror training views (not where left and right are labels).
        seed: Of the random views.
        num_workers: Threads that decode; Pillow releases Python's lock. ``None`` takes one per core.
        on_error: ``"raise"`` at what can't be used, or ``"skip"``: :meth:`problems` of all videos are found first, and
            those that have any are left out and counted.

    Attributes:
        entries: The videos' lines.
        labels: (V,) int64, the first label of every line.
        label_sets: (V, classes) bool, all of them.
        skipped: What was left out and why, a sentence each.
        changing: Whether a video differs from visit to visit, as training views do.

    Raises:
        FileNotFoundError: No such folder or list file.
        ValueError: A line can't be used; or sizes don't fit.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        list_file: str | os.PathLike[str],
        *,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        num_frames: int = 16,
        frame_size: int = 224,
        resized: int = 256,
        template: str = "image_{:05d}.jpg",
        separator: Separator | None = None,
        keep: Callable[[Entry], bool] | None = None,
        training: bool = False,
        flip: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.root, self.list_file = Path(root), Path(list_file)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder of videos at {self.root}")
        if not 1 <= frame_size <= resized:
            raise ValueError(f"frame_size must be between 1 and resized={resized}, not {frame_size}")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, not {num_frames}")
        try:
            names = {template.format(1), template.format(2)}
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"template {template!r} doesn't take one number: {error}") from error
        if len(names) < 2:
            raise ValueError(f"template {template!r} doesn't contain the frame's number")
        self.num_frames, self.frame_size, self.num_classes = num_frames, (frame_size, frame_size), num_classes
        self.class_names: Sequence[str] = [str(k) for k in range(num_classes)] if class_names is None else class_names
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names must be {num_classes} names, not {len(self.class_names)}")
        self.training, self.flip, self.seed = training, flip, seed
        self.changing = training
        self._resized, self._template = resized, template
        self._workers = ThreadPoolExecutor(num_workers or os.cpu_count())
        listed = read_list(list_file, num_classes, separator=separator, on_error=on_error)
        self.entries, self.skipped = tuple(filter(keep, listed.entries)), list(listed.problems)
        if on_error == "skip":
            found = list(self._workers.map(self._problem, self.entries))
            self.skipped += [problem for problem in found if problem]
            self.entries = tuple(entry for entry, problem in zip(self.entries, found, strict=True) if not problem)
        if not self.entries:
            raise ValueError(f"{self.list_file}: no video is left\n{summary(self.skipped)}")
        self.labels = torch.tensor([entry.labels[0] for entry in self.entries])
        self.label_sets = torch.zeros(len(self.entries), num_classes, dtype=torch.bool)
        for row, entry in enumerate(self.entries):
            self.label_sets[row, list(entry.labels)] = True
        self._visits = np.zeros(len(self.entries), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.entries)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the list, the settings, and size and time of change of the first frame of every video."""
        settings = (
            self.num_frames,
            self.frame_size,
            self._resized,
            self._template,
            self.training,
            self.flip,
            self.seed,
        )
        digest = hashlib.sha256(repr(settings).encode())
        for entry, status in zip(self.entries, self._workers.map(self._status, self.entries), strict=True):
            digest.update(repr((entry.path, entry.num_frames, entry.labels, status)).encode())
        return digest.hexdigest()

    def frames(self, indices: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8 RGB of the videos at ``indices``, (B,) int64.

        Raises:
            IndexError: An index is not a video's.
            FileNotFoundError: A frame is missing.
            ValueError: A frame can't be decoded, or has another size than the video's first.
        """
        rows = check_indices(indices, len(self)).tolist()
        visits = []
        for row in rows:
            visits.append(int(self._visits[row]))
            self._visits[row] += 1
        frames = torch.empty(len(rows), self.num_frames, 3, *self.frame_size, dtype=torch.uint8)
        for place, view in enumerate(self._workers.map(self._load, rows, visits)):
            frames[place] = view
        return frames

    def problems(self) -> list[str]:
        """A sentence for every video that can't be used: missing frames, a wrong count, files that are no whole JPEG.

        Looks at the first and the last frame and at those that evaluation reads.
        """
        return [problem for problem in self._workers.map(self._problem, self.entries) if problem]

    def _load(self, row: int, visit: int) -> Tensor:
        entry = self.entries[row]
        if not self.training:
            chosen = middle_frames(entry.num_frames, self.num_frames)
            return evaluation_view(self._read(entry, chosen), self._resized, self.frame_size[0])
        random = np.random.default_rng((self.seed, row, visit))
        chosen = random_frames(entry.num_frames, self.num_frames, random)
        return training_view(self._read(entry, chosen), self.frame_size[0], random, flip=self.flip)

    def _read(self, entry: Entry, chosen: np.ndarray) -> Tensor:
        """(T, 3, H, W) uint8, the channels last in memory."""
        whole: np.ndarray | None = None
        for place, number in enumerate(chosen.tolist()):
            path = self._path(entry, number + 1)
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
            except FileNotFoundError:
                raise FileNotFoundError(f"{path} is missing ({self._where(entry)})") from None
            except (OSError, SyntaxError) as error:
                raise ValueError(f"{path} can't be decoded ({self._where(entry)}): {error}") from error
            if whole is None:
                whole = np.empty((len(chosen), *pixels.shape), dtype=np.uint8)
            if pixels.shape != whole.shape[1:]:
                raise ValueError(
                    f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, the video's first frame "
                    f"{whole.shape[2]}×{whole.shape[1]} ({self._where(entry)})"
                )
            whole[place] = pixels
        assert whole is not None
        return torch.from_numpy(whole).permute(0, 3, 1, 2)

    def _path(self, entry: Entry, number: int) -> Path:
        return self.root / entry.path / self._template.format(number)

    def _where(self, entry: Entry) -> str:
        return f"{self.list_file}, line {entry.line}"

    def _status(self, entry: Entry) -> tuple[int, int] | None:
        try:
            found = self._path(entry, 1).stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns

    def _problem(self, entry: Entry) -> str | None:
        chosen = {0, entry.num_frames - 1, *middle_frames(entry.num_frames, self.num_frames).tolist()}
        for number in sorted(chosen):
            path = self._path(entry, number + 1)
            try:
                with open(path, "rb") as file:
                    start = file.read(2)
                    file.seek(max(0, os.path.getsize(path) - 2))
                    end = file.read(2)
            except FileNotFoundError:
                return f"{path} is missing ({self._where(entry)}, which says {entry.num_frames} frames)"
            except OSError as error:
                return f"{path} can't be read ({self._where(entry)}): {error}"
            if path.suffix.lower() in (".jpg", ".jpeg") and (start, end) != (b"\xff\xd8", _END_OF_JPEG):
                return f"{path} is no whole JPEG ({self._where(entry)})"
        return None
