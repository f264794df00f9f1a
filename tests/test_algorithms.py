"""What sets the relatives of REINFORCE apart: their losses, and what they ask of the environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from adafocus_env import AdaFocusVectorEnv, RoamingFashion
from adafocus_env.patches import grid_corners
from agents import (
    AdvantageWeighted,
    AllAction,
    Localizer,
    PaperPPO,
    Reinforce,
    SoftChoices,
    SoftTargets,
    evaluate,
    load_policy,
)
from agents.candidate_scores import CandidateScores
from agents.networks import PolicyNetwork
from agents.reinforce import explained_variance
from agents.rollout import Rollout
from agents.sb3 import SB3_ALGORITHMS, make_model, make_vec_env

LANES, PATCHES = 6, 16


def make_rollout(logits: Tensor, action: Tensor, reward: Tensor, **infos: Tensor) -> Rollout:
    log_probs = torch.log_softmax(logits, dim=-1)
    return Rollout(
        log_prob=log_probs.gather(-1, action[..., None])[..., 0],
        entropy=torch.zeros_like(reward),
        value=torch.zeros_like(reward),
        action=action,
        reward=reward,
        focused=torch.ones_like(reward, dtype=torch.bool),
        running=torch.ones_like(reward, dtype=torch.bool),
        patch_log_probs=log_probs,
        choice_log_probs=torch.zeros(*reward.shape, 1),
        choice=torch.zeros_like(reward, dtype=torch.int64),
        infos=infos,
    )


def make_agent(kind: type[Reinforce], env_kwargs: dict[str, Any], **settings: Any) -> Reinforce:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, baseline="exact", **env_kwargs)
    return kind(env, seed=0, normalize_advantage=False, entropy_coefficient=0.0, value_coefficient=0.0, **settings)


def gradient(agent: Reinforce, logits: Tensor, action: Tensor, reward: Tensor, **infos: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    agent.loss(make_rollout(leaf, action, reward, **infos))[0].backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("skip", [False, True])
def test_candidate_rewards_are_what_the_other_actions_would_have_earned(skip: bool, env_kwargs: dict[str, Any]) -> None:
    def run(last: int) -> tuple[np.ndarray, dict[str, Any]]:
        env = AdaFocusVectorEnv(LANES, baseline="exact", skip=skip, skip_cost=0.125, **env_kwargs)
        env.reset(seed=3)
        for patch in (5, 9, last):
            patches = np.full(LANES, patch)
            actions = np.stack((patches, np.zeros_like(patches)), axis=1) if skip else patches
            _, reward, _, _, info = env.step(actions)
        return reward, info

    candidates = run(0)[1]["candidate_rewards"]
    assert candidates.shape == (LANES, PATCHES)
    for patch in (0, 7, PATCHES - 1):
        reward, info = run(patch)
        np.testing.assert_allclose(candidates[:, patch], reward, atol=1e-6)
        np.testing.assert_allclose(info["candidate_rewards"], candidates, atol=1e-6)
    np.testing.assert_allclose(candidates.mean(axis=1), -0.125, atol=1e-6)  # the baseline is their mean
    assert candidates.std(axis=1).min() > 1e-3


def test_candidate_rewards_of_skipped_frames_are_zero(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", baseline="exact", **env_kwargs)
    env.reset(seed=0)
    info = env.step(np.array([3, 1]))[4]
    assert info["candidate_rewards"].shape == (PATCHES,)
    assert not info["candidate_rewards"].any()


def test_sampled_baseline_knows_no_candidate_rewards(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, **env_kwargs)
    with pytest.raises(ValueError, match="candidate_rewards"):
        AllAction(env).learn(1)


def test_all_action_gradient_is_the_expectation_of_reinforce(env_kwargs: dict[str, Any]) -> None:
    """Of one step: REINFORCE's gradient, averaged over all actions with their probabilities."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, PATCHES, generator=random)
    rewards = torch.randn(1, 1, PATCHES, generator=random)
    probabilities = torch.softmax(logits, dim=-1)[0, 0]
    reinforce = make_agent(Reinforce, env_kwargs, gamma=0.7)
    expected = sum(
        probabilities[k] * gradient(reinforce, logits, torch.tensor([[k]]), rewards[..., k]) for k in range(PATCHES)
    )
    all_action = make_agent(AllAction, env_kwargs, gamma=0.7)
    for k in (0, 11):  # whatever was chosen
        found = gradient(all_action, logits, torch.tensor([[k]]), rewards[..., k], candidate_rewards=rewards)
        torch.testing.assert_close(found, expected)


