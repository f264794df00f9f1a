"""Training pipelines of more than one stage: stages 2 and 3 in turn, and patches and skipping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer
from agents.baselines import RandomPolicy
from agents.experiments.algorithms import ALGORITHMS, LANES
from agents.experiments.bench import Bench
from agents.finetuning import finetune
from agents.presets import PATCH_HYPERPARAMETERS, SKIP_HYPERPARAMETERS, STAGE3
from agents.reinforce import Reinforce

Trained = tuple[Any, Recognizer | None]
"""A policy, and the recogniser to evaluate it with (``None`` for the bench's own)."""
STAGE3_EPOCHS = 6


def _learn_patches(features: FeatureBank, seed: int, episodes: int) -> Reinforce:
    algorithm = ALGORITHMS["reinforce"]
    agent = algorithm.make(features, seed, algorithm.env, algorithm.settings)
    return agent.learn(episodes * features.videos.num_frames)


def stages(bench: Bench, seed: int, episodes: int, *, rounds: int = 1, patches: str = "learned") -> Trained:
    """Run stages 2 and 3 in turn; all rounds share a given number of episodes and epochs.

    Args:
        bench: Bench to train on.
        seed: Seed of all training.
        episodes: Training episodes of the policy, over all rounds.
        rounds: Number of rounds; 0 leaves stage 3 out.
        patches: Patches that stage 3 sees: ``"learned"`` or ``"random"``.
    """
    features = bench.features("train")
    videos, recognizer = features.videos, Recognizer.from_pretrained(bench.recognizer)
    policy = _learn_patches(features, seed, episodes // max(1, rounds))
    config = replace(STAGE3, epochs=STAGE3_EPOCHS // max(1, rounds))
    for each in range(rounds):
        if each:
            features = FeatureBank(recognizer, videos, bench.grid)
            policy.set_env(AdaFocusVectorEnv(LANES, features=features, skip=False, output="torch"))
            policy.learn(episodes // rounds * videos.num_frames)
        taught = policy if patches == "learned" else RandomPolicy
        recognizer = finetune(recognizer, taught, config, features=features, skip=False, seed=seed)
    return policy, recognizer if rounds else None


def skipping(bench: Bench, seed: int, episodes: int, *, training: str = "sequential") -> Trained:
    """Train AdaFocus+: first patches and then skipping, or both heads at once, with the same number of episodes in all.

    Args:
        bench: Bench to train on.
        seed: Seed of all training.
        episodes: All episodes: three quarters for patches and one for skipping, or all of them for both heads.
        training: ``"sequential"`` or ``"joint"``.
    """
    features = bench.features("train")
    frames = features.videos.num_frames
    env = AdaFocusVectorEnv(LANES, features=features, reward="gain_over_previous", output="torch")
    if training == "joint":
        settings = {**PATCH_HYPERPARAMETERS, "gamma": SKIP_HYPERPARAMETERS["gamma"]}
        return Reinforce(env, seed=seed, **settings).learn(episodes * frames), None
    patches = _learn_patches(features, seed, 3 * episodes // 4)
    agent = Reinforce(env, seed=seed, patch_policy=patches, **SKIP_HYPERPARAMETERS)
    return agent.learn(episodes // 4 * frames), None


def preset_settings() -> dict[str, Any]:
    """The presets that pipelines train with, which are part of what determines their results."""
    return {
        "patches": dict(ALGORITHMS["reinforce"].settings),
        "joint": PATCH_HYPERPARAMETERS,
        "skip": SKIP_HYPERPARAMETERS,
        "stage3": {**asdict(STAGE3), "epochs": STAGE3_EPOCHS},
    }


PIPELINES: dict[str, Callable[..., Trained]] = {"stages": stages, "skipping": skipping}
"""Pipelines by name: functions of a bench, a seed, a number of episodes, and a trial's settings."""
