"""Prices of compute that are drawn for every episode and shown to policies."""

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
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_sb3_env
from torch import Tensor

from adafocus_env import AdaFocusTSMVectorEnv, AdaFocusVectorEnv, Recognizer, RoamingFashion
from adafocus_env.prices import drawn_prices, log_price, shown_price
from agents import Differentiable, Reinforce, evaluate, load_policy
from agents.figures import play
from agents.policy_spaces import spaces_as_numbers, spaces_from_numbers
from agents.sb3 import GlancePolicy, make_vec_env
from tests.test_stop import DRAWN_PRICES, FRAMES, LANES, STOPPING, draw

DRAWN = {**STOPPING, **DRAWN_PRICES}


def make_vec(num_envs: int = LANES, **kwargs: Any) -> Any:
    return gym.make_vec("AdaFocus-v0", num_envs, **{**DRAWN, **kwargs})


# -------------------------------------------------------------------------------------------------------- environment


def test_the_price_is_shown_where_it_is_drawn_alone(env_kwargs: dict[str, Any]) -> None:
    fixed = gym.make("AdaFocus-v0", stop=True, skip_cost=0.1, glance_cost=0.1, **env_kwargs).observation_space
    assert list(fixed) == ["belief", "glance", "time"]
    for arguments, count in (
        ({"skip_cost": (0.01, 0.1)}, 1),
        ({"skip_cost": [0.01, 0.01], "skip": False}, 1),
        ({"skip_cost": (0.01, 0.1), "stop": True}, 2),
        ({"glance_cost": (0, 0.1), "stop": True}, 2),
    ):
        space: Any = gym.make("AdaFocus-v0", **arguments, **env_kwargs).observation_space
        assert space["price"] == spaces.Box(-1, 1, (count,), np.float32)
        del space.spaces["price"]
        assert space == fixed


def test_the_checkers_pass(env_kwargs: dict[str, Any]) -> None:
    check_env(gym.make("AdaFocus-v0", **DRAWN, **env_kwargs).unwrapped, skip_render_check=True)
    check_sb3_env(gym.make("AdaFocus-v0", **DRAWN, **env_kwargs), warn=False)


def test_what_is_shown_is_uniform() -> None:
    draws = np.linspace(0, 1, 101)[:-1]
    for low, high in ((0.0, 0.1), (0.003, 0.06)):
        prices = drawn_prices(draws, low, high)
        least, most = shown_price(np.array([low, high]))
        assert low <= prices.min() < prices.max() <= high
        np.testing.assert_allclose(shown_price(prices), least + (most - least) * draws, atol=1e-9)
    assert (drawn_prices(draws, 0.03, 0.03) == 0.03).all()
    np.testing.assert_allclose(shown_price(np.array([0, 0.015, 1e9])), [-1, 0, 1])
    prices = torch.tensor([0.0, 0.003, 0.015, 0.06])
    wanted = torch.tensor([-4.595, np.log(0.2), 0.0, np.log(4)], dtype=torch.float32)
    torch.testing.assert_close(log_price(shown_price(prices)), wanted, atol=1e-3, rtol=0)


def test_draws_are_those_of_seeds_and_disturb_no_others(env_kwargs: dict[str, Any]) -> None:
    envs, again = make_vec(**env_kwargs), make_vec(2, **env_kwargs)
    fixed = make_vec(skip_cost=0.1, glance_cost=0.1, **env_kwargs)
    seen = []
    for episode in range(3):
        seeds: dict[str, Any] = {"seed": 7} if episode == 0 else {}
        observation, info = envs.reset(**seeds)
        np.testing.assert_array_equal(info["video"], fixed.reset(**seeds)[1]["video"])
        np.testing.assert_array_equal(info["skip_cost"][3:], again.reset(seed=10 if seeds else None)[1]["skip_cost"])
        prices = np.stack((info["skip_cost"], info["glance_cost"]), axis=1)
        np.testing.assert_allclose(observation["price"], (prices - 0.015) / (prices + 0.015), atol=1e-6)
        assert (prices >= (0, 0.01)).all()
        assert (prices <= (0.2, 0.05)).all()
        seen.append(prices)
    assert len(np.unique(seen)) == 3 * LANES * 2


