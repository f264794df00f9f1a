"""``FrozenFeatures``: outputs of a frozen recogniser on videos, computed whenever they are needed.

This is the online path. It is for videos that look different at every visit (augmented training views), and does the
computation for :class:`adafocus_env.FeatureBank`, which stores the results.
"""

from __future__ import annotations

import copy
import functools
import os
import uuid
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from adafocus_env.patches import grid_corners
from adafocus_env.recognition.image_networks import ImageNetworks, Precision
from adafocus_env.videos.dataset import VideoDataset

FrameLoader = Callable[[Tensor], Tensor]
"""Gives frames or units for rows of a query: (n,) int64 row numbers -> (n, …) uint8."""
PatchCutter = Callable[[Tensor, Tensor], Tensor]
"""Cuts patches out of the units of rows of a query: (n,) int64 and (n, 2) int64 corners -> (n, …, 3, P, P) uint8."""

_IMAGES_PER_CUT = 1024
_ROWS_PER_PRODUCT = 16
_living: weakref.WeakValueDictionary[str, FrozenFeatures] = weakref.WeakValueDictionary()
"""The features of this process by their names, so that copies find them."""


class PatchQuery(NamedTuple):
    """The patches that f_L is to read: k candidates and j other patches of each of B units."""

    video: Tensor
    """(B,) int64."""
    time: Tensor
    """(B,) int64, the unit in each video."""
    candidates: Tensor
    """(B, k) int64."""
    focused: Tensor | None
    """(B,) bool, units whose patches are read; the other vectors are zero. ``None`` reads all units."""
    cut: PatchCutter
    """Cuts patches out of the units of rows of the query."""
    anywhere: Tensor | None
    """(B, j, 2) int64, top and left in pixels of further patches, which need not be candidates."""


