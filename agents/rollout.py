"""What a batch of episodes leaves behind for a learner."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """What a batch of whole episodes left behind, to learn from. T is the length of the longest; after the end of a
    shorter one there are zeros, which add nothing to sums over time.

    Attributes:
        log_prob: (T, B) of the actions taken, by the trained heads.
        entropy: (T, B) of the trained heads.
        value: (T, B), what the critic said before each action; (T, B, K) of a critic of choices.
        action: (T, B, …), the actions taken.
        reward: (T, B).
        focused: (T, B) bool, whether the local CNN ran.
        running: (T, B) bool, False after the end of the episode.
        patch_log_probs: (T, B, N) of all patches; (T, B, 0) where the patches are not trained.
        choice_log_probs: (T, B, K) of all that can be done with the frame; see :mod:`agents.distributions`.
        choice: (T, B) int64, which of these was done.
        infos: (T, B, …) of every key in the agent's ``info_keys``.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    action: Tensor
    reward: Tensor
    focused: Tensor
    running: Tensor
    patch_log_probs: Tensor
    choice_log_probs: Tensor
    choice: Tensor
    infos: dict[str, Tensor]

    @classmethod
    def stacked(cls, steps: Sequence[Rollout]) -> Rollout:
        """Steps, each without the time axis, as one."""
        return cls._combined(torch.stack, steps)

    @classmethod
    def joined(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """Several batches of episodes as one."""
        longest = max(len(rollout.reward) for rollout in rollouts)

        def join(parts: list[Tensor]) -> Tensor:
            return torch.cat([torch.cat((part, _zeros_like(part, longest - len(part)))) for part in parts], dim=1)

        shorter = any(len(rollout.reward) < longest for rollout in rollouts)
        return cls._combined(join if shorter else functools.partial(torch.cat, dim=1), rollouts)

    def restricted(self, lanes: Tensor) -> Rollout:
        """One step, of ``lanes``, (B,) bool, alone; zeros elsewhere."""
        return self._combined(lambda parts: parts[0] * lanes.view(-1, *[1] * (parts[0].ndim - 1)), [self])

    @classmethod
    def _combined(cls, combine: Callable[[list[Tensor]], Tensor], parts: Sequence[Rollout]) -> Rollout:
        names = [field.name for field in fields(cls) if field.name != "infos"]
        infos = {key: combine([part.infos[key] for part in parts]) for key in parts[0].infos}
        return cls(**{name: combine([getattr(part, name) for part in parts]) for name in names}, infos=infos)


def _zeros_like(values: Tensor, steps: int) -> Tensor:
    return values.new_zeros(steps, *values.shape[1:])