def test_the_return_is_the_confidence_gained_minus_the_price_drawn(env_kwargs: dict[str, Any]) -> None:
    envs = make_vec(autoreset_mode="DISABLED", output="torch", **env_kwargs)
    _, info = envs.reset(seed=2)
    price, going_on, start = info["skip_cost"], info["glance_cost"], envs.unwrapped._lanes.state.confidence
    total = torch.zeros(LANES)
    for choice in (0, 1, 0, 0):
        _, reward, _, _, info = envs.step(torch.tensor([[5, choice]] * LANES))
        total += reward
    wanted = info["confidence"] - start - 3 * price - 3 * going_on
    torch.testing.assert_close(total, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("baseline", ["sample", "exact"])
def test_a_range_of_one_price_is_that_price(baseline: str, env_kwargs: dict[str, Any]) -> None:
    steps = []
    for price in (0.1, (0.1, 0.1)):
        env = gym.make_vec("AdaFocus-v0", LANES, skip_cost=price, baseline=baseline, **env_kwargs)
        env.reset(seed=3)
        _, reward, _, _, info = env.step(np.array([[3, 0], [4, 1], [5, 0], [6, 0], [7, 1]]))
        steps.append((reward, info.get("candidate_rewards", reward)))
    for one, other in zip(*steps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_candidates_cost_the_price_of_their_lane(env_kwargs: dict[str, Any]) -> None:
    found = []
    for price in (0.0, 0.3):
        env = gym.make_vec("AdaFocus-v0", LANES, skip_cost=(0, 1), baseline="exact", skip=False, **env_kwargs)
        env.reset(seed=3, options={"skip_cost": np.arange(LANES) * price})
        found.append(env.step(np.arange(LANES))[-1]["candidate_rewards"])
    np.testing.assert_allclose(found[0] - found[1], np.repeat(np.arange(LANES) * 0.3, 16).reshape(LANES, 16), atol=1e-6)


def test_options_set_prices_of_one_episode(env_kwargs: dict[str, Any]) -> None:
    envs, drawn = make_vec(**env_kwargs), make_vec(**env_kwargs)
    _, usual = drawn.reset(seed=4)
    _, info = envs.reset(seed=4, options={"skip_cost": 0.7})
    np.testing.assert_allclose(info["skip_cost"], 0.7)
    np.testing.assert_array_equal(info["glance_cost"], usual["glance_cost"])
    mask = np.array([True, False, True, False, False])
    _, info = envs.reset(options={"glance_cost": np.arange(LANES), "reset_mask": mask})
    np.testing.assert_allclose(info["glance_cost"], np.where(mask, np.arange(LANES), usual["glance_cost"]))
    _, usual = drawn.reset(options={"reset_mask": mask})
    np.testing.assert_allclose(info["skip_cost"], np.where(mask, usual["skip_cost"], 0.7))
    single = gym.make("AdaFocus-v0", **DRAWN, **env_kwargs)
    observation, info = single.reset(seed=0, options={"skip_cost": 0.015, "glance_cost": 0})
    assert (info["skip_cost"], info["glance_cost"]) == (pytest.approx(0.015), 0)
    np.testing.assert_allclose(observation["price"], [0, -1])


def test_copies_in_mid_episode_go_on_alike(env_kwargs: dict[str, Any]) -> None:
    envs, random = make_vec(**env_kwargs), np.random.default_rng(1)
    envs.reset(seed=3)
    envs.step(draw(random))
    copies = [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    for _ in range(8):
        actions = draw(random)
        wanted = envs.step(actions)
        for other in copies:
            found = other.step(actions)
            np.testing.assert_array_equal(wanted[0]["price"], found[0]["price"])
            np.testing.assert_array_equal(wanted[1], found[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_cost": (0.2, 0.1)}, "0.2 is above 0.1"),
        ({"skip_cost": (-0.1, 0.1)}, "skip_cost.* at least 0"),
        ({"skip_cost": (0.1, 0.2, 0.3)}, "two of them"),
        ({"skip_cost": (0.1, float("inf"))}, "finite"),
        ({"skip_cost": (0, 0.1), "observation": "glance"}, "observation='full'"),
        ({"glance_cost": (0, 0.1)}, "stop=True"),
    ],
)
def test_wrong_ranges_are_refused(arguments: dict[str, Any], message: str, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        AdaFocusVectorEnv(1, **arguments, **env_kwargs)


def test_clips_have_no_price_to_act_by() -> None:
    with pytest.raises(ValueError, match="skip_cost must be a number"):
        AdaFocusTSMVectorEnv(1, skip_cost=(0, 0.1))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"skip_cost": 0.1}, {"skip_cost": 0.2}, "prices are fixed"),
        ({"skip_cost": (0, 1)}, {"glance_cost": 0.2}, "nothing but 'video' and 'reset_mask' and 'skip_cost'"),
        ({"skip_cost": (0, 1)}, {"skip_cost": -0.2}, "at least 0"),
        ({"skip_cost": (0, 1)}, {"skip_cost": [0.1, 0.2, 0.3]}, "2 such numbers"),
        ({"skip_cost": (0, 1)}, {"skip_cost": "much"}, "at least 0"),
    ],
)
def test_wrong_options_are_refused(
    arguments: dict[str, Any], options: dict[str, Any], message: str, env_kwargs: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        AdaFocusVectorEnv(2, **arguments, **env_kwargs).reset(seed=0, options=options)


# ----------------------------------------------------------------------------------------------------------- policies


class Worth:
    """Every look is worth 0.015."""

    reference = None

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
        return focused * (0.015 - skip_cost)


WORTH = {"reward": Worth(), "skip_cost": (0.0, 0.05)}


def learn(env_kwargs: dict[str, Any], *, shared: bool = False, updates: int = 35, **settings: Any) -> Reinforce:
    env = gym.make_vec("AdaFocus-v0", 64, output="torch", **WORTH, **env_kwargs)
    frozen = None
    if shared:
        frozen = Reinforce(gym.make_vec("AdaFocus-v0", 4, skip=False, **env_kwargs), seed=5)
        settings["share_encoder"] = True
    settings = {"learning_rate": 4e-3, "averaging": 0.0, "episodes_per_batch": 64, "gamma": 0.0, **settings}
    return Reinforce(env, seed=0, patch_policy=frozen, **settings).learn(FRAMES * 64 * updates)


@pytest.mark.parametrize(("shared", "use_belief"), [(False, True), (True, False)])
def test_one_policy_acts_by_every_price(
    shared: bool,
    use_belief: bool,
    env_kwargs: dict[str, Any],
    recognizer: Recognizer,
    videos: RoamingFashion,
    tmp_path: Path,
) -> None:
    agent = learn(env_kwargs, shared=shared, use_belief=use_belief)
    focused = {price: evaluate(agent, skip_cost=price, **env_kwargs).focused_per_video for price in (0.0, 0.05)}
    assert focused[0.0] > 3.5
    assert focused[0.05] < 0.5
    agent.save(tmp_path / "agent.pt")
    loaded = load_policy(tmp_path / "agent.pt")
    frames = videos.frames(torch.arange(len(videos)))
    for price in (0.0, 0.015, 0.05):
        found = evaluate(loaded, skip_cost=price, num_envs=5, reward="confidence", **env_kwargs)
        again = evaluate(agent, skip_cost=(price, price), reward="confidence", **env_kwargs)
        result = recognizer.recognize(frames, loaded, price=price)
        for other in (again.skipped, result.skipped):
            np.testing.assert_array_equal(found.skipped, other)
        looked = ~found.skipped
        np.testing.assert_array_equal(found.corners[looked], result.corners[looked])
        np.testing.assert_allclose(found.gflops, result.gflops)
        np.testing.assert_allclose(found.returns, again.returns, atol=1e-6)
    pictures = play(loaded, range(2), skip_cost=0.1, **env_kwargs)
    assert [len(strip) for strip in pictures] == [FRAMES, FRAMES]


def test_the_price_is_seen_beside_the_glance_alone_too(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    agent = learn(env_kwargs, updates=0)
    assert agent.policy.beside == ("price",)
    agent.save(tmp_path / "agent.pt")
    loaded, random = load_policy(tmp_path / "agent.pt"), np.random.default_rng(0)
    observation = {
        name: random.random((5, *space.shape), np.float32)  # type: ignore[misc]
        for name, space in agent.observation_space.items()  # type: ignore[attr-defined]
    }
    hidden = agent.predict(observation)[1][0]
    np.testing.assert_array_equal(loaded.predict(observation)[1][0], hidden)
    np.testing.assert_array_equal(agent.predict({**observation, "belief": observation["belief"] + 1})[1][0], hidden)
    assert (agent.predict({**observation, "price": -observation["price"]})[1][0] != hidden).any()


def test_a_policy_that_sees_prices_is_told_them(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    frames = videos.frames(torch.arange(2))
    agent, stopping = learn(env_kwargs, updates=0), Reinforce(make_vec(**env_kwargs))
    with pytest.raises(ValueError, match=r"skip_cost is missing: pass skip_cost=0\.02"):
        evaluate(agent, **env_kwargs)
    with pytest.raises(ValueError, match="glance_cost is missing"):
        evaluate(stopping, skip_cost=0.1, **env_kwargs)
    for policy, price, message in (
        (agent, None, r"acts by the price .* skip_cost \(1 number"),
        (agent, (0.1, 0.2), "not"),
        (agent, -0.1, "at least 0"),
        (stopping, 0.1, r"skip_cost, glance_cost \(2 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            recognizer.recognize(frames, policy, price=price)
    assert recognizer.recognize(frames, stopping, price=(0.1, 0.2)).frames.shape == (2,)
    plain = Reinforce(gym.make_vec("AdaFocus-v0", 2, **env_kwargs), use_belief=True)
    with pytest.raises(ValueError, match="sees none"):
        recognizer.recognize(frames, plain, price=0.1)
    assert np.isfinite(evaluate(plain, skip_cost=(0, 0.1), **env_kwargs).mean_return)
    env = gym.make_vec("AdaFocus-v0", 2, **env_kwargs)
    with pytest.raises(ValueError, match="price"):
        agent.set_env(env)
    positions = AdaFocusVectorEnv(2, action="continuous", skip=False, skip_cost=(0, 1), **env_kwargs)
    with pytest.raises(ValueError, match="pays no price"):
        Differentiable(positions)


def test_evaluation_by_drawn_prices_depends_on_the_seed_alone(env_kwargs: dict[str, Any]) -> None:
    agent = learn(env_kwargs, updates=0, use_belief=True)
    first, again, other = (
        evaluate(agent, num_envs=lanes, seed=seed, **WORTH, **env_kwargs).returns
        for lanes, seed in ((12, 1), (5, 1), (12, 2))
    )
    np.testing.assert_allclose(first, again, atol=1e-6)
    assert (first != other).any()


@pytest.mark.parametrize("policy", ["MultiInputPolicy", GlancePolicy])
def test_sb3_trains_on_it(policy: Any, env_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(4, seed=0, **DRAWN, **env_kwargs)
    model = PPO(policy, env, n_steps=8, batch_size=16, seed=0).learn(32)
    found = evaluate(model, skip_cost=0.1, glance_cost=0.02, reward="confidence", **env_kwargs)
    assert 1 <= found.frames_per_video <= FRAMES
    observation = {name: np.zeros((1, *space.shape), np.float32) for name, space in env.observation_space.items()}  # type: ignore[attr-defined]
    values = []
    for price in (-1.0, 1.0):
        observation["price"][:] = price
        values.append(float(model.policy.predict_values(model.policy.obs_to_tensor(observation)[0]).detach()))
    assert values[0] != values[1]


def test_an_sb3_model_that_sees_no_price_can_be_frozen(env_kwargs: dict[str, Any]) -> None:
    model = PPO("MultiInputPolicy", make_vec_env(4, skip=False, **env_kwargs), n_steps=4, batch_size=16)
    env = gym.make_vec("AdaFocus-v0", 4, output="torch", **WORTH, **env_kwargs)
    agent = Reinforce(env, patch_policy=model, episodes_per_batch=4).learn(16)
    assert np.isfinite(evaluate(agent, skip_cost=0.1, **env_kwargs).mean_return)


def test_stopping_is_learnt_over_a_policy_that_acts_by_the_price(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    """The frozen one sees the price of a look alone, and skips as it does by itself until the video is stopped."""
    skipping = learn(env_kwargs, updates=10)
    envs = gym.make_vec("AdaFocus-v0", 8, output="torch", **{**DRAWN, "skip_cost": (0.0, 0.05)}, **env_kwargs)
    agent = Reinforce(envs, patch_policy=skipping, episodes_per_batch=8).learn(8 * FRAMES)
    agent.save(tmp_path / "agent.safetensors")
    loaded = load_policy(tmp_path / "agent.safetensors")
    frames = videos.frames(torch.arange(len(videos)))
    for price in (0.0, 0.05):
        alone = evaluate(skipping, skip_cost=price, reward="confidence", **env_kwargs)
        found = evaluate(loaded, skip_cost=price, glance_cost=0.02, reward="confidence", **env_kwargs)
        before = np.arange(FRAMES) < found.frames[:, None] - 1  # what happens on the last frame is the other's choice
        np.testing.assert_array_equal(found.skipped[before], alone.skipped[before])
        result = recognizer.recognize(frames, loaded, price=(price, 0.02))
        np.testing.assert_array_equal(found.skipped, result.skipped)
        np.testing.assert_allclose(found.gflops, result.gflops)
    with pytest.raises(ValueError, match=r"price.* but the environment shows"):
        Reinforce(gym.make_vec("AdaFocus-v0", 2, stop=True, **env_kwargs), patch_policy=skipping)


def test_files_that_are_older_than_prices_load(env_kwargs: dict[str, Any]) -> None:
    for arguments in ({}, {"skip": False}, {"observation": "glance"}):
        env = AdaFocusVectorEnv(1, **arguments, **env_kwargs)
        wanted = env.single_observation_space, env.single_action_space
        numbers = spaces_as_numbers(*wanted)
        assert spaces_from_numbers(numbers) == wanted
        del numbers["price"], numbers["stop"]
        assert spaces_from_numbers(numbers) == wanted
    env = AdaFocusVectorEnv(1, **DRAWN, **env_kwargs)
    wanted = env.single_observation_space, env.single_action_space
    assert spaces_from_numbers(spaces_as_numbers(*wanted)) == wanted
