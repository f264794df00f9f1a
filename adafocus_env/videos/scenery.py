"""``Scenery``: panning textures, tinted sprites of real images and distractors, for the embedded benchmarks."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adafocus_env.random_draws import integers, uniform
from adafocus_env.videos.dataset import SPLITS, check_indices

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FINAL = "final"
"""The test videos of the published record, which the embedded benchmarks alone have. They share nothing with the other
splits, and are looked at once, when everything has been chosen."""
DEFAULT_NUM_VIDEOS = {"recognizer": 40_000, "train": 6_000, "val": 1_000, "test": 5_000, FINAL: 5_000}
EMBEDDED_SPLITS = (*SPLITS, FINAL)
"""Splits of the embedded benchmarks; each draws from random streams of its own, by its place here."""

ITEM_SIZE = 28
"""Height and width of a source image, pixels."""
TEXTURES_VERSION = 1
_BLOCK = 4
_TEXTURES = 24
_TEXTURE_SIZE = 256
_POOL_FILE = Path(__file__).parent / "data" / "fashion_mnist.npz"


class Scenery:
    """Draws backgrounds and sprites; each benchmark defines how its sprites move and what the label is.

    A video is a pure function of ``(split, index, seed)`` and of the arguments. Splits share no source image and no
    texture. Sprite 0 is the item, the others are distractors: other images, whose 4×4 blocks were shuffled.

    Args:
        split: ``"recognizer"`` (stages 0 and 1), ``"train"`` (stages 2 and 3), ``"val"``, ``"test"``, or ``"final"``:
            test videos that are looked at once, for the published record.
        seed: Seed of the benchmark.
        num_videos: Number of videos; ``None`` takes 40,000, 6,000, 1,000, 5,000 or 5,000, in the order of the splits
            above.
        frame_size: Height and width of a frame, pixels.
        least_frame_size: Smallest frame that fits a sprite, pixels.
        num_distractors: Distractors per video.
        root: Folder that holds ``FashionMNIST/raw`` (or ``MNIST/raw``) in torchvision's layout, to draw from the full
            data set; ``None`` takes the subset of 27,000 images that ships with the package.
        source: ``"FashionMNIST"`` or ``"MNIST"``; the latter needs ``root``.

    Attributes:
        num_frames: Frames of a video.
        labels: (V,) int64, the class of every video.
        class_names: One name per class.

    Raises:
        ValueError: An argument is out of range.
        FileNotFoundError: ``root`` doesn't hold the data set.
    """

    num_frames: int
    labels: Tensor
    class_names: Sequence[str]
    _pan: Tensor
    """(T,) times of the frames; the background pans by up to 4 pixels per unit of time."""

    def __init__(
        self,
        split: str,
        seed: int,
        num_videos: int | None,
        frame_size: int,
        least_frame_size: int,
        num_distractors: int,
        root: str | Path | None,
        source: str,
    ) -> None:
        if split not in EMBEDDED_SPLITS:
            raise ValueError(f"split must be one of {EMBEDDED_SPLITS}, not {split!r}")
        if split == FINAL and root is not None:
            raise ValueError("the split 'final' is of the shipped images alone: leave root out")
        if num_videos is None:
            num_videos = DEFAULT_NUM_VIDEOS[split]
        for name, value, least in (
            ("num_videos", num_videos, 1),
            ("frame_size", frame_size, least_frame_size),
            ("num_distractors", num_distractors, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if frame_size >= _TEXTURE_SIZE:
            raise ValueError(f"frame_size must be below {_TEXTURE_SIZE}, not {frame_size}")
        if source not in ("FashionMNIST", "MNIST"):
            raise ValueError(f"source must be 'FashionMNIST' or 'MNIST', not {source!r}")
        if source == "MNIST" and root is None:
            raise ValueError("source='MNIST' needs root, a folder that holds MNIST/raw: only Fashion-MNIST is shipped")
        self.split = split
        self.seed = seed
        self.frame_size = (frame_size, frame_size)
        self.num_distractors = num_distractors
        self._stream = EMBEDDED_SPLITS.index(split)
        self._pool = root if root is None else Path(root), source
        self._open_pool()
        self._item = torch.from_numpy(integers(len(self._images), seed, self._stream, torch.arange(num_videos), 0))

    def _open_pool(self) -> None:
        root, source = self._pool
        self._images, self._image_labels, self._pool_fingerprint = (
            _shipped_pool(self.split) if root is None else _full_pool(self.split, root, source)
        )
        self._textures = _textures(self.seed, self.split)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out images and textures (30 MB), which a copy gets from where the original did."""
        return {
            name: value for name, value in vars(self).items() if name not in ("_images", "_image_labels", "_textures")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        fingerprint = state["_pool_fingerprint"]
        vars(self).update(state)
        self._open_pool()
        if self._pool_fingerprint != fingerprint:
            raise ValueError(f"{self._pool[0]} holds other images than when this data set was pickled")

    def __len__(self) -> int:
        return len(self._item)

    @property
    def source_images(self) -> Tensor:
        """(V,) int64, the number of each video's item in the split's pool; videos of one item are no independent draws
        in a test of significance."""
        return self._item

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
        canvas = self._background(indices, self._pan)
        for sprite in range(self.num_distractors, -1, -1):  # the item is sprite 0, on top of the others
            self._paste(canvas, indices, sprite)
        return self._frames_of(canvas)

    @abstractmethod
    def _paste(self, canvas: Tensor, indices: Tensor, sprite: int) -> None:
        """Blend one sprite into the frames of a canvas that show it, in place."""

    def _fingerprint(self, settings: Sequence[object]) -> str:
        """Hash of the settings that determine the pixels, and of the image pool."""
        return hashlib.sha256(repr((tuple(settings), self._pool_fingerprint)).encode()).hexdigest()

    def _draw(self, indices: Tensor, sprite: int, count: int) -> Tensor:
        """(B, count) uniform numbers of one sprite (the item is 0, the background −1)."""
        return self._uniform(indices, sprite, torch.arange(count))

    def _uniform(self, indices: Tensor, sprite: int, number: Tensor) -> Tensor:
        return torch.from_numpy(uniform(self.seed, self._stream, indices[:, None], sprite + 2, number))

    def _background(self, indices: Tensor, time: Tensor) -> Tensor:
        """(B, T, H, W) int32, a window panning over a texture by up to 4 pixels per unit of the (T,) times. A pixel is
        four bytes: red, green, blue, unused."""
        texture, top, left, speed, angle = self._draw(indices, -1, 5).unbind(-1)
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

    def _shades(self, indices: Tensor, sprite: int) -> Tensor:
        """(B, 28, 28) uint8 grey levels of one sprite."""
        if sprite == 0:
            return self._images[self._item[indices]]
        others = integers(len(self._images), self.seed, self._stream, indices, sprite + 2, 100)
        return self._shuffle_blocks(self._images[torch.from_numpy(others)], indices, sprite)

    def _ink(self, level: Tensor, colour: Tensor, presence: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """What a sprite adds to the pixels behind it, and how much of them it lets through, in 256ths.

        Args:
            level: (…, s, s) in [0, 1], grey levels; black is transparent.
            colour: (…, 3) in [0, 1], broadcast against ``level``'s leading axes.
            presence: Opacity of the whole sprite, broadcast against ``level``.

        Returns:
            (…, s, s, 4) and (…, s, s, 1) int32.
        """
        opacity = ((level * 4).clamp_(max=1) * presence)[..., None]
        colour = nn.functional.pad(colour, (0, 1))[..., None, None, :]  # the fourth byte of a pixel is not used
        ink = (opacity * colour).mul_((0.25 + 0.75 * level)[..., None]).mul_(256 * 255)
        return ink.to(torch.int32), (256 * (1 - opacity)).to(torch.int32)

    def _blend(self, canvas: Tensor, frame: Tensor, top: Tensor, left: Tensor, ink: Tensor, clear: Tensor) -> None:
        """Blend sprites into frames of a canvas, in place.

        Args:
            canvas: (B, T, H, W) int32, as :meth:`_background` returns it.
            frame: (n,) int64, counted through the canvas.
            top: (n,) int64, pixels.
            left: (n,) int64, pixels.
            ink: (n, s, s, 4), as :meth:`_ink` returns it.
            clear: (n, s, s, 1).
        """
        (height, width), size = self.frame_size, ink.shape[1]
        corner = (frame * height + top) * width + left
        offset = torch.arange(size)[:, None] * width + torch.arange(size)
        pixels = (corner[:, None] + offset.flatten()).flatten()
        flat = canvas.view(-1)
        behind = flat[pixels].view(torch.uint8).view(len(frame), size, size, 4)
        mixed = (behind * clear).add_(ink).bitwise_right_shift_(8)
        flat[pixels] = mixed.to(torch.uint8).view(torch.int32).flatten()

    @staticmethod
    def _frames_of(canvas: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8 RGB of a canvas, stored with the channels last."""
        return canvas.view(torch.uint8).unflatten(-1, (-1, 4))[..., :3].permute(0, 1, 4, 2, 3)

    def _tint(self, indices: Tensor, sprite: int) -> Tensor:
        """A bright random colour, (B, 3) float32 in [0, 1]."""
        colour = self._uniform(indices, sprite, torch.arange(200, 203)).float()
        return 0.45 + 0.55 * colour / colour.amax(dim=1, keepdim=True).clamp(min=1e-3)

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
    """The same from the full data set: its test file is ``test``, its training file is divided among the others."""
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
    random = np.random.default_rng((seed, EMBEDDED_SPLITS.index(split), TEXTURES_VERSION))
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
