"""Compare algorithms that learn where to look, with equal numbers of episodes and several seeds, on the test split.

Trials run in parallel and each leaves one file, so a killed comparison goes on where it stopped. Where scripts/tune.py
has chosen settings on the validation split, those are used.

An algorithm of your own takes part without any change to the package. Write a subclass of agents.Reinforce, or an
agents.experiments.algorithms.Algorithm with a title, a maker, environment arguments, settings and a search space, into
my_module.py, and start the comparison in its folder:

    python scripts/compare_algorithms.py --algorithms my_module:MyAgent reinforce ppo

Results say which file of yours they are of, so a changed my_module.py is trained anew.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import print

from adafocus_env.command_line import SAME_TRIALS, run_script
from agents.experiments.arguments import ComparisonArguments


@dataclass
class Config(ComparisonArguments):
    algorithms: tuple[str, ...] = ()
    """Any of all_action, soft_targets, differentiable, advantage_weighted, reinforce, paper, paper_tuned, ppo,
    ppo_glance, a2c, dqn, recurrent_ppo and localizer, by default all of them; or my_module:MyAgent, an Algorithm or a
    subclass of agents.Reinforce. Policies that learn nothing are always compared, too."""
    tuned: Path | None = None
    """File of settings that tune.py chose, by default the one that ships with the package; an algorithm that is not in
    it, as none is in a file of {}, keeps its starting settings."""
    backend: Literal["loky", "sequential", "dask"] = "loky"
    """joblib's backend."""
    scheduler: str | None = None
    """Address of the Dask scheduler, for the backend "dask"; its workers must see --trials and --banks."""
    out: Path = Path("runs/compare_algorithms")
    """Folder for results, tables, figures and the report."""


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tuned settings by algorithm."""
    try:
        tuned = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(settings, dict) for settings in tuned.values()):
            return dict(tuned)
    except (AttributeError, ValueError):
        pass
    raise ValueError(f"--tuned: {path} is no tuned.json of tune.py, which holds settings by algorithm")


def main(config: Config) -> None:
    from adafocus_env.videos.registry import DEFAULT_VIDEOS
    from agents.experiments.algorithms import ALGORITHMS, REFERENCES, TUNED, get_algorithms
    from agents.experiments.report import write_report
    from agents.experiments.runner import Trial, run_trials
    from agents.figures import film_strip, play
    from agents.pretrained import from_pretrained

    started = time.perf_counter()
    algorithms = get_algorithms("--algorithms", config.algorithms or ALGORITHMS)
    seeds, episodes = config.budget()
    tuned = read_tuned(config.tuned or TUNED)
    if config.scheduler is not None and config.backend != "dask":
        raise ValueError(f"--scheduler: {config.backend} has none; it belongs to --backend dask")
    bench = config.bench(("train", "val", config.split))
    left_out = bench.unknown
    trials = [Trial(title, name, split=config.split) for name, (title, _) in REFERENCES.items() if name not in left_out]
    trials += [
        Trial(algorithm.title, name, seed, episodes, settings=tuned.get(name, {}), split=config.split)
        for seed in seeds
        for name, algorithm in algorithms.items()
        if name not in left_out
    ]
    with contextlib.ExitStack() as stack:
        if config.backend == "dask":
            from dask.distributed import Client

            stack.enter_context(Client(config.scheduler))
        results = run_trials(trials, bench, config.trials, jobs=config.jobs, backend=config.backend)
    config.write(config.out, results, [bench] * len(results))
    if config.videos == config.recognizer == DEFAULT_VIDEOS:
        film_strip(config.out / "clips.png", play(from_pretrained(DEFAULT_VIDEOS), (0, 1, 2, 3), config.split))
    anchors = [algorithms[name].title for name in ("paper", "paper_tuned") if name in algorithms]
    tuned_here = ", ".join(algorithms[name].title for name in algorithms if tuned.get(name)) or "none"
    note = (
        f"{len(seeds)} seeds, {episodes:,} episodes each, evaluated on {config.split}. Settings from --tuned: "
        f"{tuned_here}; all others keep their starting ones."
    )
    report = write_report(config.out, title="Algorithms compared", anchors=anchors, note=note)
    print(f"{report} after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_TRIALS)
