"""Training pipelines of more than one stage: stages 2 and 3 in turn, patches and skipping, and leaving videos early."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer
from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
from adafocus_env.recognition.compute_cost import policy_gflops
from adafocus_env.recognition.image_networks import ImageNetworks
from agents.baselines import RandomPolicy
from agents.evaluation import evaluate
from agents.exits import calibrate_exit, exit_curve
from agents.experiments.algorithms import ALGORITHMS, LANES
from agents.experiments.bench import Bench
from agents.experiments.kept import SharedPolicies
from agents.finetuning import finetune
from agents.presets import (
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    STAGE3,
    STOP_HYPERPARAMETERS,
)
from agents.reinforce import Reinforce

STAGE3_EPOCHS = 6
ALLOWED_LOSS = 0.003
"""Loss of accuracy that thresholds of conditional exit may cost on validation videos."""


class Trained(NamedTuple):
    """What a pipeline leaves behind, and how it is to be evaluated."""

    policy: Any
    recognizer: Recognizer | None = None
    """The recogniser to evaluate it with; ``None`` is the bench's own."""
    exit_threshold: float | None = None
    """As in :func:`agents.evaluate`."""


def _learn_patches(features: FeatureBank, seed: int, episodes: int) -> Reinforce:
    algorithm = ALGORITHMS["reinforce"]
    agent = algorithm.make(features, seed, algorithm.env, algorithm.settings)
    return agent.learn(episodes * features.videos.num_frames)


