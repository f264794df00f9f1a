"""The paper's own stage 2, as published: recurrent PPO with one pass over each batch (reference code; Sec. 3.3).

One epoch without minibatches means that the probability ratio is 1 when the gradient is taken, so the clip never acts:
in effect this is REINFORCE with a critic. What is its own are the sizes, the learning rate, and the returns, which are
normalised over the batch and are the critic's target in that form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adafocus_env.checks import Bounds
from adafocus_env.recognition.official_policy import OfficialPolicy
from agents.reinforce import Hyperparameters, Reinforce, rewards_to_go
from agents.rollout import Rollout

CLIP = 0.2


@dataclass(frozen=True)
class PaperHyperparameters(Hyperparameters):
    """Those of :class:`~agents.reinforce.Hyperparameters`, with the published settings where none are given."""

    learning_rate: Annotated[float, Bounds(above=0)] = 3e-4
    normalize_advantage: bool = False
    max_grad_norm: Annotated[float, Bounds(above=0, finite=False)] = math.inf
    averaging: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    encoder_size: Annotated[int, Bounds(at_least=1)] = 1024
    hidden_size: Annotated[int, Bounds(at_least=1)] = 1024


class PaperPPO(Reinforce):
    """The published recipe. Arguments and everything else as :class:`Reinforce`, but for the defaults."""

    hyperparameters_class: ClassVar[type[Hyperparameters]] = PaperHyperparameters
    config: PaperHyperparameters

    @classmethod
    def from_official(cls, policy: OfficialPolicy) -> PaperPPO:
        """An agent with the weights of a released π, to be saved, or to be trained further after ``set_env``."""
        size = policy.gru.hidden_size
        agent = cls.__new__(cls)
        settings = {"encoder_size": size, "hidden_size": size}
        agent._build(policy.observation_space, policy.action_space, 0, None, settings, "cpu")
        renamed = {
            name.replace("state_encoder", "encode_glance")
            .replace("_l0", "")
            .replace("actor.0", "patch_head")
            .replace("critic.0", "value_head"): tensor
            for name, tensor in policy.state_dict().items()
        }
        agent.policy.load_state_dict(renamed)
        agent._average.module.load_state_dict(renamed)
        return agent

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """PPO's clipped objective, with returns that are normalised over the batch."""
        config = self.config
        returns = rewards_to_go(rollout.reward, config.gamma)
        taken = returns[rollout.running]
        returns = (returns - taken.mean()) / (taken.std() + 1e-5) * rollout.running
        advantage = returns - rollout.value.detach()
        ratio = torch.exp(rollout.log_prob - rollout.log_prob.detach())
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
        return self.with_critic(policy_loss, rollout, returns)
