"""Ways to save compute, on the same videos: patches, fewer or smaller whole frames, and adaptive resolution."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich import print

from adafocus_env import FeatureBank, FrozenFeatures, Recognizer, ResolutionBank, RoamingFashion
from adafocus_env.features.resolution_bank import AR_NET_SCALES
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage1Config
from adafocus_env.recognition.training import train_stage1
from adafocus_env.recognition.whole_frames import read_at, train_whole_frames
from adafocus_env.run_folder import RunFolder
from agents.baselines import ScheduledPolicy
from agents.evaluation import evaluate
from agents.experiments.algorithms import LANES
from agents.experiments.compute import Point
from agents.experiments.record import BEST, RANDOM, REFERENCES, kept_evaluation, kept_policy
from agents.presets import (
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    RESOLUTION_EPISODES,
    RESOLUTION_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
)
from agents.reinforce import Reinforce

SHIPPED = "roaming-fashion"
ADAPTIVE = "adaptive resolution"
POLICY_TRAINING = {
    "patch": [PATCH_EPISODES, PATCH_HYPERPARAMETERS],
    "skip": [SKIP_EPISODES, SKIP_HYPERPARAMETERS],
    "resolution": [RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS],
}
"""Episodes and hyper-parameters of each kind of policy, which are part of what determines the results."""


@dataclass
class Savings:
    """The training and evaluation of every way to save compute; what is in the folder is not made again."""

    whole_frames: Stage1Config = field(
        default_factory=lambda: Stage1Config(
            steps=6000, videos_per_step=16, local_learning_rate=1e-3, precision="bfloat16"
        )
    )
    """Training of a recogniser on whole frames."""
    patch_sizes: tuple[int, ...] = (24, 32, 48)
    """Patch sizes P of AdaFocus, in pixels."""
    patches: Stage1Config = field(default_factory=lambda: Stage1Config(steps=3000, precision="bfloat16"))
    """Training of a recogniser on patches of each size."""
    skip_costs: tuple[float, ...] = (0.01, 0.02, 0.04)
    """Prices of a focused frame for AdaFocus+; each has a policy of its own."""
    resolution_costs: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.16)
    """Prices of a frame at full resolution for adaptive resolution; each has a policy of its own."""
    frames: tuple[int, ...] = (1, 2, 4, 6, 8)
    """Numbers of evenly spaced whole frames to read."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of the policies."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the recognisers' training."""
    quick: bool = False
    """Rehearse on few videos; the figures mean nothing."""
    out: Path = Path("runs/compare_compute")
    """Folder for the recognisers, the policies, the tables and the figure."""

    def videos(self, split: str) -> RoamingFashion:
        """The videos of a split."""
        return RoamingFashion(split, num_videos=32 if self.quick else None)

    def on_whole_frames(self) -> list[Point]:
        """Points of fewer frames, of smaller frames, and, as in AR-Net, of a resolution or a skip for every frame."""

        def train(recognizer: Recognizer, pool: RoamingFashion, settings: Stage1Config, **kwargs: Any) -> None:
            train_whole_frames(recognizer, pool, settings, AR_NET_SCALES, **kwargs)

        pool, learning, tested = (self.videos(split) for split in ("recognizer", "train", self.split))
        recognizer = self._adapted("whole_frames", pool.frame_size[0], train, self.whole_frames)
        readers = {scale: read_at(recognizer, pool, scale) for scale in AR_NET_SCALES}
        train_bank, test_bank = (
            ResolutionBank(readers, part, path=self.out / f"{part.split}.bank", precision="bfloat16")
            for part in (learning, tested)
        )
        per_frame = (recognizer.cost().always + test_bank.local_gflops).tolist()
        # A fixed schedule needs the global CNN and the classifier only on the frames that it reads.
        points = [
            self._point(
                f"whole frames at {scale:g}",
                f"{count} frames",
                0,
                lambda choice=choice, count=count: functools.partial(ScheduledPolicy, candidate=choice, frames=count),  # type: ignore[misc]
                test_bank,
                gflops=count * per_frame[choice],
                skip=True,
            )
            for choice, scale in enumerate(AR_NET_SCALES)
            for count in self.frames
        ]
        episodes, settings = RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS
        for seed, cost in itertools.product(self.seeds, self.resolution_costs):
            env = {"features": train_bank, "reward": "gain_over_previous", "skip_cost": cost}
            make = functools.partial(self._learned, f"resolution-{cost:g}", seed, episodes, settings, **env)
            points.append(self._point(ADAPTIVE, f"λ = {cost:g}", seed, make, test_bank))
        return points

    def on_patches(self, size: int) -> list[Point]:
        """Points of AdaFocus and AdaFocus+ with patches of one size, in pixels."""
        recognizer = self._adapted(f"patch{size}", size, train_stage1, self.patches)
        train_bank, test_bank = (
            FeatureBank(recognizer, self.videos(split), precision="bfloat16") for split in ("train", self.split)
        )
        points = [
            self._point(f"{name}, {size}²", "no skip", 0, lambda name=name: REFERENCES[name], test_bank, skip=False)  # type: ignore[misc]
            for name in (RANDOM, BEST)
        ]

        def look(seed: int) -> Reinforce:
            env = {"features": train_bank, "skip": False}
            return self._learned(f"patch{size}", seed, PATCH_EPISODES, PATCH_HYPERPARAMETERS, **env)

        def skip(seed: int, cost: float) -> Reinforce:
            env = {"features": train_bank, "reward": "gain_over_previous", "skip_cost": cost}
            name = f"skip{size}-{cost:g}"
            return self._learned(name, seed, SKIP_EPISODES, SKIP_HYPERPARAMETERS, look(seed), **env)

        for seed in self.seeds:
            makers = {"no skip": functools.partial(look, seed)}
            makers |= {f"λ = {cost:g}": functools.partial(skip, seed, cost) for cost in self.skip_costs}
            points += [
                self._point(f"AdaFocus+, {size}²", setting, seed, make, test_bank) for setting, make in makers.items()
            ]
        return points

    def _adapted(self, name: str, patch_size: int, train: Callable[..., None], settings: Stage1Config) -> Recognizer:
        """The shipped recogniser, trained further on patches of one size."""
        path = self.out / f"{name}.safetensors"
        if not path.exists():
            shipped = Recognizer.from_pretrained(SHIPPED)
            recognizer = Recognizer(replace(shipped.config, patch_size=patch_size))
            recognizer.load_state_dict(shipped.state_dict())  # convolutions fit any size
            torch.manual_seed(self.seed)  # for dropout
            with RunFolder(self.out / name, settings, append=True) as run:
                progress = Progress(run.log, bar=True, folder=run.path)
                train(recognizer, self.videos("recognizer"), settings, seed=self.seed, progress=progress)
            recognizer.metadata = {"training": f"scripts/compare_compute.py, {name}"}
            recognizer.save(path)
        return Recognizer.from_pretrained(path)

    def _learned(
        self, name: str, seed: int, episodes: int, settings: dict[str, Any], patch_policy: Any = None, **env: Any
    ) -> Reinforce:
        path = self.out / "policies" / f"{name}-{seed}.safetensors"
        return kept_policy(path, seed, LANES if self.quick else episodes, settings, patch_policy, **env)

    def _point(
        self,
        method: str,
        setting: str,
        seed: int,
        make: Callable[[], Any],
        features: FrozenFeatures,
        gflops: float | None = None,
        **env: Any,
    ) -> Point:
        """Evaluate a policy; ``gflops`` per video are given where they are known better than from the evaluation."""
        path = self.out / "evaluations" / f"{method}, {setting}, {seed}.npz".replace(" ", "_")
        found = kept_evaluation(path, lambda: evaluate(make(), features=features, reward="confidence", **env))
        point = Point(method, setting, seed, found.gflops_per_video if gflops is None else gflops, 100 * found.accuracy)
        print(f"{method}, {setting}, seed {seed}: {point.accuracy:.2f} % at {point.gflops:.4f} GFLOPs")
        return point