def stages(
    bench: Bench,
    seed: int,
    episodes: int,
    shared: SharedPolicies | None = None,
    *,
    rounds: int = 1,
    patches: str = "learned",
) -> Trained:
    """Run stages 2 and 3 in turn; all rounds share a given number of episodes and epochs.

    Args:
        bench: Bench to train on.
        seed: Seed of all training.
        episodes: Training episodes of the policy, over all rounds.
        shared: The policies that trials have in common.
        rounds: Number of rounds; 0 leaves stage 3 out.
        patches: Patches that stage 3 sees: ``"learned"`` or ``"random"``.
    """
    features = bench.features("train")
    videos, recognizer = features.videos, Recognizer.from_pretrained(bench.recognizer)
    learn = functools.partial(_learn_patches, features, seed, episodes // max(1, rounds))
    # One that goes on learning is not shared, as its file has no state of the training.
    policy = learn() if rounds > 1 else (shared or SharedPolicies()).get(f"patches-{seed}-{episodes}", learn)
    config = replace(STAGE3, epochs=STAGE3_EPOCHS // max(1, rounds))
    for each in range(rounds):
        if each:
            features = FeatureBank(recognizer, videos, bench.grid)
            policy.set_env(AdaFocusVectorEnv(LANES, features=features, skip=False, output="torch"))
            policy.learn(episodes // rounds * videos.num_frames)
        taught = policy if patches == "learned" else RandomPolicy
        recognizer = finetune(recognizer, taught, config, features=features, skip=False, seed=seed)
    return Trained(policy, recognizer if rounds else None)


def skipping(
    bench: Bench, seed: int, episodes: int, shared: SharedPolicies | None = None, *, training: str = "sequential"
) -> Trained:
    """Train AdaFocus+: first patches and then skipping, or both heads at once, with the same number of episodes in all.

    Args:
        bench: Bench to train on.
        seed: Seed of all training.
        episodes: All episodes: for patches and for skipping in the proportion of their presets, or for both heads.
        shared: The policies that trials have in common.
        training: ``"sequential"`` or ``"joint"``.
    """
    features = bench.features("train")
    frames = features.videos.num_frames
    env = AdaFocusVectorEnv(LANES, features=features, reward="gain_over_previous", output="torch")
    if training == "joint":
        settings = {**PATCH_HYPERPARAMETERS, "gamma": SKIP_HYPERPARAMETERS["gamma"]}
        return Trained(Reinforce(env, seed=seed, **settings).learn(episodes * frames))
    of_skipping = skip_episodes(episodes)

    def learn() -> Reinforce:
        patches = _learn_patches(features, seed, episodes - of_skipping)
        agent = Reinforce(env, seed=seed, patch_policy=patches, **SKIP_HYPERPARAMETERS)
        return agent.learn(of_skipping * frames)

    return Trained((shared or SharedPolicies()).get(f"skipping-{seed}-{episodes}", learn))


def skip_episodes(episodes: int) -> int:
    """How many of all episodes of AdaFocus+ are for skipping."""
    return episodes * SKIP_EPISODES // (PATCH_EPISODES + SKIP_EPISODES)


def matching_glance_cost(recognizer: ImageNetworks[Any], policy: Any, skip_cost: float) -> float:
    """The price of going on to the next frame at which a GFLOP of it costs as much as a GFLOP of the local CNN.

    Args:
        recognizer: The recogniser.
        policy: The policy, which decides about every frame.
        skip_cost: λ, the price of a focused frame.
    """
    cost = recognizer.cost()
    return skip_cost * (cost.always + policy_gflops(policy)) / cost.local


def stopping(
    bench: Bench, seed: int, episodes: int, shared: SharedPolicies | None = None, *, exit: str = "none"
) -> Trained:
    """Train AdaFocus+ as :func:`skipping` does, and add a rule that says when a video is left.

    Args:
        bench: Bench to train on.
        seed: Seed of all training.
        episodes: Episodes of AdaFocus+; a head that learns to stop takes as many more as skipping does.
        shared: The policies that trials have in common.
        exit: ``"none"``; ``"threshold"``, chosen on the validation split for an allowed loss of accuracy;
            ``"learned"``, a head that stops; or ``"threshold as learned"``, chosen there for that head's compute.
    """
    shared = shared or SharedPolicies()
    policy = skipping(bench, seed, episodes, shared).policy
    if exit == "none":
        return Trained(policy)
    whole = evaluate(policy, features=bench.features("val"), reward="confidence")
    if exit == "threshold":
        return Trained(policy, exit_threshold=calibrate_exit(whole, loss=ALLOWED_LOSS))
    features = bench.features("train")
    cost = matching_glance_cost(features.recognizer, policy, DEFAULT_SKIP_COST)
    reward = "gain_over_previous"
    env = AdaFocusVectorEnv(LANES, features=features, reward=reward, stop=True, glance_cost=cost, output="torch")

    def learn() -> Reinforce:
        agent = Reinforce(env, seed=seed, patch_policy=policy, **STOP_HYPERPARAMETERS)
        return agent.learn(skip_episodes(episodes) * features.videos.num_frames)

    agent = shared.get(f"stopping-{seed}-{episodes}", learn)
    if exit == "learned":
        return Trained(agent)
    spent = evaluate(agent, features=bench.features("val"), reward="confidence").gflops_per_video
    budget = max(spent, float(exit_curve(whole).gflops.min()))  # thresholds look at the first frame in any case
    return Trained(policy, exit_threshold=calibrate_exit(whole, gflops=budget))


def preset_settings() -> dict[str, Any]:
    """The presets that pipelines train with, which are part of what determines their results."""
    return {
        "patches": dict(ALGORITHMS["reinforce"].settings),
        "joint": PATCH_HYPERPARAMETERS,
        "skip": SKIP_HYPERPARAMETERS,
        "stop": STOP_HYPERPARAMETERS,
        "episodes": [PATCH_EPISODES, SKIP_EPISODES],
        "allowed_loss": ALLOWED_LOSS,
        "stage3": {**asdict(STAGE3), "epochs": STAGE3_EPOCHS},
    }


PIPELINES: dict[str, Callable[..., Trained]] = {"stages": stages, "skipping": skipping, "stopping": stopping}
"""Pipelines by name: functions of a bench, a seed, a number of episodes, shared policies, and a trial's settings."""
