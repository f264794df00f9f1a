"""Ending an episode: the third decision beside where to look and whether to."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_sb3_env

from adafocus_env import AdaFocusVectorEnv, Recognizer, RoamingFashion
from adafocus_env.environments.render import GREEN
from agents import Reinforce, evaluate, load_policy
from agents.figures import film_strip, play
from agents.sb3 import GlancePolicy, make_model, make_vec_env

LANES, FRAMES = 5, 4
STOPPING = {"stop": True, "reward": "gain_over_previous", "skip_cost": 0.02, "glance_cost": 0.01}
DRAWN_PRICES = {"skip_cost": (0.0, 0.2), "glance_cost": (0.01, 0.05)}


def make_vec(num_envs: int = LANES, **kwargs: Any) -> Any:
    return gym.make_vec("AdaFocus-v0", num_envs, **{**STOPPING, **kwargs})


def draw(random: np.random.Generator, lanes: int = LANES) -> np.ndarray:
    return np.stack((random.integers(16, size=lanes), random.choice(3, lanes, p=(0.5, 0.25, 0.25))), axis=1)


def test_spaces_are_those_of_before_by_default(env_kwargs: dict[str, Any]) -> None:
    assert gym.make("AdaFocus-v0", **env_kwargs).action_space == spaces.MultiDiscrete([16, 2])
    assert gym.make("AdaFocus-v0", skip=False, **env_kwargs).action_space == spaces.Discrete(16)
    assert gym.make("AdaFocus-v0", stop=True, **env_kwargs).action_space == spaces.MultiDiscrete([16, 3])


def test_the_checkers_pass(env_kwargs: dict[str, Any]) -> None:
    check_env(gym.make("AdaFocus-v0", **STOPPING, **env_kwargs).unwrapped, skip_render_check=True)
    check_sb3_env(gym.make("AdaFocus-v0", **STOPPING, **env_kwargs), warn=False)


def test_stopping_ends_the_episode_and_changes_nothing(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **STOPPING, **env_kwargs)
    env.reset(seed=1)
    observation, reward, terminated, _, first = env.step([3, 0])
    assert not terminated
    assert "stopped" not in first
    assert reward == pytest.approx(first["confidence"] - first["baseline_confidence"] - 0.02 - 0.01, abs=1e-6)
    after, reward, terminated, truncated, last = env.step([7, 2])
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert (last["stopped"], last["frames"], last["skipped"]) == (True, 2, True)
    assert last["confidence"] == first["confidence"]
    np.testing.assert_array_equal(after["belief"], observation["belief"])
    assert after["time"] == 2 / FRAMES
    np.testing.assert_array_equal(after["glance"], observation["glance"])  # the last frame that was glanced at
    assert (env.unwrapped.current_steps.item(), env.unwrapped.current_frames.item()) == (2, 2)
    assert last["video_gflops"] == pytest.approx(first["gflops"] + last["gflops"])
    with pytest.raises(gym.error.ResetNeeded):
        env.step([0, 0])


@pytest.mark.parametrize("stop_at", [0, 1, 3, None])
def test_the_return_is_the_confidence_gained_minus_the_price(stop_at: int | None, env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **STOPPING, **env_kwargs)
    choices = [2 if step == stop_at else step % 2 for step in range(FRAMES)]  # look, skip, look, skip
    env.reset(seed=2)
    start = float(env.unwrapped._lane._lanes.state.confidence)
    rewards, terminated = [], False
    while not terminated:
        _, reward, terminated, _, info = env.step([5, choices[len(rewards)]])
        rewards.append(reward)
    glances = FRAMES if stop_at is None else stop_at + 1
    assert (len(rewards), info["frames"], info["stopped"]) == (glances, glances, stop_at is not None)
    looks = choices[:glances].count(0)
    assert sum(rewards) == pytest.approx(info["confidence"] - start - 0.02 * looks - 0.01 * (glances - 1), abs=1e-5)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("prices", [{}, DRAWN_PRICES], ids=["fixed", "drawn"])
def test_lanes_are_single_environments(mode: str, prices: dict[str, Any], env_kwargs: dict[str, Any]) -> None:
    """Lanes that end at different steps agree with single environments that are reset by hand, in prices drawn too."""
    envs = make_vec(autoreset_mode=mode, **prices, **env_kwargs)
    singles = [gym.make("AdaFocus-v0", **{**STOPPING, **prices}, **env_kwargs) for _ in range(LANES)]

    def assert_equal(shown: dict[str, Any], lane: int, observation: dict[str, np.ndarray]) -> None:
        np.testing.assert_allclose(shown["belief"][lane], observation["belief"], atol=1e-6)
        np.testing.assert_allclose(shown["time"][lane], observation["time"])
        assert ("price" in shown) == ("price" in observation) == bool(prices)
        if prices:
            np.testing.assert_array_equal(shown["price"][lane], observation["price"])

    envs.reset(seed=10)
    for lane, env in enumerate(singles):
        env.reset(seed=10 + lane)
    random, over = np.random.default_rng(0), np.zeros(LANES, dtype=bool)
    for _ in range(30):
        if mode == "DISABLED" and over.any():
            envs.reset(options={"reset_mask": over})
        actions = draw(random)
        observations, rewards, terminations, _, infos = envs.step(actions)
        for lane, env in enumerate(singles):
            if over[lane] and mode != "SAME_STEP":
                observation, info = env.reset()
                if mode == "NEXT_STEP":
                    assert (rewards[lane], terminations[lane]) == (0, False)
                    assert_equal(observations, lane, observation)
                    for name in prices:
                        assert infos[name][lane] == pytest.approx(info[name])
                    continue
            observation, reward, terminated, _, info = env.step(actions[lane])
            assert rewards[lane] == pytest.approx(reward, abs=1e-6)
            assert terminations[lane] == terminated
            if terminated:
                last = infos["final_info"] if mode == "SAME_STEP" else infos
                assert last["_frames"][lane]
                assert (last["frames"][lane], last["stopped"][lane]) == (info["frames"], info["stopped"])
                assert last["video_gflops"][lane] == pytest.approx(info["video_gflops"])
                if mode == "SAME_STEP":
                    assert_equal(
                        {name: {lane: part} for name, part in infos["final_obs"][lane].items()}, lane, observation
                    )
                    observation, _ = env.reset()
            assert_equal(observations, lane, observation)
        over = terminations.copy()


def test_copies_in_mid_episode_go_on_alike(env_kwargs: dict[str, Any]) -> None:
    envs, random = make_vec(**env_kwargs), np.random.default_rng(1)
    envs.reset(seed=3)
    for _ in range(5):
        envs.step(draw(random))
    copies = [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    for _ in range(8):
        actions = draw(random)
        wanted = envs.step(actions)
        for other in copies:
            found = other.step(actions)
            np.testing.assert_array_equal(wanted[1], found[1])
            np.testing.assert_array_equal(wanted[2], found[2])


class Scripted:
    """Acts by a table of its own: what to do in step t on the lanes, by their beliefs' first number."""

    def __init__(self, env: AdaFocusVectorEnv) -> None:
        self.action_space, self.observation_space = env.single_action_space, env.single_observation_space

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        glance = np.asarray(observation["glance"]).reshape(len(observation["glance"]), -1)
        places = (np.abs(glance).sum(axis=1) * 1e3).astype(np.int64)
        choice = np.where(np.asarray(observation["time"])[:, 0] == 0, 0, places % 3)
        return np.stack((places % 16, choice), axis=1), state


