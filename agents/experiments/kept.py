"""Policies and evaluations that are made once and kept in files, so that a killed run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.environments import vector_env_class
from agents.evaluation import Evaluation
from agents.experiments.algorithms import LANES
from agents.reinforce import Reinforce


def kept_policy(
    path: Path,
    seed: int,
    episodes: int,
    settings: Mapping[str, Any],
    patch_policy: Any = None,
    *,
    kind: type[Reinforce] = Reinforce,
    log_seconds: Callable[[float], None] | None = None,
    progress_bar: bool = False,
    **env_kwargs: Any,
) -> Reinforce:
    """Load the policy in a file; if there is no file, train one and save it first.

    Args:
        path: The policy's file.
        seed: Seed of the training.
        episodes: Episodes to train for.
        settings: Hyper-parameters.
        patch_policy: The frozen patch policy of a skip policy.
        kind: The learner.
        log_seconds: Called with the seconds that the training took.
        progress_bar: Show a progress bar.
        env_kwargs: Arguments of the environment, as in ``gym.make``; ``recognizer`` or ``features`` decides which
            environment it is.
    """
    if not path.exists():
        lanes = min(LANES, settings.get("episodes_per_batch", LANES))
        env = vector_env_class(None, env_kwargs)(lanes, output="torch", **env_kwargs)
        agent = kind(env, seed=seed, patch_policy=patch_policy, **settings)
        started = time.perf_counter()
        agent.learn(episodes * env.num_steps, progress_bar=progress_bar)
        if log_seconds is not None:
            log_seconds(time.perf_counter() - started)
        agent.save(path, training_state=False)
    return Reinforce.load(path)


def kept_evaluation(path: Path, make: Callable[[], Evaluation]) -> Evaluation:
    """Load the evaluation in a file; if there is no file, make the evaluation and save it first."""
    if not path.exists():
        make().save(path)
    return Evaluation.load(path)
