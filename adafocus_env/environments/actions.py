"""Action spaces, and what their actions mean: where to look, and whether to look at all."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from adafocus_env.checks import brief
from adafocus_env.patches import position_corners

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


LOOK, SKIP, STOP = range(3)
"""What the second component of an action says of a frame."""


class Decision(NamedTuple):
    """What the actions of B lanes say of their frames."""

    place: Tensor
    """Where to look: (B,) int64 patch indices, or (B, 2) int64 top-left corners, pixels."""
    skipped: Tensor
    """(B,) bool, True where the frame is not read: it is skipped, or the episode is stopped."""
    stopped: Tensor
    """(B,) bool, True where the episode ends here."""


class Actions:
    """A space of actions, and how a batch of them is read.

    Args:
        space: Of one lane.
        num_envs: B, lanes.
        device: torch device of decisions.
        allowed: Which actions are allowed, in words.

    Attributes:
        space: As given.
    """

    words: ClassVar[tuple[str, str]]
    """Words for messages: what an action with several components is, and one with a single component."""

    def __init__(self, space: spaces.Space[Any], num_envs: int, device: torch.device, allowed: str) -> None:
        self.space, self._device, self._allowed = space, device, allowed
        self._shape = (num_envs, *(space.shape or ()))
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def read(self, actions: Any, *, alone: bool) -> Decision:
        """The decisions that a batch of actions stands for.

        Args:
            actions: (B, …) array, tensor or list.
            alone: The only lane is that of a single environment, so messages speak of one action.

        Raises:
            ValueError: They are of the wrong shape or dtype, or out of range.
        """
        numbers = self._numbers(actions)
        if numbers is None:
            raise self._refusal(actions, alone)
        wrong = self._out_of_range(numbers)
        if wrong is not None:
            raise self._refusal(actions, alone, wrong)
        return self._decision(numbers)

    def _numbers(self, actions: Any) -> Tensor | None:
        """Actions as a tensor on the device; ``None`` if they have the wrong shape or dtype."""
        try:
            values = actions if isinstance(actions, Tensor) else torch.as_tensor(np.array(actions))
        except (TypeError, ValueError):
            return None
        return self._converted(values) if tuple(values.shape) == self._shape else None

    def _refusal(self, actions: Any, alone: bool, wrong: Tensor | None = None) -> ValueError:
        """The error for actions outside the action space, worded for a single or a vector environment; ``wrong`` are
        the numbers that are out of range."""
        given, shape = (actions[0], self._shape[1:]) if alone else (actions, self._shape)
        what = brief(given) if wrong is None else f"{wrong.flatten()[0].item()} in {brief(given)}"
        several, one = self.words
        kind = f"{shape} {several}" if shape else one
        return ValueError(f"{'action' if alone else 'actions'} must be {kind} ({self._allowed}), not {what}")

    def _converted(self, values: Tensor) -> Tensor | None:
        """Actions of the right shape as a tensor on the device; ``None`` if they have the wrong dtype."""
        raise NotImplementedError

    def _out_of_range(self, numbers: Tensor) -> Tensor | None:
        """The numbers that are out of range, if there are any."""
        raise NotImplementedError

    def _decision(self, numbers: Tensor) -> Decision:
        raise NotImplementedError


class PatchActions(Actions):
    """Patch indices, ``Discrete(N)``; with a skip bit, ``MultiDiscrete([N, 2])``; if the agent can also stop,
    ``MultiDiscrete([N, 3])``.

    Args:
        num_patches: N.
        skip: Whether the action carries a skip bit.
        stop: Whether the skip bit's place can also say stop.
        num_envs: B, lanes.
        device: torch device of decisions.
    """

    words = "integers", "an integer"

    def __init__(self, num_patches: int, num_envs: int, device: torch.device, *, skip: bool, stop: bool) -> None:
        choices = " and 0 (look), 1 (skip) or 2 (stop)" if stop else " and skip bit 0 or 1" if skip else ""
        allowed = f"patch index from 0 to {num_patches - 1}{choices}"
        space = spaces.MultiDiscrete([num_patches, 2 + stop]) if skip else spaces.Discrete(num_patches)
        super().__init__(space, num_envs, device, allowed)
        self._skip, self._stop = skip, stop
        self._highest = torch.tensor([num_patches - 1, 1 + stop] if skip else num_patches - 1, device=device)
        self._lowest = torch.zeros_like(self._highest)

    def _converted(self, values: Tensor) -> Tensor | None:
        return values.to(self._device, torch.int64) if values.dtype in _INTEGERS else None

    def _out_of_range(self, numbers: Tensor) -> Tensor | None:
        allowed = numbers.clamp(self._lowest, self._highest)
        return None if torch.equal(allowed, numbers) else numbers[allowed != numbers]

    def _decision(self, numbers: Tensor) -> Decision:
        if not self._skip:
            return Decision(numbers, self._never, self._never)
        place, choice = numbers.unbind(dim=1)
        return Decision(place, choice >= SKIP, choice == STOP if self._stop else self._never)


class PositionActions(Actions):
    """Continuous positions of the patch, ``Box(-1, 1, (2,))``: row and column.

    Args:
        frame_size: (H, W), pixels.
        patch_size: P, pixels.
        num_envs: B, lanes.
        device: torch device of decisions.
    """

    words = "numbers", "a number"

    def __init__(self, frame_size: tuple[int, int], patch_size: int, num_envs: int, device: torch.device) -> None:
        allowed = "row and column from -1 (top, left) to 1 (bottom, right)"
        super().__init__(spaces.Box(-1, 1, (2,), np.float32), num_envs, device, allowed)
        self._sizes = frame_size, patch_size

    def _converted(self, values: Tensor) -> Tensor | None:
        number = values.is_floating_point() or values.dtype in _INTEGERS
        return values.to(self._device, torch.float64) if number else None

    def _out_of_range(self, numbers: Tensor) -> Tensor | None:
        allowed = numbers.abs() <= 1  # NaN fails this comparison too
        return None if bool(allowed.all()) else numbers[~allowed]

    def _decision(self, numbers: Tensor) -> Decision:
        return Decision(position_corners(numbers, *self._sizes), self._never, self._never)
