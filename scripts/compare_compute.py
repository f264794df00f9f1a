"""Other ways to save compute, on the same videos with the same networks.

Fewer frames, lower resolution, or, in the manner of AR-Net, a resolution or a skip that a policy chooses for every
frame: accuracy against multiply-adds, beside AdaFocus.

The local CNN and the classifier of the shipped recogniser are first trained further, on whole frames and on patches of
each size, with the same number of videos. What a killed run has trained or evaluated is not done again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import torch
from rich import print

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer, ResolutionBank, RoamingFashion
from adafocus_env.command_line import SAME_COMMAND, run_script
from adafocus_env.features.resolution_bank import AR_NET_SCALES
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage1Config
from adafocus_env.recognition.training import train_stage1
from adafocus_env.recognition.whole_frames import read_at, train_whole_frames
from adafocus_env.run_folder import RunFolder, check_settings
from agents import Evaluation, Reinforce, evaluate
from agents.baselines import OraclePolicy, RandomPolicy, ScheduledPolicy
from agents.experiments.compute import Point, compute_ratios, mean_curves, merged
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
SHIPPED = "roaming-fashion"
ADAPTIVE = "adaptive resolution"


@dataclass
class Config:
    whole_frames: Stage1Config = field(
        default_factory=lambda: Stage1Config(
            steps=6000, videos_per_step=16, local_learning_rate=1e-3, precision="bfloat16"
        )
    )
    """Training on whole frames."""
    patch_sizes: tuple[int, ...] = (24, 32, 48)
    """P of AdaFocus, pixels."""
    patches: Stage1Config = field(default_factory=lambda: Stage1Config(steps=3000, precision="bfloat16"))
    """Training on patches of each size."""
    skip_costs: tuple[float, ...] = (0.01, 0.02, 0.04)
    """Prices of a focused frame for AdaFocus+, a policy each."""
    resolution_costs: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.16)
    """Prices of a frame at full resolution for adaptive resolution, a policy each."""
    frames: tuple[int, ...] = (1, 2, 4, 6, 8)
    """How many evenly spaced whole frames to read."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of the policies."""
    accuracies: tuple[float, ...] = (66.0, 68.0, 70.0, 72.0, 74.0, 75.0, 76.0, 77.0, 78.0, 79.0)
    """Where compute is compared, percent."""
    split: str = "test"
    """The split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the recognisers' training."""
    jobs: int = -1
    """Processes at once; -1 takes all cores."""
    quick: bool = False
    """A rehearsal on few videos; its numbers mean nothing."""
    out: Path = Path("runs/compare_compute")
    """Folder for the recognisers, the policies, the tables and the figure."""


def videos(config: Config, split: str) -> RoamingFashion:
    return RoamingFashion(split, num_videos=32 if config.quick else None)


def adapted(config: Config, name: str, patch_size: int, train: Callable[..., None], settings: Stage1Config) -> Path:
    """The shipped recogniser, trained further on patches of one size; or what an earlier run has trained."""
    path = config.out / f"{name}.safetensors"
    if not path.exists():
        shipped = Recognizer.from_pretrained(SHIPPED)
        recognizer = Recognizer(replace(shipped.config, patch_size=patch_size))
        recognizer.load_state_dict(shipped.state_dict())  # convolutions fit any size
        torch.manual_seed(config.seed)  # dropout
        with RunFolder(config.out / name, settings, append=True) as run:
            progress = Progress(run.log, bar=True, folder=run.path)
            train(recognizer, videos(config, "recognizer"), settings, seed=config.seed, progress=progress)
        recognizer.metadata = {"training": f"scripts/compare_compute.py, {name}"}
        recognizer.save(path)
    return path