def test_all_action_credits_later_rewards_to_the_action_taken(env_kwargs: dict[str, Any]) -> None:
    """Rewards that don't depend on the present patch reach it by the score function alone."""
    agent = make_agent(AllAction, env_kwargs, gamma=0.5)
    logits, action = torch.zeros(2, 1, PATCHES), torch.tensor([[4], [2]])
    rewards = torch.zeros(2, 1, PATCHES)
    found = gradient(agent, logits, action, torch.tensor([[0.0], [1.0]]), candidate_rewards=rewards)
    score = torch.full((PATCHES,), 1 / PATCHES)
    score[4] -= 1
    torch.testing.assert_close(found[0, 0], 0.5 * score / 2)  # γ·1 over the mean of two frames
    assert not found[1].any()


def test_explained_variance_of_known_critics() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns - returns, returns) == 1
    assert explained_variance(returns - returns.mean(), returns) == 0
    assert np.isnan(explained_variance(returns, torch.zeros(3)))  # γ = 0: no future to explain


def test_the_published_clip_never_acts(env_kwargs: dict[str, Any]) -> None:
    """One pass over a batch: PPO's gradient is REINFORCE's on the same normalised returns."""
    random = torch.Generator().manual_seed(0)
    logits, reward = torch.randn(4, LANES, PATCHES, generator=random), torch.randn(4, LANES, generator=random)
    action = torch.randint(PATCHES, (4, LANES), generator=random)
    found = gradient(make_agent(PaperPPO, env_kwargs, gamma=0.0), logits, action, reward)
    normalised = (reward - reward.mean()) / (reward.std() + 1e-5)
    torch.testing.assert_close(
        found, gradient(make_agent(Reinforce, env_kwargs, gamma=0.0), logits, action, normalised)
    )


OWN_ALGORITHMS = pytest.mark.parametrize("kind", [Reinforce, AllAction, PaperPPO, SoftTargets, AdvantageWeighted])


def random_rollout(**parts: Tensor) -> Rollout:
    """Four frames of :data:`LANES` episodes, all numbers drawn, but for the parts that are given."""
    random = torch.Generator().manual_seed(0)
    logits, reward = torch.randn(4, LANES, PATCHES, generator=random), torch.randn(4, LANES, generator=random)
    rollout = make_rollout(
        logits, torch.randint(PATCHES, (4, LANES), generator=random), reward,
        candidate_rewards=torch.randn(4, LANES, PATCHES, generator=random),
    )  # fmt: skip
    return dataclasses.replace(rollout, **parts)


@OWN_ALGORITHMS
def test_the_loss_falls_with_the_entropy(kind: type[Reinforce], env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, baseline="exact", **env_kwargs)
    agent = kind(env, seed=0, entropy_coefficient=0.25)
    low, high = (float(agent.loss(random_rollout(entropy=torch.full((4, LANES), each)))[0]) for each in (1.0, 3.0))
    assert high - low == pytest.approx(-0.25 * 2, abs=1e-5)


@OWN_ALGORITHMS
def test_the_critic_learns_from_its_squared_error_alone(kind: type[Reinforce], env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, baseline="exact", **env_kwargs)
    agent = kind(env, seed=0, value_coefficient=0.5, gamma=0.7)
    value = torch.randn(4, LANES, generator=torch.Generator().manual_seed(1), requires_grad=True)
    rollout = random_rollout(value=value)
    agent.loss(rollout)[0].backward()
    returns = rollout.reward.clone()
    for time in (2, 1, 0):
        returns[time] += 0.7 * returns[time + 1]
    target = {
        Reinforce: returns,
        AllAction: returns - rollout.reward,  # what the present patch earns is known
        SoftTargets: returns - rollout.reward,
        PaperPPO: (returns - returns.mean()) / (returns.std() + 1e-5),
        AdvantageWeighted: returns,
    }[kind]
    torch.testing.assert_close(value.grad, 0.5 * 2 * (value.detach() - target) / value.numel())


