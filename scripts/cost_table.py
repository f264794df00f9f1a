"""Measure the multiply-adds of the paper's networks and of whole-video networks, beside the published figures."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adafocus_env.command_line import check_positive, run_script

PARTS = ("global", "local", "classifier", "policy")
PUBLISHED: dict[int, float] = {96: 17.2, 128: 26.6, 160: 38.6, 192: 53.2}
"""GFLOPs per video on ActivityNet by patch size (paper, Table 1; the value for 96 is read off a figure)."""
PUBLISHED_TSM: dict[str | int, float] = {"TSM, 8": 32.7, "TSM+, 8+8": 35.1, 144: 23.5, 160: 27.5, 176: 33.7}
"""GFLOPs per video on Something-Something (paper, Table 4)."""


@dataclass
class Config:
    frames: int = 16
    """Number of frames of a video, T."""
    seed: int = 0
    """Seed of the weights, on which no cost depends."""
    out: Path = Path("runs/cost_table")
    """Folder for cost_table.csv and whole_videos.csv."""


def row(model: str, video: float, published: float | None, **parts: float) -> dict[str, Any]:
    """A row of the table: GFLOPs of the parts that the model has, of a whole video, and as published."""
    return {"model": model, **{name: parts.get(name) for name in PARTS}, "video": video, "published": published}


def frame_rows(frames: int) -> list[dict[str, Any]]:
    """Rows of AdaFocus at each patch size, and of both its networks on full frames; parts are per frame."""
    import torch

    from adafocus_env import Recognizer
    from adafocus_env.recognition.compute_cost import multiply_adds, policy_gflops
    from adafocus_env.recognition.official_policy import OfficialPolicy
    from adafocus_env.recognition.presets import PATCH_SIZES, PRESETS

    rows, policy = [], policy_gflops(OfficialPolicy())
    for size in PATCH_SIZES:
        recognizer = Recognizer(PRESETS[f"activitynet-{size}"])
        cost = recognizer.cost()
        parts = {"global": cost.glance, "local": cost.local, "classifier": cost.classifier, "policy": policy}
        total = frames * (cost.always + cost.local + policy)
        rows.append(row(f"AdaFocus {size}²", total, PUBLISHED[size] if frames == 16 else None, **parts))
    image = torch.zeros(1, 3, 224, 224)
    for name, network in (("MobileNet-V2", recognizer.global_cnn), ("ResNet-50", recognizer.local_cnn)):
        of_frame = multiply_adds(functools.partial(network, image)) / 1e9
        rows.append(row(f"{name}, full frames", frames * of_frame, None, local=of_frame))
    return rows


def clip_rows() -> list[dict[str, Any]]:
    """Rows of AdaFocus-TSM at each patch size, and of its larger network or both on full frames; parts are per clip."""
    from adafocus_env.recognition.compute_cost import policy_gflops
    from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
    from adafocus_env.recognition.presets import TSM_PATCH_SIZES, TSM_PRESETS
    from adafocus_env.recognition.tsm_recognizer import TSMRecognizer

    def clip_row(model: str, published: float, **parts: float) -> dict[str, Any]:
        return row(model, sum(parts.values()), published, **parts)

    full = TSMRecognizer(replace(TSM_PRESETS["something-v1-144"], patch_size=224, local_frames=8)).eval().cost()
    rows = [
        clip_row("TSM, 8", PUBLISHED_TSM["TSM, 8"], local=full.local),
        clip_row("TSM+, 8+8", PUBLISHED_TSM["TSM+, 8+8"], **{"global": full.glance, "local": full.local}),
    ]
    policy = policy_gflops(OfficialTSMPolicy().eval())
    for size in TSM_PATCH_SIZES:
        cost = TSMRecognizer(TSM_PRESETS[f"something-v1-{size}"]).eval().cost()
        parts = {"global": cost.glance, "local": cost.local, "policy": policy}
        rows.append(clip_row(f"AdaFocus-TSM {size}²", PUBLISHED_TSM[size], **parts))
    return rows


def difference(measured: float | None, published: float | None) -> str:
    """By how many per cent a measured figure differs from the published one; empty if one of them is missing."""
    return "" if measured is None or published is None else f"{100 * (measured / published - 1):+.2f} %"


def show(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], caption: str | None = None) -> None:
    """Print a table whose first column names the rows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for cells in rows:
        table.add_row(*cells)
    Console(width=110).print(table)


def show_costs(rows: list[dict[str, Any]], frames: int) -> None:
    """Print the table of the paper's networks."""
    cells = [
        (
            each["model"],
            *("" if each[part] is None else f"{each[part]:.4f}" for part in PARTS),
            f"{each['video']:.2f}",
            f"{each['published'] or ''}",
            difference(each["video"], each["published"]),
        )
        for each in rows
    ]
    title = f"GFLOPs (multiply-adds / 1e9): per frame (TSM: per clip), and per video of {frames} frames"
    show(title, ("model", "f_G", "f_L", "f_C", "π", "video", "published", "difference"), cells)


def show_whole_videos(rows: list[dict[str, Any]]) -> None:
    """Print the table of whole-video networks; a star marks figures that are published and not measured."""
    cells = []
    for each in rows:
        star = "*" if each["basis"] == "published" else ""
        cells.append(
            (
                each["network"],
                each["view"],
                str(each["views"]),
                "" if star else f"{each['measured']:.2f}",
                f"{each['published']:.2f}",
                difference(each["measured"], each["published"]),
                f"{each['video']:.1f}{star}",
                f"{each['images']:.1f}{star}",
            )
        )
    missing = any(each["basis"] == "published" for each in rows)
    caption = '* published, not measured: pip install -e ".\\[costs]" measures it' if missing else None
    columns = ("network", "view", "views", "GFLOPs/view", "published", "difference", "video", "images")
    title = "Whole-video networks: GFLOPs per view and per video, which is as many images of 224² by ResNet-50"
    show(title, columns, cells, caption)


def main(config: Config) -> None:
    import torch

    from adafocus_env.run_folder import RunFolder
    from agents.experiments.whole_video import whole_video_rows

    check_positive(frames=config.frames)
    torch.manual_seed(config.seed)
    rows, whole = [*frame_rows(config.frames), *clip_rows()], whole_video_rows()
    show_costs(rows, config.frames)
    show_whole_videos(whole)
    with RunFolder(config.out, config) as run:
        print(run.write_table("cost_table", rows))
        print(run.write_table("whole_videos", whole))


if __name__ == "__main__":
    run_script(main, Config, __doc__)
