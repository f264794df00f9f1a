"""Speed of deployment in videos per second, beside the bare network calls and the local CNN on whole frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adafocus_env import FeatureBank, Recognizer
from agents import Reinforce, from_pretrained
from agents.experiments.speed.measuring import Ratio, Results, Timing
from agents.experiments.speed.scales import GRID, Scale
from agents.experiments.speed.yardsticks import byte_statistics

PLAIN = "local CNN on full frames, plain float32"
EXIT_BATCH = 16
"""Number of videos that conditional exit is measured on."""


class BareCalls:
    """The networks alone, on ready-made inputs, in the same batches as in :meth:`Recognizer.recognize`.

    Args:
        model: The recogniser.
        policy: A policy that sees the glance alone.
        videos: Number of videos.
        frames: Number of frames of each video.
    """

    def __init__(self, model: Recognizer, policy: Reinforce, videos: int, frames: int) -> None:
        self._model, config = model, model.config
        self._network: Any = policy.policy
        made: dict[str, Any] = {"device": model.device, "dtype": next(model.global_cnn.parameters()).dtype}
        self._glances, self._patches = (
            torch.randn(videos * frames, 3, side, side, **made).contiguous(memory_format=torch.channels_last)
            for side in (config.glance_size, config.patch_size)
        )
        self._maps = torch.rand(videos, frames, *model.glance_shape, device=model.device)
        self._vectors = torch.rand(videos, frames, model.glance_shape[0] + model.local_size, device=model.device)
        self._hidden = torch.zeros(videos, policy.config.hidden_size, device=model.device)

    @torch.no_grad()
    def run(self) -> None:
        """Run all networks once on every input that they see in deployment."""
        model, hidden = self._model, self._hidden
        for batch in model.batches(self._glances, model.config.glance_size):
            model.global_cnn(batch)
        for maps in self._maps.unbind(dim=1):
            hidden = self._network({"glance": maps}, hidden)
            self._network.patch_head(hidden)
        for batch in model.batches(self._patches, model.config.patch_size):
            model.local_cnn(batch)
        model.classifier.fc(model.classifier.gru(self._vectors)[0])


def _decoded(scale: Scale, videos: int, bank: FeatureBank) -> Tensor:
    """Frames of test videos, in memory as decoders leave them: the channels of a pixel lie side by side."""
    frames = scale.videos("test", videos).frames(torch.arange(videos)).to(bank.device)
    return frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _glance_policy(bank: FeatureBank, seed: int) -> Reinforce:
    """A policy that sees the glance alone, with random weights."""
    return Reinforce(gym.make_vec("AdaFocus-v0", features=bank, skip=False, observation="glance"), seed=seed)


def measure_deployment(results: Results, scale: Scale, recognizer: Recognizer, bank: FeatureBank, seed: int) -> None:
    """Measure the recognition of videos with a policy that sees the glance alone.

    Args:
        results: Where the figures go.
        scale: Scale to measure.
        recognizer: Recogniser of the scale.
        bank: A bank of this recogniser.
        seed: Seed of the policy's weights, on which speed does not depend.
    """
    frames, policy = _decoded(scale, scale.recognized, bank), _glance_policy(bank, seed)
    models = {"": recognizer, ", deployed": recognizer.deployed()}
    if scale.bfloat16:
        models[", deployed, bfloat16"] = recognizer.deployed("bfloat16")
    fastest = list(models)[-1]
    mean, std = byte_statistics(recognizer)
    plain = recognizer.frozen().local_cnn.to(memory_format=torch.contiguous_format)
    batches = frames.flatten(0, 1).split(scale.frame_batch)

    best, full = f"recognize{fastest}", f"local CNN on full frames{fastest}"

    @torch.no_grad()
    def on_full_frames(cnn: Callable[[Tensor], Tensor]) -> None:
        for batch in batches:
            cnn(batch)

    calls: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        calls[f"recognize{name}"] = functools.partial(model.recognize, frames, policy)
        calls[f"bare network calls{name}"] = BareCalls(model, policy, *frames.shape[:2]).run
    calls[full] = functools.partial(on_full_frames, models[fastest].look)
    calls[PLAIN] = functools.partial(on_full_frames, lambda batch: plain((batch.float() - mean) / std))
    ratios = [
        *(
            Ratio(
                f"recognize / bare network calls{name}", f"recognize{name}", f"bare network calls{name}", "at least 0.9"
            )
            for name in models
        ),
        Ratio(f"recognize / local CNN on full frames, both{fastest}", best, full, {"paper": "at least 1.5"}),
        Ratio(
            "recognize with everything on / plain float32 local CNN on full frames",
            best,
            PLAIN,
            {"paper": "at least 3"},
        ),
    ]
    timings = {name: Timing(call, len(frames)) for name, call in calls.items()}
    results.compare(scale.name, "videos/s", timings, ratios)
    _measure_exit(results, scale, recognizer.deployed(), _decoded(scale, EXIT_BATCH, bank), policy)
    if scale.compared:
        _measure_agreement(results, scale, recognizer)


def _measure_exit(results: Results, scale: Scale, model: Recognizer, frames: Tensor, policy: Reinforce) -> None:
    """Measure whether conditional exit saves as much time as it saves multiply-adds."""
    whole = model.recognize(frames, policy)
    confidences = whole.logits.softmax(dim=2).amax(dim=2).double().cpu().numpy()
    leave = functools.partial(
        model.recognize, frames, policy, exit_threshold=staggered_thresholds(confidences).tolist()
    )
    left = leave()
    results.add(scale.name, "frames glanced at with exit", float(left.frames.double().mean()), f"of {frames.shape[1]}")
    names = tuple(f"recognize {len(frames)} videos{what}, deployed" for what in ("", " with exit"))
    calls = (functools.partial(model.recognize, frames, policy), leave)
    timings = {name: Timing(call, len(frames)) for name, call in zip(names, calls, strict=True)}
    speeds = results.compare(scale.name, "videos/s", timings)
    found = speeds[names[0]] / speeds[names[1]] * float(whole.gflops.sum() / left.gflops.sum())
    asked = "at most 1.15" if scale.name == "paper" else ""
    results.add_ratio(scale.name, "recognize with exit / without: ratio of times over ratio of GFLOPs", found, asked)


def staggered_thresholds(confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(T,) thresholds, one for each frame, at which equally many videos are left after each of their frames.

    Args:
        confidences: (B, T), the highest class probability after every frame.
    """
    videos, times = confidences.shape
    thresholds, going = np.full(times, np.inf), np.arange(videos)
    for time in range(times):
        going = going[np.argsort(-confidences[going, time])]
        leaving = len(going) - round(videos * (times - 1 - time) / times)
        if leaving:  # halfway to the next one, so that rounding doesn't matter
            thresholds[time] = confidences[going[leaving - 1 : leaving + 1], time].mean()
        going = going[leaving:]
    return thresholds


