"""Fill a feature bank's file ahead of time, so that no training run needs to run a CNN.

A killed build loses at most five seconds of its work (or one batch of patches, where that takes longer), and the same
command goes on from there. Under torchrun several processes share the work. Use the file with
`train_policy.py --bank`, or with `gym.make("AdaFocus-v0", features=FeatureBank.open(path, recognizer, videos))`.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import print

from adafocus_env.command_line import SAME_COMMAND, run_script


@dataclass
class Config:
    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file."""
    videos: str = "roaming-fashion"
    """A registered data set, or a TOML file that describes one on disk."""
    split: str = "train"
    """Split of the data set."""
    grid: int = 7
    """Rows and columns of the grid of candidates."""
    dtype: Literal["float32", "float16"] = "float16"
    """Data type of the table."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the local CNN."""
    device: str = "cpu"
    """torch device of the CNNs; under torchrun, "cuda" gives each process a GPU of its own."""
    dry_run: bool = False
    """Only print how large the file will be."""
    seed: int = 0
    """Not used, as nothing here is random."""
    out: Path = Path("runs/build_feature_bank")
    """Folder for the file, bank.adafocus."""


def main(config: Config) -> None:
    from adafocus_env import FeatureBank, FrozenFeatures, load_recognizer
    from adafocus_env.features.building import build_together
    from adafocus_env.processes import num_processes, process_group, process_number
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos

    recognizer = load_recognizer(config.recognizer)
    videos = get_videos(config.videos, config.split)
    size = FeatureBank.predicted_bytes(recognizer, videos, config.grid, config.dtype)
    existing = next(folder for folder in (config.out, *config.out.absolute().parents) if folder.exists())
    print(
        f"{len(videos)} videos, {size / len(videos) / 1e6:.3f} MB each: {size / 1e9:.3f} GB in {config.out}, "
        f"where {shutil.disk_usage(existing).free / 1e9:.1f} GB are free."
    )
    if config.dry_run:
        return
    path = config.out / "bank.adafocus"
    with process_group(config.device) as device, RunFolder(config.out, config) as run:
        started = time.perf_counter()
        if process_number() > 0:
            build_together(FrozenFeatures(recognizer, videos, config.grid, device, precision=config.precision))
            return
        bank = FeatureBank(
            recognizer, videos, config.grid, device, path=path, dtype=config.dtype, precision=config.precision
        )
        if num_processes() > 1:
            build_together(bank, progress_bar=True)
        else:
            bank.build(progress_bar=True)
        bank.close()
        seconds = time.perf_counter() - started
        run.log("build", 0, {"bytes": float(size), "seconds": seconds})
        print(f"{path} is complete, after {seconds:.0f} s.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
