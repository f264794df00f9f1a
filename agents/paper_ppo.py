"""The paper's own stage 2, as published: recurrent PPO with one pass over each batch (reference code; Sec. 3.3).

One epoch without minibatches means that the probability ratio is 1 when the gradient is taken, so the clip never acts:
in effect this is REINFORCE with a critic. What is its own are the sizes, the learning rate, and the returns, which are
normalised over the batch and are the critic's target in that form.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adafocus_env.recognition.official_policy import OfficialPolicy
from agents.reinforce import Reinforce, rewards_to_go
from agents.rollout import Rollout

PUBLISHED: dict[str, Any] = {
    "learning_rate": 3e-4,
    "gamma": 0.7,
    "episodes_per_batch": 64,
    "value_coefficient": 0.5,
    "entropy_coefficient": 0.01,
    "normalize_advantage": False,
    "max_grad_norm": math.inf,
    "averaging": 0.0,
    "encoder_size": 1024,
    "hidden_size": 1024,
    "use_belief": False,
}
"""The published settings, in the names of :class:`agents.reinforce.Hyperparameters`."""
CLIP = 0.2


class PaperPPO(Reinforce):
    """The published recipe. Arguments and everything else as :class:`Reinforce`, but for the defaults."""

    def __init__(self, env: Any, **kwargs: Any) -> None:
        super().__init__(env, **{**PUBLISHED, **kwargs})

    @classmethod
    def from_official(cls, policy: OfficialPolicy) -> PaperPPO:
        """An agent with the weights of a released π, to be saved, or to be trained further after ``set_env``."""
        size = policy.gru.hidden_size
        agent = cls.__new__(cls)
        settings = {**PUBLISHED, "encoder_size": size, "hidden_size": size}
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
