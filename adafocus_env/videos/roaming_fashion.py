"""``RoamingFashion``: the embedded benchmark, with procedural videos of real images.

A tinted Fashion-MNIST item drifts through a larger, textured and panning scene, among distractors that have the same
colours, sizes and local texture but no class: items whose 4×4 blocks were shuffled. The item is visible in only part of
the frames. The label is the item's class, so a recogniser has to find the item and look at it closely.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from adafocus_env.videos.dataset import check_indices
from adafocus_env.videos.scenery import FASHION_CLASSES, ITEM_SIZE, Scenery

VERSION = 1
"""Version of the pixels. Any change to them, or to the image pool, must raise it."""


class RoamingFashion(Scenery):
    """One split of the benchmark: a finite, indexable list of videos that are drawn on request.

    A video is a pure function of ``(split, index, seed)`` and of the arguments; nothing is stored. The other
    arguments, the attributes and the errors are those of :class:`~adafocus_env.videos.scenery.Scenery`. The shipped
    recogniser and policies are for seed 0.

    Args:
        num_frames: T, frames per video.
        num_distractors: Distractors per video, each visible in part of the frames.
        visible_fraction: Mean fraction of the frames in which the item is in the picture, in (0, 1].
    """

    def __init__(
        self,
        split: str = "train",
        *,
        seed: int = 0,
        num_videos: int | None = None,
        num_frames: int = 8,
        frame_size: int = 112,
        num_distractors: int = 3,
        visible_fraction: float = 0.4,
        root: str | Path | None = None,
        source: str = "FashionMNIST",
    ) -> None:
        super().__init__(split, seed, num_videos, frame_size, ITEM_SIZE + 1, num_distractors, root, source)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, not {num_frames}")
        if not 0 < visible_fraction <= 1:
            raise ValueError(f"visible_fraction must be in (0, 1], not {visible_fraction}")
        self.num_frames = num_frames
        self._pan = torch.arange(num_frames)
        self.visible_fraction = visible_fraction
        self.class_names: Sequence[str] = FASHION_CLASSES if source == "FashionMNIST" else tuple("0123456789")
        self.num_classes = len(self.class_names)
        self.labels = self._image_labels[self._item]
        self.fingerprint = self._fingerprint(
            (VERSION, split, seed, len(self), num_frames, frame_size, num_distractors, visible_fraction)
        )

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Where the item is: the ground truth for the oracle policy and for pictures, never shown to a learner.

        Args:
            indices: (B,) int64 indices of videos.

        Returns:
            boxes: (B, T, 4) int64 top, left, height, width, in pixels; meaningless where the item is absent.
            visible: (B, T) bool, whether the item is in the frame.
        """
        indices = check_indices(indices, len(self))
        top, left, visible = self._trajectory(indices, sprite=0)
        size = torch.full_like(top, ITEM_SIZE)
        return torch.stack((top, left, size, size), dim=-1), visible

    def _trajectory(self, indices: Tensor, sprite: int) -> tuple[Tensor, Tensor, Tensor]:
        """Top and left corners, (B, T) int64, and visibility, (B, T) bool, of one sprite."""
        top, left, speed, angle, bend, onset, length = self._draw(indices, sprite, 7).unbind(-1)
        time = torch.arange(self.num_frames)
        angles = 2 * torch.pi * (angle[:, None] + 0.04 * (bend[:, None] - 0.5) * time)
        pace = 1 + 4 * speed[:, None]
        corners = []
        for start, step, size in (
            (top, torch.sin(angles), self.frame_size[0]),
            (left, torch.cos(angles), self.frame_size[1]),
        ):
            span = size - ITEM_SIZE
            path = start[:, None] * span + pace * (torch.cumsum(step, dim=1) - step[:, :1])
            corners.append((span - (span - path % (2 * span)).abs()).round().long())  # bounces off the borders
        mean = self.visible_fraction * self.num_frames
        spread = min(mean - 1, self.num_frames - mean, 0.25 * self.num_frames) if mean > 1 else 0.0
        lengths = (mean + spread * (2 * length - 1)).round().clamp(1, self.num_frames).long()
        onsets = (onset * (self.num_frames - lengths + 1)).long()
        visible = (time >= onsets[:, None]) & (time < (onsets + lengths)[:, None])
        return corners[0], corners[1], visible

    def _paste(self, canvas: Tensor, indices: Tensor, sprite: int) -> None:
        """Blend one sprite into every frame that shows it, in place."""
        top, left, visible = self._trajectory(indices, sprite)
        ink, clear = self._ink(self._shades(indices, sprite).to(torch.float32) / 255, self._tint(indices, sprite))
        video, time = visible.nonzero(as_tuple=True)
        frame = video * self.num_frames + time
        self._blend(canvas, frame, top[video, time], left[video, time], ink[video], clear[video])
