"""What the spaces of an environment mean to this package's agents, and their form in a policy's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from adafocus_env.checks import brief
from adafocus_env.patches import can_stop
from adafocus_env.prices import log_price
from agents.environments import is_policy, observed_shapes

BESIDE_GLANCE = "belief", "time", "price"
"""What observations can hold beside the glance, in the order in which networks read it."""


def beside_glance(observation_space: spaces.Space[Any], names: tuple[str, ...] = BESIDE_GLANCE) -> dict[str, int]:
    """Lengths, by name, of what an environment shows beside the glance, out of ``names``."""
    shown = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
    return {name: int(np.prod(shown[name].shape or ())) for name in names if name in shown}


def read_beside(observation: Mapping[str, Tensor], names: Iterable[str]) -> list[Tensor]:
    """What networks read of a batch of observations, (B, n) for each name: prices by their logarithms."""
    return [log_price(observation[name]) if name == "price" else observation[name] for name in names]


def what_is_seen(observation_space: spaces.Space[Any], use_belief: bool) -> tuple[spaces.Box, dict[str, int]]:
    """The glance's space, and lengths of what is seen beside the glance, by name.

    Raises:
        ValueError: The environment shows no glance, or not the belief that is to be used.
    """
    glance: Any = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
    if use_belief and "belief" not in beside_glance(observation_space):
        raise ValueError("use_belief=True needs an environment that shows it: observation='full'")
    if not isinstance(glance, spaces.Box) or len(glance.shape) != 3:
        raise ValueError(f"our agents need a glance of shape (C, h, w), not {glance}")
    return glance, beside_glance(observation_space, BESIDE_GLANCE if use_belief else ("price",))


def number_of_patches(action_space: spaces.Space[Any]) -> int | None:
    """N; ``None`` where actions are continuous positions.

    Raises:
        ValueError: Actions are neither.
    """
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec[0])
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.Box) and action_space.shape == (2,):
        return None
    raise ValueError(f"our agents need patch indices or positions as actions, not {action_space}")


def check_frozen(patch_policy: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Raise ``ValueError`` unless a frozen policy fits these spaces and a skip head remains to be trained."""
    if not is_policy(patch_policy):
        raise ValueError(
            f"patch_policy must be a policy itself, with SB3's predict, not {brief(patch_policy)}: load a file or a "
            "shipped one by agents.from_pretrained, or make a baseline with the environment"
        )
    if not isinstance(action_space, spaces.MultiDiscrete):
        raise ValueError("patch_policy freezes the patches, so the environment must have skip=True to train anything")
    frozen_space, patches = getattr(patch_policy, "action_space", None), int(action_space.nvec[0])
    if frozen_space not in (None, spaces.Discrete(patches), spaces.MultiDiscrete([patches, 2])):
        raise ValueError(f"patch_policy acts in {frozen_space}, but the environment has {patches} patches")
    seen, shown = (
        observed_shapes(space) for space in (getattr(patch_policy, "observation_space", None), observation_space)
    )
    fewer = "price" in seen and seen["price"] < shown.get("price", ())  # then it sees the first of them
    needed = {**seen, "price": shown["price"]} if fewer else seen
    if not needed.items() <= shown.items():
        raise ValueError(f"patch_policy sees {seen}, but the environment shows {shown}")


def spaces_as_numbers(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> dict[str, Any]:
    """What :func:`spaces_from_numbers` makes an agent's spaces from again, as plain numbers, for a file."""
    glance: Any = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
    beside = beside_glance(observation_space)
    return {
        "glance": [list(glance.shape), float(glance.low.min()), float(glance.high.max())],
        "belief": beside.get("belief", 0),
        "price": beside.get("price", 0),
        "num_patches": number_of_patches(action_space),
        "skip": isinstance(action_space, spaces.MultiDiscrete),
        "stop": can_stop(action_space),
    }


def spaces_from_numbers(numbers: Mapping[str, Any]) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """An agent's observation and action space; files that are older than ``stop`` and ``price`` have neither."""
    shape, low, high = numbers["glance"]
    glance = spaces.Box(low, high, tuple(shape), np.float32)
    observation_space: spaces.Space[Any] = glance
    if numbers["belief"]:
        parts: dict[str, spaces.Space[Any]] = {
            "glance": glance,
            "belief": spaces.Box(-1, 1, (numbers["belief"],), np.float32),
            "time": spaces.Box(0, 1, (1,), np.float32),
        }
        if count := numbers.get("price", 0):
            parts["price"] = spaces.Box(-1, 1, (count,), np.float32)
        observation_space = spaces.Dict(parts)
    patches = numbers["num_patches"]
    if patches is None:
        return observation_space, spaces.Box(-1, 1, (2,), np.float32)
    if numbers["skip"]:
        return observation_space, spaces.MultiDiscrete([patches, 2 + numbers.get("stop", False)])
    return observation_space, spaces.Discrete(patches)
