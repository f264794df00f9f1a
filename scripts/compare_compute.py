"""Other ways to save compute, on the same videos with the same networks.

Fewer frames, lower resolution, or, in the manner of AR-Net, a resolution or a skip that a policy chooses for every
frame: accuracy against multiply-adds, beside AdaFocus.

The local CNN and the classifier of the shipped recogniser are trained further on whole frames, and on patches of other
sizes, first. What a killed run has trained or evaluated is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich import print

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer, ResolutionBank, RoamingFashion
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.training import Stage1Config, train_stage1, train_whole_frames
from adafocus_env.resolution_bank import AR_NET_SCALES
from adafocus_env.run_folder import RunFolder
from agents import Evaluation, Reinforce, evaluate, from_pretrained
from agents.baselines import OraclePolicy, RandomPolicy, ScheduledPolicy
from agents.figures import accuracy_against_compute
from agents.presets import (
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    RESOLUTION_EPISODES,
    RESOLUTION_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
)

LANES = 64


@dataclass
class Config:
    whole_frames: Stage1Config = field(default_factory=lambda: Stage1Config(steps=2500, local_learning_rate=1e-3))
    """Training on whole frames."""
    patch_sizes: tuple[int, ...] = (24, 32, 48)
    """P of AdaFocus, pixels; 32 is the shipped recogniser."""
    patches: Stage1Config = field(default_factory=lambda: Stage1Config(steps=1500))
    """Training on patches of another size."""
    skip_costs: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04, 0.08)
    """Prices of a focused frame (adaptive resolution: of one at full resolution), a policy each."""
    frames: tuple[int, ...] = (1, 2, 4, 6, 8)
    """How many evenly spaced frames to read."""
    split: str = "test"
    """The split of the figures; rehearse on "val"."""
    seed: int = 0
    quick: bool = False
    """A rehearsal on few videos; its numbers mean nothing."""
    out: Path = Path("runs/compare_compute")
    """Folder for the recogniser, the policies, the table and the figure."""


def adapted(name: str, patch_size: int, train: Callable[[Recognizer], None], out: Path) -> Recognizer:
    """The shipped recogniser, trained further to read patches of another size; or what an earlier run has trained."""
    path = out / f"{name}.safetensors"
    if not path.exists():
        shipped = Recognizer.from_pretrained("roaming-fashion")
        recognizer = Recognizer(replace(shipped.config, patch_size=patch_size))
        recognizer.load_state_dict(shipped.state_dict())  # convolutions fit any size
        train(recognizer)
        recognizer.metadata = {"training": f"scripts/compare_compute.py, {name}"}
        recognizer.save(path)
    return Recognizer.from_pretrained(path)


def compute_at(accuracy: float, curve: dict[str, tuple[float, float]]) -> float:
    """GFLOPs at which a curve of (GFLOPs, accuracy) by name reaches an accuracy; points that cost more and reach less
    than others don't count. ``nan`` where it never does, or does so with less compute than its cheapest point.
    """
    gflops, reached = np.array(sorted(curve.values())).T
    reached = np.maximum.accumulate(reached)
    keep = np.concatenate(([True], np.diff(reached) > 0))
    return float(np.interp(accuracy, reached[keep], gflops[keep], left=np.nan, right=np.nan))


def main(config: Config) -> None:
    started = time.perf_counter()
    few = 100 if config.quick else None
    curves: dict[str, dict[str, tuple[float, float]]] = {}
    with RunFolder(config.out, config, append=True) as run:
        pool, progress = RoamingFashion("recognizer"), Progress(run.log, bar=True)
        if config.quick:
            config.whole_frames, config.patches = (replace(c, steps=4) for c in (config.whole_frames, config.patches))

        def train_whole(recognizer: Recognizer) -> None:
            train_whole_frames(
                recognizer, pool, config.whole_frames, AR_NET_SCALES, seed=config.seed, progress=progress
            )

        def train_patches(recognizer: Recognizer) -> None:
            train_stage1(recognizer, pool, config.patches, seed=config.seed, progress=progress)

        train, tested = (RoamingFashion(split, num_videos=few) for split in ("train", config.split))
        frames = train.num_frames

        def test(
            curve: str,
            name: str,
            make: Callable[[], Any],
            features: Any,
            gflops: float | None = None,
            **env_kwargs: Any,
        ) -> None:
            """Evaluate a policy once and keep its place on a curve; ``gflops`` of a video where they are known."""
            path = config.out / "evaluations" / f"{curve}, {name}.npz".replace(" ", "_")
            if path.exists():
                found = Evaluation.load(path)
            else:
                found = evaluate(make(), features=features, reward="confidence", seed=config.seed, **env_kwargs)
                found.save(path)
            place = (found.gflops_per_video if gflops is None else gflops, 100 * found.accuracy)
            curves.setdefault(curve, {})[name] = place
            print(f"{curve}, {name}: {place[1]:.2f} % at {place[0]:.4f} GFLOPs, {found.focused_per_video:.2f} frames")

        def learn(
            name: str, episodes: int, settings: dict[str, Any], patch_policy: Any = None, **env_kwargs: Any
        ) -> Reinforce:
            """A policy, or what an earlier run has trained."""
            path = config.out / f"{name}.pt"
            if not path.exists():
                env = AdaFocusVectorEnv(LANES, output="torch", **env_kwargs)
                agent = Reinforce(env, seed=config.seed, patch_policy=patch_policy, **settings)
                agent.learn((LANES if config.quick else episodes) * frames, progress_bar=True)
                agent.save(path, training_state=False)
            return Reinforce.load(path)

        # Whole frames. A fixed schedule needs the global CNN and the classifier on the frames that it reads alone.
        recognizer = adapted("whole_frames", train.frame_size[0], train_whole, config.out)
        whole = {split: ResolutionBank(recognizer, videos) for split, videos in (("train", train), ("test", tested))}
        per_frame = (recognizer.cost().always + whole["test"].local_gflops).tolist()
        for choice, scale in enumerate(whole["test"].scales):
            for count in config.frames:
                test(
                    f"whole frames at {scale:g}", f"{count} frames",
                    lambda c=choice, n=count: lambda env: ScheduledPolicy(env, candidate=c, frames=n),
                    whole["test"], gflops=count * per_frame[choice], skip=True,
                )  # fmt: skip
        for cost in config.skip_costs:
            test(
                "adaptive resolution", f"λ = {cost:g}",
                lambda c=cost: learn(
                    f"resolution-{c:g}", RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS, features=whole["train"],
                    reward="gain_over_previous", skip_cost=c,
                ),
                whole["test"],
            )  # fmt: skip

        for size in config.patch_sizes:
            curve, shipped = f"AdaFocus+, {size}²", Recognizer.from_pretrained("roaming-fashion")
            patches: Any
            if size == shipped.config.patch_size:
                model, patches = shipped, from_pretrained("roaming-fashion")
            else:
                model, patches = adapted(f"patch{size}", size, train_patches, config.out), None
            looks = {split: FeatureBank(model, videos) for split, videos in (("train", train), ("test", tested))}
            if patches is None:
                patches = learn(
                    f"patch{size}", PATCH_EPISODES, PATCH_HYPERPARAMETERS, features=looks["train"], skip=False
                )
            test(curve, "no skip", lambda p=patches: p, looks["test"])
            for name, policy in (("random", RandomPolicy), ("true location", OraclePolicy)):
                test(f"{name}, {size}²", "no skip", lambda p=policy: p, looks["test"], skip=False)
            for cost in config.skip_costs:
                test(
                    curve, f"λ = {cost:g}",
                    lambda c=cost, f=looks["train"], s=size, p=patches: learn(
                        f"skip{s}-{c:g}", SKIP_EPISODES, SKIP_HYPERPARAMETERS, p, features=f,
                        reward="gain_over_previous", skip_cost=c,
                    ),
                    looks["test"],
                )  # fmt: skip

        run.write_table(
            "compute",
            [
                {"method": curve, "name": name, "gflops": round(gflops, 5), "accuracy": round(accuracy, 3)}
                for curve, points in curves.items()
                for name, (gflops, accuracy) in points.items()
            ],
        )
        ours = [curve for curve in curves if curve.startswith("AdaFocus+")]
        others = [curve for curve in curves if curve.startswith(("whole frames", "adaptive"))]
        run.write_table(
            "ratios",
            [
                {
                    "method": curve,
                    "name": name,
                    "accuracy": round(accuracy, 3),
                    **{f"{other}, ratio": round(compute_at(accuracy, curves[other]) / gflops, 3) for other in others},
                }
                for curve in ours
                for name, (gflops, accuracy) in curves[curve].items()
            ],
        )
        single = {name: points["no skip"] for name, points in curves.items() if len(points) == 1}
        lines = {name: list(points.values()) for name, points in curves.items() if len(points) > 1}
        accuracy_against_compute(config.out / "compute.png", single, lines)
    print(f"everything is in {config.out}; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