def test_normalised_advantages_have_mean_zero_and_deviation_one(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, **env_kwargs)
    log_prob = torch.zeros(4, LANES, requires_grad=True)
    rollout = random_rollout(log_prob=log_prob, reward=5 + 3 * random_rollout().reward)
    Reinforce(env, seed=0, normalize_advantage=True).loss(rollout)[0].backward()
    assert log_prob.grad is not None
    advantage = -log_prob.grad * log_prob.numel()
    assert float(advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(advantage.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_the_published_settings_are_the_papers(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, observation="glance", **env_kwargs)
    agent = PaperPPO(env)
    config = agent.config
    assert (config.gamma, config.learning_rate, config.episodes_per_batch) == (0.7, 3e-4, 64)
    assert (config.value_coefficient, config.entropy_coefficient) == (0.5, 0.01)
    assert (config.encoder_size, config.hidden_size, config.averaging) == (1024, 1024, 0)
    assert (config.normalize_advantage, config.max_grad_norm, config.use_belief) == (False, math.inf, False)
    assert Reinforce(env).config.gamma == 0.7


def test_localizer_is_taught_frame_by_frame(env_kwargs: dict[str, Any]) -> None:
    """An item that is somewhere else in every frame, and not in all of them."""
    place = (3 * torch.arange(12)[:, None] + 5 * torch.arange(4)) % PATCHES

    class Jumping(RoamingFashion):
        def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            corners = grid_corners(4, (48, 48), 24)[place[indices]]
            return torch.cat((corners, torch.full_like(corners, 24)), dim=-1), super().locations(indices)[1]

    videos = Jumping("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)
    videos.fingerprint += "jumping"
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, **{**env_kwargs, "videos": videos})
    lanes = torch.tensor([7, 0, 11, 3, 7, 2])
    rollout = random_rollout(infos={"video": lanes.expand(4, -1)})
    visible = videos.locations(lanes)[1]
    assert 0 < int(visible.sum()) < visible.numel()
    wanted = [
        -rollout.patch_log_probs[time, lane, place[video, time]]
        for lane, video in enumerate(lanes.tolist())
        for time in range(4)
        if visible[lane, time]
    ]
    assert float(Localizer(env, seed=0).loss(rollout)[0]) == pytest.approx(float(torch.stack(wanted).mean()), abs=1e-5)


def test_localizer_learns_where_the_item_is(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 12, skip=False, output="torch", **env_kwargs)
    agent = Localizer(env, seed=0, learning_rate=3e-3, episodes_per_batch=12)
    agent.learn(60 * 12 * 4)
    first, last = agent.history[0], agent.history[-1]
    assert last["policy_loss"] < 0.5 * first["policy_loss"]
    assert last["localized"] > 0.6


def test_soft_targets_are_the_best_response_at_a_price_of_certainty(env_kwargs: dict[str, Any]) -> None:
    """The gradient of a state's logits is what the policy still lacks of softmax(rewards / τ)."""
    rollout, temperature = random_rollout(), 0.3
    logits, rewards = rollout.patch_log_probs, rollout.infos["candidate_rewards"]
    agent = make_agent(SoftTargets, env_kwargs, gamma=0.0, temperature=temperature)
    found = gradient(agent, logits, rollout.action, rollout.reward, candidate_rewards=rewards)
    best = (rewards / temperature).softmax(dim=-1)
    torch.testing.assert_close(found, (logits.softmax(dim=-1) - best) / rollout.reward.numel())

    def worth(policy: Tensor) -> Tensor:
        return (policy * rewards).sum(dim=-1) - temperature * torch.special.xlogy(policy, policy).sum(dim=-1)

    others = torch.randn(50, *rewards.shape, generator=torch.Generator().manual_seed(2)).softmax(dim=-1)
    assert bool((worth(best) >= worth(0.9 * best + 0.1 * others)).all())
    _, figures = agent.loss(make_rollout(best.log(), rollout.action, rollout.reward, candidate_rewards=rewards))
    assert float(figures["divergence"]) == pytest.approx(0, abs=1e-5)


def test_soft_targets_credit_a_later_surprise_to_the_patch_taken(env_kwargs: dict[str, Any]) -> None:
    agent = make_agent(SoftTargets, env_kwargs, gamma=0.5, temperature=1.0)
    logits, action = torch.zeros(2, 1, PATCHES), torch.tensor([[4], [2]])
    rewards = torch.zeros(2, 1, PATCHES)
    found = gradient(agent, logits, action, torch.tensor([[0.0], [1.0]]), candidate_rewards=rewards)
    surprise = torch.zeros(PATCHES)
    surprise[4] = 0.5 * 1
    torch.testing.assert_close(found[0, 0], (1 / PATCHES - surprise.softmax(dim=0)) / 2)
    torch.testing.assert_close(found[1, 0], torch.zeros(PATCHES))


def test_soft_targets_move_a_policy_that_has_settled_on_a_neighbour(env_kwargs: dict[str, Any]) -> None:
    """Where the all-action gradient on the best patch fades with that patch's probability."""
    logits, action, reward = torch.zeros(1, 1, PATCHES), torch.tensor([[3]]), torch.tensor([[0.1]])
    logits[..., 3], rewards = 12.0, torch.zeros(1, 1, PATCHES)
    rewards[..., 3], rewards[..., 4] = 0.1, 0.2
    slow, fast = (
        gradient(make_agent(kind, env_kwargs, gamma=0.0), logits, action, reward, candidate_rewards=rewards)[0, 0, 4]
        for kind in (AllAction, SoftTargets)
    )
    assert -1e-5 < float(slow) < 0
    assert float(fast) < -0.9


def test_advantage_weights(env_kwargs: dict[str, Any]) -> None:
    """exp(advantage / τ), 1 on average; nothing is learnt where all actions do equally well."""
    reward = random_rollout().reward
    for rewards in (reward, torch.ones_like(reward)):
        log_prob = torch.zeros(4, LANES, requires_grad=True)
        agent = make_agent(AdvantageWeighted, env_kwargs, gamma=0.0, temperature=0.7)
        agent.loss(random_rollout(log_prob=log_prob, reward=rewards))[0].backward()
        assert log_prob.grad is not None
        weights = (rewards / 0.7).exp()
        wanted = -(weights / weights.mean() - 1) / weights.numel()
        torch.testing.assert_close(log_prob.grad, wanted, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(("kind", "baseline"), [(SoftTargets, "exact"), (AdvantageWeighted, "sample")])
def test_they_learn_and_go_on_as_they_would_have(
    kind: type[Reinforce], baseline: str, env_kwargs: dict[str, Any], tmp_path: Path
) -> None:
    env = gym.make_vec("AdaFocus-v0", 12, skip=False, output="torch", baseline=baseline, **env_kwargs)
    settings = {"learning_rate": 3e-3, "gamma": 0.0, "episodes_per_batch": 12, "score_map": True, "temperature": 0.1}
    whole, part = (kind(env, seed=0, **settings) for _ in range(2))
    whole.learn(20 * 12 * 4)
    part.learn(10 * 12 * 4).save(tmp_path / "agent.pt")
    again = kind.load(tmp_path / "agent.pt", env=env)
    again.learn(10 * 12 * 4)
    for one, other in zip(whole.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.config == again.config


def test_scores_follow_what_is_seen() -> None:
    """A map moved by a cell moves the convolution's scores of candidates that lie on cells."""
    torch.manual_seed(0)
    scores = CandidateScores(channels=3, hidden_size=5, grid=4)
    glance, hidden = torch.zeros(1, 3, 4, 4), torch.randn(1, 5)
    glance[..., 1, 1] = torch.randn(3)
    one, moved = (scores(each, hidden).view(4, 4) for each in (glance, glance.roll(1, dims=3)))
    torch.testing.assert_close(one[:, :3], moved[:, 1:])
    assert bool((one != moved).any())


@pytest.mark.parametrize("kind", [AllAction, Localizer, SoftTargets])
def test_skip_bits_are_refused(kind: type[Reinforce], env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="skip=False"):
        kind(gym.make_vec("AdaFocus-v0", 2, **env_kwargs))


def test_a_file_goes_on_with_the_algorithm_that_wrote_it(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    agent = make_agent(AllAction, env_kwargs)
    agent.save(tmp_path / "agent.pt")
    env = agent.get_env()
    with pytest.raises(ValueError, match=r"trained by AllAction: go on with AllAction\.load"):
        Reinforce.load(tmp_path / "agent.pt", env=env)
    assert isinstance(AllAction.load(tmp_path / "agent.pt", env=env), AllAction)
    glance = np.ones((2, *env.single_observation_space["glance"].shape), dtype=np.float32)
    observation = {"glance": glance, "belief": np.zeros((2, 16), np.float32), "time": np.zeros((2, 1), np.float32)}
    acting = Reinforce.load(tmp_path / "agent.pt")  # anything acts with it
    np.testing.assert_array_equal(
        acting.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


class Slow(Reinforce):
    """An agent with a network of its own: another layer between the glance and the recurrent state."""

    def _make_policy(self, glance_shape: tuple[int, ...], beside: Mapping[str, int]) -> PolicyNetwork:
        policy = super()._make_policy(glance_shape, beside)
        policy.encode_glance.append(torch.nn.Linear(self.config.encoder_size, self.config.encoder_size))
        return policy


def test_a_file_of_another_network_loads_as_the_class_that_has_it(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    agent = make_agent(Slow, env_kwargs)
    agent.save(tmp_path / "slow.pt")
    again = load_policy(tmp_path / "slow.pt")
    assert type(again) is Slow
    first, second = (evaluate(policy, "val", **env_kwargs) for policy in (agent, again))
    np.testing.assert_array_equal(first.corners, second.corners)


@pytest.mark.parametrize("name", SB3_ALGORITHMS)
def test_sb3_models_come_back_by_their_name(name: str, env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    if name == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    settings = {"buffer_size": 100} if name == "dqn" else {}
    model = make_model(name, make_vec_env(2, skip=False, **env_kwargs), **settings)
    model.save(tmp_path / f"{name}.zip")
    first, again = (evaluate(policy, "val", **env_kwargs) for policy in (model, load_policy(tmp_path / f"{name}.zip")))
    np.testing.assert_array_equal(first.corners, again.corners)


def test_dqn_takes_no_skip_bit(env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="skip=False"):
        make_model("dqn", make_vec_env(2, **env_kwargs))
    with pytest.raises(ValueError, match="score_map: dqn can't score the glance's map"):
        make_model("dqn", make_vec_env(2, skip=False, **env_kwargs), score_map=True)


@pytest.mark.parametrize(("stop", "over_skips", "choices"), [(False, False, 2), (True, False, 3), (True, True, 2)])
def test_soft_choices_learn_every_choice_that_is_left(
    stop: bool, over_skips: bool, choices: int, env_kwargs: dict[str, Any], tmp_path: Path
) -> None:
    frozen = Reinforce(AdaFocusVectorEnv(LANES, skip=over_skips, output="torch", **env_kwargs), seed=1)
    env = AdaFocusVectorEnv(LANES, stop=stop, reward="gain_over_previous", output="torch", **env_kwargs)
    settings = {"episodes_per_batch": 2 * LANES, "averaging": 0.0, "seed": 0}
    agent = SoftChoices(env, patch_policy=frozen, **settings)
    rollout, _ = agent.collect()
    torch.testing.assert_close(
        rollout.choice_log_probs.exp().sum(-1)[rollout.running], torch.ones(rollout.running.sum())
    )
    assert rollout.choice_log_probs.shape[-1] == rollout.value.shape[-1] == choices
    taken = rollout.choice_log_probs.gather(-1, rollout.choice[..., None])[..., 0]
    torch.testing.assert_close(taken, rollout.log_prob)
    agent.learn(4 * LANES * 4).save(tmp_path / "agent.pt")
    again = load_policy(tmp_path / "agent.pt")
    assert type(again) is SoftChoices
    whole, resumed = SoftChoices(env, patch_policy=frozen, **settings), SoftChoices.load(tmp_path / "agent.pt", env)
    whole.collect()  # as above
    whole.learn(8 * LANES * 4)
    resumed.learn(whole.num_timesteps - resumed.num_timesteps)
    for one, other in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_soft_choices_gradient_is_what_is_missing(env_kwargs: dict[str, Any]) -> None:
    """The gradient of a choice's logit is its probability less its target, whatever was done."""
    frozen = Reinforce(AdaFocusVectorEnv(LANES, skip=False, output="torch", **env_kwargs), seed=1)
    env = AdaFocusVectorEnv(LANES, reward="gain_over_previous", output="torch", **env_kwargs)
    agent = SoftChoices(env, patch_policy=frozen, value_coefficient=0.0, episodes_per_batch=LANES, temperature=0.1)
    rollout, _ = agent.collect()
    logits = torch.randn(*rollout.reward.shape, 2, requires_grad=True)
    value = torch.randn(*rollout.reward.shape, 2)
    changed = dataclasses.replace(rollout, choice_log_probs=logits.log_softmax(-1), value=value)
    agent.loss(changed)[0].backward()
    wanted = (logits.detach().softmax(-1) - (value / 0.1).softmax(-1)) / rollout.reward.numel()
    torch.testing.assert_close(logits.grad, wanted)


def test_soft_choices_need_frozen_patches(env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pass patch_policy"):
        SoftChoices(AdaFocusVectorEnv(2, **env_kwargs))


def test_soft_choices_skip_what_is_too_dear(env_kwargs: dict[str, Any]) -> None:
    frozen = Reinforce(AdaFocusVectorEnv(LANES, skip=False, output="torch", **env_kwargs), seed=1)
    focused = []
    for price in (0.5, 0.0):
        env = AdaFocusVectorEnv(16, reward="confidence", skip_cost=price, output="torch", **env_kwargs)
        agent = SoftChoices(env, patch_policy=frozen, seed=0, learning_rate=1e-2, episodes_per_batch=16)
        agent.learn(16 * 4 * 30)
        focused.append(evaluate(agent, "val", **env_kwargs).focused_per_video)
    assert focused == [0, 4]
