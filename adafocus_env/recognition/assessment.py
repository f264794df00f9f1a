"""Accuracies of a recogniser on patches that need no policy: the criteria of the embedded benchmarks."""

from __future__ import annotations

from typing import Any

import torch

from adafocus_env.patches import best_candidate, grid_corners
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.training import patch_accuracy
from adafocus_env.videos.dataset import LocatedVideos, VideoDataset


def reference_accuracies(
    recognizer: ImageNetworks[Any], videos: VideoDataset, *, grid: int = 7, looks: int = 1, seed: int = 0
) -> dict[str, float]:
    """Accuracy after the last step, in percent, for a few ways to choose patches.

    Args:
        recognizer: In evaluation mode.
        videos: A split that was not trained on.
        grid: g of the candidates.
        looks: Patches of each unit.
        seed: Seed of the random patches.

    Returns:
        ``glances_only`` (zero local vectors), ``random``, ``center`` and, if the videos know where the item is,
        ``true_location`` (the candidate that shows most of it; a random one in frames without it).
    """
    units = recognizer.num_steps(videos.num_frames)
    shape = (len(videos), units * looks)
    corners = grid_corners(grid, videos.frame_size, recognizer.config.patch_size)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(len(corners), shape, generator=generator)
    center = torch.full(shape, (grid - 1) // 2 * (grid + 1))
    chosen = {"random": random, "center": center}
    if isinstance(videos, LocatedVideos):
        found = (part[:, :units] for part in videos.locations(torch.arange(len(videos))))
        boxes, visible = (part.repeat_interleave(looks, dim=1) for part in found)
        best = best_candidate(corners, recognizer.config.patch_size, boxes)
        chosen["true_location"] = torch.where(visible, best, random)

    def accuracy(candidate: torch.Tensor, *, blank: bool = False) -> float:
        return 100 * patch_accuracy(recognizer, videos, corners[candidate], blank=blank)

    return {name: accuracy(candidate) for name, candidate in chosen.items()} | {
        "glances_only": accuracy(center, blank=True)
    }