def test_evaluation_equals_recognition(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    policy = Scripted(AdaFocusVectorEnv(2, **STOPPING, **env_kwargs))
    found = evaluate(policy, num_envs=5, **STOPPING, **env_kwargs)
    result = recognizer.recognize(videos.frames(torch.arange(len(videos))), policy)
    assert len(set(found.frames.tolist())) > 1, "all videos were stopped at the same frame"
    assert found.frames.tolist() == result.frames.tolist()
    np.testing.assert_array_equal(found.skipped, result.skipped)
    np.testing.assert_allclose(found.gflops, result.gflops)
    np.testing.assert_allclose(found.probabilities, result.logits[:, -1].softmax(dim=1), atol=1e-5)
    again = evaluate(policy, num_envs=12, **STOPPING, **env_kwargs)
    np.testing.assert_allclose(found.returns, again.returns, atol=1e-6)
    assert found.frames_per_video < FRAMES


def test_a_high_price_teaches_to_stop_at_once_and_none_to_go_on(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    lengths = []
    for price in (0.5, 0.0):
        env = make_vec(16, glance_cost=price, skip_cost=0.0, output="torch", **env_kwargs)
        agent = Reinforce(env, seed=0, learning_rate=1e-2, gamma=1.0, averaging=0.0, episodes_per_batch=16)
        agent.learn(FRAMES * 16 * 40)
        lengths.append(agent.history[-1]["ep_len_mean"])
        agent.save(tmp_path / "agent.pt")
        first, second = (evaluate(each, **env_kwargs) for each in (agent, load_policy(tmp_path / "agent.pt")))
        np.testing.assert_array_equal(first.frames, second.frames)
    assert lengths[0] < 1.5 < 2 < lengths[1]


@pytest.mark.parametrize("frozen_skips", [False, True])
def test_heads_over_frozen_policies(frozen_skips: bool, env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    """π alone leaves skipping and stopping to be learnt, π and π′ leave stopping."""
    frozen = Reinforce(AdaFocusVectorEnv(4, skip=frozen_skips, output="torch", **env_kwargs), seed=5)
    env = make_vec(4, output="torch", **env_kwargs)
    agent = Reinforce(env, seed=1, patch_policy=frozen, episodes_per_batch=8)
    assert (agent.policy.patch_head, agent.policy.skip_head is None) == (None, frozen_skips)
    agent.learn(FRAMES * 16)
    agent.save(tmp_path / "agent.pt")
    policy = load_policy(tmp_path / "agent.pt")
    found, alone = evaluate(policy, **env_kwargs), evaluate(frozen, **env_kwargs)
    before = np.arange(FRAMES) < found.frames[:, None] - (found.frames[:, None] < FRAMES)
    seen = before & ~found.skipped
    np.testing.assert_array_equal(found.corners[seen], alone.corners[seen])
    if frozen_skips:
        np.testing.assert_array_equal(found.skipped[before], alone.skipped[before])


def test_what_follows_the_end_is_not_learnt_from(env_kwargs: dict[str, Any]) -> None:
    agent = Reinforce(make_vec(16, output="torch", **env_kwargs), seed=0, episodes_per_batch=16)
    rollout, _ = agent.collect()
    ended = ~rollout.running
    assert ended.any()
    for values in (rollout.reward, rollout.log_prob, rollout.entropy, rollout.value):
        assert not values[ended].any()
    stops = rollout.action[..., 1] == 2
    assert torch.equal(rollout.running.sum(0), torch.where(stops.any(0), stops.int().argmax(0) + 1, FRAMES))


def test_agents_need_lanes_that_restart(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 2, stop=True, autoreset_mode="DISABLED", **env_kwargs)
    with pytest.raises(ValueError, match="env must reset lanes itself where they can stop one by one"):
        Reinforce(env)


def test_sb3_trains_on_it(env_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(4, seed=0, **STOPPING, **env_kwargs)
    model = PPO(GlancePolicy, env, n_steps=8, batch_size=16, seed=0)
    model.learn(64)
    lengths = {episode["l"] for episode in model.ep_info_buffer or ()}
    assert lengths <= set(range(1, FRAMES + 1))
    assert len(lengths) > 1
    assert evaluate(model, **STOPPING, **env_kwargs).frames_per_video <= FRAMES


def test_sb3_contrib_trains_on_it(env_kwargs: dict[str, Any]) -> None:
    """With a recurrent policy, whose states begin anew where lanes end."""
    pytest.importorskip("sb3_contrib")
    model = make_model("recurrent_ppo", make_vec_env(4, seed=0, **STOPPING, **env_kwargs), n_steps=8, batch_size=16)
    model.learn(64)
    assert len({episode["l"] for episode in model.ep_info_buffer or ()}) > 1
    assert evaluate(model, **STOPPING, **env_kwargs).frames_per_video <= FRAMES


@pytest.mark.parametrize("glance_cost", [0.01, (0.0, 0.05)], ids=["fixed", "drawn"])
def test_whoever_is_left_at_a_threshold_does_not_pay_for_going_on(
    glance_cost: float | tuple[float, float], env_kwargs: dict[str, Any]
) -> None:
    """The return is that of a policy which stops itself after the same looks, but for the last glance."""
    arguments = {**STOPPING, "glance_cost": glance_cost, "skip_cost": 0.0, **env_kwargs}
    start = AdaFocusVectorEnv(12, **arguments)
    start.reset(seed=0, options={"video": np.arange(12)})
    before = start._lanes.state.confidence.numpy()
    found = evaluate(LooksOn, exit_threshold=1e-6, **arguments)  # all are left after their first frame
    assert (found.frames == 1).all()
    reached = found.probabilities[np.arange(12), found.labels]
    np.testing.assert_allclose(found.returns, reached - before, atol=1e-6)


class LooksOn:
    """Looks at every frame, and never skips or stops."""

    def __init__(self, env: AdaFocusVectorEnv) -> None:
        self.action_space, self.observation_space = env.single_action_space, env.single_observation_space
        self._lanes = env.num_envs

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
        return np.zeros((self._lanes, 2), dtype=np.int64), None


def test_film_strips_end_where_they_are_left(env_kwargs: dict[str, Any]) -> None:
    """And the last picture has a green border."""
    arguments = {**STOPPING, **env_kwargs}
    policy = LooksOn(AdaFocusVectorEnv(6, **arguments))
    whole = evaluate(LooksOn, **arguments)
    threshold = float(np.median(whole.confidences[:6, 1]))
    found = evaluate(LooksOn, exit_threshold=threshold, **arguments)
    pictures = play(policy, range(6), exit_threshold=threshold, **arguments)
    assert [len(strip) for strip in pictures] == found.frames[:6].tolist()
    assert len({len(strip) for strip in pictures}) > 1
    for strip in pictures:
        left = len(strip) < FRAMES
        assert [bool((picture[:3] == GREEN).all()) for picture in strip] == [False] * (len(strip) - 1) + [left]


def test_film_strips_end_where_videos_were_stopped(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    policy = Scripted(AdaFocusVectorEnv(2, **STOPPING, **env_kwargs))
    found, pictures = evaluate(policy, **STOPPING, **env_kwargs), play(policy, range(6), **STOPPING, **env_kwargs)
    assert [len(strip) for strip in pictures] == found.frames[:6].tolist()
    film_strip(tmp_path / "strip.png", pictures, scale=1)
    assert Image.open(tmp_path / "strip.png").width == FRAMES * pictures[0][0].shape[1]


def test_pictures_say_where_it_stopped(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", render_mode="rgb_array", **STOPPING, **env_kwargs)
    pictures = []
    for choice in (1, 2):
        env.reset(seed=4)
        env.step([3, choice])
        pictures.append(env.render())
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stop": True, "skip": False}, "skip=True"),
        ({"glance_cost": 0.1}, "stop=True"),
        ({"glance_cost": -1, "stop": True}, "at least 0"),
    ],
)
def test_arguments_without_effect_are_refused(wrong: dict[str, Any], message: str, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        AdaFocusVectorEnv(1, **wrong, **env_kwargs)


def test_unknown_choices_are_refused(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **STOPPING, **env_kwargs)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"0 \(look\), 1 \(skip\) or 2 \(stop\)"):
        env.unwrapped.step([0, 3])
