"""Compute cost, in multiply-adds, measured on the modules that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
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


def policy_gflops(policy: Any, observation: Mapping[str, np.ndarray] | np.ndarray, state: Any = None) -> float:
    """GFLOPs of one decision of a policy for one frame.

    0 for a policy without a network in its attribute ``policy`` (SB3's name for it), such as a random one, which is not
    even asked: its own draws stay as they were.

    Args:
        policy: Anything with SB3's ``predict``.
        observation: A batch of observations.
        state: The policy's recurrent state for that batch.
    """
    if not isinstance(getattr(policy, "policy", None), torch.nn.Module):
        return 0.0
    batch = len(next(iter(observation.values())) if isinstance(observation, Mapping) else observation)
    return multiply_adds(lambda: policy.predict(observation, state=state, deterministic=True)) / 1e9 / batch
