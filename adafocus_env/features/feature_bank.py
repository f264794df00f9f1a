"""``FeatureBank``: a table of a frozen recogniser's outputs on a finite data set, each computed once.

In stage 2 the recogniser is frozen and the candidates are finite, so the outputs of its CNNs form a table: a global map
per (video, unit), and a local vector per (video, unit, candidate). A unit is a frame, or the whole clip for a
:class:`adafocus_env.TSMRecognizer`. As the classifier's input projection is linear, the table holds projected vectors,
and a step of the environment only looks them up and applies the GRU's gates.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from adafocus_env.features.bank_file import BankFile, read_identity
from adafocus_env.features.frozen_features import FrameLoader, FrozenFeatures, PatchCutter, PatchQuery
from adafocus_env.features.recycled_memory import RecycledMemory
from adafocus_env.patches import grid_corners
from adafocus_env.progress import tqdm
from adafocus_env.recognition.image_networks import ImageNetworks, Precision
from adafocus_env.videos.dataset import VideoDataset

TableDtype = Literal["float32", "float16"]

_VIDEOS_PER_BATCH = 32
VIDEOS_PER_CHUNK = 4
"""Number of videos whose frames a build holds at once, while it cuts their patches."""
_ZEROTH = torch.zeros(1, dtype=torch.int64)
_shared: weakref.WeakValueDictionary[tuple[str, str, int, str], FeatureBank] = weakref.WeakValueDictionary()


class FeatureBank(FrozenFeatures):
    """The table of one recogniser, one data set and one candidate grid.

    Entries are filled when they are first needed, or ahead of time by :meth:`build`. Rows are assigned in the order of
    filling, so the memory in use grows with what was needed, up to :meth:`predicted_bytes`.

    With ``path`` the table is a memory-mapped file that outlives the process. One process at a time fills it; once it
    is full, any number of processes read it at once. Its header holds fingerprints of the recogniser's weights and
    preprocessing, the candidates and the data, so a stale or foreign file is refused. A process that is killed while
    it fills the file loses at most five seconds of its work, or one batch of patches if that takes longer. Another
    process continues from there, to the same table.

    A pickle holds no table (see :class:`FrozenFeatures`). In another process, a table in memory is computed anew as it
    is needed, and may differ by rounding if batches differ. A file is opened again, with all that it held at the time
    of pickling; if another process is still filling it, it is opened as with ``private=True``.

    Args:
        recognizer: Any :class:`Recognizer` or :class:`TSMRecognizer`.
        videos: Any data set whose videos never change.
        grid: g; the candidates form a g×g grid.
        device: Device of the networks, and of the table if it has no ``path``.
        path: File of the table; ``None`` keeps it in memory.
        dtype: Type of the table: ``"float32"``, or ``"float16"`` for half the size and rewards that agree to 2e-3.
        precision: Precision of the local CNN, as for :class:`FrozenFeatures`.
        private: Open the file even while another process is filling it. What the file lacks is then computed for this
            process alone, in memory.

    Raises:
        ValueError: As for :class:`FrozenFeatures`; or the file at ``path`` was filled for something else; or the videos
            look different at every visit.
        BlockingIOError: Another process is filling the file, and ``private`` is not set.
        OSError: The disk can't hold the table.
        MemoryError: The memory can't hold the table.
    """

    remembers: ClassVar[bool] = True

    @torch.inference_mode(False)  # inference tensors could not be written to later
    def __init__(
        self,
        recognizer: ImageNetworks[Any],
        videos: VideoDataset,
        grid: int = 7,
        device: str | torch.device = "cpu",
        *,
        path: str | os.PathLike[str] | None = None,
        dtype: TableDtype = "float32",
        precision: Precision = "float32",
        private: bool = False,
    ) -> None:
        if getattr(videos, "changing", False):
            raise ValueError(
                "these videos look different at every visit, so their features can't be stored: pass "
                "features=FrozenFeatures(recognizer, videos), or take their evaluation views"
            )
        super().__init__(recognizer, videos, grid, device, precision=precision)
        self.dtype: TableDtype = dtype
        arrays = table_arrays(recognizer, videos, grid, dtype)
        self._file: BankFile | None = None
        self._map_memory = RecycledMemory()
        self._lock = threading.Lock()  # environments in several threads may share a bank
        if path is None:
            tables = {name: self._allocate(name, shape, kind) for name, (shape, kind) in arrays.items()}
        else:
            identity = {
                "recognizer": recognizer.fingerprint(),
                "videos": videos.fingerprint,
                "grid": grid,
                "dtype": dtype,
                "precision": precision,
            }
            total = len(videos), arrays["patch_row"][0][0] - 1
            self._file = BankFile(path, identity, arrays, total, private=private)
            tables = self._file.arrays
        names = "maps", "global_gates", "local_gates"
        self._maps, self._global_gates, self._local_gates = (tables[name] for name in names)
        # Rows of the three tables above, from 1; 0 means "not filled". Row 0 of each stays zero, so that the local
        # vectors of skipped frames can be looked up as well.
        self._video_row, self._patch_row = tables["video_row"], tables["patch_row"]
        self._filled = tables["filled"]  # (2,) int64: videos, patches
        self._full = self.full
        if self._file is not None and self._file.writable:
            # Forget rows that a killed process indexed, but did not count on the disk.
            counted_videos, counted_patches = self._filled.tolist()
            self._video_row[self._video_row > counted_videos * self.num_steps] = 0
            self._patch_row[self._patch_row > counted_patches] = 0

    def _maker(self) -> Callable[[], FeatureBank]:
        path = None
        if self._file is not None:
            self._file.sync()  # a copy reads the file as it is now
            path = self._file.path
        arguments = self.recognizer, self.videos, self.grid, self.device
        return functools.partial(
            type(self), *arguments, path=path, dtype=self.dtype, precision=self.precision, private=True
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        recognizer: ImageNetworks[Any],
        videos: VideoDataset,
        device: str | torch.device = "cpu",
    ) -> FeatureBank:
        """Open a bank's file with the grid, dtype and precision that it was made with.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a feature bank, or was filled for another recogniser or other videos.
        """
        names = "grid", "dtype", "precision"
        identity = read_identity(path, names)
        return cls(recognizer, videos, device=device, path=path, **{name: identity[name] for name in names})

    @classmethod
    def shared(
        cls, recognizer: ImageNetworks[Any], videos: VideoDataset, grid: int = 7, device: str | torch.device = "cpu"
    ) -> FeatureBank:
        """The process's bank for this recogniser and data, created if there is none; environments share it.

        The key holds fingerprints of the weights and of the data, so a stale table is never found. A bank is freed with
        the last environment that uses it; hold it to keep its table for the next one.
        """
        key = _shared_key(recognizer, videos, grid, device)
        bank = _shared.get(key)
        if bank is None:
            bank = cls(recognizer, videos, grid, device)
            _shared[key] = bank
        return bank

    @staticmethod
    def already_shared(
        recognizer: ImageNetworks[Any], videos: VideoDataset, grid: int = 7, device: str | torch.device = "cpu"
    ) -> FeatureBank | None:
        """The bank that :meth:`shared` would find; ``None`` if it would create one."""
        return _shared.get(_shared_key(recognizer, videos, grid, device))

    def _allocate(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if name == "filled":
            return torch.zeros(shape, dtype=dtype)
        try:
            # The operating system commits this memory page by page as rows are written, in order, not here.
            table = torch.empty(shape, dtype=dtype, device=self.device)
            return table.zero_() if name.endswith("_row") else table.index_fill_(0, _ZEROTH.to(self.device), 0)
        except RuntimeError as error:
            raise MemoryError(
                f"a feature bank for {len(self.videos)} videos can grow beyond this machine's memory: keep it in a "
                "file (features=FeatureBank(recognizer, videos, path=…); in scripts build_feature_bank.py and --bank), "
                "or store nothing (features=FrozenFeatures(recognizer, videos)), or take fewer videos or "
                f"a smaller grid ({error})"
            ) from error

    # ---------------------------------------------------------------------------------------------------- its size

    @property
    def full(self) -> bool:
        """Whether the table is filled for all videos and all patches."""
        return self._filled.tolist() == [len(self.videos), len(self._patch_row) - 1]

    @staticmethod
    def predicted_bytes(
        recognizer: ImageNetworks[Any], videos: VideoDataset, grid: int = 7, dtype: TableDtype = "float32"
    ) -> int:
        """Bytes of the whole table, once every candidate of every video is filled.

        A video of T units takes T·(C·h·w + G + N·G) numbers and 4·T·N + 8 bytes of index. At paper scale (T = 16, map
        1280×7×7, G = 3·1024, N = 49) that is 13.8 MB in float32 and 6.9 MB in float16.
        """
        arrays = table_arrays(recognizer, videos, grid, dtype).values()
        return sum(math.prod(shape) * kind.itemsize for shape, kind in arrays)

    def filled_bytes(self) -> int:
        """Bytes of the part that is filled now, including the index."""
        videos, patches = self._filled.tolist()
        per_video = self.num_steps * (self._maps[0].nbytes + self._global_gates[0].nbytes)
        index = self._video_row.nbytes + self._patch_row.nbytes
        return videos * per_video + patches * self._local_gates[0].nbytes + index

    # --------------------------------------------------------------------------------------------------- filling it

    def ensure_videos(self, video: Tensor, load: FrameLoader) -> None:
        """See :meth:`FrozenFeatures.ensure_videos`: runs f_G on the videos that the table lacks."""
        if self._full or bool((self._video_row[video.to(self._video_row.device)] > 0).all()):
            return
        with self._lock:
            self._fill_videos(video, load)

    def _fill_videos(self, video: Tensor, load: FrameLoader) -> None:
        missing = (self._video_row[video.to(self._video_row.device)] == 0).nonzero()[:, 0].to(self.device)
        missing = _first_of_each(video[missing], missing)
        for rows in missing.split(_VIDEOS_PER_BATCH):
            units = self.recognizer.units(load(rows))
            of_units = video[rows].repeat_interleave(self.num_steps)
            maps, gates = self.compute_glance(_in_company(units), _in_company(of_units))
            self._insert_videos(video[rows], maps[: len(units)], gates[: len(units)])

    def _insert_videos(self, video: Tensor, maps: Tensor, gates: Tensor) -> None:
        """Add maps (B·T, C, h, w) and projected vectors (B·T, G) of videos, (B,) int64, that the table lacks."""
        start, steps = int(self._filled[0]), self.num_steps
        where = slice(1 + start * steps, 1 + (start + len(video)) * steps)
        self._store(self._maps, where, maps.flatten(1))
        self._store(self._global_gates, where, gates)
        first = torch.arange(start, start + len(video)) * steps + 1
        self._video_row[video.to(self._video_row.device)] = first.to(self._video_row.device)
        self._count(0, len(video))

    def _ensure_patches(self, key: Tensor, cut: PatchCutter) -> Tensor:
        """Run f_L on the patches that the table lacks; return the rows of all patches.

        Args:
            key: (n,) int64, (video·T + unit)·N + candidate, or V·T·N for the zero vector.
            cut: Cuts patches out of the units of elements of ``key``.

        Returns:
            (n,) int32 rows.
        """
        key = key.to(self._patch_row.device)
        rows = self._patch_row.index_select(0, key)
        if self._full or not bool(((rows == 0) & (key < len(self._patch_row) - 1)).any()):
            return rows
        with self._lock:
            self._fill_patches(key, cut)
        return self._patch_row.index_select(0, key)

    def _fill_patches(self, key: Tensor, cut: PatchCutter) -> None:
        rows = self._patch_row.index_select(0, key)
        missing = ((rows == 0) & (key < len(self._patch_row) - 1)).nonzero()[:, 0]
        candidates = len(self.corners)
        for chunk in _first_of_each(key[missing], missing).split(self.patches_per_cut):
            keys = key[chunk]
            video = torch.div(keys, candidates * self.num_steps, rounding_mode="floor")
            patches = cut(chunk.to(self.device), self._device_corners[(keys % candidates).to(self.device)])
            gates = self.compute_look(_in_company(patches), _in_company(video))
            self._insert_patches(keys, gates[: len(keys)])

    def _insert_patches(self, keys: Tensor, gates: Tensor) -> None:
        """Add projected vectors (n, G) of patches, (n,) int64, that the table lacks."""
        start = 1 + int(self._filled[1])
        self._store(self._local_gates, slice(start, start + len(keys)), gates)
        self._patch_row[keys] = torch.arange(start, start + len(keys), dtype=torch.int32, device=keys.device)
        self._count(1, len(keys))

    def _store(self, table: Tensor, where: slice, values: Tensor) -> None:
        if self._file is not None:
            self._file.check_writable()
        if self.dtype == "float16" and len(values) and float(values.abs().max()) > torch.finfo(torch.float16).max:
            raise FloatingPointError("the recogniser's values are too large for float16: use dtype='float32'")
        table[where] = values

    def _count(self, what: Literal[0, 1], rows: int) -> None:
        """Count rows that were filled; a file is synced every few seconds, and when it is full."""
        self._filled[what] += rows
        self._full = self.full
        if self._file is not None:
            self._file.wrote(full=self._full)

    def build(self, progress_bar: bool = False) -> None:
        """Fill the whole table ahead of time, skipping what is filled already.

        Args:
            progress_bar: Show a progress bar.
        """
        candidates, times = len(self.corners), self.num_steps
        chunks = self.unfinished(VIDEOS_PER_CHUNK)
        with self.bar(chunks, progress_bar) as bar:
            for chunk in chunks:
                chunk = chunk.to(self.device)
                frames = self.load_to_cut(chunk)
                self.ensure_videos(chunk, frames.__getitem__)
                keys = (
                    chunk[:, None] * (times * candidates) + torch.arange(times * candidates, device=self.device)
                ).ravel()
                self._ensure_patches(keys, functools.partial(self._cut, self.recognizer.units(frames)))
                bar.update(len(chunk))

    def _cut(self, units: Tensor, elements: Tensor, corners: Tensor) -> Tensor:
        """Cut patches; ``elements`` number the candidates of all units, one unit after the other."""
        return self.recognizer.cut(units, corners, elements // len(self.corners))

    def unfinished(self, size: int) -> list[Tensor]:
        """Split all videos into chunks, (size,) int64 each, and return those of which something is missing.

        The chunks are always the same, so a build that is resumed computes the same batches as one without a break.
        """
        patches = (self._patch_row[:-1].view(len(self.videos), -1) > 0).all(dim=1)
        there = (patches & (self._video_row > 0)).cpu()
        return [chunk for chunk in torch.arange(len(there)).split(size) if not bool(there[chunk].all())]

    def bar(self, chunks: list[Tensor], shown: bool) -> tqdm:
        """A progress bar over all videos that starts at the work already done."""
        total = len(self.videos)
        start = total - sum(map(len, chunks))
        return tqdm(desc="feature bank", unit="video", total=total, initial=start, disable=not shown)

    def insert(self, video: Tensor, maps: Tensor, global_gates: Tensor, local_gates: Tensor) -> None:
        """Fill in what the table lacks about some videos, given all that a bank stores about them.

        Args:
            video: (B,) int64.
            maps: (B·T, C, h, w) float32, of T units per video.
            global_gates: (B·T, G) float32, projected global vectors.
            local_gates: (B·T·N, G) float32, projected local vectors.
        """
        times, candidates = self.num_steps, len(self.corners)
        new = (self._video_row[video] == 0).nonzero()[:, 0]
        maps, global_gates = (part.unflatten(0, (-1, times))[new].flatten(0, 1) for part in (maps, global_gates))
        self._insert_videos(video[new], maps, global_gates)
        keys = (video[:, None] * (times * candidates) + torch.arange(times * candidates)).ravel()
        new = (self._patch_row[keys] == 0).nonzero()[:, 0]
        self._insert_patches(keys[new], local_gates[new])

    # -------------------------------------------------------------------------------------------------- reading it

    def glance(self, video: Tensor, time: Tensor, load: FrameLoader) -> tuple[Tensor, Tensor]:
        """Like :meth:`FrozenFeatures.glance`, but from the table."""
        row = self._video_row.index_select(0, video.to(self._video_row.device)) + time.to(self._video_row.device)
        if self._maps.device.type == self.device.type == "cpu":
            maps = self._map_memory.empty(len(video), self._maps.shape[1])
            if self._maps.dtype == maps.dtype:
                torch.index_select(self._maps, 0, row, out=maps)
            else:
                maps.copy_(self._maps.index_select(0, row))
        else:
            maps = self._gather(self._maps, row)
        return maps.view(len(video), *self.recognizer.glance_shape), self._gather(self._global_gates, row)

    def _look(self, query: PatchQuery) -> Tensor:
        """Look candidates up in the table, and compute patches elsewhere."""
        video, time, candidates, focused, cut, anywhere = query
        unit = torch.add(time, video, alpha=self.num_steps)
        key = torch.add(candidates, unit.unsqueeze(1), alpha=len(self.corners))
        if focused is not None:
            key.masked_fill_(~focused[:, None], len(self._patch_row) - 1)
        width = candidates.shape[1]
        rows = self._ensure_patches(key.view(-1), lambda elements, corners: cut(elements // width, corners))
        gates = self._gather(self._local_gates, rows).view(len(video), width, self._local_gates.shape[1])
        return gates if anywhere is None else torch.cat((gates, self._look_at(anywhere, query)), dim=1)

    def _gather(self, table: Tensor, rows: Tensor) -> Tensor:
        return table.index_select(0, rows).to(self.device, torch.float32)

    def close(self) -> None:
        """Write the file to disk and let others fill it; this bank can still be read, but no longer be filled."""
        if self._file is not None:
            self._file.close()


def _shared_key(
    recognizer: ImageNetworks[Any], videos: VideoDataset, grid: int, device: str | torch.device
) -> tuple[str, str, int, str]:
    device = torch.empty(0, device=device).device  # "cuda" gets its number
    return recognizer.fingerprint(), videos.fingerprint, grid, str(device)


def table_arrays(
    recognizer: ImageNetworks[Any], videos: VideoDataset, grid: int, dtype: TableDtype
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of everything that a bank stores, by name, in their order in a file.

    V is the number of videos, T that of a video's units, N that of candidates, G the length of a projected vector. The
    last three are tables whose rows are handed out from 1 in the order of filling; their row 0 is zero. ``video_row``
    holds the row of a video's first unit in ``maps`` and ``global_gates``, which the others follow; ``patch_row`` the
    row in ``local_gates`` of patch (video · T + unit) · N + candidate. In both, 0 means that it is not filled.
    ``filled`` counts the videos and the patches in the tables; rows beyond these counts were left by a killed process
    and count as not filled.

    Raises:
        ValueError: The grid or the dtype is not allowed.
    """
    if dtype not in get_args(TableDtype):
        raise ValueError(f"dtype must be one of {get_args(TableDtype)}, not {dtype!r}")
    grid_corners(grid, videos.frame_size, recognizer.config.patch_size)  # checks the grid
    units = len(videos) * recognizer.num_steps(videos.num_frames)
    patches, gates = units * grid * grid, recognizer.classifier.gates_size
    kind = getattr(torch, dtype)
    return {
        "filled": ((2,), torch.int64),
        "video_row": ((len(videos),), torch.int64),
        "patch_row": ((patches + 1,), torch.int32),  # the last one is always 0: a skipped frame's zero vector
        "maps": ((units + 1, math.prod(recognizer.glance_shape)), kind),
        "global_gates": ((units + 1, gates), kind),
        "local_gates": ((patches + 1, gates), kind),
    }


def _first_of_each(keys: Tensor, values: Tensor) -> Tensor:
    """The value at the first occurrence of every distinct key, in ascending order of keys."""
    order = torch.argsort(keys, stable=True)
    ordered = keys[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return values[order[first]]


def _in_company(rows: Tensor) -> Tensor:
    """Rows, of which a single one is doubled: alone it would run in other kernels, whose last bits differ.

    So stored values don't depend on what else was computed at the time, and training that is resumed with a new table
    ends with the same policy.
    """
    return rows if len(rows) > 1 else torch.cat((rows, rows))
