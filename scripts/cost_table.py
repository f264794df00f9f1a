"""Multiply-adds of the paper's networks, measured on the modules, beside the published figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from adafocus_env import Recognizer
from adafocus_env.official_checkpoint import OfficialPolicy
from adafocus_env.recognition.compute_cost import multiply_adds, policy_gflops
from adafocus_env.recognition.presets import PATCH_SIZES, PRESETS
from adafocus_env.run_folder import RunFolder

PUBLISHED = {96: 17.2, 128: 26.6, 160: 38.6, 192: 53.2}
"""GFLOPs per video on ActivityNet by patch size (paper, Table 1; 96 is read off a figure)."""


@dataclass
class Config:
    frames: int = 16
    """T."""
    seed: int = 0
    """Of the weights, on which no cost depends."""
    out: Path = Path("runs/cost_table")
    """Folder for cost_table.csv."""


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    policy = policy_gflops(OfficialPolicy())
    rows = []
    for size in PATCH_SIZES:
        recognizer = Recognizer(PRESETS[f"activitynet-{size}"])
        cost = recognizer.cost()
        total = config.frames * (cost.always + cost.local + policy)
        rows.append({
            "model": f"AdaFocus {size}²", "global": cost.glance, "local": cost.local, "classifier": cost.classifier,
            "policy": policy, "video": total, "published": PUBLISHED[size] if config.frames == 16 else None,
        })  # fmt: skip
    for name, network in (("MobileNet-V2", recognizer.global_cnn), ("ResNet-50", recognizer.local_cnn)):
        image = torch.zeros(1, 3, 224, 224)
        cost_of_frame = multiply_adds(lambda n=network, x=image: n(x)) / 1e9  # type: ignore[misc]
        rows.append({
            "model": f"{name}, full frames", "global": None, "local": cost_of_frame, "classifier": None, "policy": None,
            "video": config.frames * cost_of_frame, "published": None,
        })  # fmt: skip
    table = Table(title=f"GFLOPs (multiply-adds / 1e9): per frame, and per video of {config.frames} frames")
    for column in ("model", "f_G", "f_L", "f_C", "π", "video", "published", "difference"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        published = row["published"]
        difference = "" if published is None else f"{100 * (row['video'] / published - 1):+.2f} %"
        cells = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("global", "local", "classifier", "policy")]
        table.add_row(row["model"], *cells, f"{row['video']:.2f}", f"{published or ''}", difference)
    Console(width=110).print(table)
    with RunFolder(config.out, config) as run:
        print(run.write_table("cost_table", rows))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
