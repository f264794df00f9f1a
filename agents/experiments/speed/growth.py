"""How the cost of a step grows with the number of lanes, of videos, of frames and of candidate patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer, RoamingFashion
from adafocus_env.files import write_figure
from adafocus_env.recognition.backbones import BackboneConfig
from agents.experiments.speed.measuring import STEPS, Results, Timing
from agents.experiments.speed.stepping import COMMON, Stepper

BASELINES = ("sample", "exact")


@dataclass(frozen=True)
class Size:
    """Everything that a step's cost may depend on."""

    lanes: int = 64
    videos: int = 500
    frames: int = 8
    grid: int = 7

    @property
    def axes(self) -> dict[str, int]:
        """The sizes by their names in the figure."""
        return {"lanes": self.lanes, "videos": self.videos, "frames T": self.frames, "candidates N": self.grid**2}


def axes_for(device: str, *, quick: bool = False) -> dict[str, tuple[Size, ...]]:
    """The sizes along every axis, others being those of :class:`Size`; on a GPU with more lanes."""
    if quick:
        return {"lanes": (Size(1, 4, 4, 4), Size(4, 4, 4, 4))}
    powers = range(7 if torch.device(device).type == "cpu" else 9)
    return {
        "lanes": tuple(Size(lanes=4**power) for power in powers),
        "videos": tuple(Size(videos=number) for number in (100, 1000, 10_000)),
        "frames T": tuple(Size(frames=number) for number in (4, 8, 16, 32, 64)),
        "candidates N": tuple(Size(grid=number) for number in (4, 7, 10)),
    }


def small_networks() -> Recognizer:
    """Networks that fill a table quickly and leave as much in it as those of the shipped recogniser."""
    shipped = Recognizer.from_pretrained("roaming-fashion").config
    local = BackboneConfig("tiny_resnet", widths=(4, 4, 8, 16), strides=(2, 2, 2, 2))
    torch.manual_seed(0)
    return Recognizer(replace(shipped, local_backbone=local, patch_size=16)).eval()


def measure_growth(
    results: Results, axes: Mapping[str, tuple[Size, ...]], device: str = "cpu", seed: int = 0
) -> list[dict[str, Any]]:
    """Time steps with a full table along every axis.

    Returns:
        Rows with ``axis``, ``size``, ``baseline``, and the microseconds of one lane's share of a step.
    """
    recognizer, random = small_networks().to(device), torch.Generator().manual_seed(seed)
    rows = []
    for axis, sizes in axes.items():
        bank = None
        for size in sizes:
            if bank is None or axis != "lanes":
                bank = None  # let go of its memory first
                videos = RoamingFashion("recognizer", num_videos=size.videos, num_frames=size.frames)
                bank = FeatureBank(recognizer, videos, size.grid, device)
                bank.build(progress_bar=True)
            timings = {f"{axis} {size.axes[axis]}, {name}": _timing(bank, size, name, random) for name in BASELINES}
            speeds = results.compare("growth", STEPS, timings)
            rows += [
                {"axis": axis, "size": size.axes[axis], "baseline": name, "microseconds": round(1e6 / speed, 3)}
                for name, speed in zip(BASELINES, speeds.values(), strict=True)
            ]
    return rows


def _timing(bank: FeatureBank, size: Size, baseline: str, random: torch.Generator) -> Timing:
    arguments: dict[str, Any] = {**COMMON, "baseline": baseline}
    env = AdaFocusVectorEnv(size.lanes, features=bank, **arguments)
    actions = torch.randint(size.grid**2, (32, size.lanes), generator=random).to(bank.device)
    return Timing(Stepper(env, list(actions)).step, size.lanes, size.lanes)


def draw_growth(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw a panel for every axis: microseconds against size, both logarithmic."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(3.6 * len(axes), 3.4), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        for name in BASELINES:
            points = [row for row in rows if (row["axis"], row["baseline"]) == (axis, name)]
            sizes = [row["size"] for row in points]
            panel.plot(sizes, [row["microseconds"] for row in points], marker="o", label=name)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("µs per lane and step")
    panels[0].legend(title="baseline")
    write_figure(path, figure, 120)
