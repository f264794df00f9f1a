"""The random draws of episodes: which video each lane shows, the random patches that rewards compare with, prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adafocus_env.environments.lane_progress import BoolArray
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.patches import random_corners
from adafocus_env.prices import drawn_prices
from adafocus_env.random_draws import as_integers, uniform

_VIDEO_STREAM, _CANDIDATE_STREAM, _TOP_STREAM, _LEFT_STREAM, *_PRICE_STREAMS = range(6)


class Drawn(NamedTuple):
    """What was drawn for the episodes of B lanes."""

    video: NDArray[np.int64]
    """(B,)."""
    patches: Tensor | None
    """The random patches of all T steps, (B, T) int64 patch indices or (B, T, 2) int64 top-left corners; ``None`` if
    none are drawn."""
    prices: NDArray[np.float64]
    """(B, k), (B, 0) if all prices are fixed."""


class Episodes:
    """Seeds of lanes, numbers of their episodes, and what is drawn for each: a function of (seed, episode, step).

    Args:
        num_envs: B, lanes.
        features: Whose videos and candidates are drawn.
        num_steps: T, steps of an episode.
        baseline: ``"sample"`` or ``"pixel"``, what random patches are drawn from; ``None`` draws none.
        price_ranges: The lowest and the highest of each of k prices.

    Attributes:
        seeded: Whether the lanes have seeds yet.
    """

    def __init__(
        self,
        num_envs: int,
        features: FrozenFeatures,
        num_steps: int,
        baseline: str | None,
        price_ranges: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._num_steps, self._baseline, self._price_ranges = num_steps, baseline, price_ranges
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

    def start(self, lanes: BoolArray) -> Drawn:
        """Go on to the next episode in ``lanes``, (B,) bool, and say what is drawn for the episodes of all lanes."""
        self._numbers = self._numbers + lanes
        draws = uniform(self._seeds[:, None], self._numbers[:, None], self._streams, self._steps)
        return Drawn(as_integers(draws[:, 0], self._num_videos), self._patches(draws[:, 1:]), self._prices())

    def _prices(self) -> NDArray[np.float64]:
        prices = np.empty((len(self._seeds), len(self._price_ranges)))
        for number, (stream, limits) in enumerate(zip(_PRICE_STREAMS, self._price_ranges, strict=False)):
            prices[:, number] = drawn_prices(uniform(self._seeds, self._numbers, stream, 0), *limits)
        return prices

    def _patches(self, draws: NDArray[np.float64]) -> Tensor | None:
        if self._baseline == "sample":
            return torch.from_numpy(as_integers(draws, self._num_patches))
        if self._baseline is None:
            return None
        # First every step's draw for the top, then every step's for the left.
        places = draws.reshape(len(draws), 2, self._num_steps).swapaxes(1, 2)
        return random_corners(*self._sizes, torch.from_numpy(places))
