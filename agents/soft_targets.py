"""Soft targets: a policy that is taught the best response to what this environment tells about all patches.

With ``baseline="exact"`` a step says what every candidate patch would have earned. Among all distributions over the
patches of one state, the one that earns most at a given price τ of certainty is

    π*(·|s)  =  argmax_π  Σ_a π(a)·q(s, a) + τ·H(π)  =  softmax(q(s, ·) / τ)

(KL-regularised improvement, with the uniform distribution as prior). It is known here, so the policy is trained on the
states that it visits by the cross-entropy with it, as a classifier with soft labels would be. No location is used.

How it is related to others, in the gradient with respect to the policy's logits:

* All-action policy gradient (:mod:`agents.all_action`): π(a)·(q(a) − Σ_b π(b)·q(b)). Each patch's step is scaled by the
  patch's own probability, so a policy that has settled on a neighbour of the best patch hardly changes. The
  cross-entropy's is π*(a) − π(a): proportional to what is still missing.
* Mirror descent, and MPO's step: the prior is the present policy, π* ∝ π·exp(q/τ). For large τ the gradient of its
  cross-entropy is that of the all-action policy gradient, divided by τ, with the same fault.
* Advantage-weighted regression (:mod:`agents.advantage_weighted`): the same projection where only the taken patch's
  reward is known; the expectation over π* becomes one over the policy's own actions, weighted by exp(advantage / τ).

What a patch does to later frames is known for the taken patch alone. With γ > 0 the difference between γ·G and the
critic's prediction of it is added to the taken patch's q; every other patch is assumed to lead to just that prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adafocus_env.checks import Bounds
from agents.all_action import AllAction
from agents.reinforce import Hyperparameters, rewards_to_go
from agents.rollout import Rollout


@dataclass(frozen=True)
class SoftTargetHyperparameters(Hyperparameters):
    """Those of :class:`~agents.reinforce.Hyperparameters`, and one more.

    Attributes:
        temperature: τ, in units of the reward: differences well below it don't count.
    """

    temperature: Annotated[float, Bounds(above=0)] = 0.02


class SoftTargets(AllAction):
    """Cross-entropy between the policy and softmax(rewards of all patches / τ).

    Arguments and everything else as :class:`agents.Reinforce`, with ``temperature`` besides. The environment needs
    ``baseline="exact"`` and ``skip=False``.

    Raises:
        ValueError: The actions are not patch indices alone; or, in :meth:`learn`, the infos have no
            ``candidate_rewards``.
    """

    hyperparameters_class: ClassVar[type[Hyperparameters]] = SoftTargetHyperparameters
    config: SoftTargetHyperparameters

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy with the soft targets, the critic's squared error (of 0 for γ = 0), and the entropy bonus."""
        config = self.config
        values = rollout.infos["candidate_rewards"]
        future = rewards_to_go(rollout.reward, config.gamma) - rollout.reward  # γ·G, from the next frame on
        surprise = future - rollout.value.detach()
        if config.gamma:
            values = values.scatter_add(-1, rollout.action[..., None], surprise[..., None])
        targets = torch.softmax(values / config.temperature, dim=-1)
        policy_loss = -(targets * rollout.patch_log_probs).sum(dim=-1).mean()
        loss, figures = self.with_critic(policy_loss, rollout, future)
        divergence = policy_loss.detach() + torch.special.xlogy(targets, targets).sum(dim=-1).mean()
        return loss, {**figures, "divergence": divergence}
