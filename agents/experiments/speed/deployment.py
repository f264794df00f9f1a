"""Speed of deployment in videos per second, beside the bare network calls and the local CNN on whole frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from adafocus_env import FeatureBank, Recognizer
from agents import Reinforce, from_pretrained
from agents.experiments.speed.measuring import Ratio, Results, Timing
from agents.experiments.speed.scales import GRID, Scale
from agents.experiments.speed.yardsticks import byte_statistics

PLAIN = "local CNN on full frames, plain float32"


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


def measure_deployment(results: Results, scale: Scale, recognizer: Recognizer, bank: FeatureBank, seed: int) -> None:
    """Measure the recognition of videos with a policy that sees the glance alone.

    Args:
        results: Where the figures go.
        scale: Scale to measure.
        recognizer: Recogniser of the scale.
        bank: A bank of this recogniser.
        seed: Seed of the policy's weights, on which speed does not depend.
    """
    frames = scale.videos("test", scale.recognized).frames(torch.arange(scale.recognized)).to(bank.device)
    # In memory, the channels of a pixel lie side by side, as decoders leave them.
    frames = frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    env = gym.make_vec("AdaFocus-v0", features=bank, skip=False, observation="glance")
    policy = Reinforce(env, seed=seed)
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
    if scale.compared:
        _measure_agreement(results, scale, recognizer)


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
