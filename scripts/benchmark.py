"""Measure speed and memory side by side: stepping, filling the table, deployment and training.

Every figure of a comparison is the median over repeats. These alternate with the repeats of the others, so that
whatever else the machine does affects all of them alike. At the paper's scale the networks are MobileNet-V2, ResNet-50
on 128² patches and a GRU of 1024, on 16 frames of 224², with random weights, on which speed does not depend. It takes
an hour on two slow cores. `--resume` goes on after the last part that a killed run has finished.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import print

from adafocus_env.command_line import run_script

if TYPE_CHECKING:
    from agents.experiments.speed.measuring import Results
    from agents.experiments.speed.scales import Scale


@dataclass
class Config:
    parts: tuple[Literal["embedded", "paper", "tsm", "growth", "training"], ...] = (
        "embedded", "paper", "tsm", "growth", "training",
    )  # fmt: skip
    """The shipped recogniser, networks of the paper's size, those of its AdaFocus-TSM; how the cost of a step grows
    with the numbers of lanes, videos, frames and candidates; and whole training runs of REINFORCE and PPO, with an
    empty and with a full table."""
    clips: int = 64
    """Number of clips in a batch of AdaFocus-TSM."""
    device: str = "cpu"
    """torch device."""
    seconds: float = 4.0
    """Seconds for each figure, over all of its repeats."""
    repeats: int = 7
    """Number of repeats, whose median counts."""
    quick: bool = False
    """Rehearse everything in less time; the figures mean little."""
    seed: int = 0
    """Seed of the actions and of the training runs."""
    resume: bool = False
    """Measure only those parts whose figures aren't in the folder."""
    out: Path = Path("runs/benchmark")
    """Folder for the tables, the figure and the log."""


def measure(results: Results, scale: Scale, config: Config) -> None:
    """Measure stepping, filling, deployment and memory at one scale."""
    from adafocus_env import FeatureBank
    from agents.experiments.speed.deployment import measure_deployment
    from agents.experiments.speed.filling import measure_filling
    from agents.experiments.speed.memory import measure_memory
    from agents.experiments.speed.scales import GRID
    from agents.experiments.speed.stepping import measure_stepping

    recognizer = scale.recognizer().to(config.device)
    bank = FeatureBank(recognizer, scale.videos("train", scale.table), GRID, config.device)
    bank.build(progress_bar=True)
    steps = measure_stepping(results, scale, bank, config.seed)
    measure_filling(results, scale, bank, steps[64])
    measure_deployment(results, scale, recognizer, bank, config.seed)
    measure_memory(results, scale.name, config.device)


def main(config: Config) -> None:
    import torch

    from adafocus_env.checks import as_device
    from adafocus_env.run_folder import RunFolder
    from agents.experiments.speed.clips import measure_clips
    from agents.experiments.speed.growth import axes_for, draw_growth, measure_growth
    from agents.experiments.speed.measuring import Results
    from agents.experiments.speed.scales import scales_for
    from agents.experiments.speed.training import measure_training

    if config.quick:
        config.seconds, config.repeats, config.clips = 0.5, 3, 2
    as_device(config.device)
    results = Results(config.seconds, config.repeats, config.device)
    scales = scales_for(config.device, quick=config.quick)
    started = time.perf_counter()
    with RunFolder(config.out, config, append=config.resume, may_change=("resume", "parts", "out")) as run:
        if config.resume:
            results.read(run)
        processor = platform.processor() or platform.machine()
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {processor}")
        for name in config.parts:
            if name in results.scales:
                print(f"{name} is measured already")
                continue
            if name == "tsm":
                measure_clips(results, config.clips, config.device)
            elif name == "growth":
                axes = axes_for(config.device, quick=config.quick)
                growth = measure_growth(results, axes, config.device, config.seed)
                run.write_table("growth", growth)
                draw_growth(config.out / "growth.png", growth)
            elif name == "training":
                measure_training(results, config.device, config.seed, quick=config.quick)
            else:
                measure(results, scales[name], config)
            results.write(run)  # now, in case that something ends the run
    results.print_ratios()
    print(f"Everything is in {config.out}, after {(time.perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    run_script(
        main, Config, __doc__, resume="the same command with --resume goes on with the parts that are missing in {out}"
    )
