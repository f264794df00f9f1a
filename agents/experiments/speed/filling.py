"""Building of a table: its speed beside the bare local CNN's, the table's size, and when it has paid for itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adafocus_env import FeatureBank
from adafocus_env.recognition.image_networks import Precision
from agents.experiments.speed.measuring import Ratio, Results, Timing
from agents.experiments.speed.scales import GRID, Scale
from agents.experiments.speed.stepping import LAZY, ONLINE

BUILDING = "bank building, glances and frames included"
ACTIVITYNET_VIDEOS = 10_024
"""Its training videos; with 16 frames each, they have 7.9 million candidates."""
ASKED = {"bare local CNN": "at least 0.9", "folded local CNN": ""}
"""What is asked of building, as a share of the local CNN's best speed: of the plain CNN's, and of that of the one with
folded batch norms, which building uses."""


def measure_filling(results: Results, scale: Scale, bank: FeatureBank, steps: Mapping[str, float]) -> None:
    """Measure the building of a table, and when it pays for itself.

    Args:
        results: Where the figures go.
        scale: Scale to measure.
        bank: A bank of the scale's recogniser.
        steps: Environment steps per second at 64 lanes by name, as :func:`measure_stepping` found them.
    """
    recognizer, device = bank.recognizer, bank.device
    videos = scale.videos("train", scale.filled)
    size, frames = recognizer.config.patch_size, videos.num_frames
    patches = len(videos) * frames * GRID**2
    own_batch = len(next(recognizer.batches(torch.empty(10**4), size)))
    batches = sorted({own_batch, *scale.patch_batches})
    cnns = {"bare local CNN": recognizer.local_cnn, "folded local CNN": recognizer.deployed().local_cnn}

    def build(precision: Precision) -> None:
        FeatureBank(recognizer, videos, GRID, device, precision=precision).build()

    timings = {BUILDING: Timing(functools.partial(build, "float32"), patches)}
    if scale.bfloat16:
        timings[f"{BUILDING}, bfloat16"] = Timing(functools.partial(build, "bfloat16"), patches)
    for count, (name, cnn) in itertools.product(batches, cnns.items()):
        images = torch.randn(count, 3, size, size, device=device).to(memory_format=torch.channels_last)
        timings[f"{name}, batch {count}"] = Timing(functools.partial(_run, cnn, images), count)
    ratios = [
        Ratio(
            f"bank building / {name} at its best", BUILDING, tuple(f"{name}, batch {count}" for count in batches), asked
        )
        for name, asked in ASKED.items()
    ]
    speeds = results.compare(scale.name, "patches/s", timings, ratios)
    _measure_break_even(results, scale.name, frames, speeds[BUILDING], steps)
    if scale.name == "paper":
        for name in [each for each in timings if each.startswith(BUILDING)]:
            hours = ACTIVITYNET_VIDEOS * frames * GRID**2 / speeds[name] / 3600
            results.add(scale.name, name.replace(BUILDING, "building ActivityNet's, without decoding"), hours, "h")
    for dtype in ("float32", "float16"):
        per_video = FeatureBank.predicted_bytes(recognizer, videos, GRID, dtype) / len(videos)
        results.add(scale.name, f"table, {dtype}", per_video / 1e6, "MB/video")


@torch.no_grad()
def _run(cnn: nn.Module, images: Tensor) -> None:
    cnn(images)


def _measure_break_even(
    results: Results, scale: str, frames: int, patches_per_second: float, steps: Mapping[str, float]
) -> None:
    """Measure after how many epochs a table has taken less time than the online path.

    One epoch is one episode per video, at 64 lanes. In every epoch a lazy table is asked for two patches per frame.
    """
    online, warm, patch = frames / steps[ONLINE], frames / steps[LAZY], 1 / patches_per_second
    built = frames * GRID**2 * patch
    glances = max(0.0, online - warm - 2 * frames * patch)
    epochs = np.arange(1, 1001)
    met = GRID**2 * (1 - (1 - 1 / GRID**2) ** (2 * epochs))
    paid = np.flatnonzero(glances + frames * met * patch + epochs * warm < online * epochs)
    results.add(scale, "an epoch online, per video", 1e3 * online, "ms")
    results.add(scale, "an epoch out of a warm table, per video", 1e3 * warm, "ms")
    results.add(scale, "filling the whole table, per video", 1e3 * built, "ms")
    results.add(scale, "break-even of a table built ahead", built / max(online - warm, 1e-9), "epochs")
    results.add(scale, "break-even of a lazy table", float(paid[0] + 1) if len(paid) else np.inf, "epochs")
