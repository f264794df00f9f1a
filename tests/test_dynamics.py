"""The memoised step against the plain computation: crop, local CNN, torch's GRU, softmax."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures, Recognizer, RoamingFashion
from adafocus_env.environments.rewards import REWARDS
from adafocus_env.random_draws import integers, uniform

LANES, SEED = 5, 11


class PlainProcedure:
    """The Markov decision process as the paper tells it, for one lane: no table, no projection laid open."""

    def __init__(
        self, recognizer: Recognizer, videos: RoamingFashion, video: int, lane_seed: int, episode: int
    ) -> None:
        self.recognizer, self.seeds = recognizer, (lane_seed, episode)
        self.frames = videos.frames(torch.tensor([video]))[0]
        self.label = int(videos.labels[video])
        self.hidden = torch.zeros(1, 1, recognizer.config.hidden_size)
        self.time = 0

    def corner(self, patch: int, grid: int) -> tuple[int, int]:
        room = self.frames.shape[-1] - self.recognizer.config.patch_size
        return patch // grid * room // (grid - 1), patch % grid * room // (grid - 1)

    def after(self, corner: tuple[int, int] | None) -> Tensor:
        """Hidden state after feeding this frame and the patch at a corner (None: a zero local vector)."""
        size = self.recognizer.config.patch_size
        _, global_vector = self.recognizer.glance(self.frames[self.time, None])
        local_vector = torch.zeros(1, self.recognizer.local_size)
        if corner is not None:
            patch = self.frames[self.time, None, :, corner[0] : corner[0] + size, corner[1] : corner[1] + size]
            local_vector = self.recognizer.look(patch)
        features = torch.cat((global_vector, local_vector), dim=1)
        return self.recognizer.classifier.gru(features[None], self.hidden)[1]

    @torch.no_grad()
    def prediction(self) -> int:
        return int(self.recognizer.classifier.fc(self.hidden[0, 0]).argmax())

    def confidence(self, hidden: Tensor) -> float:
        return float(torch.softmax(self.recognizer.classifier.fc(hidden[0, 0]), dim=0)[self.label])

    @torch.no_grad()
    def step(
        self, patch: int, skipped: bool, reward: str, baseline: str, grid: int, skip_cost: float
    ) -> tuple[float, float, float]:
        """Reward, confidence and reference confidence."""
        if skipped:
            self.time += 1
            return 0.0, self.confidence(self.hidden), 0.0
        after = self.after(self.corner(patch, grid))
        time = torch.tensor(self.time)
        seed, episode = self.seeds
        match reward, baseline:
            case (("gain_over_random" | "log_odds_over_random"), "sample"):
                drawn = int(integers(grid * grid, torch.tensor(seed), episode, 1, time))
                reference = self.confidence(self.after(self.corner(drawn, grid)))
            case "gain_over_random", "exact":
                corners = [self.corner(k, grid) for k in range(grid * grid)]
                reference = float(np.mean([self.confidence(self.after(corner)) for corner in corners]))
            case "gain_over_random", "pixel":
                room = self.frames.shape[-1] - self.recognizer.config.patch_size
                draws = [float(uniform(torch.tensor(seed), episode, stream, time)) for stream in (2, 3)]
                reference = self.confidence(self.after((int(draws[0] * room), int(draws[1] * room))))
            case "gain_over_previous", _:
                reference = self.confidence(self.hidden)
            case "gain_over_blank", _:
                reference = self.confidence(self.after(None))
            case _:
                reference = 0.0
        self.hidden = after
        self.time += 1
        confidence = self.confidence(after)
        if reward == "log_odds_over_random":
            gain = math.log(confidence / (1 - confidence)) - math.log(reference / (1 - reference))
        else:
            gain = confidence - reference
        return gain - skip_cost, confidence, reference


COMBINATIONS = [("gain_over_random", baseline) for baseline in ("sample", "exact", "pixel")] + [
    (reward, "sample") for reward in REWARDS if reward != "gain_over_random"
]


FEATURES: dict[str, tuple[Callable[..., FrozenFeatures], float]] = {
    "memoised": (FeatureBank, 1e-5),
    "memoised, float16": (functools.partial(FeatureBank, dtype="float16"), 2e-3),
    "online": (FrozenFeatures, 1e-5),
}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("reward", "baseline"), COMBINATIONS)
def test_a_step_equals_the_plain_computation(
    reward: str, baseline: str, skip: bool, features: str, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    make, tolerance = FEATURES[features]
    env = AdaFocusVectorEnv(
        LANES,
        features=make(recognizer, videos, 4),
        reward=reward,
        baseline=baseline,
        skip=skip,
        skip_cost=0.1 if skip else 0.0,
    )
    random, cost = np.random.default_rng(0), recognizer.cost()
    for episode in range(2):
        observation, info = env.reset(seed=SEED) if episode == 0 else env.reset()
        plain = [
            PlainProcedure(recognizer, videos, int(video), SEED + lane, episode)
            for lane, video in enumerate(info["video"])
        ]
        for time in range(videos.num_frames):
            for lane, procedure in enumerate(plain):
                with torch.no_grad():
                    glance = recognizer.glance(procedure.frames[time, None])[0][0]
                np.testing.assert_allclose(observation["glance"][lane], glance, atol=tolerance, rtol=tolerance)
                np.testing.assert_allclose(observation["belief"][lane], procedure.hidden[0, 0], atol=tolerance)
                assert observation["time"][lane] == pytest.approx(time / videos.num_frames)
            patch, bit = random.integers(env.num_patches, size=LANES), random.integers(2, size=LANES) * skip
            observation, rewards, terminated, truncated, info = env.step(np.stack((patch, bit), 1) if skip else patch)
            last = time == videos.num_frames - 1
            for lane, procedure in enumerate(plain):
                wanted = procedure.step(int(patch[lane]), bool(bit[lane]), reward, baseline, 4, env.skip_cost)
                found = (rewards[lane], info["confidence"][lane], info["baseline_confidence"][lane])
                slack = 1.0
                if reward == "log_odds_over_random" and not bit[lane]:  # whose slope is 1 / (p · (1 − p))
                    slack = 1 / min(p * (1 - p) for p in wanted[1:])
                np.testing.assert_allclose(found[0], wanted[0], atol=tolerance * slack)
                np.testing.assert_allclose(found[1:], wanted[1:], atol=tolerance)
                assert tuple(info["patch"][lane]) == (*procedure.corner(int(patch[lane]), 4), 24)
                assert info["skipped"][lane] == bool(bit[lane])
                assert info["prediction"][lane] == procedure.prediction()
                assert info["label"][lane] == procedure.label
                assert info["gflops"][lane] == pytest.approx(cost.always + cost.local * (1 - bit[lane]))
                np.testing.assert_allclose(observation["belief"][lane], procedure.hidden[0, 0], atol=tolerance)
                if last:
                    assert info["is_success"][lane] == (procedure.prediction() == procedure.label)
                    assert observation["time"][lane] == 1
                    with torch.no_grad():
                        glance = recognizer.glance(procedure.frames[-1, None])[0][0]
                    np.testing.assert_allclose(observation["glance"][lane], glance, atol=tolerance, rtol=tolerance)
            assert not truncated.any()
            assert (terminated == last).all()


def test_the_confidence_gain_telescopes(env_kwargs: dict[str, Any]) -> None:
    env = AdaFocusVectorEnv(3, reward="gain_over_previous", skip_cost=0.05, **env_kwargs)
    env.reset(seed=1)
    start = env.probabilities[torch.arange(3), env.videos.labels[env.current_videos]].numpy()
    env.action_space.seed(0)
    total, focused = np.zeros(3), np.zeros(3)
    for _ in range(env.num_frames):
        _, reward, _, _, info = env.step(env.action_space.sample())
        total += reward
        focused += ~info["skipped"]
    np.testing.assert_allclose(total, info["confidence"] - start - 0.05 * focused, atol=1e-5)


def test_skipping_everything_changes_nothing(env_kwargs: dict[str, Any]) -> None:
    env = AdaFocusVectorEnv(3, **env_kwargs)
    env.reset(seed=1)
    before = env.probabilities
    for _ in range(env.num_frames):
        observation, reward, _, _, info = env.step(np.array([[5, 1]] * 3))
        assert not observation["belief"].any()
        assert not reward.any()
    assert torch.equal(env.probabilities, before)
    assert info["video_gflops"] == pytest.approx(env.num_frames * env.recognizer.cost().always)


def test_exact_baseline_is_the_mean_of_the_sampled_one(env_kwargs: dict[str, Any]) -> None:
    exact = AdaFocusVectorEnv(1, baseline="exact", skip=False, **env_kwargs)
    exact.reset(seed=0, options={"video": 3})
    *_, info = exact.step(np.array([0]))
    sampled = AdaFocusVectorEnv(400, baseline="sample", skip=False, **env_kwargs)
    sampled.reset(seed=0, options={"video": 3})
    *_, many = sampled.step(np.zeros(400, dtype=int))
    draws = many["baseline_confidence"]
    assert info["baseline_confidence"][0] == pytest.approx(draws.mean(), abs=float(draws.std()) / 4)
    assert len(np.unique(draws)) > 4


def test_a_custom_reward_object_is_used(env_kwargs: dict[str, Any]) -> None:
    class Squared:
        reference = "blank"

        def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float) -> Tensor:
            return focused * (confidence - reference) ** 2 - skip_cost

    env = AdaFocusVectorEnv(2, reward=Squared(), skip_cost=0.5, **env_kwargs)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([[3, 0], [3, 1]]))
    gain = info["confidence"] - info["baseline_confidence"]
    np.testing.assert_allclose(reward, [gain[0] ** 2 - 0.5, -0.5], atol=1e-6)


def test_custom_rewards_are_checked(env_kwargs: dict[str, Any]) -> None:
    class Custom:
        reference = None

        def __init__(self, rule: Any) -> None:
            self.rule = rule

        def __call__(self, confidence: Any, reference: Any, focused: Any, skip_cost: float) -> Any:
            return self.rule(confidence)

    def step(rule: Any) -> Any:
        env = AdaFocusVectorEnv(2, reward=Custom(rule), **env_kwargs)
        env.reset(seed=0)
        return env.step(np.array([[3, 0], [3, 1]]))[1]

    assert step(lambda confidence: confidence.double()).dtype == np.float32
    for wrong in (lambda _: 1.0, lambda confidence: confidence[:1], lambda confidence: confidence.numpy()):
        with pytest.raises(ValueError, match=r"reward must give a tensor of shape \(2,\)"):
            step(wrong)
    with pytest.raises(ValueError, match="finite"):
        step(lambda confidence: confidence / 0)


def test_gflops_count_what_runs(env_kwargs: dict[str, Any], recognizer: Recognizer) -> None:
    cost = recognizer.cost()
    env = gym.make("AdaFocus-v0", **env_kwargs)
    env.reset(seed=0)
    bits = [0, 1, 0, 0]
    spent = [env.step(np.array([0, bit]))[4] for bit in bits]
    for bit, info in zip(bits, spent, strict=True):
        assert info["gflops"] == pytest.approx(cost.always + (1 - bit) * cost.local)
    assert spent[-1]["video_gflops"] == pytest.approx(4 * cost.always + 3 * cost.local)
    # A 3×3 stem of 4 channels at stride 2 on 24² pixels, then one residual block of 8 channels at stride 2.
    stem, block = 12 * 12 * 4 * 27, 6 * 6 * 8 * (4 * 9 + 8 * 9 + 4)
    assert cost.glance * 1e9 == stem + block


def test_the_classifier_is_paid_for_on_every_frame(env_kwargs: dict[str, Any], recognizer: Recognizer) -> None:
    """A GRU of 16 on vectors of 8 and 12, and ten classes: a skipped frame costs it too."""
    cost = recognizer.cost()
    classifier = 3 * 16 * (8 + 12 + 16) + 16 * 10
    assert cost.classifier * 1e9 == classifier
    env = gym.make("AdaFocus-v0", **env_kwargs)
    env.reset(seed=0)
    assert env.step(np.array([0, 1]))[4]["gflops"] * 1e9 == pytest.approx(cost.glance * 1e9 + classifier)
