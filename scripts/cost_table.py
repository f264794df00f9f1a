"""Measure the multiply-adds of the paper's networks, and print them beside the published figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from adafocus_env import Recognizer
from adafocus_env.command_line import check_positive, run_script
from adafocus_env.recognition.compute_cost import multiply_adds, policy_gflops
from adafocus_env.recognition.official_policy import OfficialPolicy
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
from adafocus_env.recognition.presets import PATCH_SIZES, PRESETS, TSM_PATCH_SIZES, TSM_PRESETS
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer
from adafocus_env.run_folder import RunFolder

PUBLISHED: dict[int, float] = {96: 17.2, 128: 26.6, 160: 38.6, 192: 53.2}
"""GFLOPs per video on ActivityNet by patch size (paper, Table 1; the value for 96 is read off a figure)."""
PUBLISHED_TSM: dict[str | int, float] = {"TSM, 8": 32.7, "TSM+, 8+8": 35.1, 144: 23.5, 160: 27.5, 176: 33.7}
"""GFLOPs per video on Something-Something (paper, Table 4)."""


@dataclass
class Config:
    frames: int = 16
    """Frames of a video, T."""
    seed: int = 0
    """Seed of the weights, on which no cost depends."""
    out: Path = Path("runs/cost_table")
    """Folder for cost_table.csv."""


def temporal_shift_rows() -> list[dict[str, Any]]:
    """The cost of AdaFocus-TSM at each patch size, and of both its networks, or of the larger one, on full frames."""

    def row(model: str, glance: float | None, local: float, policy: float | None, published: float) -> dict[str, Any]:
        total = sum(part or 0.0 for part in (glance, local, policy))
        return {
            "model": model, "global": glance, "local": local, "classifier": None, "policy": policy, "video": total,
            "published": published,
        }  # fmt: skip

    full = TSMRecognizer(replace(TSM_PRESETS["something-v1-144"], patch_size=224, local_frames=8)).eval().cost()
    rows = [
        row("TSM, 8", None, full.local, None, PUBLISHED_TSM["TSM, 8"]),
        row("TSM+, 8+8", full.glance, full.local, None, PUBLISHED_TSM["TSM+, 8+8"]),
    ]
    policy = policy_gflops(OfficialTSMPolicy().eval())
    for size in TSM_PATCH_SIZES:
        cost = TSMRecognizer(TSM_PRESETS[f"something-v1-{size}"]).eval().cost()
        rows.append(row(f"AdaFocus-TSM {size}²", cost.glance, cost.local, policy, PUBLISHED_TSM[size]))
    return rows


def main(config: Config) -> None:
    check_positive(frames=config.frames)
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
    rows += temporal_shift_rows()
    table = Table(
        title=f"GFLOPs (multiply-adds / 1e9): per frame (TSM: per clip), and per video of {config.frames} frames"
    )
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
    run_script(main, Config, __doc__)
