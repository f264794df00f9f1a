"""Speed of AdaFocus-TSM at its patch sizes, beside its networks on whole frames: clips per second, and latency."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adafocus_env import TSMRecognizer
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
from adafocus_env.recognition.presets import TSM_PATCH_SIZES, TSM_PRESETS
from agents.experiments.speed.measuring import Ratio, Results, Timing

ADAFOCUS, WHOLE_FRAMES = "AdaFocus-TSM 144²", "TSM+, 8 + 8 whole frames"


def measure_clips(results: Results, clips: int, device: str) -> None:
    """Measure batches of clips, and single clips; weights are random, as speed does not depend on them."""
    torch.manual_seed(0)
    preset = TSM_PRESETS["something-v1-144"]
    policy = OfficialTSMPolicy().to(device).eval()
    whole = replace(preset, patch_size=preset.glance_size, local_frames=preset.global_frames)
    full, *models = (
        TSMRecognizer(config).to(device).deployed()
        for config in (whole, *(replace(preset, patch_size=size) for size in TSM_PATCH_SIZES))
    )
    shape = (preset.global_frames + preset.local_frames, 3, preset.glance_size, preset.glance_size)

    @torch.no_grad()
    def whole_frames(frames: Tensor, *, glance: bool) -> None:
        for batch in full.batches(frames[:, : preset.global_frames], preset.glance_size):
            full.look(batch)
            if glance:
                full.glance(batch)

    for what, count, asked in (("throughput", clips, "at least 1.37"), ("latency", 1, "at least 1.31")):
        frames = torch.randint(0, 256, (count, *shape), dtype=torch.uint8).to(device)
        calls: dict[str, Any] = {
            "TSM, 8 whole frames": functools.partial(whole_frames, frames, glance=False),
            WHOLE_FRAMES: functools.partial(whole_frames, frames, glance=True),
        }
        for size, model in zip(TSM_PATCH_SIZES, models, strict=True):
            calls[f"AdaFocus-TSM {size}²"] = functools.partial(model.recognize, frames, policy)
        batch = f", batch of {count}"
        timings = {f"{name}{batch}": Timing(call, count) for name, call in calls.items()}
        ratio = Ratio(f"{what}, {ADAFOCUS} / TSM+", f"{ADAFOCUS}{batch}", f"{WHOLE_FRAMES}{batch}", asked)
        speeds = results.compare("tsm", "videos/s", timings, [ratio])
        if what == "latency":
            for name in calls:
                results.add("tsm", f"{name}, latency", 1e3 / speeds[f"{name}{batch}"], "ms")
