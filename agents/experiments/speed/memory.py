"""Peak memory of a process that steps some lanes through an episode."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import torch

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures
from agents.experiments.speed.measuring import Results
from agents.experiments.speed.scales import GRID, SCALES
from agents.experiments.speed.yardsticks import ReferenceProcedure

KINDS = ("reference procedure", "online", "memoised, lazy", "memoised, built ahead")


def measure_memory(results: Results, scale: str, device: str) -> None:
    """On the CPU, measure each kind in a fresh process; on a GPU, report the peak of all that ran there so far."""
    if torch.device(device).type != "cpu":
        results.add(scale, "peak memory on the device", torch.cuda.max_memory_allocated() / 1e6, "MB")
        return
    for kind in KINDS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_step_and_measure, (scale, kind))
        results.add(scale, f"peak memory of a process, {kind}", peak, "MB", SCALES[scale].memory_envs)


def _step_and_measure(name: str, kind: str) -> float:
    """Run an episode, and return the peak resident memory of this process in MB."""
    scale = SCALES[name]
    recognizer, videos = scale.recognizer(), scale.videos("train", scale.memory_videos)
    lanes = scale.memory_envs
    if kind == "reference procedure":
        index, nothing = torch.arange(lanes) % len(videos), torch.zeros(lanes, dtype=torch.int64)
        corners = FrozenFeatures(recognizer, videos, GRID).corners
        reference = ReferenceProcedure(recognizer, videos.frames(index), videos.labels[index], corners)
        for _ in range(videos.num_frames):
            reference.step(nothing, nothing)
        return _peak_megabytes()
    features = (FrozenFeatures if kind == "online" else FeatureBank)(recognizer, videos, GRID)
    if kind == "memoised, built ahead" and isinstance(features, FeatureBank):
        features.build()
    env = AdaFocusVectorEnv(lanes, features=features, skip=False, output="torch")
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(env.num_frames):
        env.step(env.action_space.sample())
    return _peak_megabytes()


def _peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give the parent's peak if that is higher
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
