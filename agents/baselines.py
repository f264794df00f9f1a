"""Policies that learn nothing: random, centre, Gaussian (paper, Sec. 4.3), scheduled, and the oracle."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from adafocus_env.patches import best_candidate, centered_corners, corner_positions, grid_of


class Baseline:
    """SB3's ``predict`` around a rule that picks patches, or positions if actions are continuous. It learns nothing.

    Args:
        env: A single or vector AdaFocus environment.
        seed: Seed of the policy's own draws.

    Attributes:
        bound: Whether it reads the state of the environment that it was made with, and so can only act there.

    Raises:
        ValueError: Actions are neither patches nor positions.
    """

    bound: ClassVar[bool] = False
    takes_tensors: ClassVar[bool] = True  # only their number is looked at

    def __init__(self, env: Any, *, seed: int = 0) -> None:
        self.env = env.unwrapped
        self.observation_space = getattr(env, "single_observation_space", env.observation_space)
        self.action_space = getattr(env, "single_action_space", env.action_space)
        self._continuous = isinstance(self.action_space, spaces.Box)
        grid = self.env.grid if self._continuous else grid_of(self.action_space)
        if grid is None:
            raise ValueError(f"{type(self).__name__} needs patches as actions, not {self.action_space}")
        self.grid = grid
        self._random = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[Any], Any]:
        """Choose actions for a batch of observations, or for one. Only their number is looked at.

        Returns:
            (B,) or () int64 patch indices, (B, 2) or (2,) int64 with the skip bit, or (B, 2) or (2,) float32 positions;
            and ``state`` as it was given.
        """
        glance = observation["glance"] if isinstance(observation, Mapping) else observation
        single = glance.ndim == 3
        count = 1 if single else len(glance)
        action: npt.NDArray[Any]
        if self._continuous:
            action = (2 * self._places(count) - 1).astype(np.float32)
        else:
            patch, skip = self._choose(count)
            action = np.stack((patch, skip), axis=1) if isinstance(self.action_space, spaces.MultiDiscrete) else patch
        return (action[0] if single else action), state

    def _places(self, count: int) -> npt.NDArray[np.float64]:
        """Continuous positions, (count, 2) in [0, 1]."""
        raise NotImplementedError

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Patch indices and skip bits, each (count,)."""
        raise NotImplementedError


def seeded(policy: Any, seed: int) -> Any:
    """A baseline's class, also one of ``load_policy(name, seed)``, with a seed for its draws; any other policy as it
    is."""
    kind = policy.func if isinstance(policy, functools.partial) else policy
    if isinstance(kind, type) and issubclass(kind, Baseline):
        return functools.partial(policy, seed=seed)
    return policy


class RandomPolicy(Baseline):
    """A uniformly random candidate (or position) in every frame; never skips."""

    def _places(self, count: int) -> npt.NDArray[np.float64]:
        return self._random.random((count, 2))

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._random.integers(self.grid**2, size=count), np.zeros(count, dtype=np.int64)


class CenterPolicy(Baseline):
    """The candidate nearest to the centre of the frame, or the centre itself; never skips."""

    def _places(self, count: int) -> npt.NDArray[np.float64]:
        return np.full((count, 2), 0.5)

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        middle = (self.grid - 1) // 2
        return np.full(count, middle * self.grid + middle), np.zeros(count, dtype=np.int64)


class GaussianPolicy(Baseline):
    """A Gaussian around the centre, with a quarter of the grid's side as standard deviation, clipped; never skips."""

    def _places(self, count: int) -> npt.NDArray[np.float64]:
        return np.clip(self._random.normal(0.5, 0.25, (count, 2)), 0, 1)

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        row, column = np.rint(self._places(count) * (self.grid - 1)).astype(np.int64).T
        return row * self.grid + column, np.zeros(count, dtype=np.int64)


class ScheduledPolicy(Baseline):
    """The same candidate in evenly spaced frames; skips all others.

    Args:
        env: A single or vector AdaFocus environment with a skip bit.
        candidate: Index of the candidate.
        frames: Number of frames of a video in which it is looked at.
        seed: Not used.

    Raises:
        ValueError: ``candidate`` or ``frames`` is out of range, or the action has no skip bit.
    """

    bound = True

    def __init__(self, env: Any, *, candidate: int = 0, frames: int = 1, seed: int = 0) -> None:
        super().__init__(env, seed=seed)
        if not isinstance(self.action_space, spaces.MultiDiscrete):
            raise ValueError("ScheduledPolicy skips frames: make the environment with skip=True")
        times = self.env.num_steps
        if not 0 <= candidate < self.action_space.nvec[0] or not 1 <= frames <= times:
            raise ValueError(
                f"candidate must be between 0 and {self.action_space.nvec[0] - 1} and frames between 1 and {times}, "
                f"not {candidate} and {frames}"
            )
        self._candidate = candidate
        self._focused = np.zeros(times + 1, dtype=bool)  # after the last frame nothing is left to look at
        self._focused[(2 * np.arange(frames) + 1) * times // (2 * frames)] = True

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        focused = self._focused[self.env.current_steps.cpu().numpy()]
        return np.full(count, self._candidate), (~focused).astype(np.int64)


class OraclePolicy(Baseline):
    """The candidate that shows most of the item, or the position that centres it, from the data set's ground truth.

    In a frame without the item it skips if the action has a skip bit, and looks at a uniformly random candidate
    otherwise. It reads the environment that it was made with, so it can only act there.

    Raises:
        ValueError: The data set has no ``locations``.
    """

    bound = True

    def __init__(self, env: Any, *, seed: int = 0) -> None:
        super().__init__(env, seed=seed)
        if not hasattr(self.env.videos, "locations"):
            raise ValueError(
                "OraclePolicy needs a data set with `locations(indices)`: these videos have no ground truth"
            )

    def _choose(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        box, seen = self._boxes()
        best = best_candidate(self.env.corners, self.env.patch_size, box).numpy()
        patch = np.where(seen, best, self._random.integers(self.grid**2, size=len(best)))
        return patch, (~seen).astype(np.int64)

    def _places(self, count: int) -> npt.NDArray[np.float64]:
        box, seen = self._boxes()
        size, patch_size = self.env.frame_size, self.env.patch_size
        best = corner_positions(centered_corners(box, size, patch_size), size, patch_size).double().numpy()
        return np.where(seen[:, None], (best + 1) / 2, self._random.random((len(box), 2)))

    def _boxes(self) -> tuple[torch.Tensor, npt.NDArray[np.bool_]]:
        """Boxes (count, 4) in the current frames, and whether the item is there, (count,)."""
        videos, frames = self.env.current_videos.cpu(), self.env.current_frames.cpu()
        boxes, visible = self.env.videos.locations(videos)
        lanes, frames = torch.arange(len(videos)), frames.clamp(max=boxes.shape[1] - 1)
        return boxes[lanes, frames], visible[lanes, frames].numpy()


BASELINE_POLICIES: dict[str, type[Baseline]] = {
    "random": RandomPolicy,
    "center": CenterPolicy,
    "gaussian": GaussianPolicy,
    "oracle": OraclePolicy,
}
"""Those that scripts know by name."""
