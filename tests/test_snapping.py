from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.patches import corner_positions
from agents import Reinforce, Snapped, evaluate
from agents.baselines import RandomPolicy


def make_env(env_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    return gym.make_vec("AdaFocus-v0", 3, skip=False, **{"action": "continuous", **env_kwargs, **kwargs})


def test_positions_become_the_nearest_candidates(env_kwargs: dict[str, Any]) -> None:
    env = make_env(env_kwargs)
    corners = env.unwrapped.corners

    class At:
        """Looks up to 3 pixels beside every candidate; candidates are 8 pixels apart."""

        observation_space, action_space = env.single_observation_space, env.single_action_space

        def predict(self, observation: Any, **_: Any) -> tuple[np.ndarray, None]:
            beside = (corners + torch.randint(-3, 4, corners.shape)).clamp(0, 24)
            return corner_positions(beside, (48, 48), 24).numpy(), None

    actions, _ = Snapped(At(), env).predict({}, deterministic=True)
    assert actions.tolist() == list(range(16))


@pytest.mark.parametrize("observation", ["full", "glance"])
def test_a_snapped_policy_acts_on_the_grid(
    observation: str, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    env = make_env(env_kwargs, observation=observation)
    policy = Snapped(Reinforce(env, seed=0, use_belief=observation == "full"), env)
    found = evaluate(policy, "val", **env_kwargs)
    candidates = {tuple(corner) for corner in env.unwrapped.corners.tolist()}
    assert {tuple(corner) for corner in found.corners.reshape(-1, 2).tolist()} <= candidates
    assert found.policy_gflops > 0
    deployed = recognizer.recognize(videos.frames(torch.arange(12)), policy, grid=4)
    np.testing.assert_array_equal(deployed.corners, found.corners)


def test_single_observations_and_tensors(env_kwargs: dict[str, Any]) -> None:
    env = make_env(env_kwargs)
    policy = Snapped(Reinforce(env, seed=0), env)
    observation = {name: torch.as_tensor(value) for name, value in env.reset(seed=0)[0].items()}
    actions, _ = policy.predict(observation, deterministic=True)
    assert isinstance(actions, torch.Tensor)
    assert actions.shape == (3,)
    one, _ = policy.predict({name: value[0].numpy() for name, value in observation.items()}, deterministic=True)
    assert one in policy.action_space
    assert one == actions[0]


def test_patch_indices_are_refused(env_kwargs: dict[str, Any]) -> None:
    env = make_env(env_kwargs, action="grid")
    with pytest.raises(ValueError, match="positions"):
        Snapped(RandomPolicy(env), env)
