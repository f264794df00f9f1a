"""Compute cost, in multiply-adds, measured on the modules that run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import create_empty_array
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ComputeCost:
    """GFLOPs per frame, one multiply-add counted as one operation (as in the paper).

    Attributes:
        glance: f_G on one frame.
        local: f_L on one patch.
        classifier: f_C on one frame.
    """

    glance: float
    local: float
    classifier: float

    @property
    def always(self) -> float:
        """GFLOPs that every frame costs, focused or not: f_G and f_C."""
        return self.glance + self.classifier


def multiply_adds(function: Callable[[], object]) -> int:
    """Multiply-adds of the convolutions and matrix products that a function runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


_policy_costs: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


def policy_gflops(policy: Any) -> float:
    """GFLOPs of one decision of a policy for one frame, measured once per policy.

    It is 0 for a policy without a network in its attribute ``policy`` (SB3's name for it), such as a random one.

    Args:
        policy: Anything with SB3's ``predict`` and an ``observation_space``.
    """
    if not isinstance(getattr(policy, "policy", None), torch.nn.Module):
        return 0.0
    if policy not in _policy_costs:
        space = policy.observation_space
        observation = create_empty_array(space, n=1, fn=np.zeros)
        _policy_costs[policy] = multiply_adds(lambda: policy.predict(observation, deterministic=True)) / 1e9
    return _policy_costs[policy]
