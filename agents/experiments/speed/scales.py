"""The scales of the benchmark: networks of one size, videos for them, and how much is measured on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.recognition.presets import paper_config

GRID = 7


@dataclass(frozen=True)
class Scale:
    """Networks of one size, and how much is measured on them."""

    name: str
    recognizer: Callable[[], Recognizer]
    videos: Callable[[str, int | None], RoamingFashion]  # a split, and how many of its videos
    table: int  # videos in the table that environments step through
    filled: int  # videos of the table that is built; with enough of them, the bank's set-up does not count
    recognized: int  # videos that are recognised at once
    compared: int  # videos on which bfloat16's choices are compared with float32's; 0 for random weights
    patch_batches: tuple[int, ...]  # batch sizes of the local CNN on patches
    frame_batch: int  # its batch size on whole frames
    online_envs: tuple[int, ...]  # lanes at which the slowest variants of the online path are stepped too
    bfloat16: bool  # whether filling, the online path and deployment run in bfloat16 too
    memory_envs: int  # lanes of the process whose memory is measured
    memory_videos: int  # videos of that process
    many_envs: tuple[int, ...] = ()  # lanes at which only what reads the table is stepped


def _paper_videos(split: str, num_videos: int | None) -> RoamingFashion:
    return RoamingFashion(split, num_videos=num_videos, num_frames=16, frame_size=224)


def _paper_recognizer() -> Recognizer:
    """MobileNet-V2 and ResNet-50 with random weights, and batch norms fitted to some frames."""
    torch.manual_seed(0)
    recognizer = Recognizer(paper_config(num_classes=10, patch_size=128))
    frames = _paper_videos("val", 4).frames(torch.arange(4)).flatten(0, 1)[::4]
    for module in recognizer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # plain mean over all that follows
    recognizer.train()
    with torch.no_grad():
        recognizer.glance(frames)
        recognizer.look(frames[..., 40:168, 40:168])
    return recognizer.eval()


EMBEDDED = Scale(
    name="embedded",
    recognizer=lambda: Recognizer.from_pretrained("roaming-fashion"),
    videos=lambda split, num_videos: RoamingFashion(split, num_videos=num_videos),
    table=500,
    filled=192,
    recognized=64,
    compared=1000,
    patch_batches=(32, 64, 128, 256),
    frame_batch=64,
    online_envs=(1, 64, 256),
    bfloat16=False,
    memory_envs=64,
    memory_videos=200,
)
"""The shipped recogniser and its benchmark."""
PAPER = Scale(
    name="paper",
    recognizer=_paper_recognizer,
    videos=_paper_videos,
    table=3,
    filled=3,
    recognized=2,
    compared=0,
    patch_batches=(4, 8, 16, 32),
    frame_batch=8,
    online_envs=(1, 64),
    bfloat16=True,
    memory_envs=4,
    memory_videos=1,
)
"""Networks of the paper's size, on 16 frames of 224². Their speed does not depend on their weights."""
SCALES = {scale.name: scale for scale in (EMBEDDED, PAPER)}
GPU_SCALES = {
    "embedded": replace(
        EMBEDDED, recognized=1024, patch_batches=(1024, 4096), frame_batch=1024, many_envs=(1024, 8192)
    ),
    "paper": replace(PAPER, table=16, filled=16, recognized=64, patch_batches=(64, 256, 1024), frame_batch=256),
}
"""The same scales for a GPU, which takes more at once."""


def scales_for(device: str, *, quick: bool = False) -> dict[str, Scale]:
    """The scales by name; ``quick`` for a rehearsal. On processors without AVX-512, bfloat16 is emulated, several times
    slower than float32, and left out."""
    on_cpu = torch.device(device).type == "cpu"
    scales = SCALES if on_cpu else GPU_SCALES
    if on_cpu and torch.backends.cpu.get_cpu_capability() != "AVX512":
        scales = {name: replace(scale, bfloat16=False) for name, scale in scales.items()}
    if not quick:
        return scales
    less: dict[str, dict[str, Any]] = {
        "embedded": {"table": 64, "filled": 2, "compared": 64},
        "paper": {"table": 1, "filled": 1},
    }
    return {name: replace(scale, **less[name]) for name, scale in scales.items()}
