"""How accurate a recogniser is on patches that need no policy: the criteria of the embedded benchmark."""

from __future__ import annotations

import torch

from adafocus_env.patches import best_candidate, grid_corners
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.training import LocatedVideos, patch_accuracy
from adafocus_env.videos.dataset import VideoDataset


def reference_accuracies(
    recognizer: Recognizer, videos: VideoDataset, *, grid: int = 7, seed: int = 0
) -> dict[str, float]:
    """Accuracy after the last frame, in percent, of a few ways to look.

    Args:
        recognizer: In evaluation mode.
        videos: A split that was not trained on.
        grid: g of the candidates.
        seed: Seed of the random patches.

    Returns:
        ``glances_only`` (zero local vectors), ``random``, ``center`` and, if the videos know it, ``true_location`` (the
        candidate that shows most of the item; a random one in frames without it).
    """
    shape = (len(videos), videos.num_frames)
    corners = grid_corners(grid, videos.frame_size, recognizer.config.patch_size)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(len(corners), shape, generator=generator)
    center = torch.full(shape, (grid - 1) // 2 * (grid + 1))
    looks = {"random": random, "center": center}
    if isinstance(videos, LocatedVideos):
        boxes, visible = videos.locations(torch.arange(len(videos)))
        best = best_candidate(corners, recognizer.config.patch_size, boxes)
        looks["true_location"] = torch.where(visible, best, random)
    found = {name: 100 * patch_accuracy(recognizer, videos, corners[candidate]) for name, candidate in looks.items()}
    found["glances_only"] = 100 * patch_accuracy(recognizer, videos, corners[center], blank=True)
    return found
