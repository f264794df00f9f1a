"""The all-action policy gradient: what this environment tells about patches that were not chosen, put to use.

With ``baseline="exact"`` a step says what *every* candidate would have earned. The action value splits into that known
part and the future, Q(s, a) = r(s, a) + γ·E[G | s, a], and so does the policy gradient of a state:

    Σ_a ∇π(a|s)·Q(s, a)  =  Σ_a ∇π(a|s)·r(s, a)  +  E_{a~π}[∇log π(a|s)·γ·G]

The first sum is taken over all N candidates, without sampling: it has no variance given the state, and learns from 49
patches where REINFORCE learns from one. Only the second term, the effect on later frames, is estimated from the action
taken, with the critic's expectation of γ·G as baseline. (Sutton et al. 2000, "Comparing policy-gradient algorithms",
name the all-actions form; Ciosek and Whiteson 2018, "Expected policy gradients".)
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from agents.reinforce import Reinforce, rewards_to_go
from agents.rollout import Rollout


class AllAction(Reinforce):
    """Policy gradient with the expectation over all patches of the immediate reward.

    Arguments and everything else as :class:`Reinforce`. The environment needs ``baseline="exact"`` and ``skip=False``.

    Raises:
        ValueError: The actions are not patch indices alone; or, in :meth:`learn`, the infos have no
            ``candidate_rewards``.
    """

    info_keys: ClassVar[tuple[str, ...]] = ("candidate_rewards",)

    def __init__(self, env: Any, **kwargs: Any) -> None:
        super().__init__(env, **kwargs)
        if not isinstance(self.action_space, spaces.Discrete):
            name = type(self).__name__
            raise ValueError(f"{name} learns patches alone: make the environment with skip=False (or action='grid')")

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The exact expectation of the immediate reward; the future is estimated from the patch that was taken."""
        config = self.config
        rewards = rollout.infos["candidate_rewards"]
        probabilities = rollout.patch_log_probs.exp()
        expected = (probabilities * rewards).sum(dim=-1)
        future = rewards_to_go(rollout.reward, config.gamma) - rollout.reward  # γ·G, from the next frame on
        surprise = future - rollout.value.detach()
        scale = torch.ones_like(future[0, 0])
        if config.normalize_advantage:  # as REINFORCE scales its advantages
            scale = (rollout.reward - expected.detach() + surprise).std(correction=0) + 1e-8
        policy_loss = -(expected + surprise * rollout.log_prob).mean() / scale
        return self.with_critic(policy_loss, rollout, future)
