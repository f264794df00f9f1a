"""``RoamingFashion``: the embedded benchmark, procedural videos of real images.

One Fashion-MNIST item, tinted, drifts through a larger textured and panning scene, among distractors that have the
same colours, sizes and local texture but no class: items whose 4×4 blocks were shuffled. The item is in the picture in
part of the frames only. The label is the item's class, so a recogniser has to find the item and look at it closely.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adafocus_env.random_draws import integers, uniform
from adafocus_env.videos.dataset import SPLITS, check_indices

VERSION = 1
"""Version of the pixels. Any change to them, or to the image pool, must raise it."""

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEFAULT_NUM_VIDEOS = {"recognizer": 40_000, "train": 6_000, "val": 1_000, "test": 5_000}

ITEM_SIZE = 28
_BLOCK = 4
_TEXTURES = 24
_TEXTURE_SIZE = 256
_POOL_FILE = Path(__file__).parent / "data" / "fashion_mnist.npz"


class RoamingFashion:
    """One split of the benchmark: a finite, indexable list of videos that are drawn when asked for.

    A video is a pure function of ``(split, index, seed)`` and of the arguments below; nothing is stored. The splits
    share no source image and no background texture.

    Args:
        split: ``"recognizer"`` (stages 0 and 1), ``"train"`` (stages 2 and 3), ``"val"`` or ``"test"``.
        seed: Seed of the benchmark. The shipped recogniser and policies are for seed 0.
        num_videos: Number of videos; ``None`` takes 40,000, 6,000, 1,000 or 5,000, in the order of the splits above.
        num_frames: T, frames per video.
        frame_size: Height and width of a frame, pixels.
        num_distractors: Distractors per video, each visible in part of the frames.
        visible_fraction: Mean fraction of the frames in which the item is in the picture, in (0, 1].
        root: Folder that holds ``FashionMNIST/raw`` (or ``MNIST/raw``) in torchvision's layout, to draw from the full
            data set; ``None`` takes the subset of 24,000 images that ships with the package.
        source: ``"FashionMNIST"`` or ``"MNIST"``; the latter needs ``root``.

    Attributes:
        labels: (V,) int64, the class of every video.
        class_names: One name per class.

    Raises:
        ValueError: An argument is out of range.
        FileNotFoundError: ``root`` doesn't hold the data set.
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
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
        if num_videos is None:
            num_videos = DEFAULT_NUM_VIDEOS[split]
        for name, value, least in (
            ("num_videos", num_videos, 1),
            ("num_frames", num_frames, 1),
            ("frame_size", frame_size, ITEM_SIZE + 1),
            ("num_distractors", num_distractors, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if frame_size >= _TEXTURE_SIZE:
            raise ValueError(f"frame_size must be below {_TEXTURE_SIZE}, not {frame_size}")
        if not 0 < visible_fraction <= 1:
            raise ValueError(f"visible_fraction must be in (0, 1], not {visible_fraction}")
        if source not in ("FashionMNIST", "MNIST"):
            raise ValueError(f"source must be 'FashionMNIST' or 'MNIST', not {source!r}")
        if source == "MNIST" and root is None:
            raise ValueError("source='MNIST' needs root, a folder that holds MNIST/raw: only Fashion-MNIST is shipped")
        self.split = split
        self.seed = seed
        self.num_frames = num_frames
        self.frame_size = (frame_size, frame_size)
        self.num_distractors = num_distractors
        self.visible_fraction = visible_fraction
        self.class_names: Sequence[str] = CLASSES if source == "FashionMNIST" else tuple("0123456789")
        self.num_classes = len(self.class_names)
        self._stream = SPLITS.index(split)
        self._images, image_labels, pool_fingerprint = (
            _shipped_pool(split) if root is None else _full_pool(split, Path(root), source)
        )
        self._textures = _textures(seed, split)
        video = torch.arange(num_videos)
        self._item = torch.from_numpy(integers(len(self._images), seed, self._stream, video, 0))
        self.labels = image_labels[self._item]
        settings = (VERSION, split, seed, num_videos, num_frames, frame_size, num_distractors, visible_fraction)
        self.fingerprint = hashlib.sha256(repr((settings, pool_fingerprint)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def frames(self, indices: Tensor) -> Tensor:
        """Draw videos.

        Args:
            indices: (B,) int64 indices of videos.

        Returns:
            (B, T, 3, H, W) uint8 RGB on the CPU, stored with the channels last.

        Raises:
            IndexError: An index is outside {0, …, V − 1}.
        """
        indices = check_indices(indices, len(self))
        canvas = self._background(indices)
        for sprite in range(self.num_distractors, -1, -1):  # the item is sprite 0, on top of the others
            self._paste(canvas, indices, sprite)
        return canvas.view(torch.uint8).unflatten(-1, (-1, 4))[..., :3].permute(0, 1, 4, 2, 3)

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Where the item is: ground truth for the oracle policy and for pictures, never shown to a learner.

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

    def _draw(self, indices: Tensor, sprite: int, count: int) -> Tensor:
        """(B, count) uniform numbers of one sprite (the item is 0, the background −1)."""
        return self._uniform(indices, sprite, torch.arange(count))

    def _uniform(self, indices: Tensor, sprite: int, number: Tensor) -> Tensor:
        return torch.from_numpy(uniform(self.seed, self._stream, indices[:, None], sprite + 2, number))

    def _background(self, indices: Tensor) -> Tensor:
        """(B, T, H, W) int32, a window panning over a texture; a pixel is four bytes: red, green, blue, unused."""
        texture, top, left, speed, angle = self._draw(indices, -1, 5).unbind(-1)
        time = torch.arange(self.num_frames)
        distance = (4 * speed)[:, None] * time
        tops = (top[:, None] * _TEXTURE_SIZE + distance * torch.sin(2 * torch.pi * angle)[:, None]).round().long()
        lefts = (left[:, None] * _TEXTURE_SIZE + distance * torch.cos(2 * torch.pi * angle)[:, None]).round().long()
        height, width = self.frame_size
        windows = self._textures.as_strided(
            (_TEXTURES, _TEXTURE_SIZE, _TEXTURE_SIZE, height, width),
            (self._textures.stride(0), self._textures.stride(1), 1, self._textures.stride(1), 1),
        )
        chosen = (texture * _TEXTURES).long()[:, None]
        return windows[chosen, tops % _TEXTURE_SIZE, lefts % _TEXTURE_SIZE]

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
        if sprite == 0:
            shade = self._images[self._item[indices]]
        else:
            others = integers(len(self._images), self.seed, self._stream, indices, sprite + 2, 100)
            shade = self._shuffle_blocks(self._images[torch.from_numpy(others)], indices, sprite)
        level = shade.to(torch.float32) / 255
        red, green, blue = self._tint(indices, sprite)
        colour = torch.stack((red, green, blue), dim=-1)[:, None, None, :]
        opacity = (level * 4).clamp(max=1)[..., None]
        ink = torch.cat((opacity * colour * (0.25 + 0.75 * level[..., None]), torch.zeros_like(opacity)), dim=-1)
        ink = (256 * 255 * ink).to(torch.int32)
        clear = (256 * (1 - opacity)).to(torch.int32)

        video, time = visible.nonzero(as_tuple=True)
        height, width = self.frame_size
        corner = ((video * self.num_frames + time) * height + top[video, time]) * width + left[video, time]
        offset = torch.arange(ITEM_SIZE)[:, None] * width + torch.arange(ITEM_SIZE)
        pixels = (corner[:, None] + offset.flatten()).flatten()
        flat = canvas.view(-1)
        behind = flat[pixels].view(torch.uint8).view(len(video), ITEM_SIZE, ITEM_SIZE, 4)
        mixed = (behind * clear[video] + ink[video]) >> 8
        flat[pixels] = mixed.to(torch.uint8).view(torch.int32).flatten()

    def _tint(self, indices: Tensor, sprite: int) -> tuple[Tensor, Tensor, Tensor]:
        """A bright random colour: red, green and blue, each (B,) float32 in [0, 1]."""
        colour = self._uniform(indices, sprite, torch.arange(200, 203)).float()
        colour = 0.45 + 0.55 * colour / colour.amax(dim=1, keepdim=True).clamp(min=1e-3)
        red, green, blue = colour.unbind(-1)
        return red, green, blue

    def _shuffle_blocks(self, images: Tensor, indices: Tensor, sprite: int) -> Tensor:
        """Images, (B, 28, 28), with their 4×4 blocks in random order: the same local statistics, no class."""
        side = ITEM_SIZE // _BLOCK
        order = self._uniform(indices, sprite, torch.arange(300, 300 + side * side))
        blocks = images.unflatten(2, (side, _BLOCK)).unflatten(1, (side, _BLOCK)).transpose(2, 3).flatten(1, 2)
        blocks = blocks[torch.arange(len(images))[:, None], order.argsort(dim=1)]
        return blocks.unflatten(1, (side, side)).transpose(2, 3).reshape(-1, ITEM_SIZE, ITEM_SIZE)


@cache
def _shipped_pool(split: str) -> tuple[Tensor, Tensor, str]:
    """Images (n, 28, 28) uint8, labels (n,) int64 and a name for the fingerprint, of one split's own pool."""
    with np.load(_POOL_FILE) as file:
        levels, labels = file[f"{split}_images"], file[f"{split}_labels"]
    images = (levels.astype(np.uint16) * 255 // 31).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), "shipped"


@lru_cache(maxsize=8)
def _full_pool(split: str, root: Path, source: str) -> tuple[Tensor, Tensor, str]:
    """The same from the full data set: its test file is ``test``, its training file is dealt to the other splits."""
    from torchvision import datasets

    raw = root / source / "raw"
    if not raw.is_dir():
        raise FileNotFoundError(f"root must hold {source}/raw with the data set's IDX files; {raw} is not a folder")
    dataset = getattr(datasets, source)(root, train=split != "test", download=False)
    images, labels = dataset.data, dataset.targets
    if split != "test":
        # Of every ten training images six train the recogniser, three the policies and one is for validation.
        share = torch.arange(len(images)) % 10
        mine = {"recognizer": share < 6, "train": (share >= 6) & (share < 9), "val": share == 9}[split]
        images, labels = images[mine], labels[mine]
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return images, labels.long(), f"{source} {digest}"


@lru_cache(maxsize=8)
def _textures(seed: int, split: str) -> Tensor:
    """(24, 512, 512) int32 background textures, pixels packed as in the frames: coloured 1/f noise that tiles.

    Each texture is repeated twice in both directions, so that a window never has to wrap around.
    """
    random = np.random.default_rng((seed, SPLITS.index(split), VERSION))
    frequency = np.hypot(np.fft.fftfreq(_TEXTURE_SIZE)[:, None], np.fft.rfftfreq(_TEXTURE_SIZE))
    frequency[0, 0] = np.inf
    noise = random.standard_normal((_TEXTURES, 3, _TEXTURE_SIZE, _TEXTURE_SIZE))
    noise = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(_TEXTURE_SIZE, _TEXTURE_SIZE))
    noise /= noise.std(axis=(2, 3), keepdims=True)
    common = noise[:, :1] * 0.8 + noise * 0.6  # mostly grey, partly coloured
    mean = random.uniform(70, 150, (_TEXTURES, 3, 1, 1))
    pixels = np.clip(mean + 38 * common, 0, 255).astype(np.uint8)
    pixels = np.concatenate((pixels, np.zeros_like(pixels[:, :1])), axis=1)
    tiled = np.tile(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).view(np.int32)[..., 0], (1, 2, 2))
    return torch.from_numpy(tiled)
