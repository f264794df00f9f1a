"""``ListedVideos``: the base class of data sets on disk, which have a list file."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adafocus_env.checks import Bounds, brief, check_choice, check_flag, check_integer
from adafocus_env.videos.dataset import check_indices
from adafocus_env.videos.lists import MIN_FRAMES, Entry, OnError, Separator, VideoList, read_list, summary
from adafocus_env.videos.views import Repeat, Resize, evaluation_view, middle_frames, random_frames, training_view

_T = TypeVar("_T")
Choice = Callable[[int], npt.NDArray[np.int64]]
"""Takes the number of frames that there are, and returns the (T,) wanted ones, counted from 0."""
_MOST = 2**14
"""Limit of frames, pixels of a side, and workers, so that a typing error doesn't ask for all memory."""
_MOST_CLASSES = 2**20


def check_names(names: Any) -> Sequence[str]:
    """Return the names of classes as they are; raise ``ValueError`` if they are no sequence of strings."""
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be a sequence of strings, not {brief(names)}")
    return names


def every(available: int) -> int:
    """All frames."""
    return available


class ListedVideos(ABC):
    """Videos of a list file. Subclasses define how frames are read.

    Evaluation reads the middle frames of T segments, resizes their shorter side and crops the centre, so a video always
    looks the same. With ``training=True`` every visit of a video draws new frames, a new crop and whether to mirror.
    The draws depend on the video's own count of visits, so batching and workers don't change them.

    Args:
        root: Folder of the videos.
        list_file: See :func:`adafocus_env.videos.lists.read_list`.
        num_classes: Number of classes.
        class_names: One name per class; ``None`` names them by number.
        num_frames: T; or several numbers, such as (8, 12) for AdaFocus-TSM, which samples a video several times: the
            frames of each sampling follow those of the one before.
        repeat: How a video shorter than T is filled up: ``"last"`` repeats its last frame, ``"first"`` gives its first
            frame T times.
        frame_size: Height and width of the views, pixels.
        resized: Shorter side before the centre crop, pixels.
        separator: Separator in the list file; see :func:`adafocus_env.videos.lists.read_list`, also on ``multi_label``.
        multi_label: Whether lines of the list may have any number of labels.
        keep: Tells which of the list's videos to take; ``None`` takes all.
        training: Read random frames and views.
        flip: Mirror half of the training views; turn it off if labels depend on left and right.
        separate_crops: Draw a training crop for each of several samplings, as the released code does, not one for all.
        resize: Library that resizes frames, ``"torch"`` or ``"pillow"``. Pillow is slower, but gives the frames of the
            released code bit for bit, for released checkpoints.
        seed: Seed of the random views.
        num_workers: Number of threads or processes that decode; ``None`` or 0 takes one per core.
        processes: Decode in processes instead of threads. They start more slowly and copy every video once more, but
            don't share Python's lock, which pays off if one machine decodes on dozens of cores.
        on_error: ``"raise"`` an error, or ``"skip"`` lines that can't be used and videos that can't be read. To find
            these videos, all frames that evaluation reads are decoded once at first; with ``training=True`` all that
            may ever be drawn, which takes as long as some passes over the videos.

    Attributes:
        entries: The videos' entries in the list.
        labels: (V,) int64, the first label of every video.
        label_sets: (V, classes) bool, all labels of every video.
        skipped: A sentence for every line or video that ``on_error="skip"`` left out.
        too_short: A sentence for every video that was left out because it has fewer than three frames.
        visits: (V,) int64, how often each video was read; resumed training restores it.
        changing: Whether a video differs from visit to visit, as training views do.

    Raises:
        FileNotFoundError: The folder or the list file is missing.
        ValueError: A line or an argument can't be used.

    Warns:
        UserWarning: Videos were left out; the message says how many, and why for the first ten.
    """

    counted: ClassVar[bool]
    """Whether the lines of list files state the number of frames."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        list_file: str | os.PathLike[str],
        *,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        num_frames: int | Sequence[int] = 16,
        repeat: Repeat = "last",
        frame_size: int = 224,
        resized: int = 256,
        separator: Separator | None = None,
        multi_label: bool | None = None,
        keep: Callable[[Entry], bool] | None = None,
        training: bool = False,
        flip: bool = True,
        separate_crops: bool = False,
        resize: Resize = "torch",
        seed: int = 0,
        num_workers: int | None = None,
        processes: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        self.root, self.list_file = Path(root), Path(list_file)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder of videos at {self.root}")
        num_classes = check_integer("num_classes", num_classes, Bounds(at_least=1, at_most=_MOST_CLASSES))
        resized = check_integer("resized", resized, Bounds(at_least=1, at_most=_MOST))
        frame_size = check_integer("frame_size", frame_size, Bounds(at_least=1, at_most=resized))
        several = num_frames if isinstance(num_frames, Sequence) and not isinstance(num_frames, str) else (num_frames,)
        self.samplings = tuple(
            check_integer("num_frames, and each of several,", count, Bounds(at_least=1, at_most=_MOST))
            for count in several
        )
        if not self.samplings:
            raise ValueError("num_frames must be at least 1, or several such numbers, not none")
        check_choice("repeat", repeat, get_args(Repeat))
        check_choice("resize", resize, get_args(Resize))
        self.repeat: Repeat = repeat
        self.resize: Resize = resize
        self.num_frames, self.frame_size, self.num_classes = sum(self.samplings), (frame_size, frame_size), num_classes
        self.class_names = [str(k) for k in range(num_classes)] if class_names is None else check_names(class_names)
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names must be {num_classes} names, not {len(self.class_names)}")
        self.training, self.flip = check_flag("training", training), check_flag("flip", flip)
        self.separate_crops = check_flag("separate_crops", separate_crops)
        self.seed = check_integer("seed", seed, Bounds(at_least=0))
        self.changing = self.training
        self.resized = resized
        workers = check_integer("num_workers", num_workers or 0, Bounds(at_least=0, at_most=_MOST))
        self._num_workers, self._in_processes = workers or os.cpu_count(), check_flag("processes", processes)
        listed = self._listed(separator, multi_label, on_error)
        self.entries, self.skipped = tuple(filter(keep, listed.entries)), list(listed.problems)
        if not self.entries:
            raise ValueError(
                f"{self.list_file}: this split takes none of its {len(listed.entries)} videos; the validation split is "
                "a tenth of them, by a hash of their paths, so list more of them"
            )
        self.too_short = [
            f"{entry.path!r} has {entry.num_frames} frames, fewer than {MIN_FRAMES} ({self.where(entry)})"
            for entry in filter(keep, listed.too_short)
        ]
        if on_error == "skip":
            found = list(self._workers.map(self._unreadable, self.entries))
            self.skipped += [problem for problem in found if problem]
            self.entries = tuple(entry for entry, problem in zip(self.entries, found, strict=True) if not problem)
        left_out = [*self.too_short, *self.skipped]
        if not self.entries:
            raise ValueError(f"{self.list_file}: no video is left\n{summary(left_out)}")
        if left_out:
            warnings.warn(
                f"{self.list_file}: {len(self.entries)} videos, {len(left_out)} left out:\n{summary(left_out)}",
                stacklevel=2,
            )
        self.labels = torch.tensor([entry.labels[0] for entry in self.entries])
        self.label_sets = torch.zeros(len(self.entries), num_classes, dtype=torch.bool)
        for row, entry in enumerate(self.entries):
            self.label_sets[row, list(entry.labels)] = True
        self.visits = np.zeros(len(self.entries), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.entries)

    @functools.cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._num_workers)

    @functools.cached_property
    def _processes(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._num_workers, get_context("spawn"), initializer=_adopt, initargs=(self,))

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out threads and processes, which are started again when they are needed."""
        return {name: value for name, value in vars(self).items() if name not in ("_workers", "_processes")}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the list, the settings, and the size and time of change of a file of every video."""
        settings: tuple[object, ...] = (
            self.num_frames if len(self.samplings) == 1 and self.repeat == "last" else (self.samplings, self.repeat),
            self.frame_size,
            self.resized,
            self.training,
            self.flip,
            self.seed,
        )
        if self.resize != "torch":
            settings += (self.resize,)
        if self.training:
            settings += ("multi-scale", self.separate_crops)
        digest = hashlib.sha256(repr(settings).encode())
        for entry, status in zip(self.entries, self._workers.map(self._status, self.entries), strict=True):
            digest.update(repr((entry.path, entry.num_frames, entry.labels, status)).encode())
        return digest.hexdigest()

    def frames(self, indices: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8 RGB of the videos at ``indices``, (B,) int64.

        Raises:
            IndexError: An index is out of range.
            FileNotFoundError: A file is missing.
            ValueError: A file can't be decoded.
        """
        rows = check_indices(indices, len(self)).tolist()
        visits = []
        for row in rows:
            visits.append(int(self.visits[row]))
            self.visits[row] += 1
        frames = torch.empty(len(rows), self.num_frames, 3, *self.frame_size, dtype=torch.uint8)
        views: Iterator[Tensor]
        if self._in_processes:
            views = map(torch.from_numpy, self._processes.map(_load_adopted, rows, visits))
        else:
            views = self._workers.map(self._load, rows, visits)
        for place, view in enumerate(views):
            frames[place] = view
        return frames

    def problems(self, *, every_frame: bool = False) -> list[str]:
        """A sentence for every video that has a problem; see :meth:`examine`."""
        return [problem for problem, _ in self.examine(every_frame=every_frame) if problem]

    def examine(self, *, every_frame: bool = False) -> Iterator[tuple[str | None, int]]:
        """Check every video, in the order of the list, several at once.

        All that evaluation reads is read, and what the list and the files' headers state is compared with what is
        there. Subclasses document what else they check.

        Args:
            every_frame: Decode all frames. What a decoder can't notice, such as changed pixels in a JPEG, isn't found.

        Yields:
            A sentence on what is wrong with the video, or ``None``; and how many frames were decoded.
        """
        return self._workers.map(functools.partial(self._examine, every_frame=every_frame), self.entries)

    def _examine(self, entry: Entry, every_frame: bool) -> tuple[str | None, int]:
        try:
            decoded = self._decode(entry) if every_frame else len(self._read(entry, self.evaluated_frames))
        except (FileNotFoundError, ValueError) as error:
            return str(error), 0
        return self._contradiction(entry), decoded

    def _unreadable(self, entry: Entry) -> str | None:
        """Why reading the video or any of its training views fails; ``None`` if it doesn't."""
        try:
            if self.training:
                self._decode(entry, self._drawable)
            else:
                self._read(entry, self.evaluated_frames)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return None

    def _load(self, row: int, visit: int) -> Tensor:
        entry = self.entries[row]
        if not self.training:
            frames = self._read(entry, self.evaluated_frames)
            return evaluation_view(frames, self.resized, self.frame_size[0], self.resize)
        random = np.random.default_rng((self.seed, row, visit))
        frames = self._read(entry, functools.partial(self._random_frames, random=random))
        parts = frames.split(self.samplings) if self.separate_crops else (frames,)
        size = self.frame_size[0]
        return torch.cat([training_view(part, size, random, flip=self.flip, resize=self.resize) for part in parts])

    def evaluated_frames(self, available: int) -> npt.NDArray[np.int64]:
        """(num_frames,) int64, the frames that evaluation reads of the available ones, counted from 0."""
        return np.concatenate([middle_frames(available, count, self.repeat) for count in self.samplings])

    def _random_frames(self, available: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        return np.concatenate([random_frames(available, count, random, self.repeat) for count in self.samplings])

    def _drawable(self, available: int) -> int:
        """How many of the available frames, from the first on, training may draw; see :func:`random_frames`."""
        short = available if self.repeat == "last" else 1
        return max(available // count * count or short for count in self.samplings)

    def _listed(self, separator: Separator | None, multi_label: bool | None, on_error: OnError) -> VideoList:
        """The videos of the list; the arguments are those of :func:`adafocus_env.videos.lists.read_list`."""
        return read_list(
            self.list_file,
            self.num_classes,
            separator=separator,
            counted=self.counted,
            multi_label=multi_label,
            on_error=on_error,
            root=self.root,
        )

    def _found(self, entry: Entry, path: str | os.PathLike[str], look: Callable[[], _T]) -> _T:
        """What ``look`` finds in a video's file at ``path``, with errors that name the file and where it is listed."""
        try:
            return look()
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing ({self.where(entry)})") from None
        except ValueError as error:
            raise ValueError(f"{path} can't be decoded ({self.where(entry)}): {error}") from error

    def where(self, entry: Entry) -> str:
        """List file and line of a video, for messages."""
        return f"{self.list_file}, line {entry.line}"

    @abstractmethod
    def _read(self, entry: Entry, choose: Choice) -> Tensor:
        """The chosen frames of a video, (T, 3, H, W) uint8, with the channels last in memory."""

    @abstractmethod
    def _file(self, entry: Entry) -> Path:
        """A file whose size and time of change tell whether the video has changed."""

    @abstractmethod
    def _decode(self, entry: Entry, share: Callable[[int], int] = every) -> int:
        """Decode a video from its first frame on without keeping anything; return the number of decoded frames.

        Args:
            entry: The video.
            share: Takes the number of frames that there are, and returns how many to decode.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A frame can't be decoded, or has another size.
        """

    @abstractmethod
    def _contradiction(self, entry: Entry) -> str | None:
        """What the list or the files state wrongly about a video that can be read; ``None`` if nothing."""

    def _status(self, entry: Entry) -> tuple[int, int] | None:
        try:
            found = self._file(entry).stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns


_adopted: ListedVideos
"""The data set for which a process decodes."""


def _adopt(videos: ListedVideos) -> None:
    global _adopted
    _adopted = videos
    torch.set_num_threads(1)  # there is a process per core already


def _load_adopted(row: int, visit: int) -> npt.NDArray[np.uint8]:
    return _adopted._load(row, visit).contiguous().numpy()
