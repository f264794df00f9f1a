"""A record of policies and evaluations in a folder that a killed run continues, and the tables made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import print

from adafocus_env import FrozenFeatures, Recognizer, TSMRecognizer
from adafocus_env.run_folder import RunFolder
from agents.evaluation import Evaluation, evaluate
from agents.experiments.algorithms import REFERENCES
from agents.experiments.kept import kept_evaluation, kept_policy
from agents.experiments.statistics import gap_closed, mean_interval
from agents.intervals import paired_difference
from agents.reinforce import Reinforce

AnyRecognizer = Recognizer | TSMRecognizer
RANDOM, BEST = (REFERENCES[name][0] for name in ("random", "oracle"))
"""Titles of the policies between which a gap is to be closed."""
COLUMNS = {
    "map": ("mean_average_precision", 100, 2),
    "confidence": ("mean_confidence", 100, 2),
    "gflops": ("gflops_per_video", 1, 4),
    "focused": ("focused_per_video", 1, 2),
    "mean_return": ("mean_return", 1, 4),
}
"""Columns of ``results.csv``: an attribute of :class:`agents.Evaluation`, its factor, and its decimal places."""


class Record:
    """Evaluations by name, one per training seed, kept in the folder of a run.

    Args:
        run: Folder of the policies, the evaluations, the tables and the logs.
        recognizer: Recogniser that policies are trained on.
        split: Split of the evaluations.
        seed: Seed of the random patches in evaluations.
        features: What policies are trained on, as in ``gym.make``; ``None`` is the recogniser's shared table.
        env_kwargs: Arguments of the environment in evaluations.

    Attributes:
        recognizer: As given.
        found: The evaluations by name, one per training seed.
    """

    def __init__(
        self,
        run: RunFolder,
        recognizer: AnyRecognizer,
        split: str,
        seed: int,
        *,
        features: FrozenFeatures | None = None,
        **env_kwargs: Any,
    ) -> None:
        self._run, self._split, self._seed, self._env_kwargs = run, split, seed, env_kwargs
        self._trained_on = {"recognizer": recognizer} if features is None else {"features": features}
        self.recognizer = recognizer
        self.found: dict[str, list[Evaluation]] = {}

    def learn(
        self, name: str, seed: int, episodes: int, settings: Mapping[str, Any], patch_policy: Any = None, **kwargs: Any
    ) -> Reinforce:
        """Load a policy from the folder, or train it first; see :func:`kept_policy`. ``features`` among the arguments
        are trained on in place of the record's own."""
        trained_on = {} if "features" in kwargs else self._trained_on
        return kept_policy(
            self._run.path / f"{name}-{seed}.safetensors",
            seed,
            episodes,
            settings,
            patch_policy,
            log_seconds=lambda seconds: self.log_training(name, seed, seconds),
            progress_bar=True,
            **trained_on,
            **kwargs,
        )

    def log_training(self, name: str, seed: int, seconds: float) -> None:
        """Log and print how long a training took."""
        self._run.log("training", seed, {f"{name}_seconds": seconds})
        print(f"{name}, seed {seed}: trained in {seconds:.0f} s")

    def add(self, name: str, seed: int, make: Callable[[], tuple[Any, AnyRecognizer]], **env_kwargs: Any) -> None:
        """Add an evaluation; if the folder lacks it, ``make`` is called for the policy and recogniser to evaluate."""

        def evaluated() -> Evaluation:
            policy, recognizer = make()
            arguments = {"recognizer": recognizer, "seed": self._seed, **self._env_kwargs, **env_kwargs}
            result = evaluate(policy, self._split, **arguments)
            self._run.log(f"{self._split}/{name}", seed, result.summary())
            return result

        path = self._run.path / "evaluations" / f"{name.replace(' ', '_')}-{seed}.npz"
        result = kept_evaluation(path, evaluated)
        self.found.setdefault(name, []).append(result)
        print(f"{name}, seed {seed}: {100 * result.accuracy:.2f} %, {result.focused_per_video:.2f} frames focused")

    def add_references(self, **env_kwargs: Any) -> None:
        """Add the evaluations of the policies that learn nothing."""
        for name, policy in REFERENCES.values():
            self.add(name, 0, lambda policy=policy: (policy, self.recognizer), **env_kwargs)  # type: ignore[misc]

    def mean(self, name: str, attribute: str = "accuracy") -> float:
        """Mean over seeds of one of the attributes of :class:`agents.Evaluation`."""
        return float(np.mean([getattr(result, attribute) for result in self.found[name]]))

    def write_results(self, columns: Sequence[str]) -> None:
        """Write ``results.csv``: accuracies in percent and the given :data:`COLUMNS`, as means over seeds."""
        rows = []
        for name, results in self.found.items():
            row: dict[str, Any] = {"name": name, "accuracy": round(100 * self.mean(name), 2)}
            row["accuracy_per_seed"] = " ".join(f"{100 * result.accuracy:.2f}" for result in results)
            for column in columns:
                attribute, factor, places = COLUMNS[column]
                row[column] = round(factor * self.mean(name, attribute), places)
            rows.append(row)
        self._run.write_table("results", rows)

    def write_claims(
        self,
        gaps: Iterable[str],
        differences: Iterable[tuple[str, str]],
        savings: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Write and print ``claims.csv``; claims on names that were not evaluated are left out.

        Args:
            gaps: Names; each claim is the share of the gap from random patches to the true location that it closes,
                with Student's 95 % interval over training seeds.
            differences: Pairs of names; each claim is by how many points the first is more accurate than the second,
                with the 95 % interval of :func:`agents.paired_difference` over seeds and source images.
            savings: Likewise, by how many percent of the second's GFLOPs the first takes less.
        """
        low, high = self.mean(RANDOM), self.mean(BEST)
        claims: list[dict[str, Any]] = []
        for name in gaps:
            if name in self.found and high != low:
                shares = gap_closed([result.accuracy for result in self.found[name]], low, high)
                bounds = mean_interval(shares) if len(shares) > 1 else ()
                claims.append(_claim(f"gap of {name}", (float(np.mean(shares)), *bounds), 3))
        for pair in differences:
            if self.found.keys() >= set(pair):
                correct = [np.stack([result.correct for result in self.found[name]]) for name in pair]
                found = [100 * each for each in self._difference(pair, correct)]
                claims.append(_claim(f"{pair[0]} - {pair[1]}, points", found, 2))
        for first, second in savings:
            if self.found.keys() >= {first, second}:
                gflops = [np.stack([result.gflops for result in self.found[name]]) for name in (second, first)]
                found = [100 * each / gflops[0].mean() for each in self._difference((second, first), gflops)]
                claims.append(_claim(f"GFLOPs that {first} saves of {second}, %", found, 1))
        self._run.write_table("claims", claims)
        for claim in claims:
            between = f" ({claim['low']} to {claim['high']})" if claim["low"] != "" else ""
            print(f"{claim['claim']}: {claim['value']}{between}")

    def _difference(self, pair: tuple[str, str], correct: Sequence[Any]) -> tuple[float, float, float]:
        """By how much the first of two names is better, on what is given as (seeds, V) for each."""
        return paired_difference(correct[0], correct[1], self.found[pair[0]][0].source_images)

    def write_steps(self, pair: tuple[str, str]) -> None:
        """Write ``steps.csv``: the accuracy in percent after every step, as mean over seeds with the range of seeds.

        Args:
            pair: Two names; the last rows are by how many points the first is more accurate than the second after every
                step, with the 95 % interval of :func:`agents.paired_difference`.
        """
        rows: list[tuple[Any, ...]] = []
        for name, results in self.found.items():
            per_seed = 100 * np.stack([result.accuracy_per_frame for result in results])
            for step, each in enumerate(per_seed.T, start=1):
                rows.append((name, step, each.mean(), each.min(), each.max()))
        correct = [
            np.stack([result.predictions == result.labels[:, None] for result in self.found[name]]) for name in pair
        ]
        for step in range(correct[0].shape[2]):
            found = self._difference(pair, [part[:, :, step] for part in correct])
            rows.append((f"{pair[0]} - {pair[1]}", step + 1, *(100 * value for value in found)))
        columns = ("name", "step", "accuracy", "low", "high")
        rounded = [(*row[:2], *(round(float(value), 2) for value in row[2:])) for row in rows]
        self._run.write_table("steps", [dict(zip(columns, row, strict=True)) for row in rounded])


def _claim(text: str, values: Sequence[float], places: int) -> dict[str, Any]:
    """A row of ``claims.csv``: a value, and its interval if there is one."""
    value, *bounds = (round(each, places) for each in values)
    low, high = bounds or ("", "")
    return {"claim": text, "value": value, "low": low, "high": high}
