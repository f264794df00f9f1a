"""What each ingredient is worth: one table per ablation, several seeds, the runner and report of the comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import joblib
from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_known, check_positive, run_script
from adafocus_env.files import write_atomically
from adafocus_env.run_folder import RunFolder, write_csv
from agents.experiments.ablations import ABLATIONS
from agents.experiments.bench import Bench
from agents.experiments.noise import estimator_noise
from agents.experiments.report import log_results, return_against_accuracy, write_report, write_results
from agents.experiments.runner import run_trials


@dataclass
class Config:
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    """Keys of agents.experiments.ablations.ABLATIONS."""
    seeds: int = 5
    """Number of training seeds."""
    seed: int = 0
    """The first of them."""
    episodes: int = 19_200
    """Training episodes of each run."""
    split: str = "test"
    """The split of the final figures; rehearse on "val"."""
    recognizer: str = "roaming-fashion"
    """A shipped name or a path."""
    videos: str = "roaming-fashion"
    """A registered data set, or a TOML file that describes one on disk."""
    num_videos: int | None = None
    """Videos of each split of the embedded benchmark; by default all. Tables of fewer are filled sooner."""
    jobs: int = -1
    """Processes at once; -1 takes all cores."""
    quick: bool = False
    """A rehearsal: two seeds, few episodes and videos; its numbers mean little."""
    banks: Path = Path("runs/banks")
    """Folder of the feature banks, filled once for all experiments."""
    out: Path = Path("runs/ablate")
    """Folder: a report in a folder of its own for every ablation."""


def measure_noise(bench: Bench, seeds: range, episodes: int, config: Config) -> None:
    """Variance of the return and of the gradient, early and late in training; writes ``noise.csv``."""
    remembered = joblib.Memory(config.out / "trials", verbose=0).cache(estimator_noise)
    short = {"critic_episodes": 128, "batches": 4} if config.quick else {}
    found = joblib.Parallel(n_jobs=config.jobs)(
        joblib.delayed(remembered)(ABLATIONS["baseline"], bench, seed, trained, **short)
        for trained in (episodes // 10, episodes)
        for seed in seeds
    )
    write_csv(config.out / "baseline" / "noise.csv", [row for rows in found for row in rows])


def main(config: Config) -> None:
    check_known("--ablations", config.ablations, ABLATIONS)
    check_positive(seeds=config.seeds, episodes=config.episodes)
    count, episodes = (2, 512) if config.quick else (config.seeds, config.episodes)
    seeds = range(config.seed, config.seed + count)
    few = 100 if config.quick else config.num_videos
    bench = Bench(config.recognizer, str(config.banks), config.videos, num_videos=few)
    left_out = bench.unknown
    bench.build(("train", "val", config.split))
    everything = []
    for name in config.ablations:
        started = time.perf_counter()
        work = [
            (trial, variant.on(bench))
            for variant in ABLATIONS[name]
            if variant.algorithm not in left_out
            for trial in variant.trials(seeds, episodes, config.split)
        ]
        trials, benches = zip(*work, strict=True)
        results = run_trials(trials, benches, config.out / "trials", jobs=config.jobs)
        everything += [result for result, own in zip(results, benches, strict=True) if own == bench]
        folder = config.out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_results(folder, results)
        with RunFolder(folder, config) as run:
            log_results(run.log, results)
        videos = len(bench.dataset(config.split))
        note = f"{count} seeds, {episodes:,} episodes each, evaluated on {videos:,} videos of {config.split}."
        if name == "baseline":
            measure_noise(bench, seeds, episodes, config)
        report = write_report(folder, title=f"Ablation: {name}", note=note)
        print(f"{report} after {(time.perf_counter() - started) / 60:.1f} minutes")
    if everything:  # not where all trials had benches of their own, on which returns mean something else
        text = return_against_accuracy(everything)
        write_atomically(config.out / "return.md", f"{text}\n".encode())
        print(text)


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
