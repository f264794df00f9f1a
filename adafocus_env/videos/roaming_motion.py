"""``RoamingMotion``: the embedded benchmark in which the label depends on temporal order.

The scenery is that of ``RoamingFashion``, but the class is what the item *does*: it moves left or right, moves up or
down, approaches or recedes, turns one way or the other, appears or disappears. The two motions of a pair
are each other played backwards, so a recogniser that is blind to the order of frames is right at most half of the time.
The item stays near one place and moves by a few pixels. The distractors move too, each in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from adafocus_env.random_draws import integers
from adafocus_env.videos.dataset import check_indices
from adafocus_env.videos.scenery import Scenery

VERSION = 1
"""Version of the pixels. Any change to them, or to the image pool, must raise it."""

MOTIONS = (
    "moves left", "moves right", "moves up", "moves down", "approaches", "recedes", "turns clockwise",
    "turns counter-clockwise", "appears", "disappears",
)  # fmt: skip
"""The classes; each class with an odd number is the one before it, played backwards."""

NUM_TRAIN_VIDEOS = 20_000
"""A clip gives one decision, a video of ``RoamingFashion`` eight, so policies need more clips to generalise."""
STAGE_SIZE = 32
"""Height and width of the square that an item never leaves, pixels."""
_TRAVEL = 12.0  # pixels, of moving items
_ZOOM = 0.8  # natural logarithm of the ratio of sizes, of items that approach or recede
_TURN = 2.0  # radians, of items that turn
_PAN = 4.0  # the background's time, so that it pans by up to 16 pixels


class RoamingMotion(Scenery):
    """One split of the benchmark: a finite, indexable list of clips that are drawn on request.

    A clip is a pure function of ``(split, index, seed)`` and of the arguments; nothing is stored. Its frames are those
    of one sampling, then those of the other. The other arguments, the attributes and the errors are those
    of :class:`~adafocus_env.videos.scenery.Scenery`. The shipped recogniser and policies are for seed 0.

    Args:
        num_videos: Number of clips; ``None`` takes 40,000, 20,000, 1,000, 5,000 or 5,000, in the order of the splits.
        samplings: How many frames each sampling of a clip has: one for f_G, one for f_L.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        seed: int = 0,
        num_videos: int | None = None,
        samplings: Sequence[int] = (4, 6),
        frame_size: int = 112,
        num_distractors: int = 3,
        root: str | Path | None = None,
        source: str = "FashionMNIST",
    ) -> None:
        if num_videos is None and split == "train":
            num_videos = NUM_TRAIN_VIDEOS
        super().__init__(split, seed, num_videos, frame_size, STAGE_SIZE, num_distractors, root, source)
        if not samplings or min(samplings) < 1:
            raise ValueError(f"samplings must be numbers of frames of at least 1, not {samplings}")
        self.samplings = tuple(samplings)
        self.num_frames = sum(samplings)
        self.class_names: Sequence[str] = MOTIONS
        self.num_classes = len(MOTIONS)
        self.labels = torch.from_numpy(integers(len(MOTIONS), seed, self._stream, torch.arange(len(self)), 1))
        # The middles of equal parts of the clip, which lasts from 0 to 1.
        self._times = torch.cat([(torch.arange(count) + 0.5) / count for count in self.samplings])
        self._pan = _PAN * self._times
        self.fingerprint = self._fingerprint(
            ("motion", VERSION, split, seed, len(self), self.samplings, frame_size, num_distractors)
        )

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Where the item is: the ground truth for the oracle policy and for pictures, never shown to a learner.

        Args:
            indices: (B,) int64 indices of clips.

        Returns:
            Boxes, (B, num_frames, 4) int64 top, left, height, width, in pixels, of the square that the item never
            leaves, the same in all frames; and whether it is visible, (B, num_frames) bool, True everywhere.
        """
        indices = check_indices(indices, len(self))
        top, left = self._corner(indices, sprite=0).unbind(-1)
        size = torch.full_like(top, STAGE_SIZE)
        boxes = torch.stack((top, left, size, size), dim=-1)[:, None].expand(-1, self.num_frames, -1)
        return boxes, torch.ones(boxes.shape[:2], dtype=torch.bool)

    def _corner(self, indices: Tensor, sprite: int) -> Tensor:
        """(B, 2) int64, top and left of the square that a sprite stays in."""
        room = torch.tensor(self.frame_size) - STAGE_SIZE + 1
        return (self._uniform(indices, sprite, torch.arange(400, 402)) * room).long()

    def _motions(self, indices: Tensor, sprite: int) -> Tensor:
        """(B,) int64, the motion of a sprite; a distractor's motion differs from the item's."""
        if sprite == 0:
            return self.labels[indices]
        other = self._uniform(indices, sprite, torch.tensor([402]))[:, 0] * (len(MOTIONS) - 1)
        return (self.labels[indices] + 1 + other.long()) % len(MOTIONS)

    def _poses(self, indices: Tensor, sprite: int) -> tuple[Tensor, Tensor, Tensor]:
        """The pose of a sprite in every frame, relative to the centre of its square.

        Returns:
            Shift down and right, (B, num_frames, 2), pixels; the matrix from directions in the square to directions in
            the image, (B, num_frames, 2, 2); opacity, (B, num_frames).
        """
        size, lean, pace, onset = self._draw(indices, sprite, 4).float().unbind(-1)
        motion = self._motions(indices, sprite)
        forwards = (motion % 2 == 0)[:, None]
        phase = torch.where(forwards, self._times, 1 - self._times) - 0.5  # a pair differs in nothing but this
        extent = (0.7 + 0.3 * pace)[:, None] * phase

        def where(pair: int, value: Tensor) -> Tensor:
            return torch.where((motion // 2 == pair)[:, None], value, 0.0)

        shift = torch.stack((where(1, -_TRAVEL * extent), where(0, -_TRAVEL * extent)), dim=-1)
        scale = (0.68 + 0.06 * size)[:, None] * where(2, _ZOOM * extent).exp()
        angle = (0.6 * (lean - 0.5))[:, None] + where(3, _TURN * extent)
        turned = torch.stack((angle.cos(), angle.sin(), -angle.sin(), angle.cos()), dim=-1).unflatten(-1, (2, 2))
        shown = ((phase - 0.5 * (onset - 0.5)[:, None]) / 0.2 + 0.5).clamp(0, 1)
        opacity = torch.where((motion // 2 == 4)[:, None], shown, 1.0)
        return shift, turned / scale[..., None, None], opacity

    def _paste(self, canvas: Tensor, indices: Tensor, sprite: int) -> None:
        """Blend one sprite into every frame, in place."""
        shift, matrix, opacity = (part.flatten(0, 1) for part in self._poses(indices, sprite))
        shades = self._shades(indices, sprite).to(torch.float32) / 255
        half, image_half = STAGE_SIZE / 2, shades.shape[-1] / 2
        place = torch.arange(STAGE_SIZE) + 0.5 - half
        right = place - shift[:, 1:]  # (n, s), of every column
        down = place - shift[:, :1]
        x = (matrix[:, 0, 0, None] * right)[:, None, :] + (matrix[:, 0, 1, None] * down)[:, :, None]
        y = (matrix[:, 1, 0, None] * right)[:, None, :] + (matrix[:, 1, 1, None] * down)[:, :, None]
        source = torch.stack((x, y), dim=-1) / image_half
        images = shades.repeat_interleave(self.num_frames, dim=0)[:, None]
        level = nn.functional.grid_sample(images, source, align_corners=False)[:, 0].clamp(0, 1)
        colour = self._tint(indices, sprite).repeat_interleave(self.num_frames, dim=0)
        ink, clear = self._ink(level, colour, opacity[:, None, None])
        top, left = self._corner(indices, sprite).repeat_interleave(self.num_frames, dim=0).unbind(-1)
        self._blend(canvas, torch.arange(len(level)), top, left, ink, clear)
