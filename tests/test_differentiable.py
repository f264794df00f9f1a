"""Positions learnt by gradients through the recogniser: over a frozen one, and together with it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from adafocus_env import FrozenFeatures, Recognizer, RoamingFashion
from adafocus_env.recognition.optimization import Progress
from agents import Differentiable, EndToEndConfig, evaluate, load_policy, train_end_to_end
from agents.baselines import RandomPolicy
from agents.candidate_scores import MeanPlace
from agents.end_to_end import _objective, _untrained_policy
from tests.conftest import make_tiny_recognizer, make_tiny_videos

LANES = 6
INTERPOLATE = pytest.mark.parametrize("interpolate", ["pixels", "vectors"])


def make_env(env_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    return gym.make_vec(
        "AdaFocus-v0", LANES, **{"action": "continuous", "skip": False, "output": "torch", **env_kwargs, **kwargs}
    )


def make_agent(env_kwargs: dict[str, Any], **settings: Any) -> Differentiable:
    return Differentiable(make_env(env_kwargs), seed=0, **{"episodes_per_batch": LANES, **settings})


@INTERPOLATE
def test_the_loss_is_the_cross_entropy_of_what_the_environment_shows(
    interpolate: str, env_kwargs: dict[str, Any]
) -> None:
    """Where a position is a candidate's, nothing is interpolated."""
    agent = make_agent(env_kwargs, interpolate=interpolate, random_share=0.0)
    with torch.no_grad():
        agent.policy.position_head.weight.zero_()
        agent.policy.position_head.bias.copy_(torch.tensor([40.0, -200.0]))  # bottom left
    rollout, _ = agent.collect()
    env = agent.get_env()
    env.reset(seed=0)
    for time in range(4):
        torch.testing.assert_close(rollout.action[time], torch.tensor([[1.0, -1.0]]).expand(LANES, 2))
        info = env.step(rollout.action[time])[4]
        torch.testing.assert_close(
            rollout.infos["cross_entropy"][time], -info["confidence"].log(), atol=1e-4, rtol=1e-4
        )


@INTERPOLATE
def test_gradients_are_those_of_the_whole_loss(interpolate: str, env_kwargs: dict[str, Any]) -> None:
    agent = make_agent(env_kwargs, interpolate=interpolate, random_share=0.5)
    bias = agent.policy.position_head.bias
    with torch.no_grad():
        bias.copy_(torch.tensor([0.05, -0.08]))  # the loss has kinks at whole pixels, such as the centre

    def loss() -> torch.Tensor:
        agent._num_rollouts = 0
        agent._generator.manual_seed(1)
        return agent.loss(agent.collect()[0])[0]

    loss().backward()
    assert bias.grad is not None
    step = 3e-4
    for axis in range(2):
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[axis] += sign * step
                found.append(float(loss()))
                bias[axis] -= sign * step
        assert float(bias.grad[axis]) == pytest.approx((found[0] - found[1]) / (2 * step), rel=0.1, abs=3e-3)


@INTERPOLATE
def test_the_policy_learns_and_the_recogniser_does_not(interpolate: str, env_kwargs: dict[str, Any]) -> None:
    agent = make_agent(env_kwargs, interpolate=interpolate, use_belief=True)
    frozen = agent.get_env().unwrapped.recognizer
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    agent.learn(2 * LANES * 4)
    learnt = {name for name, value in agent.policy.named_parameters() if value.grad is not None and value.grad.any()}
    assert {"position_head.weight", "gru.weight_ih", "encode_glance.0.weight", "encode_belief.0.weight"} <= learnt
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


@INTERPOLATE
def test_it_learns_to_look_where_confidence_rises(
    interpolate: str, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    settings: dict[str, Any] = {"interpolate": "vectors", "score_map": True, "use_belief": True, "learning_rate": 3e-3}
    if interpolate == "pixels":  # for which the loss has to be smooth: this local network sees mean colours alone
        settings = {"interpolate": "pixels", "learning_rate": 1e-2}
        recognizer = make_tiny_recognizer()
        recognizer.local_cnn = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Conv2d(3, 12, 1))
    env_kwargs = {"recognizer": recognizer, "videos": videos, "grid": 4}
    agent = make_agent(env_kwargs, averaging=0.9, **settings)
    agent.learn(50 * LANES * 4)
    continuous = {"action": "continuous", "skip": False, **env_kwargs}
    random = [
        evaluate(functools.partial(RandomPolicy, seed=seed), "val", **continuous).mean_confidence for seed in range(20)
    ]
    assert evaluate(agent, "val", **env_kwargs).mean_confidence > np.quantile(random, 0.9)


