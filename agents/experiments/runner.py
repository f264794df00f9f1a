"""Trials, their results, and the runner that spreads them over processes.

A trial is a small record that determines one training run, its learning curve on the validation split and its final
evaluation. Its result is one file that is written when it is complete, so a killed run loses only the trials that were
in progress. joblib spreads trials over processes, or, with its Dask backend, over a cluster.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback

from adafocus_env import FeatureBank
from adafocus_env.environments.arguments import EnvironmentArguments
from adafocus_env.files import write_atomically
from adafocus_env.progress import tqdm
from agents.evaluation import Evaluation, evaluate
from agents.experiments.algorithms import REFERENCES, Algorithm, get_algorithm, source_of, starting_settings
from agents.experiments.bench import Bench
from agents.experiments.kept import SharedPolicies
from agents.experiments.pipelines import PIPELINES, preset_settings
from agents.experiments.provenance import code_of, digest, versions
from agents.pretrained import save_policy

CURVE_POINTS = 24
_ENVIRONMENT = {name: getattr(EnvironmentArguments, name) for name in ("reward", "baseline", "observation")}


@dataclass(frozen=True)
class Trial:
    """One training run, or one reference policy, and its evaluation.

    Attributes:
        name: Name of its row in tables, which trials that differ only in their seeds share.
        algorithm: A key of :data:`REFERENCES` or :data:`PIPELINES`, or what :func:`get_algorithm` takes.
        seed: Seed of training.
        episodes: Training episodes; 0 for references.
        settings: Hyper-parameters in place of the algorithm's own; for a pipeline, its arguments.
        env: Arguments of the environment in place of the algorithm's own.
        split: Split of the evaluation at the end.
        curve: Number of points of the learning curve on ``val``; 0 for no curve.
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
        """Name of the result's file: the algorithm, the seed, and a hash of everything that determines the result.

        The row's name isn't part of it, and settings count as they are in the end, with the defaults of our agents and
        of the environment filled in, so tables share what they have in common. The code is, and of the user's own
        algorithms the file that defines them, so a changed one runs anew; and so are the libraries' versions.
        """
        facts = {
            "code": code_of(__file__),
            "versions": versions(),
            **dataclasses.asdict(self),
            **bench.facts(("train", "val", self.split)),
        }
        del facts["name"]
        if self.algorithm in PIPELINES:
            facts["presets"] = preset_settings()
        elif self.algorithm not in REFERENCES:
            algorithm = get_algorithm(self.algorithm)
            settings, env = self.on(algorithm)
            facts["settings"] = {**starting_settings(algorithm), **settings}
            facts["env"] = {**_ENVIRONMENT, **env}
            facts["source"] = source_of(self.algorithm)
        return f"{re.sub(r'[^a-z0-9_]+', '_', self.algorithm, flags=re.IGNORECASE)}-{self.seed}-{digest(facts)}"

    def on(self, algorithm: Algorithm) -> tuple[dict[str, Any], dict[str, Any]]:
        """The hyper-parameters and the environment's arguments, with the algorithm's own where there are no others."""
        return {**algorithm.settings, **self.settings}, {**algorithm.env, **self.env}

    def shared(self, bench: Bench, folder: Path) -> SharedPolicies:
        """The policies that pipelines of this bench have in common."""
        facts = {"code": code_of(__file__), "versions": versions(), "presets": preset_settings()}
        return SharedPolicies(folder, digest({**facts, **bench.facts(("train",))}))


