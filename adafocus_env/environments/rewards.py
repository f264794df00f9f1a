"""The rewards that the environment can pay: their protocol, the built-in ones, and their look-up by name.

A reward is one small object. The built-in ones compare the confidence on the true label after the chosen patch with a
reference, both from the same hidden state of the classifier; ``confidence`` alone has none. A reward names its
reference, and :func:`adafocus_env.environments.dynamics.decide` finds the reference's value. Where the agent can stop,
``Lanes.step`` subtracts the price of going on afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

Reference = Literal["random", "previous", "blank"] | None
REFERENCES = (*get_args(get_args(Reference)[0]), None)
BASELINES = ("sample", "exact", "pixel")
"""How the random patch's confidence is found: one uniform candidate, the mean over all of them, one uniform pixel."""


@runtime_checkable
class Reward(Protocol):
    """The reward protocol: any object with these two members can be passed as ``reward``."""

    @property
    def reference(self) -> Reference:
        """Which confidence to compare with: after a ``"random"`` patch, ``"previous"`` to this frame (before the first:
        from the classifier's zero state), after a ``"blank"`` (all-zero) local vector, or ``None``: no comparison, the
        reference is 0."""
        ...

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
        """Reward of one step; the arguments are to stay as they are. With ``baseline="exact"`` it is also asked for the
        rewards of all candidates, in one call of num_envs·N rows.

        Args:
            confidence: (num_envs,) float32, softmax confidence on the true label after this frame.
            reference: (num_envs,) float32, the reference's confidence; 0 on skipped frames.
            focused: (num_envs,) bool, whether the local CNN ran on this frame.
            skip_cost: λ, the price of running it, in the reward's unit; (num_envs,) where episodes or candidates differ
                in it.

        Returns:
            (num_envs,), turned into float32.
        """
        ...


@dataclass(frozen=True)
class ConfidenceGain:
    """r = focused · (p^y(chosen) − p^y(reference) − λ): the paper's rewards of π and π′, and its ablations."""

    reference: Reference

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
        """See :meth:`Reward.__call__`."""
        return (confidence - reference).sub_(skip_cost).mul_(focused)


@dataclass(frozen=True)
class LogOddsGain:
    """r = focused · (logit p^y(chosen) − logit p^y(reference) − λ), where logit p = log(p / (1 − p)), and λ is in
    log-odds too.

    Confidence saturates: once a video's answer is nearly certain, the patch that shows the item gains hardly more of it
    than any other. Log-odds add up evidence, so late frames count as much as early ones. The exact baseline compares
    with the log-odds of the mean confidence, which is not the mean of the sampled baseline's log-odds.
    """

    reference: Reference

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
        """See :meth:`Reward.__call__`."""
        gain = torch.logit(confidence, eps=LEAST_DOUBT) - torch.logit(reference, eps=LEAST_DOUBT)
        return gain.sub_(skip_cost).mul_(focused)


LEAST_DOUBT = 1e-6
"""Confidences nearer than this to 0 or 1 count as this near: their log-odds would grow without bound."""

REWARDS: dict[str, Reward] = {
    "gain_over_random": ConfidenceGain("random"),
    "gain_over_previous": ConfidenceGain("previous"),
    "gain_over_blank": ConfidenceGain("blank"),
    "confidence": ConfidenceGain(None),
    "log_odds_over_random": LogOddsGain("random"),
}
"""By name; in the released code the first four are ``random``, ``prev``, ``padding`` and ``conf``.

``"gain_over_previous"`` compares a video's first frame with what the classifier says before it has seen any, from its
zero state; the released ``prev`` compares it with 0. Without a skip bit that difference is the same for all
actions, and only the first frame has it.
"""


def get_reward(reward: str | Reward) -> Reward:
    """Look a reward up by name, or check one that was passed as an object.

    Raises:
        ValueError: An unknown name, or an object that doesn't follow the protocol.
    """
    if isinstance(reward, str):
        if reward not in REWARDS:
            raise ValueError(f"reward must be one of {sorted(REWARDS)} or a reward object, not {reward!r}")
        return REWARDS[reward]
    named = isinstance(reward, Reward) and (reward.reference is None or isinstance(reward.reference, str))
    if not named or isinstance(reward, type) or reward.reference not in REFERENCES:
        raise ValueError(f"reward must be callable and have a `reference` out of {REFERENCES}; {reward!r} doesn't")
    return reward


def earned(reward: Reward, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
    """What a reward pays, float32; arguments as of :meth:`Reward.__call__`.

    Raises:
        ValueError: The reward gives no tensor of one number per lane.
    """
    given = reward(confidence, reference, focused, skip_cost)
    if not isinstance(given, Tensor) or given.shape != focused.shape:
        what = f"one of {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise ValueError(f"reward must give a tensor of shape {tuple(focused.shape)}, not {what}")
    return given.float()
