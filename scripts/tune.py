"""Choose every algorithm's hyper-parameters with the same small budget, on the validation split.

Each algorithm gets the same number of settings: its starting ones, and others drawn at random from its search space
(A2C gets more, as most of its settings learn nothing; a small search space has fewer).
All are trained for the same number of episodes with the same few seeds, which the comparison does not use. The settings
with the best validation accuracy, as the mean over the last quarter of their learning curves, are kept. (With a single
seed and shorter runs, some of the chosen settings collapsed now and then.)
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import print

from adafocus_env.command_line import SAME_TRIALS, check_positive, run_script
from agents.experiments.arguments import BenchArguments

FIRST_SEED = 1000  # the comparison's seeds count from 0
CURVE_POINTS = 8


@dataclass
class Config(BenchArguments):
    algorithms: tuple[str, ...] = ()
    """As for compare_algorithms.py; by default all that have a search space. Of your own, an Algorithm has one."""
    settings: int = 6
    """Number of settings to try for each algorithm, besides those that it gets more."""
    seeds: int = 2
    """Number of training seeds of each setting."""
    episodes: int = 9_600
    """Training episodes of each run."""
    seed: int = 0
    """Seed of the search."""
    out: Path = Path("runs/tune")
    """Folder for results, tuning.csv and tuned.json, which scripts/compare_algorithms.py takes as --tuned."""


def draw_settings(
    search: Mapping[str, tuple[Any, ...]], start: Mapping[str, Any], count: int, seed: int
) -> list[dict[str, Any]]:
    """Draw different settings from a search space, as many as there are at most; the first is empty and changes nothing
    about those to start from."""
    import numpy as np

    random = np.random.default_rng(seed)
    keys = sorted(search)
    sizes = [len(search[key]) for key in keys]
    drawn = (
        {key: search[key][at] for key, at in zip(keys, np.unravel_index(place, sizes), strict=True)}
        for place in random.permutation(int(np.prod(sizes)))
    )
    others = (settings for settings in drawn if any(start.get(key) != value for key, value in settings.items()))
    return [{}, *itertools.islice(others, count - 1)]


def main(config: Config) -> None:
    import numpy as np

    from adafocus_env.files import write_atomically
    from adafocus_env.run_folder import write_csv
    from agents.experiments.algorithms import ALGORITHMS, get_algorithms, starting_settings
    from agents.experiments.runner import Trial, run_trials

    started = time.perf_counter()
    names = config.algorithms or [name for name, algorithm in ALGORITHMS.items() if algorithm.search]
    algorithms = get_algorithms("--algorithms", names)
    if fixed := [name for name, algorithm in algorithms.items() if not algorithm.search]:
        raise ValueError(f"--algorithms: {', '.join(fixed)} has no search space, so there is nothing to tune")
    check_positive(settings=config.settings, seeds=config.seeds, episodes=config.episodes)
    count, seeds, episodes = (2, 1, 512) if config.quick else (config.settings, config.seeds, config.episodes)
    bench = config.bench(("train", "val"))
    left_out = bench.unknown
    common = {"split": "val", "curve": CURVE_POINTS}
    trials = [
        Trial(algorithm.title, name, FIRST_SEED + seed, episodes, settings, **common)
        for name, algorithm in algorithms.items()
        if name not in left_out
        for settings in draw_settings(
            algorithm.search, starting_settings(algorithm), count + algorithm.more_settings, config.seed
        )
        for seed in range(seeds)
    ]
    results = run_trials(trials, bench, config.trials, jobs=config.jobs)
    rows: list[dict[str, Any]] = []
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for runs in (results[at : at + seeds] for at in range(0, len(results), seeds)):
        name, settings = runs[0].trial.algorithm, dict(runs[0].trial.settings)
        each = [float(run.curve_accuracy[-(CURVE_POINTS // 4) :].mean()) for run in runs]
        accuracy = float(np.mean(each))
        row = {"algorithm": name, "accuracy": round(100 * accuracy, 3)}
        row["accuracy_per_seed"] = " ".join(f"{100 * value:.2f}" for value in each)
        row["seconds"] = round(float(np.mean([run.seconds for run in runs])), 1)
        rows.append({**row, "settings": json.dumps(settings)})
        if name not in best or accuracy > best[name][0]:
            best[name] = (accuracy, settings)
    write_csv(config.out / "tuning.csv", rows)
    text = json.dumps({name: settings for name, (_, settings) in best.items()}, indent=2)
    write_atomically(config.out / "tuned.json", f"{text}\n".encode())
    for name, (accuracy, settings) in best.items():
        print(f"{name}: {100 * accuracy:.2f} % with {settings or 'its starting settings'}")
    print(f"{config.out / 'tuned.json'} after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_TRIALS)
