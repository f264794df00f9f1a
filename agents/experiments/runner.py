"""Run trials: one training run each, its learning curve on the validation split, its evaluation at the end.

A trial is a small record that determines its numbers. Its result is one file, written when it is complete, so a killed
run loses only the trials that were in progress. joblib spreads trials over processes, or, with its Dask backend, over a
cluster.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback
from tqdm.auto import tqdm

from adafocus_env import FeatureBank
from adafocus_env.files import write_atomically
from agents.evaluation import Evaluation, evaluate
from agents.experiments.algorithms import ALGORITHMS, REFERENCES
from agents.experiments.bench import Bench
from agents.experiments.pipelines import PIPELINES, preset_settings
from agents.pretrained import save_policy

FORMAT = "adafocus-trial-1"
CURVE_POINTS = 24


@dataclass(frozen=True)
class Trial:
    """One training run, or one reference policy, and its evaluation.

    Attributes:
        name: Its row in tables; trials that differ only in their seeds share it.
        algorithm: A key of :data:`ALGORITHMS`, :data:`REFERENCES` or :data:`PIPELINES`.
        seed: Seed of training.
        episodes: Budget of training; 0 for references.
        settings: Hyper-parameters in place of the algorithm's own; arguments of a pipeline.
        env: Arguments of the environment in place of the algorithm's own.
        split: Where it is evaluated at the end.
        curve: Points of the learning curve on ``val``; 0 for none.
    """

    name: str
    algorithm: str
    seed: int = 0
    episodes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    curve: int = CURVE_POINTS

    def key(self, bench: Bench) -> str:
        """Name of the result's file: the trial, legibly, and a hash of all that determines its numbers."""
        defaults: dict[str, Any] | None = None
        if self.algorithm in ALGORITHMS:
            defaults = dataclasses.asdict(ALGORITHMS[self.algorithm], dict_factory=_without_functions)
        elif self.algorithm in PIPELINES:
            defaults = preset_settings()
        facts = {
            "format": FORMAT,
            "trial": dataclasses.asdict(self),
            "defaults": defaults,
            **bench.facts(("train", "val", self.split)),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.algorithm}-{self.seed}-{digest}"


def _without_functions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if not callable(value)}


