from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy

from adafocus_env import (
    AdaFocusVectorEnv,
    FeatureBank,
    FrozenFeatures,
    Recognizer,
    RoamingFashion,
    load_recognizer,
)
from adafocus_env.patches import best_candidate
from agents import Evaluation, Reinforce, evaluate, finetune, from_pretrained, load_policy
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.checkpointing import Checkpoints
from agents.figures import play
from agents.pretrained import save_policy
from agents.reinforce import rewards_to_go
from agents.sb3 import GlancePolicy, make_vec_env
from tests.conftest import make_tiny_recognizer


def weights(agent: Reinforce) -> dict[str, torch.Tensor]:
    """Both the weights that learn and their average, which acts."""
    both = {**agent.policy.state_dict(prefix="last."), **agent._average.state_dict(prefix="average.")}
    return {name: tensor.clone() for name, tensor in both.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(0, 1))
def test_rewards_to_go(rewards: list[float], gamma: float) -> None:
    returns = rewards_to_go(torch.tensor(rewards, dtype=torch.float64)[:, None], gamma)[:, 0]
    wanted = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
    np.testing.assert_allclose(returns, wanted, atol=1e-9)


# --------------------------------------------------------------------------------------------------------- REINFORCE


class BanditVectorEnv(gym.vector.VectorEnv):  # type: ignore[type-arg]
    """Two frames, four patches; the glance says which patch pays, and whether looking at all does."""

    def __init__(self, num_envs: int, skip: bool) -> None:
        self.num_envs, self.skip = num_envs, skip
        self.single_observation_space = spaces.Box(0, 1, (5, 1, 1), np.float32)
        self.single_action_space = spaces.MultiDiscrete([4, 2]) if skip else spaces.Discrete(4)
        self.time = 0

    def observe(self) -> np.ndarray:
        self.target = self.random.integers(4, size=self.num_envs)
        self.pays = self.random.random(self.num_envs) < 0.5
        glance = np.zeros((self.num_envs, 5, 1, 1), dtype=np.float32)
        glance[np.arange(self.num_envs), self.target] = 1
        glance[:, 4, 0, 0] = self.pays
        return glance

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.random, self.time = np.random.default_rng(seed), 0
        return self.observe(), {}

    def step(self, actions: np.ndarray) -> Any:
        patch, skipped = (actions[:, 0], actions[:, 1] == 1) if self.skip else (actions, np.zeros(self.num_envs, bool))
        reward = np.where(self.pays, 1.0, -1.0) * (patch == self.target) - 0.2 * (~self.pays)
        self.time += 1
        done = np.full(self.num_envs, self.time == 2)
        return self.observe(), (reward * ~skipped).astype(np.float32), done, np.zeros_like(done), {}


def test_reinforce_learns_where_to_look() -> None:
    env = BanditVectorEnv(64, skip=False)
    agent = Reinforce(env, seed=0, hidden_size=32, encoder_size=32, learning_rate=1e-2, averaging=0.8)
    agent.learn(64 * 2 * 60)
    glance, target, pays = (env.reset(seed=9)[0], env.target, env.pays)
    actions, _ = agent.predict(glance, deterministic=True)
    assert (actions == target)[pays].mean() > 0.95
    assert (actions != target)[~pays].mean() > 0.95


def test_reinforce_learns_when_not_to_look() -> None:
    env = BanditVectorEnv(64, skip=True)
    agent = Reinforce(env, seed=0, hidden_size=32, encoder_size=32, learning_rate=1e-2, averaging=0.8)
    agent.learn(64 * 2 * 100)
    glance, target, pays = (env.reset(seed=9)[0], env.target, env.pays)
    actions, _ = agent.predict(glance, deterministic=True)
    assert (actions[pays, 0] == target[pays]).mean() > 0.95
    assert (actions[:, 1] == ~pays).mean() > 0.95


def test_skipped_frames_give_no_patch_gradient(env_kwargs: dict[str, Any]) -> None:
    agent = Reinforce(gym.make_vec("AdaFocus-v0", 2, **env_kwargs), seed=0)
    for bias, gives_gradient in ((50.0, False), (-50.0, True)):  # always skip, never skip
        agent.policy.zero_grad()
        agent.policy.skip_head.bias.data.fill_(bias)
        hidden = torch.randn(64, agent.config.hidden_size)
        distribution = agent.policy.distribution({}, hidden, None)
        drawn = distribution.sample(torch.Generator().manual_seed(0))
        (distribution.log_prob(drawn).sum() + distribution.entropy(drawn).sum()).backward()
        gradient = agent.policy.patch_head.weight.grad
        assert (gradient is not None and bool(gradient.any())) == gives_gradient
        assert agent.policy.skip_head.weight.grad is not None


