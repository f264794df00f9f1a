"""The random draws of episodes: which video each lane shows, and the random patches that rewards compare with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adafocus_env.environments.lane_progress import BoolArray
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.patches import random_corners
from adafocus_env.random_draws import as_integers, uniform

_VIDEO_STREAM, _CANDIDATE_STREAM, _TOP_STREAM, _LEFT_STREAM = range(4)


class Episodes:
    """Seeds of lanes, numbers of their episodes, and what is drawn for each: a function of (seed, episode, step).

    Args:
        num_envs: B, lanes.
        features: Whose videos and candidates are drawn.
        num_steps: T, steps of an episode.
        baseline: ``"sample"`` or ``"pixel"``, what random patches are drawn from; ``None`` draws none.

    Attributes:
        seeded: Whether the lanes have seeds yet.
    """

    def __init__(self, num_envs: int, features: FrozenFeatures, num_steps: int, baseline: str | None) -> None:
        self._num_steps, self._baseline = num_steps, baseline
        self._num_videos, self._num_patches = len(features.videos), len(features.corners)
        self._sizes = features.videos.frame_size, features.recognizer.config.patch_size
        self._seeds = np.zeros(num_envs, dtype=np.int64)
        self._numbers = np.zeros_like(self._seeds)
        self.seeded = False
        # The stream and the step of every number that an episode draws.
        streams = {"sample": [_CANDIDATE_STREAM], "pixel": [_TOP_STREAM, _LEFT_STREAM]}.get(baseline or "", [])
        self._streams = np.concatenate(([_VIDEO_STREAM], np.repeat(streams, self._num_steps))).astype(np.int64)
        self._steps = np.concatenate(([0], np.tile(np.arange(self._num_steps), len(streams)))).astype(np.int64)

    def seed(self, seeds: list[int | None] | None, lanes: BoolArray, generator: np.random.Generator) -> None:
        """Seed lanes; their next episode is number 0.

        Args:
            seeds: One per lane, of which those of ``lanes`` count; ``None`` keeps a lane's seed, and its next episode
                is the one after the current episode. Lanes that have no seed yet get random ones.
            lanes: (B,) bool.
            generator: Draws random seeds.
        """
        if not self.seeded:
            self._seeds = generator.integers(2**31, size=len(self._seeds))
            self._numbers = np.full_like(self._numbers, -1)
            self.seeded = True
        if seeds is not None:
            given = lanes & np.array([seed is not None for seed in seeds])
            self._seeds = np.where(given, [seed or 0 for seed in seeds], self._seeds)
            self._numbers = np.where(given, -1, self._numbers)

    def start(self, lanes: BoolArray) -> tuple[NDArray[np.int64], Tensor | None]:
        """Go on to the next episode in ``lanes``, (B,) bool.

        Returns:
            For every lane, (B,) the video; and the random patches of all T steps, (B, T) int64 patch indices or
            (B, T, 2) int64 top-left corners, or ``None`` if none are drawn.
        """
        self._numbers = self._numbers + lanes
        draws = uniform(self._seeds[:, None], self._numbers[:, None], self._streams, self._steps)
        return as_integers(draws[:, 0], self._num_videos), self._patches(draws[:, 1:])

    def _patches(self, draws: NDArray[np.float64]) -> Tensor | None:
        if self._baseline == "sample":
            return torch.from_numpy(as_integers(draws, self._num_patches))
        if self._baseline is None:
            return None
        # First every step's draw for the top, then every step's for the left.
        places = draws.reshape(len(draws), 2, self._num_steps).swapaxes(1, 2)
        return random_corners(*self._sizes, torch.from_numpy(places))
