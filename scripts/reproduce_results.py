"""The figures of record: several training seeds, the whole test split, paired bootstrap intervals.

For every seed: REINFORCE and Stable-Baselines3 PPO learn where to look (stage 2), skip policies learn when not to for
several prices, stage 3 follows each of REINFORCE's, and a control fine-tunes equally long on random patches. Hyper-
parameters were chosen on the validation split.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from rich import print
from stable_baselines3 import PPO

from adafocus_env import Recognizer
from adafocus_env.run_folder import RunFolder
from adafocus_env.vector_env import DEFAULT_SKIP_COST
from agents import Evaluation, Reinforce, evaluate, finetune, paired_difference
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.figures import accuracy_against_compute
from agents.presets import (
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    RANDOM_CONTROL,
    RANDOM_CONTROL_ROLLOUTS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    STAGE3,
)
from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, GlanceExtractor, make_vec_env


@dataclass
class Config:
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    skip_costs: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    """Prices of a focused frame besides the default one."""
    split: str = "test"
    """The split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the evaluation's random patches and of the bootstrap."""
    out: Path = Path("runs/reproduce_results")
    """Folder for tables, figures and policies."""


def main(config: Config) -> None:
    recognizer = Recognizer.from_pretrained("roaming-fashion")
    found: dict[str, list[Evaluation]] = {}
    keep = gym.make_vec("AdaFocus-v0", num_envs=1, recognizer=recognizer)  # one table for all training
    keep_too = gym.make_vec("AdaFocus-v0", num_envs=1, recognizer=recognizer, split=config.split)

    with RunFolder(config.out, config) as run:

        def test(name: str, seed: int, policy: Any, model: Recognizer = recognizer, **env_kwargs: Any) -> None:
            result = evaluate(policy, config.split, recognizer=model, seed=config.seed, **env_kwargs)
            found.setdefault(name, []).append(result)
            run.log(f"{config.split}/{name}", seed, result.summary())
            print(f"{name}, seed {seed}: {100 * result.accuracy:.2f} %, {result.focused_per_video:.2f} frames")

        def timed(name: str, seed: int, train: Any) -> None:
            started = time.perf_counter()
            train()
            run.log("training", seed, {f"{name}_seconds": time.perf_counter() - started})
            print(f"{name}, seed {seed}: trained in {time.perf_counter() - started:.0f} s")

        for name, baseline in (("random", RandomPolicy), ("center", CenterPolicy), ("gaussian", GaussianPolicy)):
            test(name, 0, baseline, skip=False)
        test("true location", 0, OraclePolicy, skip=False)
        for seed in config.seeds:
            env = gym.make_vec("AdaFocus-v0", num_envs=64, output="torch", recognizer=recognizer, skip=False)
            frames = env.unwrapped.num_frames
            patch_policy = Reinforce(env, seed=seed, **PATCH_HYPERPARAMETERS)
            timed("reinforce", seed, lambda a=patch_policy, t=frames: a.learn(PATCH_EPISODES * t))
            patch_policy.save(config.out / f"patch_{seed}.pt", training_state=False)
            test("learned", seed, patch_policy)

            vec_env = make_vec_env(64, seed=seed, recognizer=recognizer, skip=False)
            ppo = PPO(
                "MultiInputPolicy", vec_env, seed=seed, policy_kwargs=GlanceExtractor.policy_kwargs(),
                **PPO_HYPERPARAMETERS,
            )  # fmt: skip
            timed("ppo", seed, lambda a=ppo, t=frames: a.learn(PPO_EPISODES * t))
            test("SB3 PPO", seed, ppo)

            for skip_cost in sorted({DEFAULT_SKIP_COST, *config.skip_costs}):
                skip_env = gym.make_vec(
                    "AdaFocus-v0", num_envs=64, output="torch", recognizer=recognizer, reward="gain_over_previous",
                    skip_cost=skip_cost,
                )  # fmt: skip
                skip_policy = Reinforce(skip_env, seed=seed, patch_policy=patch_policy, **SKIP_HYPERPARAMETERS)
                timed(f"skip_{skip_cost:g}", seed, lambda a=skip_policy, t=frames: a.learn(SKIP_EPISODES * t))
                test(f"learned + skip, cost {skip_cost:g}", seed, skip_policy)
                if skip_cost == DEFAULT_SKIP_COST:
                    skip_policy.save(config.out / f"skip_{seed}.pt", training_state=False)
                    tuned = finetune(recognizer, skip_policy, STAGE3, seed=seed)
                    test("learned + skip + stage 3", seed, skip_policy, tuned)
            tuned = finetune(recognizer, patch_policy, STAGE3, seed=seed)
            test("learned + stage 3", seed, patch_policy, tuned)
            control = finetune(
                recognizer, RandomPolicy, RANDOM_CONTROL, seed=seed, rollouts=RANDOM_CONTROL_ROLLOUTS, skip=False
            )
            test("learned + stage 3 on random patches", seed, patch_policy, control)
        keep.close()
        keep_too.close()

        means = {name: 100 * np.mean([r.accuracy for r in results]) for name, results in found.items()}
        run.write_table(
            "results",
            [
                {
                    "name": name,
                    "accuracy": round(means[name], 2),
                    "accuracy_per_seed": " ".join(f"{100 * r.accuracy:.2f}" for r in results),
                    "map": round(100 * np.mean([r.mean_average_precision for r in results]), 2),
                    "gflops": round(float(np.mean([r.gflops_per_video for r in results])), 4),
                    "focused": round(float(np.mean([r.focused_per_video for r in results])), 2),
                    "mean_return": round(float(np.mean([r.mean_return for r in results])), 4),
                }
                for name, results in found.items()
            ],
        )
        span = means["true location"] - means["random"]
        for name in ("learned", "SB3 PPO"):
            gap = (means[name] - means["random"]) / span
            run.log("claims", 0, {f"gap {name}": gap})
            print(f"gap of {name}: {gap:.3f}")
        for first, second in (
            ("learned", "random"),
            ("SB3 PPO", "random"),
            ("learned + stage 3", "learned"),
            ("learned + stage 3", "learned + stage 3 on random patches"),
            ("learned + skip + stage 3", "learned"),
        ):
            pair = [np.stack([result.correct for result in found[name]]) for name in (first, second)]
            mean, low, high = (100 * value for value in paired_difference(*pair, seed=config.seed))
            run.log("claims", 0, {f"{first} - {second}": mean, f"{first} - {second} low": low})
            print(f"{first} minus {second}: {mean:+.2f} points ({low:+.2f} to {high:+.2f})")

        def point(name: str) -> tuple[float, float]:
            return float(np.mean([r.gflops_per_video for r in found[name]])), means[name]

        curve = [point(name) for name in found if name.startswith("learned + skip, cost")]
        names = ("random", "center", "gaussian", "learned", "learned + skip + stage 3", "true location")
        accuracy_against_compute(
            config.out / "accuracy_compute.png",
            {name: point(name) for name in names},
            {"learned + skip, falling cost": [*curve, point("learned")]},
        )
    print(f"everything is in {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
