"""Policies that take tensors are given tensors, all others arrays; what they decide is the same."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import agents
from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.policies import as_arrays, decide
from adafocus_env.recognition.recipes import Stage3Config
from tests.test_motion import make_recognizer as make_clip_recognizer
from tests.test_motion import make_videos as make_clips


class Watched:
    """Another policy, of which it notes what it is given."""

    def __init__(self, policy: Any, takes_tensors: bool) -> None:
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self.given: list[Any] = []
        self._policy = policy
        if takes_tensors:
            self.takes_tensors = True

    def predict(self, observation: Any, **arguments: Any) -> Any:
        parts = observation.values() if isinstance(observation, dict) else [observation]
        assert arguments["deterministic"]
        assert isinstance(arguments["episode_start"], np.ndarray)
        self.given += [type(part) for part in parts]
        return self._policy.predict(observation, **arguments)


def trained(env_id: str = "AdaFocus-v0", use_belief: bool = False, **arguments: Any) -> agents.Reinforce:
    env = gym.make_vec(env_id, num_envs=4, **arguments)
    agent = agents.Reinforce(env, encoder_size=8, hidden_size=8, episodes_per_batch=4, use_belief=use_belief)
    return agent.learn(1)


@pytest.mark.parametrize("use_belief", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_recognizing_and_evaluating(
    use_belief: bool, skip: bool, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    policy = trained(use_belief=use_belief, skip=skip, **env_kwargs)
    frames = videos.frames(torch.arange(5))
    found = []
    for takes_tensors, kind in ((True, Tensor), (False, np.ndarray)):
        watched = Watched(policy, takes_tensors)
        recognition = recognizer.recognize(frames, watched)
        evaluation = agents.evaluate(watched, num_envs=5, **env_kwargs)
        assert watched.given
        assert all(issubclass(given, kind) for given in watched.given)
        found.append([recognition.logits, recognition.corners, recognition.skipped, *vars(evaluation).values()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_clips() -> None:
    arguments = {"recognizer": make_clip_recognizer(), "videos": make_clips()}
    policy = trained("AdaFocusTSM-v0", **arguments)
    frames = make_clips().frames(torch.arange(3))
    corners = []
    for takes_tensors, kind in ((True, Tensor), (False, np.ndarray)):
        watched = Watched(policy, takes_tensors)
        corners.append(arguments["recognizer"].recognize(frames, watched).corners)
        agents.evaluate(watched, **arguments)
        assert all(issubclass(given, kind) for given in watched.given)
    assert torch.equal(*corners)


def test_no_glance_of_ours_becomes_an_array(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in recognising, nor in evaluating, nor in stage 3, nor beneath a skip policy."""
    patches = trained(skip=False, **env_kwargs)
    frozen = gym.make_vec("AdaFocus-v0", num_envs=4, output="torch", **env_kwargs)
    policy = agents.Reinforce(frozen, encoder_size=8, hidden_size=8, episodes_per_batch=4, patch_policy=patches)
    glance = recognizer.glance_shape
    numpy = Tensor.numpy

    def watched(tensor: Tensor, **arguments: Any) -> Any:
        assert tuple(tensor.shape[-3:]) != glance
        return numpy(tensor, **arguments)

    agents.evaluate(policy, **env_kwargs)  # the policy's cost is measured once, on an array
    monkeypatch.setattr(Tensor, "numpy", watched)
    recognizer.recognize(videos.frames(torch.arange(3)), policy)
    agents.evaluate(policy, **env_kwargs)
    agents.evaluate(agents.baselines.RandomPolicy, **env_kwargs)
    config = Stage3Config(epochs=1, videos_per_step=12)
    agents.finetune(recognizer, policy, config, videos=videos)
    policy.learn(1)
    with pytest.raises(AssertionError):  # the watch watches
        agents.evaluate(Watched(policy, takes_tensors=False), **env_kwargs)


def test_one_rule() -> None:
    class Echo:
        takes_tensors = False

        def predict(self, observation: Any, **arguments: Any) -> Any:
            return observation, arguments

    observation = {"glance": torch.ones(2, 3), "time": np.zeros(2)}
    start = np.array([True, False])
    given, arguments = decide(Echo(), observation, "state", start)
    assert {name: type(part) for name, part in given.items()} == {"glance": np.ndarray, "time": np.ndarray}
    assert arguments == {"state": "state", "episode_start": start, "deterministic": True}
    policy = Echo()
    policy.takes_tensors = True  # type: ignore[misc]
    assert decide(policy, observation, None, start)[0] is observation
    assert isinstance(as_arrays(torch.ones(2)), np.ndarray)