@dataclass(frozen=True)
class Result:
    """What a trial left behind.

    Attributes:
        trial: The trial.
        curve_episodes: (points,) episodes trained on.
        curve_seconds: (points,) of training alone, evaluation not counted.
        curve_accuracy: (points,) on the validation split.
        seconds: Wall time of the whole training, evaluation not counted.
        correct: (V,) bool on the trial's split.
        returns: (V,) undiscounted.
        gflops: (V,).
        focused: (V,).
    """

    trial: Trial
    curve_episodes: npt.NDArray[np.int64]
    curve_seconds: npt.NDArray[np.float64]
    curve_accuracy: npt.NDArray[np.float64]
    seconds: float
    correct: npt.NDArray[np.bool_]
    returns: npt.NDArray[np.float64]
    gflops: npt.NDArray[np.float64]
    focused: npt.NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write it as one file, atomically."""
        arrays = {name: value for name, value in vars(self).items() if name != "trial"}
        data = io.BytesIO()
        np.savez_compressed(data, trial=np.array(json.dumps(dataclasses.asdict(self.trial))), **arrays)
        write_atomically(path, data.getvalue())

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            values = {key: arrays[key] for key in arrays}
        trial = Trial(**json.loads(str(values.pop("trial"))))
        return cls(trial=trial, **{**values, "seconds": float(values["seconds"])})


class LearningCurve(BaseCallback):
    """Evaluates the model now and then while it learns.

    Args:
        features: Bank of the split to evaluate on.
        timesteps: The budget, of which ``points`` equal parts end in an evaluation.
        points: Evaluations.
    """

    def __init__(self, features: FeatureBank, timesteps: int, points: int) -> None:
        super().__init__()
        self._features, self._frames = features, features.videos.num_frames
        self._marks = [timesteps * (point + 1) // points for point in range(points)]
        self._spent = 0.0
        self.episodes: list[int] = []
        self.seconds: list[float] = []
        self.accuracy: list[float] = []

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()

    def _on_step(self) -> bool:
        if self._marks and self.num_timesteps >= self._marks[0]:
            before = time.perf_counter()
            self._marks = [mark for mark in self._marks if mark > self.num_timesteps]
            self.episodes.append(self.num_timesteps // self._frames)
            self.seconds.append(before - self._started - self._spent)
            # Accuracy is what counts here, so take the reward that needs no reference patches.
            self.accuracy.append(evaluate(self.model, features=self._features, reward="confidence").accuracy)
            self._spent += time.perf_counter() - before
        return True

    @property
    def training_seconds(self) -> float:
        """Since the start of training, without the evaluations."""
        return time.perf_counter() - self._started - self._spent


def run_trial(trial: Trial, bench: Bench, folder: str | Path) -> Result:
    """Run a trial, or read its result if it is there; the policy that it trained is kept beside it, for
    :func:`agents.load_policy`, as is the recogniser that it trained."""
    path = Path(folder) / f"{trial.key(bench)}.npz"
    if path.exists():
        return Result.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if trial.algorithm in REFERENCES:
        policy = REFERENCES[trial.algorithm][1]
        result = _result(trial, evaluate(policy, features=bench.features(trial.split), skip=False, seed=trial.seed))
    elif trial.algorithm in PIPELINES:
        started = time.perf_counter()
        policy, recognizer = PIPELINES[trial.algorithm](bench, trial.seed, trial.episodes, **trial.settings)
        features, seconds = bench.features(trial.split), time.perf_counter() - started
        if recognizer is not None:
            features = FeatureBank(recognizer, features.videos, bench.grid)
            recognizer.save(path.with_suffix(".safetensors"))
        save_policy(policy, path.with_suffix(""), training_state=False)
        result = _result(trial, evaluate(policy, features=features, **trial.env), seconds=seconds)
    else:
        algorithm = ALGORITHMS[trial.algorithm]
        env = {**algorithm.env, **trial.env}
        # Before the model, which seeds SB3's draws: a bank that is made first draws weights that its file replaces.
        train, val = bench.features("train"), bench.features("val")
        model = algorithm.make(train, trial.seed, env, {**algorithm.settings, **trial.settings})
        timesteps = trial.episodes * train.videos.num_frames
        curve = LearningCurve(val, timesteps, trial.curve)
        model.learn(timesteps, callback=curve)
        seconds = curve.training_seconds
        save_policy(model, path.with_suffix(""), training_state=False)
        result = _result(trial, evaluate(model, features=bench.features(trial.split)), curve, seconds)
    result.save(path)
    return result


def _result(trial: Trial, found: Evaluation, curve: LearningCurve | None = None, seconds: float = 0.0) -> Result:
    return Result(
        trial=trial,
        curve_episodes=np.array(curve.episodes if curve else [], dtype=np.int64),
        curve_seconds=np.array(curve.seconds if curve else [], dtype=np.float64),
        curve_accuracy=np.array(curve.accuracy if curve else [], dtype=np.float64),
        seconds=seconds,
        correct=found.correct,
        returns=found.returns,
        gflops=found.gflops,
        focused=found.focused,
    )


def run_trials(
    trials: Sequence[Trial],
    bench: Bench | Sequence[Bench],
    folder: str | Path,
    *,
    jobs: int = -1,
    backend: str = "loky",
) -> list[Result]:
    """Run all trials that have no result yet.

    Args:
        trials: In the order wanted.
        bench: What they are run on, one for all or one for each; banks in files should be built.
        folder: Of the results.
        jobs: Processes at once; -1 takes all cores.
        backend: joblib's: ``"loky"``, ``"sequential"``, or ``"dask"`` with a ``dask.distributed.Client`` at hand.

    Returns:
        A result per trial, in their order.
    """
    benches = [bench] * len(trials) if isinstance(bench, Bench) else bench
    with joblib.parallel_config(backend=backend, n_jobs=jobs):
        work = (joblib.delayed(run_trial)(*pair, folder) for pair in zip(trials, benches, strict=True))
        return list(tqdm(joblib.Parallel(return_as="generator")(work), total=len(trials), desc="trials"))
