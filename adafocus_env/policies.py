"""Asks policies for their actions on observations that are tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from torch import Tensor

from adafocus_env.prices import num_prices


def decide(policy: Any, observation: Any, state: Any, episode_start: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
    """The actions that a policy chooses on a batch of observations, with ``deterministic=True``.

    A policy with SB3's ``predict`` is given NumPy arrays, which SB3's models require. One with ``takes_tensors = True``
    is given the tensors themselves, on their device, which saves a copy to the host; it must not change them. A policy
    that says by an ``observation_space`` what it sees is given no more than that; if it sees one price and there are
    two, it is given the first.

    Args:
        policy: Has ``predict(observation, state, episode_start, deterministic) -> (actions, state)``.
        observation: A tensor, or a mapping of tensors by name, each with a batch axis.
        state: The state that the last call returned; ``None`` at first.
        episode_start: (B,) bool, lanes whose episode begins.

    Returns:
        The actions and the next state, as the policy returns them.

    Raises:
        ValueError: The policy sees something that the observation doesn't hold.
    """
    observation = _seen(policy, observation)
    if not getattr(policy, "takes_tensors", False):
        observation = as_arrays(observation)
    actions, state = policy.predict(observation, state=state, episode_start=episode_start, deterministic=True)
    return actions, state


def _seen(policy: Any, observation: Any) -> Any:
    """What a policy sees of an observation."""
    space = getattr(policy, "observation_space", None)
    if not isinstance(observation, Mapping) or not isinstance(space, (spaces.Box, spaces.Dict)):
        return observation
    if isinstance(space, spaces.Box):
        return observation["glance"]
    if missing := sorted(space.keys() - observation.keys()):
        raise ValueError(f"the policy sees {missing}, and observations hold {sorted(observation)} here")
    seen = {name: observation[name] for name in space}
    if prices := num_prices(policy):
        seen["price"] = seen["price"][..., :prices]
    return seen


def rows_of_state(state: Any, rows: Tensor) -> Any:
    """A policy's recurrent state for some of its lanes only.

    Args:
        state: As ``predict`` returns it: ``None``, an array or a tensor, or a tuple, list or dict of them. Arrays of
            three axes have their lanes on the second axis, as in torch's and SB3's recurrent networks, all others on
            the first.
        rows: (n,) int64, the lanes to keep.
    """
    if isinstance(state, (tuple, list)):
        return type(state)(rows_of_state(part, rows) for part in state)
    if isinstance(state, Mapping):
        return {name: rows_of_state(part, rows) for name, part in state.items()}
    if isinstance(state, Tensor):
        return state.index_select(1 if state.ndim == 3 else 0, rows.to(state.device))
    return state.take(rows.cpu().numpy(), axis=1 if state.ndim == 3 else 0) if isinstance(state, np.ndarray) else state


def as_arrays(observation: Any) -> Any:
    """The same observation in NumPy arrays."""
    if isinstance(observation, Mapping):
        return {name: as_arrays(part) for name, part in observation.items()}
    return observation.cpu().numpy() if isinstance(observation, Tensor) else np.asarray(observation)
