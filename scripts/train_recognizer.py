"""Train a recogniser on the embedded benchmark: stages 0 and 1 of AdaFocus.

Reproduces the shipped recogniser: `python scripts/train_recognizer.py` (under 30 minutes on two cores).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from rich import print

from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.recognition.assessment import reference_accuracies
from adafocus_env.recognition.presets import PRESETS
from adafocus_env.recognition.training import Stage0Config, Stage1Config, train_stage0, train_stage1
from adafocus_env.run_folder import RunFolder


@dataclass
class Config:
    preset: str = "roaming-fashion"
    """Sizes of the networks, a name out of adafocus_env.recognition.presets."""
    seed: int = 0
    """Seed of the weights, the batches and the random patches."""
    out: Path = Path("runs/train_recognizer")
    """Folder for the recogniser, its metrics and its TensorBoard log."""
    stage0: Stage0Config = field(default_factory=Stage0Config)
    stage1: Stage1Config = field(default_factory=Stage1Config)


def main(config: Config) -> None:
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    recognizer = Recognizer(PRESETS[config.preset])
    videos = RoamingFashion("recognizer")
    with RunFolder(config.out, config) as run:
        train_stage0(recognizer, videos, config.stage0, seed=config.seed, log=run.log, progress_bar=True)
        recognizer.save(config.out / "stage0.safetensors")
        train_stage1(recognizer, videos, config.stage1, seed=config.seed, log=run.log, progress_bar=True)
        found = reference_accuracies(recognizer, RoamingFashion("val"))
        run.log("val", 0, found)
    minutes = (time.perf_counter() - started) / 60
    recognizer.metadata = {
        "training": f"scripts/train_recognizer.py --preset {config.preset} --seed {config.seed}",
        **{f"val_accuracy_{name}": f"{value:.1f}" for name, value in found.items()},
    }
    path = config.out / f"{config.preset}.safetensors"
    recognizer.save(path)
    print({name: f"{value:.1f} %" for name, value in found.items()})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, trained in {minutes:.1f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