def learned(
    config: Config, name: str, seed: int, episodes: int, settings: dict[str, Any], patch_policy: Any = None,
    **env_kwargs: Any,
) -> Reinforce:  # fmt: skip
    """A policy, or what an earlier run has trained."""
    path = config.out / "policies" / f"{name}-{seed}.pt"
    if not path.exists():
        env = AdaFocusVectorEnv(LANES, output="torch", **env_kwargs)
        agent = Reinforce(env, seed=seed, patch_policy=patch_policy, **settings)
        agent.learn((LANES if config.quick else episodes) * env.num_frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        agent.save(path, training_state=False)
    return Reinforce.load(path)


def evaluated(
    config: Config, method: str, setting: str, seed: int, make: Callable[[], Any], features: Any,
    gflops: float | None = None, **env_kwargs: Any,
) -> Point:  # fmt: skip
    """Where a policy stands, found once; ``gflops`` of a video where they are known."""
    path = config.out / "evaluations" / f"{method}, {setting}, {seed}.npz".replace(" ", "_")
    if path.exists():
        found = Evaluation.load(path)
    else:
        found = evaluate(make(), features=features, reward="confidence", **env_kwargs)
        found.save(path)
    point = Point(method, setting, seed, found.gflops_per_video if gflops is None else gflops, 100 * found.accuracy)
    print(f"{method}, {setting}, seed {seed}: {point.accuracy:.2f} % at {point.gflops:.4f} GFLOPs")
    return point


def whole_frames(config: Config) -> list[Point]:
    """Fewer frames, smaller frames, and a resolution for every frame."""

    def train(recognizer: Recognizer, pool: RoamingFashion, settings: Stage1Config, **kwargs: Any) -> None:
        train_whole_frames(recognizer, pool, settings, AR_NET_SCALES, **kwargs)

    pool, learning, tested = (videos(config, split) for split in ("recognizer", "train", config.split))
    recognizer = Recognizer.from_pretrained(
        adapted(config, "whole_frames", pool.frame_size[0], train, config.whole_frames)
    )
    readers = {scale: read_at(recognizer, pool, scale) for scale in AR_NET_SCALES}
    banks = [
        ResolutionBank(readers, part, path=config.out / f"{part.split}.bank", precision="bfloat16")
        for part in (learning, tested)
    ]
    per_frame = (recognizer.cost().always + banks[1].local_gflops).tolist()
    # A fixed schedule needs the global CNN and the classifier on the frames that it reads alone.
    points = [
        evaluated(
            config, f"whole frames at {scale:g}", f"{count} frames", 0,
            lambda c=choice, n=count: lambda env: ScheduledPolicy(env, candidate=c, frames=n),
            banks[1], gflops=count * per_frame[choice], skip=True,
        )
        for choice, scale in enumerate(AR_NET_SCALES)
        for count in config.frames
    ]  # fmt: skip
    for seed in config.seeds:
        for cost in config.resolution_costs:

            def learn(seed: int = seed, cost: float = cost) -> Reinforce:
                return learned(
                    config, f"resolution-{cost:g}", seed, RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS,
                    features=banks[0], reward="gain_over_previous", skip_cost=cost,
                )  # fmt: skip

            points.append(evaluated(config, ADAPTIVE, f"λ = {cost:g}", seed, learn, banks[1]))
    return points


def patches(config: Config, size: int) -> list[Point]:
    """AdaFocus and AdaFocus+ with patches of one size."""
    model = Recognizer.from_pretrained(adapted(config, f"patch{size}", size, train_stage1, config.patches))
    banks = [FeatureBank(model, videos(config, split), precision="bfloat16") for split in ("train", config.split)]
    points = [
        evaluated(config, f"{name}, {size}²", "no skip", 0, lambda p=policy: p, banks[1], skip=False)
        for name, policy in (("random", RandomPolicy), ("true location", OraclePolicy))
    ]
    for seed in config.seeds:

        def learn_patches(seed: int = seed) -> Reinforce:
            return learned(
                config, f"patch{size}", seed, PATCH_EPISODES, PATCH_HYPERPARAMETERS, features=banks[0], skip=False
            )

        points.append(evaluated(config, f"AdaFocus+, {size}²", "no skip", seed, learn_patches, banks[1]))
        for cost in config.skip_costs:

            def learn_to_skip(seed: int = seed, cost: float = cost) -> Reinforce:
                return learned(
                    config, f"skip{size}-{cost:g}", seed, SKIP_EPISODES, SKIP_HYPERPARAMETERS, learn_patches(seed),
                    features=banks[0], reward="gain_over_previous", skip_cost=cost,
                )  # fmt: skip

            points.append(evaluated(config, f"AdaFocus+, {size}²", f"λ = {cost:g}", seed, learn_to_skip, banks[1]))
    return points


def settings_of(config: Config) -> dict[str, Any]:
    """All that determines the numbers in a folder, but for the seeds, which may be added later."""
    free = ("seeds", "accuracies", "jobs", "out", "patch_sizes", "skip_costs", "resolution_costs", "frames")
    return {
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name not in free},
        "patch": [PATCH_EPISODES, PATCH_HYPERPARAMETERS],
        "skip": [SKIP_EPISODES, SKIP_HYPERPARAMETERS],
        "resolution": [RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS],
        "recognizer": Recognizer.from_pretrained(SHIPPED).fingerprint(),
        "videos": videos(config, config.split).fingerprint,
    }


def main(config: Config) -> None:
    started = time.perf_counter()
    if config.quick:
        config.whole_frames, config.patches = (replace(c, steps=2) for c in (config.whole_frames, config.patches))
        for name in ("patch_sizes", "skip_costs", "resolution_costs", "frames", "seeds"):
            setattr(config, name, getattr(config, name)[:2])
    check_settings(config.out / "settings.json", settings_of(config))
    with RunFolder(config.out, config, append=True) as run:
        work = [joblib.delayed(whole_frames)(config)]
        work += [joblib.delayed(patches)(config, size) for size in config.patch_sizes]
        points = [point for found in joblib.Parallel(n_jobs=config.jobs)(work) for point in found]
        run.write_table(
            "compute",
            [
                {**dataclasses.asdict(point), "gflops": round(point.gflops, 5), "accuracy": round(point.accuracy, 3)}
                for point in points
            ],
        )
        curves = mean_curves(points)
        ours = [method for method in curves if method.startswith("AdaFocus+")]
        whole = [method for method in curves if method.startswith("whole frames")]
        points += merged(points, ours, "AdaFocus+, any P") + merged(points, whole, "whole frames, any size")
        run.write_table(
            "ratios",
            compute_ratios(
                points, ["AdaFocus+, any P", *ours], [ADAPTIVE, "whole frames, any size"], config.accuracies
            ),
        )
        accuracy_against_compute(
            config.out / "compute.png",
            {method: curve[0] for method, curve in curves.items() if len(curve) == 1},
            {method: curve for method, curve in curves.items() if len(curve) > 1},
            logarithmic=True,
        )
    print(f"everything is in {config.out}; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
