"""Step counters of a vector environment's lanes, kept on the CPU."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BoolArray = NDArray[np.bool_]


class LaneProgress:
    """Steps taken in every lane, and what follows from them. Nothing of it is ever changed in place.

    Lanes mostly go together, from the start of an episode to its end. Each :class:`LaneProgress` remembers the next
    one, so after the first episode nothing is computed again or copied to the device.

    Args:
        steps: (num_envs,) int64, from 0 to ``num_steps``.
        num_steps: Steps of an episode.
        device: torch device of the tensors.
        looks: Steps about each frame.
        stopped: (num_envs,) bool, lanes whose episodes have ended before their last step; ``None``: no lane's.

    Attributes:
        steps: The same.
        over: (num_envs,) bool array, the lanes whose episodes have ended.
        running: (num_envs,) bool array, the others.
        any_over: Whether an episode has ended.
        all_over: Whether all have.
        share: (num_envs, 1) float32 array, steps as a share of all.
        frame: (num_envs,) int64 tensor, what the next step is about; after the last step, still the last.
        now: Index of the next step in a (num_envs, num_steps, …) tensor, for (num_envs, 1, …).
        at_new_frame: (num_envs,) bool array, the lanes whose next step is the first about its frame.
        all_at_new_frame: Whether all are.
    """

    def __init__(
        self,
        steps: NDArray[np.int64],
        num_steps: int,
        device: torch.device,
        looks: int = 1,
        stopped: BoolArray | None = None,
    ) -> None:
        self.steps, self._num_steps, self._looks, self._device = steps, num_steps, looks, device
        self._stopped = np.zeros_like(steps, dtype=bool) if stopped is None else stopped
        self.over: BoolArray = (steps == num_steps) | self._stopped
        self.running: BoolArray = ~self.over
        self.any_over, self.all_over = bool(self.over.any()), bool(self.over.all())
        self.share = (steps.astype(np.float32) / np.float32(num_steps))[:, None]
        self.at_new_frame: BoolArray = steps % looks == 0
        self.all_at_new_frame = bool(self.at_new_frame.all())
        step = steps - self.over
        self.frame = torch.from_numpy(step // looks).to(device)
        self.now: tuple[slice, slice] | tuple[Tensor, Tensor]
        if bool((step == step[0]).all()):
            self.now = slice(None), slice(int(step[0]), int(step[0]) + 1)
        else:
            self.now = torch.arange(len(steps), device=device)[:, None], torch.from_numpy(step).to(device)[:, None]

    @functools.cached_property
    def next(self) -> LaneProgress:
        """After a step of every lane that is running."""
        return self._with(self.steps + self.running, self._stopped)

    def stopped(self, lanes: BoolArray) -> LaneProgress:
        """After the end of the episodes of some lanes."""
        return self._with(self.steps, self._stopped | lanes)

    def restarted(self, lanes: BoolArray) -> LaneProgress:
        """After a restart of some lanes."""
        return self._with(np.where(lanes, 0, self.steps), self._stopped & ~lanes)

    def _with(self, steps: NDArray[np.int64], stopped: BoolArray) -> LaneProgress:
        return LaneProgress(steps, self._num_steps, self._device, self._looks, stopped)
