"""Heads that read a frozen policy's recurrent state instead of encoding the glance a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.recognition.compute_cost import policy_gflops
from agents import Reinforce, SoftChoices, SoftTargets, evaluate, load_policy
from agents.sb3 import make_vec_env

FRAMES = 4


def make_vec(env_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    return gym.make_vec("AdaFocus-v0", 4, output="torch", reward="gain_over_previous", **kwargs, **env_kwargs)


def make_frozen(env_kwargs: dict[str, Any], **settings: Any) -> Reinforce:
    return Reinforce(make_vec(env_kwargs, skip=False), seed=5, **settings)


def share(env_kwargs: dict[str, Any], frozen: Reinforce, kind: type[Reinforce] = Reinforce, **kwargs: Any) -> Reinforce:
    settings = {"hidden_size": 24, "episodes_per_batch": 8, **kwargs.pop("settings", {})}
    return kind(make_vec(env_kwargs, **kwargs), seed=1, patch_policy=frozen, share_encoder=True, **settings)


@pytest.mark.parametrize("use_belief", [False, True])
def test_the_heads_read_the_frozen_state(use_belief: bool, env_kwargs: dict[str, Any]) -> None:
    frozen = make_frozen(env_kwargs, hidden_size=32)
    agent = share(env_kwargs, frozen, settings={"use_belief": use_belief})
    network: Any = agent._average.module
    observation, _ = make_vec(env_kwargs).reset(seed=0)
    state = frozen_state = None
    for _ in range(3):
        actions, state = agent.predict(observation, state, deterministic=True)
        patches, frozen_state = frozen.predict(observation["glance"], frozen_state, deterministic=True)
        seen = (frozen_state[0], *((observation["belief"], observation["time"]) if use_belief else ()))
        logits = network.skip_head(torch.relu(network.read[0](torch.cat(seen, dim=1))))[:, 0]
        assert torch.equal(actions, torch.stack((patches, (logits > 0).long()), dim=1))
        assert torch.equal(agent.encoded(state), frozen_state[0])
    assert {name.split(".")[0] for name in network.state_dict()} == {"read", "skip_head", "value_head"}


def test_compute_is_that_of_the_frozen_policy_and_one_layer(env_kwargs: dict[str, Any]) -> None:
    frozen = make_frozen(env_kwargs)
    agent = share(env_kwargs, frozen, settings={"use_belief": True})
    state, beside, hidden = frozen.config.hidden_size, 16 + 1, agent.config.hidden_size
    layer = (state + beside) * hidden + hidden
    assert policy_gflops(agent) == pytest.approx(policy_gflops(frozen) + layer / 1e9, rel=1e-9)
    separate = Reinforce(make_vec(env_kwargs), patch_policy=frozen)
    assert policy_gflops(separate) > 1.9 * policy_gflops(frozen)
    assert evaluate(agent, **env_kwargs).policy_gflops == pytest.approx(FRAMES * policy_gflops(agent))


@pytest.mark.parametrize("kind", [Reinforce, SoftChoices])
@pytest.mark.parametrize("use_belief", [False, True])
def test_they_learn_save_load_and_are_deployed(
    kind: type[Reinforce],
    use_belief: bool,
    env_kwargs: dict[str, Any],
    recognizer: Recognizer,
    videos: RoamingFashion,
    tmp_path: Path,
) -> None:
    frozen = make_frozen(env_kwargs)
    before = {name: weight.clone() for name, weight in frozen.policy.state_dict().items()}
    agent = share(env_kwargs, frozen, kind, skip_cost=0.02, settings={"use_belief": use_belief})
    agent.learn(FRAMES * 8 * 3)
    assert all(torch.equal(weight, before[name]) for name, weight in frozen.policy.state_dict().items())
    agent.save(tmp_path / "agent.pt")
    found, again = (evaluate(each, num_envs=5, **env_kwargs) for each in (agent, load_policy(tmp_path / "agent.pt")))
    np.testing.assert_array_equal(found.skipped, again.skipped)
    result = recognizer.recognize(videos.frames(torch.arange(12)), agent)
    np.testing.assert_array_equal(found.skipped, result.skipped)
    np.testing.assert_allclose(found.gflops, result.gflops)
    resumed = kind.load(tmp_path / "agent.pt", env=agent.get_env())
    for each in (agent, resumed):
        each.learn(FRAMES * 8)
    for name, weight in agent.policy.state_dict().items():
        assert torch.equal(weight, resumed.policy.state_dict()[name]), name


def test_videos_that_are_left_early_take_their_state_with_them(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    agent = share(env_kwargs, make_frozen(env_kwargs))
    frames = videos.frames(torch.arange(12))
    confidence = recognizer.recognize(frames, agent).logits.softmax(dim=2).amax(dim=2)
    threshold = float(confidence[:, :-1].quantile(0.7))
    result = recognizer.recognize(frames, agent, exit_threshold=threshold)
    found = evaluate(agent, exit_threshold=threshold, **env_kwargs)
    assert 1 < found.frames_per_video < FRAMES
    assert found.frames.tolist() == result.frames.tolist()
    np.testing.assert_array_equal(found.skipped, result.skipped)


def test_stopping_shares_what_skipping_shares(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    """A stop head over π′ over π: one encoder for all three."""
    frozen = make_frozen(env_kwargs, hidden_size=40)
    skipping = share(env_kwargs, frozen)
    agent = share(env_kwargs, skipping, stop=True, glance_cost=0.01)
    assert (agent.encoded_size, agent.policy.skip_head) == (40, None)
    agent.learn(FRAMES * 8)
    observation, _ = agent.get_env().reset(seed=0)
    state, frozen_state = agent.predict(observation)[1], frozen.predict(observation["glance"])[1]
    assert torch.equal(agent.encoded(state), frozen_state[0])
    agent.save(tmp_path / "agent.pt")
    found, again = (evaluate(each, **env_kwargs) for each in (agent, load_policy(tmp_path / "agent.pt")))
    np.testing.assert_array_equal(found.frames, again.frames)


def test_there_has_to_be_an_encoder(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = make_vec(env_kwargs)
    with pytest.raises(ValueError, match="pass it as patch_policy"):
        Reinforce(env, share_encoder=True)
    with pytest.raises(ValueError, match="pass it as patch_policy"):
        SoftTargets(make_vec(env_kwargs, skip=False), share_encoder=True)
    model = PPO("MultiInputPolicy", make_vec_env(4, skip=False, **env_kwargs), n_steps=4, batch_size=16)
    with pytest.raises(ValueError, match="PPO has none"):
        Reinforce(env, patch_policy=model, share_encoder=True)
    share(env_kwargs, make_frozen(env_kwargs), settings={"use_belief": True}).save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match="PPO has none"):
        Reinforce.load(tmp_path / "agent.pt", patch_policy=model)