class FrozenFeatures:
    """A recogniser's CNNs and the classifier's input projection, applied to the videos of a data set.

    A video has one or more units, and a policy makes one decision per unit: a frame for a :class:`Recognizer`, the
    whole clip for a :class:`TSMRecognizer`. G is the length of a projected vector (three times the classifier's state,
    or the number of classes).

    Pass it as ``features`` to the environment to compute every glance and every patch when it is needed, with the
    chosen and the random patches of a step in one batch.

    It pickles and deep-copies by reference. A copy within the process is the original itself, which is frozen and
    whose table only grows. But if the videos look different at every visit, a copy is an object of its own, which
    continues from the same visits. In another process a pickle creates it anew: a table in memory starts empty, one in
    a file is opened again (see :class:`adafocus_env.FeatureBank`), and all copies of one original are one object.

    Args:
        recognizer: Any :class:`Recognizer` or :class:`TSMRecognizer`; a frozen copy is kept, so training the original
            later changes nothing.
        videos: Any data set.
        grid: g; the candidates form a g×g grid.
        device: Device of the networks.
        precision: Precision of the local CNN, ``"float32"`` or ``"bfloat16"``. The global CNN stays in float32: it is
            cheap, and rounding what policies see changes a hundredth of their choices.

    Attributes:
        recognizer: The frozen copy.
        num_steps: Units of a video.
        corners: (N, 2) int64, top and left of every candidate.
        patches_per_cut: Patches cropped at once; the CNN takes them in smaller batches.
        local_gflops: (N,) float64, multiply-adds / 1e9 of the local CNN on every candidate.

    Raises:
        ValueError: The patch doesn't fit, the classes disagree, a label is no class, or a weight of the recogniser is
            not finite.
    """

    remembers: ClassVar[bool] = False
    """Whether a second query about the same video is answered without reading the video again."""

    def __init__(
        self,
        recognizer: ImageNetworks[Any],
        videos: VideoDataset,
        grid: int = 7,
        device: str | torch.device = "cpu",
        *,
        precision: Precision = "float32",
    ) -> None:
        if not isinstance(recognizer, ImageNetworks):
            raise ValueError(f"recognizer must be a Recognizer or TSMRecognizer itself, not {recognizer!r}")
        if torch.device(device).type == "meta":
            raise ValueError("device must be one that computes, not 'meta'")
        config = recognizer.config
        if config.num_classes != videos.num_classes:
            raise ValueError(
                f"recognizer knows {config.num_classes} classes, but videos have {videos.num_classes}: pass a pair "
                "that matches"
            )
        labels = videos.labels
        if not isinstance(labels, Tensor) or labels.shape != (len(videos),) or labels.dtype != torch.int64:
            given = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"videos.labels must be a ({len(videos)},) int64 tensor, not {given}")
        if not len(videos):
            raise ValueError("videos has no videos: pass at least one")
        if not 0 <= int(labels.min()) <= int(labels.max()) < videos.num_classes:
            raise ValueError(f"videos.labels must be between 0 and {videos.num_classes - 1}")
        for name, weights in recognizer.state_dict().items():
            if not bool(torch.isfinite(weights).all()):
                raise ValueError(f"recognizer's {name} holds values that are not finite; its training has diverged")
        self._register(uuid.uuid4().hex)
        self.num_steps = recognizer.num_steps(videos.num_frames)
        self.device = torch.device(device)
        self.videos, self.grid, self.precision = videos, grid, precision
        self.corners = grid_corners(grid, videos.frame_size, config.patch_size)
        self.recognizer = recognizer.frozen().to(self.device)
        self._fast = recognizer.deployed(precision, global_precision="float32").to(self.device)
        self._device_corners = self.corners.to(self.device)
        self.patches_per_cut = max(1, _IMAGES_PER_CUT // recognizer.frames_per_patch)
        self.local_gflops = torch.full((len(self.corners),), self.recognizer.cost().local, dtype=torch.float64)

    def load(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8 frames of videos, (B,) int64, on the device.

        Raises:
            ValueError: The data set returns something else.
        """
        frames = self.videos.frames(video.cpu())
        wanted = (len(video), self.videos.num_frames, 3, *self.videos.frame_size)
        if not isinstance(frames, Tensor) or frames.dtype != torch.uint8 or tuple(frames.shape) != wanted:
            given = f"{frames.dtype} {tuple(frames.shape)}" if isinstance(frames, Tensor) else type(frames).__name__
            raise ValueError(f"videos.frames must give a tensor of {wanted} uint8, not {given}")
        return frames.to(self.device)

    def load_to_cut(self, video: Tensor) -> Tensor:
        """Like :meth:`load`, in the memory layout from which many patches are cut ten times as fast."""
        frames = self.load(video)
        return frames.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, frames.shape[:2])

    # ------------------------------------------------------------------------------------------------------- copies

    def _register(self, name: str) -> None:
        self._name, self._process = name, os.getpid()
        _living[name] = self

    def _maker(self) -> Callable[[], FrozenFeatures]:
        """A function that creates the same object again, which is what a pickle holds."""
        return functools.partial(
            type(self), self.recognizer, self.videos, self.grid, self.device, precision=self.precision
        )

    def __reduce__(self) -> tuple[Any, ...]:
        name = uuid.uuid4().hex if getattr(self.videos, "changing", False) else self._name
        return _revive, (name, self._maker())

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenFeatures:
        """Itself, as Gymnasium copies an environment's arguments for its ``spec``; a real copy if videos change."""
        if not getattr(self.videos, "changing", False):
            return self
        revive, arguments = self.__reduce__()
        return revive(*copy.deepcopy(arguments, memo))

    # ------------------------------------------------------------------------------- what the environment asks for

    def ensure_videos(self, video: Tensor, load: FrameLoader) -> None:
        """Prepare for episodes on these videos; this class has nothing to prepare.

        Args:
            video: (B,) int64.
            load: Gives the (n, T, 3, H, W) frames of rows of ``video``.
        """

    def glance(self, video: Tensor, time: Tensor, load: FrameLoader) -> tuple[Tensor, Tensor]:
        """Global maps and projected global vectors of units, after :meth:`ensure_videos` of their videos.

        Args:
            video: (B,) int64.
            time: (B,) int64, the unit in each video.
            load: Gives the (n, …) units of rows of the query.

        Returns:
            (B, C, h, w) and (B, G) float32.
        """
        return self.compute_glance(load(torch.arange(len(video), device=self.device)), video)

    def look(
        self,
        video: Tensor,
        time: Tensor,
        candidates: Tensor,
        focused: Tensor | None,
        cut: PatchCutter,
        anywhere: Tensor | None = None,
    ) -> Tensor:
        """Projected local vectors of patches of units, after :meth:`ensure_videos` of their videos.

        The arguments are the fields of :class:`PatchQuery`.

        Returns:
            (B, k + j, G) float32; the caller owns it.
        """
        return self._look(PatchQuery(video, time, candidates, focused, cut, anywhere))

    def _look(self, query: PatchQuery) -> Tensor:
        """Answer :meth:`look`; subclasses override it."""
        corners = self._device_corners[query.candidates]
        if query.anywhere is not None:
            corners = torch.cat((corners, query.anywhere), dim=1)
        return self._look_at(corners, query)

    def _look_at(self, corners: Tensor, query: PatchQuery) -> Tensor:
        """Run f_L at corners, (B, k, 2) int64, of the units of a query, all patches of some units in one batch."""
        video, focused = query.video, query.focused
        width = corners.shape[1]
        gates = torch.zeros(*corners.shape[:2], self.recognizer.classifier.gates_size, device=self.device)
        everyone = torch.arange(len(video), device=self.device)
        for rows in (everyone if focused is None else everyone[focused]).split(
            max(1, self.patches_per_cut // max(1, width))
        ):
            repeated = rows.repeat_interleave(width)
            found = self.compute_look(query.cut(repeated, corners[rows].flatten(0, 1)), video[repeated])
            gates[rows] = found.unflatten(0, (len(rows), width))
        return gates

    # ------------------------------------------------------------------------------------------------ the networks

    @torch.no_grad()
    def compute_glance(self, units: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Run f_G and the classifier's projection.

        Args:
            units: (B, …) uint8.
            video: (B,) int64, for the error message.

        Returns:
            Maps (B, C, h, w) and projected vectors (B, G), float32.

        Raises:
            FloatingPointError: The output is not finite.
        """
        size = self.recognizer.config.glance_size
        parts = [self._fast.glance(batch) for batch in self._fast.batches(self._fast.glanced(units), size)]
        maps = torch.cat([part[0] for part in parts])
        gates = _project(self.recognizer.classifier.project_global, torch.cat([part[1] for part in parts]))
        _check_finite(gates, "global", video)
        return maps, gates

    @torch.no_grad()
    def compute_look(self, patches: Tensor, video: Tensor, reader: ImageNetworks[Any] | None = None) -> Tensor:
        """Run f_L and the classifier's projection.

        Args:
            patches: (B, …, 3, P, P) uint8.
            video: (B,) int64, for the error message.
            reader: A deployed recogniser whose f_L takes the place of this one's.

        Returns:
            (B, G) float32.

        Raises:
            FloatingPointError: The output is not finite.
        """
        fast = self._fast if reader is None else reader
        vectors = torch.cat([fast.look(batch) for batch in fast.batches(patches, patches.shape[-1])])
        gates = _project(self.recognizer.classifier.project_local, vectors)
        _check_finite(gates, "local", video)
        return gates


def _project(projection: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """Project vectors (B, …) with results that don't depend on B: products of few rows run in other kernels than those
    of many, whose last bits differ."""
    lacking = _ROWS_PER_PRODUCT - len(vectors)
    if lacking <= 0:
        return projection(vectors)
    return projection(torch.cat((vectors, vectors.new_zeros(lacking, *vectors.shape[1:]))))[: len(vectors)]


def _revive(name: str, make: Callable[[], FrozenFeatures]) -> FrozenFeatures:
    """The features of a name, created if this process has none of its own. A fork inherits its parent's, but must not
    fill their file."""
    known = _living.get(name)
    if known is None or known._process != os.getpid():
        known = make()
        known._register(name)
    return known


def _check_finite(gates: Tensor, part: Literal["global", "local"], video: Tensor) -> None:
    finite = torch.isfinite(gates).all(dim=-1)
    if not bool(finite.all()):
        bad = int(video[~finite][0])
        raise FloatingPointError(f"the recogniser's {part} CNN gave values that are not finite on video {bad}")
