"""Measure what each ingredient is worth: one table per ablation, with several seeds.

Trials run in parallel and each leaves one file, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import print

from adafocus_env.command_line import SAME_TRIALS, check_known, run_script
from agents.experiments.arguments import ComparisonArguments

if TYPE_CHECKING:
    from agents.experiments.bench import Bench


@dataclass
class Config(ComparisonArguments):
    ablations: tuple[str, ...] = ()
    """Any of reward, baseline, policy, gamma, observation, skipping, stopping, candidates, frames, stages, ingredients
    and recipe; by default all."""
    num_videos: int | None = None
    """Number of videos per split of the embedded benchmark; by default all. Tables of fewer videos fill sooner."""
    out: Path = Path("runs/ablate")
    """Folder of the results, with a folder in it for every ablation's report."""


def measure_noise(bench: Bench, seeds: range, episodes: int, config: Config) -> None:
    """Measure the variance of the return and of the gradient early and late in training; write ``noise.csv``."""
    import joblib

    from adafocus_env.run_folder import write_csv
    from agents.experiments import noise
    from agents.experiments.ablations import ABLATIONS
    from agents.experiments.provenance import code_of, digest

    facts = {"code": code_of(noise.__file__), **bench.facts(("train",))}
    remembered = joblib.Memory(config.trials / f"noise-{digest(facts)}", verbose=0).cache(noise.estimator_noise)
    short = {"critic_episodes": 128, "batches": 4} if config.quick else {}
    found = joblib.Parallel(n_jobs=config.jobs)(
        joblib.delayed(remembered)(ABLATIONS["baseline"], bench, seed, trained, **short)
        for trained in (episodes // 10, episodes)
        for seed in seeds
    )
    write_csv(config.out / "baseline" / "noise.csv", [row for rows in found for row in rows])


def main(config: Config) -> None:
    from agents.experiments.ablations import ABLATIONS, rows_of
    from agents.experiments.report import write_report
    from agents.experiments.runner import run_trials

    check_known("--ablations", config.ablations, ABLATIONS)
    seeds, episodes = config.budget()
    bench = config.bench(("train", "val", config.split), config.num_videos)
    left_out = bench.unknown
    for name in config.ablations or ABLATIONS:
        started = time.perf_counter()
        work = [
            (trial, variant.on(bench))
            for variant in rows_of(name)
            if variant.algorithm not in left_out
            for trial in variant.trials(seeds, episodes, config.split)
        ]
        trials, benches = zip(*work, strict=True)
        results = run_trials(trials, benches, config.trials, jobs=config.jobs)
        folder = config.out / name
        config.write(folder, results, benches)
        videos = len(bench.dataset(config.split))
        trained = ", ".join(f"{number:,}" for number in sorted({t.episodes for t in trials if t.episodes}))
        note = f"{len(seeds)} seeds, {trained} episodes each, evaluated on {videos:,} videos of {config.split}."
        if name == "baseline":
            measure_noise(bench, seeds, episodes, config)
        same = all(own == bench for own in benches)
        report = write_report(folder, title=f"Ablation: {name}", note=note, comparable_returns=same)
        print(f"{report} after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_TRIALS)
