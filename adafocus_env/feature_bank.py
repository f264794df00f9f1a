"""What a frozen recogniser says about a finite data set, computed once.

In stage 2 the recogniser is frozen and the candidates are finite, so the outputs of its CNNs form a table: a global map
per (video, frame), and a local vector per (video, frame, candidate). The classifier's input projection is linear, so
the table holds the projected vectors: a step of the environment is then a gather and the GRU's gates.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from adafocus_env.patches import crop, grid_corners
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset

FrameLoader = Callable[[Tensor], Tensor]
"""Gives frames for rows of a query: (n,) int64 row numbers -> (n, …) uint8. Called for missing entries only."""

_PATCHES_PER_BATCH = 256
_VIDEOS_PER_BATCH = 32
_shared: weakref.WeakValueDictionary[tuple[str, str, int, str], FeatureBank] = weakref.WeakValueDictionary()


class FeatureBank:
    """The table of one recogniser, one data set and one candidate grid, filled where it is first asked for.

    Rows are handed out in the order of filling, so memory grows with what was asked for, up to
    :meth:`max_bytes`. A bank keeps its own frozen copy of the recogniser: training the original later changes nothing.

    Args:
        recognizer: Any :class:`Recognizer`.
        videos: Any data set.
        grid: g; the candidates form a g×g grid.
        device: Where the table is and the networks run.

    Attributes:
        corners: (N, 2) int64, top and left of every candidate.
        recognizer: The frozen copy.

    Raises:
        ValueError: The patch doesn't fit, the classes disagree, or a weight of the recogniser is not finite.
    """

    def __init__(
        self, recognizer: Recognizer, videos: VideoDataset, grid: int = 7, device: str | torch.device = "cpu"
    ) -> None:
        config = recognizer.config
        if config.num_classes != videos.num_classes:
            raise ValueError(
                f"recognizer knows {config.num_classes} classes, but videos have {videos.num_classes}: pass a pair "
                "that matches"
            )
        for name, weights in recognizer.state_dict().items():
            if not bool(torch.isfinite(weights).all()):
                raise ValueError(f"recognizer's {name} holds values that are not finite; its training has diverged")
        self.device = torch.device(device)
        self.videos = videos
        self.grid = grid
        self.corners = grid_corners(grid, videos.frame_size, config.patch_size)
        self.recognizer = recognizer.frozen().to(self.device)
        self._fast = recognizer.frozen(fold_batch_norm=True).to(self.device)
        num_videos, frames, candidates = len(videos), videos.num_frames, len(self.corners)
        gates = 3 * config.hidden_size
        # Rows are written in order, so the operating system commits this memory as the table fills, not here.
        self._maps = self._allocate(num_videos, frames, *self.recognizer.glance_shape)
        self._global_gates = self._allocate(num_videos, frames, gates)
        self._local_gates = self._allocate(num_videos * frames * candidates, gates)
        self._video_row = torch.full((num_videos,), -1, device=self.device)
        self._patch_row = torch.full((num_videos, frames, candidates), -1, dtype=torch.int32, device=self.device)
        self._video_rows = 0
        self._patch_rows = 0

    @classmethod
    def shared(cls, recognizer: Recognizer, videos: VideoDataset, grid: int, device: str | torch.device) -> FeatureBank:
        """The process's bank for this recogniser and data, made if there is none: environments that agree share one.

        The key holds fingerprints of the weights and of the data, so a stale table is never found. A bank is freed with
        the last environment that uses it.
        """
        key = (recognizer.fingerprint(), videos.fingerprint, grid, str(torch.device(device)))
        bank = _shared.get(key)
        if bank is None:
            bank = cls(recognizer, videos, grid, device)
            _shared[key] = bank
        return bank

    def _allocate(self, *shape: int) -> Tensor:
        try:
            return torch.empty(shape, dtype=torch.float32, device=self.device)
        except RuntimeError as error:
            raise MemoryError(
                f"a feature bank for {len(self.videos)} videos can grow beyond this machine's memory: take fewer "
                f"videos or a smaller grid ({error})"
            ) from error

    def max_bytes(self) -> int:
        """Bytes of the whole table, once every candidate of every video is filled."""
        tables = (self._maps, self._global_gates, self._local_gates, self._video_row, self._patch_row)
        return sum(table.numel() * table.element_size() for table in tables)

    def filled_bytes(self) -> int:
        """Bytes of the part that is filled now, its index included."""
        per_video = (self._maps[0].numel() + self._global_gates[0].numel()) * 4
        per_patch = self._local_gates.shape[1] * 4
        index = self._video_row.numel() * 8 + self._patch_row.numel() * 4
        return self._video_rows * per_video + self._patch_rows * per_patch + index

    def ensure_videos(self, video: Tensor, load: FrameLoader) -> None:
        """Run f_G on the videos that it has not seen.

        Args:
            video: (B,) int64.
            load: Gives the (n, T, 3, H, W) frames of rows of ``video``.
        """
        missing = (self._video_row[video] < 0).nonzero()[:, 0]
        if not len(missing):
            return
        missing = _first_of_each(video[missing], missing)
        for rows in missing.split(_VIDEOS_PER_BATCH):
            frames = load(rows)
            with torch.no_grad():
                maps, vectors = self._fast.glance(frames.flatten(0, 1))
                gates = self.recognizer.classifier.project_global(vectors)
            self._check_finite(gates, "global", video[rows])
            end = self._video_rows + len(rows)
            self._maps[self._video_rows : end] = maps.unflatten(0, frames.shape[:2])
            self._global_gates[self._video_rows : end] = gates.unflatten(0, frames.shape[:2])
            self._video_row[video[rows]] = torch.arange(self._video_rows, end, device=self.device)
            self._video_rows = end

    def ensure_patches(self, video: Tensor, time: Tensor, candidate: Tensor, load: FrameLoader) -> None:
        """Run f_L on the patches that it has not seen.

        Args:
            video: (B,) int64.
            time: (B,) int64, the frame in each video.
            candidate: (B,) int64.
            load: Gives the (n, 3, H, W) frames of rows of the query.
        """
        missing = (self._patch_row[video, time, candidate] < 0).nonzero()[:, 0]
        if not len(missing):
            return
        key = (video[missing] * self.videos.num_frames + time[missing]) * len(self.corners) + candidate[missing]
        missing = _first_of_each(key, missing)
        for rows in missing.split(_PATCHES_PER_BATCH):
            gates = self.project_patches(load(rows), self.corners[candidate[rows].cpu()], video[rows])
            end = self._patch_rows + len(rows)
            self._local_gates[self._patch_rows : end] = gates
            index = torch.arange(self._patch_rows, end, dtype=torch.int32, device=self.device)
            self._patch_row[video[rows], time[rows], candidate[rows]] = index
            self._patch_rows = end

    @torch.no_grad()
    def project_patches(self, frames: Tensor, corners: Tensor, video: Tensor) -> Tensor:
        """Run f_L and the classifier's projection on any patches, without the table.

        Args:
            frames: (B, 3, H, W) uint8.
            corners: (B, 2) int64, top and left of each patch.
            video: (B,) int64, for the error message.

        Returns:
            (B, 3·D) float32.
        """
        patches = crop(frames, corners, self.recognizer.config.patch_size)
        gates = self.recognizer.classifier.project_local(self._fast.look(patches))
        self._check_finite(gates, "local", video)
        return gates

    def maps(self, video: Tensor, time: Tensor) -> Tensor:
        """(B, C, h, w) global maps of frames whose videos were ensured."""
        return self._maps[self._video_row[video], time]

    def global_gates(self, video: Tensor, time: Tensor) -> Tensor:
        """(B, 3·D) projected global vectors of frames whose videos were ensured."""
        return self._global_gates[self._video_row[video], time]

    def local_gates(self, video: Tensor, time: Tensor, candidate: Tensor) -> Tensor:
        """(…, 3·D) projected local vectors of patches that were ensured; the arguments broadcast."""
        return self._local_gates[self._patch_row[video, time, candidate].long()]

    def build(self, progress_bar: bool = False) -> None:
        """Fill the whole table ahead of time, skipping what is there.

        Args:
            progress_bar: Show one.
        """
        candidates = torch.arange(len(self.corners), device=self.device)
        videos = torch.arange(len(self.videos), device=self.device)
        for chunk in tqdm(videos.split(4), desc="feature bank", unit_scale=4, disable=not progress_bar):
            frames = self.videos.frames(chunk.cpu()).to(self.device)
            self.ensure_videos(chunk, frames.__getitem__)
            times = torch.arange(self.videos.num_frames, device=self.device)
            row, time, candidate = torch.cartesian_prod(
                torch.arange(len(chunk), device=self.device), times, candidates
            ).unbind(-1)
            self.ensure_patches(
                chunk[row],
                time,
                candidate,
                lambda rows, r=row, t=time, f=frames: f[r[rows], t[rows]],  # type: ignore[misc]
            )

    def _check_finite(self, gates: Tensor, part: str, video: Tensor) -> None:
        finite = torch.isfinite(gates).all(dim=-1).view(len(video), -1).all(dim=-1)
        if not bool(finite.all()):
            bad = int(video[~finite][0])
            raise FloatingPointError(f"the recogniser's {part} CNN gave values that are not finite on video {bad}")


def _first_of_each(keys: Tensor, values: Tensor) -> Tensor:
    """The value at the first place of every distinct key, in ascending order of keys."""
    order = torch.argsort(keys, stable=True)
    ordered = keys[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return values[order[first]]