def test_sampling_actions_leaves_training_as_it_would_be(env_kwargs: dict[str, Any]) -> None:
    found = []
    for sampled in (False, True):
        env = gym.make_vec("AdaFocus-v0", 8, **env_kwargs)
        agent = Reinforce(env, seed=4, episodes_per_batch=8)
        if sampled:
            agent.predict(env.reset(seed=0)[0], deterministic=False)
        agent.learn(4 * 8)
        found.append(weights(agent))
    assert same(*found)


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_reinforce_is_deterministic_for_a_seed(output: str, env_kwargs: dict[str, Any]) -> None:
    found = []
    for _ in range(2):
        env = gym.make_vec("AdaFocus-v0", 8, output=output, **env_kwargs)
        agent = Reinforce(env, seed=4, use_belief=True, episodes_per_batch=16)
        before = weights(agent)
        agent.learn(4 * 64)
        assert not same(before, weights(agent))
        assert agent.num_timesteps == 4 * 64
        found.append(weights(agent))
    assert same(*found)


def test_a_loaded_agent_goes_on_exactly(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make_vec("AdaFocus-v0", 8, **env_kwargs)
    through = Reinforce(env, seed=1, episodes_per_batch=8)
    through.learn(4 * 8 * 6)
    half = Reinforce(env, seed=1, episodes_per_batch=8)
    half.learn(4 * 8 * 3)
    half.save(tmp_path / "half.pt")
    resumed = Reinforce.load(tmp_path / "half.pt", env=gym.make_vec("AdaFocus-v0", 8, **env_kwargs))
    resumed.learn(4 * 8 * 3)
    assert same(weights(through), weights(resumed))
    assert resumed.num_timesteps == through.num_timesteps
    with pytest.raises(ValueError, match="no environment"):
        Reinforce.load(tmp_path / "half.pt").learn(1)


def test_what_was_trained_on_a_gpu_acts_and_learns_on_the_cpu(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    """The state of a GPU's random numbers, which no CPU understands, has 16 bytes."""
    env = gym.make_vec("AdaFocus-v0", 8, **env_kwargs)
    agent = Reinforce(env, seed=1, episodes_per_batch=8).learn(4 * 8)
    agent._generator = SimpleNamespace(get_state=lambda: torch.zeros(16, dtype=torch.uint8))  # type: ignore[assignment]
    agent.save(tmp_path / "trained.safetensors")
    loaded = Reinforce.load(tmp_path / "trained.safetensors", env=env)
    assert same(weights(agent), weights(loaded))
    loaded.learn(4 * 8)
    assert not same(weights(agent), weights(loaded))


def test_a_killed_training_goes_on_from_its_checkpoint(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make_vec("AdaFocus-v0", 8, **env_kwargs)
    through = Reinforce(env, seed=1, episodes_per_batch=8).learn(4 * 8 * 6)

    class Kill(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 4 * 8 * 3 + 16:  # in the middle of the fourth batch
                raise KeyboardInterrupt
            return True

    logged: list[int] = []
    checkpoints = Checkpoints(tmp_path / "agent.checkpoint", lambda stage, step, metrics: logged.append(step), 0)
    with pytest.raises(KeyboardInterrupt):
        Reinforce(env, seed=1, episodes_per_batch=8).learn(4 * 8 * 6, [checkpoints, Kill()])
    assert logged == [8, 16, 24]  # what the file knows of
    resumed = Reinforce.load(tmp_path / "agent.checkpoint", env=env)
    resumed.learn(4 * 8 * 6 - resumed.num_timesteps)
    assert same(weights(through), weights(resumed))


def test_files_of_other_kinds_are_refused(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"format": "other"}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(ValueError, match=name):
            Reinforce.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        Reinforce.load(tmp_path / "absent.pt")
    Reinforce(gym.make_vec("AdaFocus-v0", 1, skip=False, **env_kwargs)).save(tmp_path / "patch.pt")
    with pytest.raises(ValueError, match="was trained on"):
        Reinforce.load(tmp_path / "patch.pt", env=gym.make_vec("AdaFocus-v0", 1, **env_kwargs))


def test_a_skip_policy_keeps_its_frozen_patches(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    patch_policy = Reinforce(gym.make_vec("AdaFocus-v0", 4, skip=False, observation="glance", **env_kwargs), seed=1)
    for parameter in patch_policy._average.parameters():
        parameter.data.mul_(3)
    frozen = weights(patch_policy)
    env = gym.make_vec("AdaFocus-v0", 4, reward="gain_over_previous", **env_kwargs)
    agent = Reinforce(env, seed=2, patch_policy=patch_policy, use_belief=True, episodes_per_batch=4)
    assert agent.policy.patch_head is None
    agent.learn(4 * 4 * 3)
    assert same(frozen, weights(patch_policy))
    agent.save(tmp_path / "skip.pt")
    loaded = Reinforce.load(tmp_path / "skip.pt")
    observation, _ = env.reset(seed=0)
    state = patch_state = loaded_state = None
    for _ in range(4):
        actions, state = agent.predict(observation, state, deterministic=True)
        patches, patch_state = patch_policy.predict(observation["glance"], patch_state, deterministic=True)
        again, loaded_state = loaded.predict(observation, loaded_state, deterministic=True)
        assert (actions[:, 0] == patches).all()
        assert (actions == again).all()
        observation, *_ = env.step(actions)


def test_an_sb3_model_can_be_the_frozen_patch_policy(env_kwargs: dict[str, Any]) -> None:
    model = PPO("MultiInputPolicy", make_vec_env(4, skip=False, **env_kwargs), n_steps=4, batch_size=16)
    env = gym.make_vec("AdaFocus-v0", 4, output="torch", reward="gain_over_previous", **env_kwargs)
    agent = Reinforce(env, patch_policy=model, episodes_per_batch=4).learn(16)
    found = evaluate(agent, "val", **env_kwargs)
    assert np.isfinite(found.mean_return)


class Belief:
    """A policy that doesn't say what it sees: it reads the belief."""

    action_space = gym.spaces.Discrete(16)

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        return (np.abs(np.asarray(observation["belief"])[:, 0]) * 15).astype(np.int64), state


def test_a_frozen_policy_sees_the_same_in_training_and_evaluation(env_kwargs: dict[str, Any]) -> None:
    """Also one without ``observation_space``, under an agent that needs no more than the glance."""
    env = gym.make_vec("AdaFocus-v0", 4, **env_kwargs)
    agent = Reinforce(env, patch_policy=Belief(), episodes_per_batch=4).learn(16)
    alone = evaluate(Belief(), "val", skip=False, **env_kwargs)
    found = evaluate(agent, "val", **env_kwargs)
    shown = ~found.skipped.any(axis=1)  # up to a frame that is skipped, beliefs are the same
    assert np.array_equal(found.corners[:, 0], alone.corners[:, 0])
    assert np.array_equal(found.corners[shown], alone.corners[shown])


@pytest.mark.parametrize("wrong", ["roaming-fashion", 5, CenterPolicy, OraclePolicy])
def test_what_is_no_policy_is_refused_as_patch_policy(wrong: Any, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="patch_policy must be a policy itself"):
        Reinforce(gym.make_vec("AdaFocus-v0", 2, **env_kwargs), patch_policy=wrong)


def test_an_oracle_of_another_environment_is_refused_as_patch_policy(env_kwargs: dict[str, Any]) -> None:
    env, other = (gym.make_vec("AdaFocus-v0", 2, **env_kwargs) for _ in range(2))
    with pytest.raises(ValueError, match="OraclePolicy reads the environment that it was made with"):
        Reinforce(env, patch_policy=OraclePolicy(other))
    agent = Reinforce(env, patch_policy=OraclePolicy(env), episodes_per_batch=2).learn(8)
    with pytest.raises(ValueError, match="OraclePolicy reads the environment that it was made with"):
        evaluate(agent, "val", **env_kwargs)
    with pytest.raises(ValueError, match="OraclePolicy reads the environment that it was made with"):
        agent.set_env(other)


def test_predict_in_sb3s_dialect(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **env_kwargs)
    agent = Reinforce(env, seed=0, use_belief=True, episodes_per_batch=2)
    agent.learn(8)
    observation, _ = env.reset(seed=0)
    action, state = agent.predict(observation, deterministic=True)
    assert env.action_space.contains(action)
    continued, _ = agent.predict(observation, state, episode_start=np.array([False]))
    assert env.action_space.contains(continued)
    fresh = agent.predict(observation, state, episode_start=np.array([True]), deterministic=True)[0]
    assert (fresh == action).all()
    mean, _ = evaluate_policy(agent, make_vec_env(3, seed=0, **env_kwargs), n_eval_episodes=6)  # type: ignore[arg-type]
    assert np.isfinite(mean)


def test_lanes_that_start_anew_forget(env_kwargs: dict[str, Any]) -> None:
    """The frozen patch policy's memory included."""
    patch_policy = Reinforce(gym.make_vec("AdaFocus-v0", 3, skip=False, **env_kwargs), seed=1)
    env = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    agent = Reinforce(env, seed=2, patch_policy=patch_policy)
    _, state = agent.predict(env.reset(seed=0)[0])
    observation, *_ = env.step(np.array([[0, 0], [5, 1], [9, 0]]))

    def memories(state: Any, starts: list[bool] | None) -> list[np.ndarray]:
        own, (frozen, _) = agent.predict(observation, state, starts and np.array(starts))[1]
        return [own, frozen]

    fresh, continued = memories(None, None), memories(state, [False] * 3)
    for mixed, anew, on in zip(memories(state, [True, False, True]), fresh, continued, strict=True):
        np.testing.assert_allclose(mixed[[0, 2]], anew[[0, 2]], atol=1e-6)
        np.testing.assert_allclose(mixed[1], on[1], atol=1e-6)
        assert np.abs(anew - on).max() > 1e-3


def test_a_policy_that_is_not_recurrent_sees_the_present_alone(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    agent = Reinforce(env, seed=2, recurrent=False)
    observation, _ = env.reset(seed=0)
    memory, _ = agent.predict(observation, (np.ones((3, agent.config.hidden_size), dtype=np.float32), None))[1]
    np.testing.assert_array_equal(memory, agent.predict(observation)[1][0])


def test_predict_acts_with_the_moving_average(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 4, **env_kwargs)
    agent = Reinforce(env, seed=0, averaging=0.6, learning_rate=0.05, episodes_per_batch=4)
    wanted: dict[str, torch.Tensor] = {}
    for updates in range(5):
        agent.learn(4 * 4)
        decay = min(0.6, updates / (updates + 1))  # 0, 1/2, 0.6, 0.6, 0.6: a plain mean at first
        for name, weight in agent.policy.state_dict().items():
            wanted[name] = decay * wanted.get(name, weight) + (1 - decay) * weight
    observation, _ = env.reset(seed=0)
    acting = agent.predict(observation)[1][0]
    last = agent.policy.state_dict()
    assert any(not torch.allclose(weight, last[name], atol=1e-3) for name, weight in wanted.items())
    agent.policy.load_state_dict(wanted)
    with torch.no_grad():
        start = torch.zeros(4, agent.config.hidden_size)
        np.testing.assert_allclose(acting, agent.policy(agent._tensors(observation), start), atol=1e-5)


@pytest.mark.parametrize("logit", [-0.25, 0.25])
def test_the_likelier_skip_bit_is_taken(logit: float, env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    agent = Reinforce(env, seed=0)
    skip_head: Any = agent._average.module.skip_head
    skip_head.weight.data.zero_()
    skip_head.bias.data.fill_(logit)
    actions, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
    assert actions[:, 1].tolist() == [int(logit > 0)] * 3


def test_no_two_rollouts_share_a_seed(env_kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    reset = AdaFocusVectorEnv.reset

    def noted(self: AdaFocusVectorEnv, *, seed: Any = None, options: Any = None) -> Any:
        seeds.extend(seed + lane for lane in range(self.num_envs))
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(AdaFocusVectorEnv, "reset", noted)
    for seed in (0, 1):
        env = gym.make_vec("AdaFocus-v0", 4, **env_kwargs)
        Reinforce(env, seed=seed, episodes_per_batch=8).learn(4 * 8 * 2)
    assert len(seeds) == len(set(seeds)) == 2 * 2 * 8


def test_sb3_callbacks_work_on_reinforce(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps != 20  # once, in the middle of an episode

    env = gym.make_vec("AdaFocus-v0", 4, skip=False, **env_kwargs)
    agent = Reinforce(env, episodes_per_batch=4, tensorboard_log=tmp_path / "log")
    agent.learn(10_000, callback=Stop())
    assert agent.num_timesteps == 32
    evaluation = EvalCallback(
        make_vec_env(2, skip=False, **env_kwargs), eval_freq=4, n_eval_episodes=4, verbose=0,
        best_model_save_path=str(tmp_path),
    )  # fmt: skip
    agent.learn(64, callback=evaluation)
    assert np.isfinite(evaluation.best_mean_reward)
    assert list((tmp_path / "log").glob("events*"))
    steps: list[int] = []
    agent.learn(32, callback=lambda variables, _: steps.append(1) is None)
    assert len(steps) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"learning": 1}, "hyper-parameters"), ({"gamma": 2}, "gamma"), ({"learning_rate": 0}, "learning_rate")],
)
def test_bad_hyperparameters_are_named(arguments: dict[str, Any], message: str, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        Reinforce(gym.make("AdaFocus-v0", **env_kwargs), **arguments)


def test_reinforce_says_what_it_cannot_do(env_kwargs: dict[str, Any]) -> None:
    glance = gym.make("AdaFocus-v0", skip=False, observation="glance", **env_kwargs)
    with pytest.raises(ValueError, match="observation='full'"):
        Reinforce(glance, use_belief=True)
    with pytest.raises(ValueError, match="skip=True"):
        Reinforce(glance, patch_policy=Reinforce(glance))
    with pytest.raises(ValueError, match="patch indices"):
        Reinforce(gym.make("Pendulum-v1"))


# ------------------------------------------------------------------------------------------------------ SB3


@pytest.mark.parametrize("observation", ["full", "glance"])
@pytest.mark.parametrize("skip", [True, False])
def test_ppo_trains_on_the_batched_environment(observation: str, skip: bool, env_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(8, seed=0, observation=observation, skip=skip, **env_kwargs)
    kwargs = {"features_extractor_kwargs": {"features_dim": 32}}
    model = PPO(GlancePolicy, env, seed=0, n_steps=8, batch_size=32, policy_kwargs=kwargs)
    model.learn(128)
    assert len(model.ep_info_buffer) > 0
    found = evaluate(model, "val", **env_kwargs)
    assert found.num_videos == 12
    assert found.policy_gflops > 0


@pytest.mark.parametrize("skip", [True, False])
def test_scores_of_the_map_are_added_to_the_logits_of_their_patches(skip: bool, env_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(2, seed=0, skip=skip, **env_kwargs)
    policy: Any = PPO(GlancePolicy, env, seed=0).policy
    seen, _ = policy.obs_to_tensor(env.reset())

    def outputs() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            parts = policy.get_distribution(seen).distribution
            logits = torch.cat([part.logits for part in parts], dim=1) if skip else parts.logits
            return logits, policy.predict_values(seen)

    scores = policy.features_extractor.candidate_scores
    with torch.no_grad():
        before = scores(seen["glance"], policy.extract_features(seen)[:, : policy.features_extractor.num_encoded])
        (logits, value), bias = outputs(), scores.score.bias
        scores.score.weight.mul_(3)
        bias.zero_()
        after = scores(seen["glance"], policy.extract_features(seen)[:, : policy.features_extractor.num_encoded])
    found, same = outputs()
    patches = slice(0, before.shape[1])
    change = (found - logits)[:, patches] - (after - before)
    torch.testing.assert_close(change, change[:, :1].expand_as(change), rtol=0, atol=1e-5)  # up to the normalisation
    assert (found - logits)[:, patches].std() > 1e-3
    if skip:
        torch.testing.assert_close(found[:, before.shape[1] :], logits[:, before.shape[1] :])
    torch.testing.assert_close(same, value)


def test_a_saved_ppo_looks_where_it_looked(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    model = PPO(GlancePolicy, make_vec_env(2, seed=0, skip=False, **env_kwargs), seed=0, n_steps=4, batch_size=8)
    save_policy(model.learn(8), tmp_path / "ppo")
    found, again = (evaluate(each, "val", **env_kwargs) for each in (model, load_policy(tmp_path / "ppo.zip")))
    np.testing.assert_array_equal(found.corners, again.corners)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)


def test_dqn_trains_on_the_batched_environment(env_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(2, seed=0, observation="glance", skip=False, **env_kwargs)
    DQN("MlpPolicy", env, learning_starts=8, buffer_size=64, policy_kwargs={"net_arch": [16]}).learn(40)


def test_sb3_vec_env_equals_the_environment(env_kwargs: dict[str, Any]) -> None:
    """Rewards, ends, returns and terminal observations are those of single episodes."""
    vec_env = make_vec_env(3, seed=7, **env_kwargs)
    singles = [gym.make("AdaFocus-v0", **env_kwargs) for _ in range(3)]
    observation = vec_env.reset()
    expected = [env.reset(seed=7 + lane)[0] for lane, env in enumerate(singles)]
    returns = np.zeros(3)
    vec_env.action_space.seed(0)
    for step in range(9):
        for lane in range(3):
            np.testing.assert_allclose(observation["belief"][lane], expected[lane]["belief"], atol=1e-5)
        actions = np.stack([vec_env.action_space.sample() for _ in range(3)])
        observation, reward, done, infos = vec_env.step(actions)
        for lane, env in enumerate(singles):
            expected[lane], wanted, terminated, _, info = env.step(actions[lane])
            returns[lane] += wanted
            assert reward[lane] == pytest.approx(wanted, abs=1e-5)
            assert done[lane] == terminated == (step % 4 == 3)
            if terminated:
                np.testing.assert_allclose(
                    infos[lane]["terminal_observation"]["belief"], expected[lane]["belief"], atol=1e-5
                )
                assert infos[lane]["is_success"] == info["is_success"]
                assert infos[lane]["episode"]["r"] == pytest.approx(returns[lane], abs=1e-5)
                returns[lane] = 0
                expected[lane], _ = env.reset()
            else:
                assert infos[lane] == {}


# ------------------------------------------------------------------------------------------------ baselines


def test_baselines_pick_what_they_say(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 500, **{**env_kwargs, "grid": 5})
    observation, _ = env.reset(seed=0)
    center, _ = CenterPolicy(env).predict(observation)
    assert (center == [12, 0]).all()
    random, _ = RandomPolicy(env, seed=1).predict(observation)
    assert set(random[:, 0]) == set(range(25))
    assert (RandomPolicy(env, seed=1).predict(observation)[0] == random).all()
    assert (RandomPolicy(env, seed=2).predict(observation)[0] != random).any()
    gaussian, _ = GaussianPolicy(env).predict(observation)
    distance = np.abs(np.stack((gaussian[:, 0] // 5, gaussian[:, 0] % 5)) - 2)
    uniform = np.abs(np.stack((random[:, 0] // 5, random[:, 0] % 5)) - 2)
    assert 0.3 < distance.mean() < 0.9 * uniform.mean()
    assert not random[:, 1].any()
    assert not gaussian[:, 1].any()


def test_the_gaussian_has_a_quarter_of_the_side(env_kwargs: dict[str, Any]) -> None:
    """As its standard deviation: shares of the rows and columns of a grid of five, the tails in the outer ones."""
    env = gym.make("AdaFocus-v0", skip=False, **{**env_kwargs, "grid": 5})
    patches, _ = GaussianPolicy(env, seed=0).predict(
        {"glance": np.zeros((8000, *env.observation_space["glance"].shape))}
    )
    tail, beside, middle = norm.cdf(-1.5), norm.cdf(-0.5) - norm.cdf(-1.5), norm.cdf(0.5) - norm.cdf(-0.5)
    for places in (patches // 5, patches % 5):
        shares = np.bincount(places, minlength=5) / len(patches)
        np.testing.assert_allclose(shares, [tail, beside, middle, beside, tail], atol=0.02)


def test_the_oracle_looks_at_the_item(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    boxes, visible = videos.locations(torch.arange(12))
    found = evaluate(OraclePolicy, "val", **env_kwargs)
    np.testing.assert_array_equal(found.skipped, ~visible.numpy())
    env = AdaFocusVectorEnv(1, **env_kwargs)
    best = env.corners[best_candidate(env.corners, env.patch_size, boxes)].numpy()
    seen = visible.numpy()
    np.testing.assert_array_equal(found.corners[seen], best[seen])
    looking = evaluate(OraclePolicy, "val", skip=False, **env_kwargs)
    assert not looking.skipped.any()
    np.testing.assert_array_equal(looking.corners[seen], best[seen])
    single = gym.make("AdaFocus-v0", **env_kwargs)
    observation, _ = single.reset(seed=0)
    assert single.action_space.contains(OraclePolicy(single).predict(observation)[0])


# ----------------------------------------------------------------------------------------------- evaluation


def test_no_lane_computes_for_nobody(
    recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twelve videos, twelve lanes at most have one."""
    patches: list[int] = []

    def count(self: FrozenFeatures, given: torch.Tensor, *arguments: Any) -> torch.Tensor:
        patches.append(len(given))
        return compute(self, given, *arguments)

    compute = FrozenFeatures.compute_look
    monkeypatch.setattr(FrozenFeatures, "compute_look", count)
    features = FrozenFeatures(recognizer, videos, 4)
    for num_envs in (12, 50):
        evaluate(CenterPolicy, num_envs=num_envs, reward="confidence", features=features)
    assert patches[: len(patches) // 2] == patches[len(patches) // 2 :] == [12] * 4


@pytest.mark.parametrize("num_envs", [1, 5, 12, 50])
def test_every_video_counts_once(num_envs: int, env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    found = evaluate(CenterPolicy, "val", num_envs=num_envs, reward="gain_over_previous", **env_kwargs)
    wanted = evaluate(CenterPolicy, "val", num_envs=12, reward="gain_over_previous", **env_kwargs)
    assert found.num_videos == 12
    np.testing.assert_array_equal(found.labels, videos.labels)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.returns, wanted.returns, atol=1e-5)


def test_batches_of_videos_change_no_reward(env_kwargs: dict[str, Any]) -> None:
    """The random patches of a video are its own, whichever batch it falls into."""
    runs = [evaluate(CenterPolicy, "val", num_envs=num_envs, seed=5, **env_kwargs) for num_envs in (12, 5, 1)]
    for run in runs[1:]:
        np.testing.assert_allclose(run.returns, runs[0].returns, atol=1e-5)


def test_an_evaluation_comes_back_from_its_file(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    found = evaluate(RandomPolicy, "val", **env_kwargs)
    found.save(tmp_path / "evaluation.npz")
    again = Evaluation.load(tmp_path / "evaluation.npz")
    assert again.summary() == found.summary()
    np.testing.assert_array_equal(again.corners, found.corners)


def test_evaluation_equals_the_recognisers_own_forward(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    recognizer = env_kwargs["recognizer"]
    found = evaluate(RandomPolicy, "val", **env_kwargs)
    with torch.no_grad():
        logits = recognizer(videos.frames(torch.arange(12)), torch.from_numpy(found.corners))
    probabilities = torch.softmax(logits[:, -1], dim=-1).numpy()
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-5)
    labels = videos.labels.numpy()
    assert found.accuracy == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert found.top5_accuracy == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(10)))
    per_frame = (logits.argmax(-1).numpy() == labels[:, None]).mean(axis=0)
    np.testing.assert_allclose(found.accuracy_per_frame, per_frame)
    assert found.mean_confidence == pytest.approx(probabilities[np.arange(12), labels].mean(), abs=1e-5)
    each = [average_precision_score(labels == k, probabilities[:, k]) for k in np.unique(labels)]
    assert found.mean_average_precision == pytest.approx(np.mean(each))
    # The released code's mean takes all ten classes; those that occur are numbered anew, and the last ones are empty.
    assert len(np.unique(labels)) < 10
    moved = [average_precision_score(labels == k, probabilities[:, row]) for row, k in enumerate(np.unique(labels))]
    assert found.reference_mean_average_precision == pytest.approx(sum(moved) / 10)
    several = np.zeros_like(found.label_sets)
    several[:, 3] = True  # another label of every video
    both = dataclasses.replace(found, label_sets=found.label_sets | several)
    assert both.single_label_mean_average_precision == pytest.approx(np.mean(each))
    assert both.mean_average_precision > found.mean_average_precision
    assert found.single_label_mean_average_precision == found.mean_average_precision
    cost = recognizer.cost()
    assert found.gflops_per_video == pytest.approx(4 * (cost.always + cost.local))
    assert found.focused_per_video == 4


def test_a_policy_for_another_grid_is_an_error(env_kwargs: dict[str, Any]) -> None:
    policy = CenterPolicy(gym.make("AdaFocus-v0", **{**env_kwargs, "grid": 3}))
    assert evaluate(policy, "val", **{k: v for k, v in env_kwargs.items() if k != "grid"}).num_videos == 12
    with pytest.raises(ValueError, match="grid"):
        evaluate(policy, "val", **env_kwargs)


def test_a_policy_that_sees_something_else_is_an_error(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    policy = Reinforce(gym.make_vec("AdaFocus-v0", 1, **env_kwargs), use_belief=True)
    with pytest.raises(ValueError, match="belief"):
        evaluate(policy, observation="glance", **env_kwargs)
    other = make_tiny_recognizer(hidden_size=20)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        evaluate(policy, **{**env_kwargs, "recognizer": other})
    with pytest.raises(ValueError, match="patch_policy sees"):
        Reinforce(gym.make_vec("AdaFocus-v0", 1, observation="glance", **env_kwargs), patch_policy=policy)
    with pytest.raises(ValueError, match="load_policy"):
        evaluate("roaming-fashion", **env_kwargs)


def test_an_oracle_of_another_environment_is_an_error(env_kwargs: dict[str, Any]) -> None:
    oracle = OraclePolicy(gym.make_vec("AdaFocus-v0", 12, **env_kwargs))
    with pytest.raises(ValueError, match="OraclePolicy reads the environment"):
        evaluate(oracle, **env_kwargs)
    with pytest.raises(ValueError, match="OraclePolicy reads the environment"):
        play(oracle, [0], **env_kwargs)


def test_an_evaluation_makes_no_table(env_kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make_vec("AdaFocus-v0", 1, **env_kwargs)
    remembered = evaluate(RandomPolicy, **env_kwargs)  # out of the table that env holds
    assert int(env.unwrapped.features._filled[1]) > 0  # type: ignore[attr-defined]
    env.close()
    del env
    monkeypatch.setattr(FeatureBank, "__init__", lambda *_, **__: pytest.fail("a table was made"))
    online = evaluate(RandomPolicy, **env_kwargs)
    np.testing.assert_array_equal(online.corners, remembered.corners)
    np.testing.assert_allclose(online.probabilities, remembered.probabilities, atol=1e-5)
    np.testing.assert_allclose(online.returns, remembered.returns, atol=1e-5)


@pytest.mark.parametrize("policy", [RandomPolicy, load_policy("random", 7)])
def test_rollouts_of_a_random_policy_differ(
    policy: Any, env_kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("agents.finetuning.train_stage3", lambda *arguments, **_: seen.append(arguments[3]))
    finetune(make_tiny_recognizer(), policy, videos=env_kwargs["videos"], grid=4, rollouts=2)
    finetune(make_tiny_recognizer(), policy, videos=env_kwargs["videos"], grid=4, seed=1)
    assert seen[0].shape == (24, 4, 2)
    draws = [seen[0][:12], seen[0][12:], seen[1]]
    assert all(not torch.equal(draws[i], draws[j]) for i, j in ((0, 1), (0, 2)))


def test_no_two_rollouts_of_two_seeds_are_alike(env_kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("agents.finetuning.train_stage3", lambda *arguments, **_: seen.extend(arguments[3].split(12)))
    for seed in (0, 1, 2):
        finetune(make_tiny_recognizer(), RandomPolicy, videos=env_kwargs["videos"], grid=4, rollouts=3, seed=seed)
    assert len({draw.numpy().tobytes() for draw in seen}) == len(seen) == 9


@pytest.mark.parametrize("policy", [CenterPolicy, OraclePolicy, "patch", "skip"])
def test_any_policy_can_be_drawn(policy: Any, env_kwargs: dict[str, Any]) -> None:
    if isinstance(policy, str):
        policy = Reinforce(gym.make("AdaFocus-v0", skip=policy == "skip", **env_kwargs))
    pictures = play(policy, [0, 3], "val", **env_kwargs)
    assert [len(row) for row in pictures] == [4, 4]


@pytest.mark.parametrize("index", [-1, 10_000])
def test_videos_that_are_not_there_cannot_be_drawn(index: int, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"indices must be those of videos, 0 to .*, not {index}"):
        play(CenterPolicy, [0, index], **env_kwargs)


def test_finetune_trains_on_what_the_policy_did(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    """Skipped frames included, rollout after rollout."""
    from adafocus_env.recognition.recipes import Stage3Config
    from adafocus_env.recognition.training import train_stage3

    config = Stage3Config(epochs=2, videos_per_step=6)
    tuned = finetune(make_tiny_recognizer(), OraclePolicy, config, videos=videos, grid=4, rollouts=2, seed=3)
    found = evaluate(OraclePolicy, **env_kwargs)  # it draws in frames that it skips alone
    assert 0 < found.skipped.sum() < found.skipped.size
    corners, skipped = (
        torch.from_numpy(part).repeat(2, *[1] * (part.ndim - 1)) for part in (found.corners, found.skipped)
    )
    wanted, looking = make_tiny_recognizer(), make_tiny_recognizer()
    for recognizer, skips in ((wanted, skipped), (looking, torch.zeros_like(skipped))):
        train_stage3(recognizer, videos, torch.arange(12).repeat(2), corners, skips, config, seed=3)
    assert tuned.fingerprint() == wanted.fingerprint() != looking.fingerprint()


def test_finetune_returns_a_better_copy(env_kwargs: dict[str, Any]) -> None:
    from adafocus_env.recognition.recipes import Stage3Config

    recognizer = make_tiny_recognizer()
    before = recognizer.fingerprint()
    config = Stage3Config(epochs=60, videos_per_step=12, classifier_learning_rate=1e-2)
    tuned = finetune(recognizer, CenterPolicy, config, videos=env_kwargs["videos"], grid=4)
    assert recognizer.fingerprint() == before
    arguments = {"videos": env_kwargs["videos"], "grid": 4}
    then = evaluate(CenterPolicy, recognizer=recognizer, **arguments)
    now = evaluate(CenterPolicy, recognizer=tuned, **arguments)
    assert now.mean_confidence > then.mean_confidence


# --------------------------------------------------------------------------------------------------- shipped


def test_shipped_policies_beat_random_on_validation() -> None:
    """On 250 validation videos; the figures of record are in docs/results."""
    features = FeatureBank(load_recognizer("roaming-fashion"), RoamingFashion("val", num_videos=250))
    random = evaluate(RandomPolicy, features=features, skip=False)
    patch = evaluate(from_pretrained("roaming-fashion"), features=features)
    skip = evaluate(from_pretrained("roaming-fashion-skip"), features=features)
    oracle = evaluate(OraclePolicy, features=features, skip=False)
    assert oracle.accuracy > random.accuracy + 0.15
    assert patch.accuracy > random.accuracy + 0.08
    assert skip.accuracy > random.accuracy + 0.08
    assert skip.focused_per_video < 0.7 * 8
    assert skip.gflops_per_video < patch.gflops_per_video


def test_policies_by_name(tmp_path: Path) -> None:
    assert load_policy("oracle") is OraclePolicy
    env = gym.make("AdaFocus-v0", skip=False)
    first, again, other = (load_policy("random", seed)(env) for seed in (0, 0, 1))
    observations = np.zeros((50, *first.observation_space["glance"].shape))
    drawn = [policy.predict(observations)[0].tolist() for policy in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert isinstance(load_policy("roaming-fashion"), Reinforce)
    with pytest.raises(FileNotFoundError, match="roaming-fashion"):
        load_policy("no-such-policy")
    (tmp_path / "mine.zip").touch()
    with pytest.raises(ValueError, match=r"ppo\.zip"):
        load_policy(tmp_path / "mine.zip")


SCRIPTS = pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "scripts").glob("[!_]*.py")), ids=lambda path: path.stem
)


@SCRIPTS
def test_scripts_explain_themselves(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert not stopped.value.code
    told = capsys.readouterr().out
    for option in ("--seed", "--out"):
        assert option in told


@SCRIPTS
def test_every_script_takes_a_seed_and_a_folder(path: Path) -> None:
    config = runpy.run_path(str(path))["Config"]
    assert {"seed", "out"} <= {field.name for field in dataclasses.fields(config)}