def _measure_agreement(results: Results, scale: Scale, recognizer: Recognizer) -> None:
    """Measure how often the shipped policy chooses the same patch with bfloat16 as with float32."""
    policy, videos = from_pretrained("roaming-fashion"), scale.videos("val", scale.compared)
    others = {
        "online (local CNN only)": (recognizer.deployed("bfloat16", global_precision="float32"), "at least 0.99"),
        "in both CNNs": (recognizer.deployed("bfloat16"), ""),
    }
    agreed: dict[str, list[Tensor]] = {name: [] for name in others}
    used: set[tuple[int, ...]] = set()
    for index in torch.arange(len(videos)).split(64):
        frames = videos.frames(index).to(recognizer.device)
        corners = recognizer.recognize(frames, policy).corners
        used |= {tuple(corner) for corner in corners.flatten(0, 1).tolist()}
        for name, (other, _) in others.items():
            agreed[name].append((other.recognize(frames, policy).corners == corners).all(dim=-1))
    results.add(scale.name, "different patches that the policy chose", len(used), f"of {GRID**2}")
    for name, (_, asked) in others.items():
        share = float(torch.cat(agreed[name]).float().mean())
        results.add_ratio(scale.name, f"share of frames on which bfloat16 {name} chooses the same patch", share, asked)
