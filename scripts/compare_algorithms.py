"""Which algorithm learns where to look: equal budgets in episodes, several seeds, the test split once.

Trials run in parallel and each leaves one file, so a killed comparison goes on where it stopped. Settings come from
the tuning on the validation split (scripts/tune.py) where there was one.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_known, check_positive, run_script
from adafocus_env.run_folder import RunFolder
from agents.experiments.algorithms import ALGORITHMS, REFERENCES
from agents.experiments.bench import Bench
from agents.experiments.report import log_results, write_report, write_results
from agents.experiments.runner import Trial, run_trials
from agents.figures import film_strip, play
from agents.pretrained import from_pretrained

EMBEDDED = "roaming-fashion"
TUNED = Path(__file__).parent.parent / "docs" / "compare_algorithms" / "tuned.json"


@dataclass
class Config:
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    """Keys of agents.experiments.algorithms.ALGORITHMS; its REFERENCES always come along."""
    seeds: int = 5
    """Number of training seeds."""
    seed: int = 0
    """The first of them."""
    episodes: int = 19_200
    """Budget of every learner."""
    tuned: Path = TUNED
    """What scripts/tune.py chose; a file that doesn't exist leaves every algorithm its starting settings."""
    split: str = "test"
    """The split of the final figures; rehearse on "val"."""
    recognizer: str = EMBEDDED
    """A shipped name or a path."""
    videos: str = EMBEDDED
    """A registered data set, or a TOML file that describes one on disk."""
    jobs: int = -1
    """Processes at once; -1 takes all cores."""
    backend: Literal["loky", "sequential", "dask"] = "loky"
    """joblib's backend."""
    scheduler: str | None = None
    """Address of the Dask scheduler, for backend dask; its workers must see --out."""
    quick: bool = False
    """A rehearsal in a few minutes: two seeds, few episodes and videos; its numbers mean little."""
    banks: Path = Path("runs/banks")
    """Folder of the feature banks, filled once for all experiments."""
    out: Path = Path("runs/compare_algorithms")
    """Folder for results, tables, figures and the report."""


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """Settings by algorithm."""
    if not path.exists():
        return {}
    try:
        tuned = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(settings, dict) for settings in tuned.values()):
            return dict(tuned)
    except (AttributeError, ValueError):
        pass
    raise ValueError(f"--tuned: {path} is no tuned.json of scripts/tune.py, which holds settings by algorithm")


def main(config: Config) -> None:
    started = time.perf_counter()
    check_known("--algorithms", config.algorithms, ALGORITHMS)
    check_positive(seeds=config.seeds, episodes=config.episodes)
    tuned = read_tuned(config.tuned)
    seeds, episodes = (2, 512) if config.quick else (config.seeds, config.episodes)
    bench = Bench(config.recognizer, str(config.banks), config.videos, num_videos=100 if config.quick else None)
    left_out = bench.unknown
    bench.build(("train", "val", config.split))
    trials = [Trial(title, name, split=config.split) for name, (title, _) in REFERENCES.items() if name not in left_out]
    trials += [
        Trial(ALGORITHMS[name].title, name, seed, episodes, settings=tuned.get(name, {}), split=config.split)
        for seed in range(config.seed, config.seed + seeds)
        for name in config.algorithms
        if name not in left_out
    ]
    with contextlib.ExitStack() as stack:
        if config.backend == "dask":
            from dask.distributed import Client

            stack.enter_context(Client(config.scheduler))
        results = run_trials(trials, bench, config.out / "trials", jobs=config.jobs, backend=config.backend)
    write_results(config.out, results)
    with RunFolder(config.out, config) as run:
        log_results(run.log, results)
    if config.videos == config.recognizer == EMBEDDED:
        film_strip(config.out / "clips.png", play(from_pretrained(EMBEDDED), (0, 1, 2, 3), config.split))
    anchors = [ALGORITHMS[name].title for name in ("paper", "paper_tuned") if name in config.algorithms]
    note = (
        f"{seeds} seeds, {episodes:,} episodes each, settings "
        f"{'tuned on the validation split' if tuned else 'as they start'}, evaluated on {config.split}."
    )
    report = write_report(config.out, title="Algorithms compared", anchors=anchors, note=note)
    print(f"{report} after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