@dataclass(frozen=True)
class Result:
    """The result of a trial on the V videos of its split.

    Attributes:
        trial: The trial.
        curve_episodes: (points,) int64, training episodes so far.
        curve_seconds: (points,) float64, seconds of training so far, without evaluations.
        curve_accuracy: (points,) float64, accuracy on the validation split, in [0, 1].
        seconds: Wall time of the whole training, without evaluations.
        correct: (V,) bool, whether the last prediction is right.
        returns: (V,) float64, undiscounted.
        gflops: (V,) float64, multiply-adds / 1e9, the policy's own included.
        focused: (V,) int64, frames on which the local CNN ran.
        frames: (V,) int64, frames glanced at.
        source_images: (V,) int64, the image that each video is made of.
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
    frames: npt.NDArray[np.int64]
    source_images: npt.NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write the result as one file, atomically."""
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
    """Evaluates a model at regular intervals while it learns.

    Args:
        features: Bank of the split to evaluate on.
        timesteps: Budget of steps; each of ``points`` equal parts of it ends with an evaluation.
        points: Number of evaluations.
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
            # Only the accuracy counts here, so take the reward that needs no reference patches.
            self.accuracy.append(evaluate(self.model, features=self._features, reward="confidence").accuracy)
            self._spent += time.perf_counter() - before
        return True

    @property
    def training_seconds(self) -> float:
        """Seconds since the start of training, without evaluations."""
        return time.perf_counter() - self._started - self._spent


def run_trial(trial: Trial, bench: Bench, folder: str | Path) -> Result:
    """Run a trial, or read its result if there is one, perhaps from another table.

    The policy that a trial trains is saved beside its result, for :func:`agents.load_policy`, and so is the recogniser
    if the trial trains one.
    """
    path = Path(folder) / f"{trial.key(bench)}.npz"
    if path.exists():
        return dataclasses.replace(Result.load(path), trial=trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    if trial.algorithm in REFERENCES:
        policy = REFERENCES[trial.algorithm][1]
        result = _result(trial, evaluate(policy, features=bench.features(trial.split), skip=False, seed=trial.seed))
    elif trial.algorithm in PIPELINES:
        started, shared = time.perf_counter(), trial.shared(bench, path.parent)
        trained = PIPELINES[trial.algorithm](bench, trial.seed, trial.episodes, shared, **trial.settings)
        seconds = time.perf_counter() - started - shared.spent + shared.seconds
        features = bench.features(trial.split)
        if trained.recognizer is not None:
            features = FeatureBank(trained.recognizer, features.videos, bench.grid)
            trained.recognizer.save(path.with_name(f"{path.stem}-recognizer.safetensors"))
        save_policy(trained.policy, path.with_suffix(""), training_state=False)
        found = evaluate(trained.policy, features=features, exit_threshold=trained.exit_threshold, **trial.env)
        result = _result(trial, found, seconds=seconds)
    else:
        algorithm = get_algorithm(trial.algorithm)
        settings, env = trial.on(algorithm)
        # Make the banks before the model, which seeds SB3's draws: loading their recogniser draws numbers, too.
        train, val = bench.features("train"), bench.features("val")
        model = algorithm.make(train, trial.seed, env, settings)
        timesteps = trial.episodes * train.videos.num_frames
        curve = LearningCurve(val, timesteps, trial.curve)
        model.learn(timesteps, callback=curve)
        seconds = curve.training_seconds
        save_policy(model, path.with_suffix(""), training_state=False)
        result = _result(trial, evaluate(model, features=bench.features(trial.split)), curve, seconds)
    result.save(path)
    return result


def _run_trial(code: str, *work: Any) -> Result:
    """:func:`run_trial`, in a process that may have started long after the one that gave the order."""
    if code_of(__file__) != code:
        raise RuntimeError("the package's code has changed while trials ran: start the same command again")
    return run_trial(*work)


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
        frames=found.frames,
        source_images=found.source_images,
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
        trials: The trials.
        bench: One bench for all trials, or one for each; banks in files should have been filled.
        folder: Folder of the results.
        jobs: Number of processes that run at once; -1 takes all cores.
        backend: joblib's: ``"loky"``, ``"sequential"``, or ``"dask"``, which needs a ``dask.distributed.Client``.

    Returns:
        A result per trial, in the order of ``trials``.

    Raises:
        RuntimeError: The package's code has changed meanwhile.
    """
    benches = [bench] * len(trials) if isinstance(bench, Bench) else bench
    with joblib.parallel_config(backend=backend, n_jobs=jobs):
        code = code_of(__file__)
        work = (joblib.delayed(_run_trial)(code, *pair, folder) for pair in zip(trials, benches, strict=True))
        return list(tqdm(joblib.Parallel(return_as="generator")(work), total=len(trials), desc="trials"))