@INTERPOLATE
def test_it_goes_on_as_it_would_have(interpolate: str, env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    whole, part = (make_agent(env_kwargs, interpolate=interpolate, score_map=True) for _ in range(2))
    whole.learn(6 * LANES * 4)
    part.learn(3 * LANES * 4).save(tmp_path / "agent.pt")
    again = Differentiable.load(tmp_path / "agent.pt", env=part.get_env())
    again.learn(3 * LANES * 4)
    for one, other in zip(whole.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.config == again.config
    again.save(tmp_path / "again.pt")
    first, second = (evaluate(policy, "val", **env_kwargs) for policy in (whole, load_policy(tmp_path / "again.pt")))
    np.testing.assert_array_equal(first.corners, second.corners)


def test_without_a_table_nothing_changes(env_kwargs: dict[str, Any], recognizer: Recognizer) -> None:
    bank = make_agent(env_kwargs)
    online = make_agent({"features": FrozenFeatures(recognizer, env_kwargs["videos"], 4)})
    for interpolate in ("pixels", "vectors"):
        losses = []
        for agent in (bank, online):
            object.__setattr__(agent.config, "interpolate", interpolate)
            agent._num_rollouts = 0
            agent._generator.manual_seed(1)
            losses.append(agent.collect()[0].infos["cross_entropy"].detach())
        torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)


def test_what_it_cannot_learn_on_is_refused(env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="action='continuous'"):
        Differentiable(make_env(env_kwargs, action="grid"))
    with pytest.raises(ValueError, match=r"gym\.make_vec"):
        Differentiable(gym.make("AdaFocus-v0", action="continuous", skip=False, **env_kwargs))
    with pytest.raises(ValueError, match="AdaFocus-v0 or GlanceFocus-v0"):
        Differentiable(gym.make_vec("AdaFocusTSM-v0", 2))
    with pytest.raises(ValueError, match="interpolate"):
        make_agent(env_kwargs, interpolate="nothing")


def test_looks_at_one_picture(env_kwargs: dict[str, Any]) -> None:
    agent = make_agent({**env_kwargs, "looks": 3}, use_belief=True)
    agent.learn(LANES * 12)
    assert agent.num_timesteps == LANES * 12


def test_the_mean_place_follows_the_scores() -> None:
    torch.manual_seed(0)
    head = MeanPlace(channels=3, hidden_size=5, grid=4)
    glance, hidden = torch.zeros(1, 3, 4, 4), torch.zeros(1, 5)
    torch.testing.assert_close(
        head(glance.expand(2, -1, -1, -1), hidden)[:, 0], torch.full((2,), 0.5), atol=0.1, rtol=0
    )
    glance[..., 1, 2] = 1
    with torch.no_grad():
        head.read.weight.zero_()
        head.read.weight[:, :, 1, 1] = 1  # no window: each cell for itself
        head.read.bias.zero_()
        head.seek.weight.zero_()
        head.seek.bias.zero_()
        head.score.weight.fill_(1)
    torch.testing.assert_close(head(glance, hidden), torch.tensor([[1 / 3, 2 / 3]]))


# -------------------------------------------------------------------------------------------------- all in one stage

SHORT = EndToEndConfig(epochs=2, videos_per_step=4, policy_learning_rate=1e-2)


def parts(recognizer: Recognizer) -> dict[str, torch.nn.Module]:
    return {name: getattr(recognizer, name) for name in ("global_cnn", "local_cnn", "classifier")}


def test_all_networks_learn_and_the_result_deploys(recognizer: Recognizer, videos: RoamingFashion) -> None:
    untrained = _untrained_policy(recognizer, videos, 0, {})
    before = recognizer.fingerprint()
    trained, policy = train_end_to_end(recognizer, videos, SHORT, seed=0)
    assert recognizer.fingerprint() == before
    assert not trained.training
    for name, part in parts(trained).items():
        pairs = zip(part.parameters(), parts(recognizer)[name].parameters(), strict=True)
        assert any(not torch.equal(one, other) for one, other in pairs), name
    assert not torch.equal(policy.policy.position_head.weight, untrained.policy.position_head.weight)
    found = trained.recognize(videos.frames(torch.arange(12)), policy)
    evaluated = evaluate(policy, "val", videos=videos, recognizer=trained, env_id="AdaFocus-v0")
    np.testing.assert_array_equal(found.corners, evaluated.corners)
    assert found.gflops[0] == pytest.approx(evaluated.gflops_per_video)


def test_the_policy_leaves_the_global_network_alone(videos: RoamingFashion) -> None:
    """Its gradients are the same whether patches lie where they do by choice or by chance."""
    recognizer = make_tiny_recognizer(dropout=0.0).train()
    policy = _untrained_policy(recognizer, videos, 0, {}).policy
    objective = _objective(recognizer, policy, videos, 0.5, torch.Generator())
    rows, frames = torch.arange(4), videos.frames(torch.arange(4))
    with torch.no_grad():
        policy.position_head.weight.zero_()  # all positions are the centre
    gradients = []
    for random in (False, True):
        objective.zero_grad()
        places = torch.full((4, 4, 2), 0.5)
        objective(rows, frames, places, torch.full((4, 4, 1), random))[0].backward()
        gradients.append([parameter.grad.clone() for parameter in recognizer.global_cnn.parameters()])
        moved = policy.position_head.bias.grad
        assert (moved is not None and bool(moved.any())) != random
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_the_videos(precision: Any) -> None:
    losses: list[float] = []
    config = EndToEndConfig(
        steps=60, videos_per_step=12, precision=precision, local_learning_rate=3e-3, global_learning_rate=3e-3
    )
    progress = Progress(lambda stage, step, metrics: losses.append(metrics["loss"]))
    train_end_to_end(make_tiny_recognizer(), make_tiny_videos(), config, progress=progress, score_map=True)
    assert losses[-1] < 0.7 * losses[0]


def test_a_killed_training_ends_alike(recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(stage: str, step: int, metrics: dict[str, float]) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        train_end_to_end(recognizer, videos, SHORT, progress=Progress(kill, folder=tmp_path))
    (one, first), (other, second) = (
        train_end_to_end(recognizer, videos, SHORT, progress=Progress(folder=folder)) for folder in (tmp_path, None)
    )
    assert one.fingerprint() == other.fingerprint()
    for mine, its in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_other_recognisers_are_refused(videos: RoamingFashion) -> None:
    with pytest.raises(ValueError, match="recognizer must be a Recognizer"):
        train_end_to_end("roaming-fashion", videos)  # type: ignore[arg-type]
