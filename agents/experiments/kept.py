"""Policies and evaluations that are made once and kept in files, so that a killed run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adafocus_env.files import write_atomically
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


class SharedPolicies:
    """Policies that several trials have in common: trained once, and then read from files.

    Args:
        folder: Folder of the files; ``None`` trains every policy that is asked for.
        key: What goes into the files' names, of everything that determines the policies besides what names them.

    Attributes:
        seconds: Seconds that the policies which were asked for took to train, whenever that was.
        spent: Seconds that were spent on them here.
    """

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        self._folder, self._key = folder, key
        self.seconds = self.spent = 0.0

    def get(self, name: str, train: Callable[[], Reinforce]) -> Reinforce:
        """The policy of a name, which ``train`` makes if there is none yet."""
        started = time.perf_counter()
        if self._folder is None:
            policy, seconds = train(), time.perf_counter() - started
        else:
            path = self._folder / f"{name}-{self._key}.safetensors"
            clock = path.with_suffix(".seconds")
            if not path.exists():
                made = train()
                write_atomically(clock, f"{time.perf_counter() - started:.3f}".encode())
                made.save(path, training_state=False)
            policy, seconds = Reinforce.load(path), float(clock.read_text())
        self.seconds += seconds
        self.spent += time.perf_counter() - started
        return policy
