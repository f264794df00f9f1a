"""Advantage-weighted regression: soft targets for environments that tell only what the taken patch earned.

The KL-regularised improvement of a policy, π* ∝ π·exp(advantage / τ), is projected back onto the network by maximum
likelihood. With actions drawn from π that is the log-likelihood of the actions taken, each weighted by
exp(advantage / τ), normalised over the batch. (Peng et al. 2019, "Advantage-Weighted Regression"; Abdolmaleki et al.
2018, "Maximum a posteriori policy optimisation".) It needs no table of all candidates: any ``baseline``, any action
space, skip bits and continuous positions included. :mod:`agents.soft_targets` is what it becomes with such a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adafocus_env.checks import Bounds
from agents.reinforce import Hyperparameters, Reinforce, rewards_to_go
from agents.rollout import Rollout


@dataclass(frozen=True)
class AdvantageWeightedHyperparameters(Hyperparameters):
    """Those of :class:`~agents.reinforce.Hyperparameters`, and one more.

    Attributes:
        temperature: τ, in standard deviations of the batch's advantages if these are normalised, else in units of the
            reward.
    """

    temperature: Annotated[float, Bounds(above=0)] = 1.0


class AdvantageWeighted(Reinforce):
    """Maximum likelihood of the actions taken, weighted by exp(advantage / τ).

    Arguments and everything else as :class:`agents.Reinforce`, with ``temperature`` besides.
    """

    hyperparameters_class: ClassVar[type[Hyperparameters]] = AdvantageWeightedHyperparameters
    config: AdvantageWeightedHyperparameters

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted log-likelihood, with the weights' mean of 1 subtracted, and the critic's squared error."""
        config = self.config
        returns = rewards_to_go(rollout.reward, config.gamma)
        advantage = returns - rollout.value.detach()
        taken = advantage[rollout.running]
        scale = taken.std(correction=0) + 1e-8 if config.normalize_advantage else 1.0
        weights = torch.softmax(taken / (scale * config.temperature), dim=0) * taken.numel()
        # Weights average 1. That constant part of them has an expected gradient of 0 under π: it only adds variance.
        policy_loss = -((weights - 1) * rollout.log_prob[rollout.running]).mean()
        loss, figures = self.with_critic(policy_loss, rollout, returns)
        return loss, {**figures, "largest_weight": weights.max()}
