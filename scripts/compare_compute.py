"""Other ways to save compute, on the same videos with the same networks.

Fewer frames, lower resolution, or, in the manner of AR-Net, a resolution or a skip that a policy chooses for every
frame: accuracy against multiply-adds, beside AdaFocus.

The local CNN is trained on whole frames first (an hour on two cores; --recognizer takes one that is there). What a
killed run has trained or evaluated is not done again.
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
from adafocus_env.recognition.training import Stage1Config, train_whole_frames
from adafocus_env.resolution_bank import AR_NET_SCALES
from adafocus_env.run_folder import RunFolder
from agents import Evaluation, Reinforce, evaluate, from_pretrained
from agents.baselines import ScheduledPolicy
from agents.figures import accuracy_against_compute
from agents.presets import (
    RESOLUTION_EPISODES,
    RESOLUTION_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
)

LANES = 64


@dataclass
class Config:
    recognizer: Path | None = None
    """A recogniser of whole frames; by default one is trained."""
    stage1: Stage1Config = field(default_factory=lambda: Stage1Config(steps=2500, local_learning_rate=1e-3))
    """Its training."""
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


def whole_frame_recognizer(config: Config, run: RunFolder) -> Recognizer:
    """The shipped recogniser, its local CNN and classifier trained on whole frames."""
    path = config.recognizer or config.out / "whole_frames.safetensors"
    if config.recognizer is None and not path.exists():
        shipped = Recognizer.from_pretrained("roaming-fashion")
        videos = RoamingFashion("recognizer")
        recognizer = Recognizer(replace(shipped.config, patch_size=videos.frame_size[0]))
        recognizer.load_state_dict(shipped.state_dict())
        steps = 4 if config.quick else config.stage1.steps
        train_whole_frames(
            recognizer, videos, replace(config.stage1, steps=steps), AR_NET_SCALES, seed=config.seed, log=run.log,
            progress_bar=True,
        )  # fmt: skip
        recognizer.metadata = {"training": f"scripts/compare_compute.py --seed {config.seed}"}
        recognizer.save(path)
    return Recognizer.from_pretrained(path)


def compute_at(accuracy: float, curve: list[tuple[float, float]]) -> float:
    """GFLOPs at which a curve of (GFLOPs, accuracy), each point no worse than those before it, reaches an accuracy.

    ``nan`` where it doesn't.
    """
    gflops, reached = np.array(sorted(curve)).T
    reached = np.maximum.accumulate(reached)
    keep = np.concatenate(([True], np.diff(reached) > 0))
    return float(np.interp(accuracy, reached[keep], gflops[keep], left=np.nan, right=np.nan))


def main(config: Config) -> None:
    started = time.perf_counter()
    few = 100 if config.quick else None
    curves: dict[str, dict[str, tuple[float, float]]] = {}
    with RunFolder(config.out, config, append=True) as run:
        recognizer = whole_frame_recognizer(config, run)
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

        def learn(name: str, features: Any, cost: float, episodes: int, settings: dict[str, Any], **kwargs: Any) -> Any:
            path = config.out / f"{name}-{cost:g}.pt"
            if not path.exists():
                env = AdaFocusVectorEnv(
                    LANES, features=features, reward="gain_over_previous", skip_cost=cost, output="torch"
                )
                agent = Reinforce(env, seed=config.seed, **settings, **kwargs)
                agent.learn((LANES if config.quick else episodes) * frames, progress_bar=True)
                agent.save(path, training_state=False)
            return Reinforce.load(path, patch_policy=kwargs.get("patch_policy"))

        # Whole frames. A fixed schedule needs the global CNN and the classifier on the frames that it reads alone.
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
                    "resolution", whole["train"], c, RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS
                ),
                whole["test"],
            )  # fmt: skip

        # AdaFocus.
        shipped, patches = Recognizer.from_pretrained("roaming-fashion"), from_pretrained("roaming-fashion")
        looks = {split: FeatureBank(shipped, videos) for split, videos in (("train", train), ("test", tested))}
        for cost in config.skip_costs:
            test(
                "AdaFocus+", f"λ = {cost:g}",
                lambda c=cost: learn(
                    "skip", looks["train"], c, SKIP_EPISODES, SKIP_HYPERPARAMETERS, patch_policy=patches
                ),
                looks["test"],
            )  # fmt: skip
        test("AdaFocus+", "no skip", lambda: patches, looks["test"])

        run.write_table(
            "compute",
            [
                {"method": curve, "name": name, "gflops": round(gflops, 5), "accuracy": round(accuracy, 3)}
                for curve, points in curves.items()
                for name, (gflops, accuracy) in points.items()
            ],
        )
        ratios = []
        for name, (gflops, accuracy) in curves["AdaFocus+"].items():
            for other in curves:
                if other != "AdaFocus+":
                    needed = compute_at(accuracy, list(curves[other].values()))
                    ratios.append({
                        "AdaFocus+": name, "accuracy": round(accuracy, 3), "other": other,
                        "ratio": round(needed / gflops, 3),
                    })  # fmt: skip
        run.write_table("ratios", ratios)
        accuracy_against_compute(
            config.out / "compute.png", {}, {name: list(points.values()) for name, points in curves.items()}
        )
    print(f"everything is in {config.out}; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
