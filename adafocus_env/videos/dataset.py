"""The interface of data sets of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

SPLITS = ("recognizer", "train", "val", "test")
"""``recognizer`` trains the recogniser (stages 0 and 1), ``train`` the policies and the classifier (stages 2 and 3)."""


@runtime_checkable
class VideoDataset(Protocol):
    """A finite list of labelled videos of equal shape.

    Any object with these members works as in ``gym.make("AdaFocus-v0", videos=...)``. A data set may
    also have

    - ``locations(indices) -> (boxes, visible)``, the ground truth that the oracle policy needs; see
      :meth:`adafocus_env.RoamingFashion.locations`;
    - ``samplings``, a tuple of numbers of frames that sum up to ``num_frames``, if a video is sampled more than once,
      as AdaFocus-TSM requires: the frames of each sampling follow those of the one before;
    - ``source_images``, (V,) int64, if several videos are made of one image, for the intervals of accuracies;
    - ``label_sets``, (V, classes) bool, if videos have several labels;
    - ``changing = True``, if a video looks different at every visit, so that a :class:`adafocus_env.FeatureBank`
      can't store what is computed from it.
    """

    num_frames: int
    """T, frames per video."""
    frame_size: tuple[int, int]
    """Height and width of every frame, pixels."""
    class_names: Sequence[str]
    """One name per class."""
    num_classes: int
    labels: Tensor
    """(V,) int64, the class of every video."""

    @property
    def fingerprint(self) -> str:
        """A key for everything computed from the data set; it changes whenever a pixel or label does."""
        ...

    def __len__(self) -> int: ...

    def frames(self, indices: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8 RGB of the videos at ``indices``, (B,) int64."""
        ...


@runtime_checkable
class LocatedVideos(VideoDataset, Protocol):
    """A data set that knows where the item is, as the embedded benchmarks do."""

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, T, 4) and visibility (B, T); see :meth:`adafocus_env.RoamingFashion.locations`."""
        ...


def check_indices(indices: Tensor, num_videos: int) -> Tensor:
    """Return ``indices`` as a (B,) int64 tensor on the CPU; raise ``IndexError`` if they can't index videos."""
    indices = torch.as_tensor(indices).cpu()
    if indices.ndim != 1 or indices.is_floating_point():
        raise IndexError(f"video indices must be a 1-D integer tensor, not {indices.dtype} of shape {indices.shape}")
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < num_videos:
        raise IndexError(f"video index {int(indices.min())} or {int(indices.max())} is outside 0 to {num_videos - 1}")
    return indices.long()
