"""Soft targets for what to do with a frame: look, skip or stop, over the patches of a frozen policy.

Where to look is paid for at once, so :mod:`agents.soft_targets` takes its targets from what the environment tells about
all patches. Whether to look is not: a look now makes later looks worth less. So the targets come from a critic, which
predicts the rest of the return for each choice and learns it from the choices taken:

    π*(·|s) = softmax(Q(s, ·) / τ),    Q(s, c) ≈ E[G | s, c]

The policy is trained by the cross-entropy with π*. Its gradient, π*(c) − π(c), doesn't shrink with the probability of
a choice as a policy gradient's does. With ``gain_over_previous`` and γ = 1 returns telescope to the confidence at the
end minus the price of compute, which is what is wanted.

In a trial on few videos of the embedded benchmark, with τ = 0.1, this was no better than REINFORCE over the same π. At
τ = 0.05 one seed of three never skipped, and with γ = 0.9 or τ = 0.01 no run ever skipped: what the critic has to tell
apart is then smaller than its error, and nothing is learnt about what is not tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from adafocus_env.checks import Bounds
from agents.networks import PolicyNetwork
from agents.reinforce import Hyperparameters, Reinforce, rewards_to_go
from agents.rollout import Rollout


@dataclass(frozen=True)
class SoftChoiceHyperparameters(Hyperparameters):
    """Those of :class:`~agents.reinforce.Hyperparameters`, some with other defaults, and one more.

    Attributes:
        temperature: τ, in units of the return: differences well below it don't count.
    """

    gamma: Annotated[float, Bounds(at_least=0, at_most=1)] = 1.0
    entropy_coefficient: Annotated[float, Bounds(at_least=0)] = 0.0
    temperature: Annotated[float, Bounds(above=0)] = 0.1


class SoftChoices(Reinforce):
    """Cross-entropy between the choice of look, skip or stop and softmax(Q / τ), with Q from a critic of choices.

    Arguments and everything else as :class:`agents.Reinforce`, with ``temperature`` besides. It needs a
    ``patch_policy``: over one without skip bits it learns to skip (and to stop, if the environment lets it), over one
    with them to stop.

    Raises:
        ValueError: There is no ``patch_policy``.
    """

    hyperparameters_class: ClassVar[type[Hyperparameters]] = SoftChoiceHyperparameters
    config: SoftChoiceHyperparameters

    def __init__(self, env: Any, **kwargs: Any) -> None:
        if kwargs.get("patch_policy") is None:
            raise ValueError("SoftChoices learns what to do with frames over frozen patches: pass patch_policy")
        super().__init__(env, **kwargs)

    def _make_policy(self, glance_shape: tuple[int, ...], beside: Mapping[str, int]) -> PolicyNetwork:
        policy = super()._make_policy(glance_shape, beside)
        choices = 1 + (policy.skip_head is not None) + (policy.stop_head is not None)
        policy.value_head = nn.Linear(self.config.hidden_size, choices)
        nn.init.orthogonal_(policy.value_head.weight, gain=0.01)
        nn.init.zeros_(policy.value_head.bias)
        return policy

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy with the soft targets, and the critic's squared error on the choices taken."""
        targets = torch.softmax(rollout.value.detach() / self.config.temperature, dim=-1)
        policy_loss = -(targets * rollout.choice_log_probs).sum(dim=-1).mean()
        returns = rewards_to_go(rollout.reward, self.config.gamma)
        return self.with_critic(policy_loss, rollout, returns)
