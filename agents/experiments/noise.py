"""Measurement of how noisy the estimates of the return and of the policy gradient are at a given policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from agents.experiments.ablations import Variant
from agents.experiments.algorithms import ALGORITHMS
from agents.experiments.bench import Bench
from agents.reinforce import Reinforce, rewards_to_go


def estimator_noise(
    variants: tuple[Variant, ...],
    bench: Bench,
    seed: int,
    episodes: int,
    *,
    critic_episodes: int = 6_400,
    batches: int = 100,
) -> list[dict[str, Any]]:
    """Compare estimators of the policy gradient at a policy that REINFORCE has trained for some time.

    All estimators get the same policy, but each trains a critic of its own, as it would in training. The gradient is
    that of the policy's loss alone, without normalised advantages, with respect to all weights but the critic's.

    Args:
        variants: This package's own algorithms, each with the environment and settings that make up an estimator.
        bench: Bench to train and measure on.
        seed: Seed of training and measuring.
        episodes: Episodes of the policy's training.
        critic_episodes: Episodes of the training of each critic, during which the policy stays as it is.
        batches: Number of batches to estimate the variances from, each of one update's episodes.

    Returns:
        A row per variant: ``return_variance``, that of rewards-to-go over episodes and frames; ``gradient_variance``,
        the trace of one batch's gradient's covariance; ``signal``, the mean gradient's squared norm, without bias.
    """
    train = bench.features("train")
    frames = train.videos.num_frames
    first = ALGORITHMS["reinforce"]
    trained = first.make(train, seed, first.env, first.settings)
    trained.learn(episodes * frames)
    rows = []
    for variant in variants:
        algorithm = ALGORITHMS[variant.algorithm]
        settings = {**dataclasses.asdict(trained.config), **variant.settings}
        settings |= {"entropy_coefficient": 0.0, "normalize_advantage": False}
        agent: Reinforce = algorithm.make(train, seed, {**algorithm.env, **variant.env}, settings)
        agent.policy.load_state_dict(trained.policy.state_dict())
        agent.policy.requires_grad_(False).value_head.requires_grad_(True)
        agent.learn(critic_episodes * frames)
        agent.policy.requires_grad_(True).value_head.requires_grad_(False)
        agent.config = dataclasses.replace(agent.config, value_coefficient=0.0)
        rows.append({"name": variant.name, "seed": seed, "episodes": episodes, **_measure(agent, batches)})
    return rows


def _measure(agent: Reinforce, batches: int) -> dict[str, float]:
    weights = [weight for weight in agent.policy.parameters() if weight.requires_grad]
    total = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64, device=agent.device)
    squares, returns = 0.0, []
    for _ in range(batches):
        rollout, _ = agent.collect()
        loss, _ = agent.loss(rollout)
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]).double()
        total += gradient
        squares += float(gradient.square().sum())
        returns.append(rewards_to_go(rollout.reward, agent.config.gamma))
    length = float((total / batches).square().sum())
    variance = (squares - batches * length) / (batches - 1)
    return {
        "return_variance": float(torch.cat(returns, dim=1).var()),
        "gradient_variance": variance,
        "signal": length - variance / batches,
    }
