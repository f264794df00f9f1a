"""The figures of record of AdaFocus-TSM on RoamingMotion: several training seeds, the whole test split.

For every seed REINFORCE learns where to look (stage 2), at continuous positions and on the grid; stage 3 follows the
former. Beside them stand policies that learn nothing, and a recogniser that is blind to the order of frames.
Hyper-parameters were chosen on the validation split. What a killed run has finished is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from rich import print

from adafocus_env import FeatureBank, RoamingMotion, TSMRecognizer
from adafocus_env.command_line import SAME_COMMAND, run_script
from adafocus_env.run_folder import RunFolder
from agents import Evaluation, Reinforce, evaluate, finetune, paired_difference
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.presets import CLIP_EPISODES, CLIP_HYPERPARAMETERS, CLIP_PATCH_HYPERPARAMETERS, CLIP_STAGE3

NAMES = {"continuous": "learned", "grid": "learned on the grid"}
SETTINGS = {"continuous": CLIP_HYPERPARAMETERS, "grid": CLIP_PATCH_HYPERPARAMETERS}
STAGE3_VIDEOS = 6000
"""Enough for a linear head."""


@dataclass
class Config:
    recognizer: str = "roaming-motion"
    """A shipped name or a file."""
    order_blind: Path | None = None
    """A recogniser of train_recognizer.py --preset roaming-motion --no-shift, to stand beside it."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    actions: tuple[Literal["continuous", "grid"], ...] = ("continuous", "grid")
    """What policies are learned over; stage 3 follows the continuous ones."""
    episodes: int = CLIP_EPISODES
    """Episodes of stage 2."""
    split: str = "test"
    """The split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the evaluation's random patches and of the bootstrap."""
    out: Path = Path("runs/reproduce_motion")
    """Folder for tables and policies."""


def main(config: Config) -> None:
    recognizer = TSMRecognizer.from_pretrained(config.recognizer)
    # Held here, so that everything shares two tables.
    banks = [FeatureBank.shared(recognizer, RoamingMotion(split)) for split in ("train", config.split)]
    found: dict[str, list[Evaluation]] = {}

    with RunFolder(config.out, config, append=True) as run:

        def test(name: str, seed: int, make: Callable[[], tuple[Any, TSMRecognizer]]) -> None:
            """Evaluate what ``make`` trains, unless an earlier run has."""
            path = config.out / "evaluations" / f"{name.replace(' ', '_')}-{seed}.npz"
            if path.exists():
                result = Evaluation.load(path)
            else:
                policy, model = make()
                # The reward plays no part here, so take the one that needs no reference patches.
                result = evaluate(policy, config.split, recognizer=model, reward="confidence", seed=config.seed)
                result.save(path)
                run.log(f"{config.split}/{name}", seed, result.summary())
            found.setdefault(name, []).append(result)
            print(f"{name}, seed {seed}: {100 * result.accuracy:.2f} %")

        def learned(seed: int, action: str) -> Reinforce:
            """Train an agent, or load what an earlier run has trained."""
            path = config.out / f"{action}-{seed}.pt"
            if path.exists():
                return Reinforce.load(path)
            env = gym.make_vec(
                "AdaFocusTSM-v0", num_envs=64, output="torch", recognizer=recognizer, action=action
            )  # fmt: skip
            agent = Reinforce(env, seed=seed, **SETTINGS[action])
            started = time.perf_counter()
            agent.learn(config.episodes, progress_bar=True)
            run.log("training", seed, {f"{action}_seconds": time.perf_counter() - started})
            agent.save(path, training_state=False)
            return agent

        def tuned(seed: int) -> tuple[Reinforce, TSMRecognizer]:
            """A learned policy, and the recogniser fine-tuned on its patches."""
            policy = learned(seed, "continuous")
            videos = RoamingMotion("train", num_videos=STAGE3_VIDEOS)
            return policy, finetune(recognizer, policy, CLIP_STAGE3, videos=videos, seed=seed)

        for name, baseline in (
            ("random", RandomPolicy), ("center", CenterPolicy), ("gaussian", GaussianPolicy),
            ("true location", OraclePolicy),
        ):  # fmt: skip
            test(name, 0, lambda p=baseline: (p, recognizer))
        if config.order_blind is not None:
            blind = TSMRecognizer.from_pretrained(config.order_blind)
            test("order-blind, true location", 0, lambda: (OraclePolicy, blind))
        for seed in config.seeds:
            for action in config.actions:
                test(NAMES[action], seed, lambda s=seed, a=action: (learned(s, a), recognizer))
            if "continuous" in config.actions:
                test("learned + stage 3", seed, lambda s=seed: tuned(s))
        means = {name: 100 * np.mean([r.accuracy for r in results]) for name, results in found.items()}
        run.write_table(
            "results",
            [
                {
                    "name": name,
                    "accuracy": round(means[name], 2),
                    "accuracy_per_seed": " ".join(f"{100 * r.accuracy:.2f}" for r in results),
                    "confidence": round(100 * np.mean([r.mean_confidence for r in results]), 2),
                    "gflops": round(float(np.mean([r.gflops_per_video for r in results])), 4),
                }
                for name, results in found.items()
            ],
        )
        span = float(means["true location"] - means["random"])
        claims: list[dict[str, Any]] = [
            {"claim": f"gap of {name}", "value": round(float(means[name] - means["random"]) / span, 3)}
            for name in NAMES.values()
            if name in means
        ]
        for first, second in (
            ("learned", "random"), ("learned + stage 3", "learned"), ("true location", "order-blind, true location"),
        ):  # fmt: skip
            if first in found and second in found:
                pair = [np.stack([result.correct for result in found[name]]) for name in (first, second)]
                mean, low, high = (round(100 * value, 2) for value in paired_difference(*pair, seed=config.seed))
                claims.append({"claim": f"{first} - {second}, points", "value": mean, "low": low, "high": high})
        rows = [{"low": "", "high": "", **claim} for claim in claims]
        run.write_table("claims", [{key: row[key] for key in ("claim", "value", "low", "high")} for row in rows])
        print(*claims, sep="\n")
    del banks
    print(f"everything is in {config.out}")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
