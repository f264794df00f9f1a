"""The figures of record: several training seeds, the whole test split, paired bootstrap intervals.

For every seed: REINFORCE and Stable-Baselines3 PPO learn where to look (stage 2), skip policies learn when not to for
several prices, stage 3 follows each of REINFORCE's, and a control fine-tunes equally long on random patches. Hyper-
parameters were chosen on the validation split.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich import print
from stable_baselines3 import PPO

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.command_line import SAME_COMMAND, run_script
from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
from adafocus_env.recognition.recipes import Stage3Config
from adafocus_env.run_folder import RunFolder, check_settings
from agents import Evaluation, Reinforce, evaluate, finetune, paired_difference
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.figures import accuracy_against_compute
from agents.presets import (
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    STAGE3,
)
from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, GlanceExtractor, make_vec_env


@dataclass
class Config:
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    skip_costs: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03, 0.05)
    """Prices of a focused frame besides the default one, for the first seed."""
    split: str = "test"
    """The split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the evaluation's random patches and of the bootstrap."""
    out: Path = Path("runs/reproduce_results")
    """Folder for tables, figures and policies."""


def main(config: Config) -> None:
    recognizer = Recognizer.from_pretrained("roaming-fashion")
    found: dict[str, list[Evaluation]] = {}
    # Held here, so that everything shares two tables.
    banks = [FeatureBank.shared(recognizer, RoamingFashion(split)) for split in ("train", config.split)]
    frames = banks[0].videos.num_frames

    check_settings(config.out / "settings.json", _settings_of(config))
    with RunFolder(config.out, config, append=True) as run:

        def test(name: str, seed: int, make: Callable[[], tuple[Any, Recognizer]], **env_kwargs: Any) -> None:
            """Evaluate what ``make`` trains; what an earlier, killed run has evaluated is not trained again."""
            path = config.out / "evaluations" / f"{name.replace(' ', '_')}-{seed}.npz"
            if path.exists():
                result = Evaluation.load(path)
            else:
                policy, model = make()
                result = evaluate(policy, config.split, recognizer=model, seed=config.seed, **env_kwargs)
                result.save(path)
                run.log(f"{config.split}/{name}", seed, result.summary())
            found.setdefault(name, []).append(result)
            print(f"{name}, seed {seed}: {100 * result.accuracy:.2f} %, {result.focused_per_video:.2f} frames")

        def timed(name: str, seed: int, learn: Callable[[int], Any], episodes: int) -> None:
            started = time.perf_counter()
            learn(episodes * frames)
            run.log("training", seed, {f"{name}_seconds": time.perf_counter() - started})
            print(f"{name}, seed {seed}: trained in {time.perf_counter() - started:.0f} s")

        def reinforce(name: str, seed: int, episodes: int, settings: dict[str, Any], **kwargs: Any) -> Reinforce:
            """Train a REINFORCE agent, or load what an earlier run has trained."""
            path = config.out / f"{name}-{seed}.pt"
            if path.exists():
                return Reinforce.load(path)
            patch_policy = kwargs.pop("patch_policy", None)
            env = gym.make_vec("AdaFocus-v0", num_envs=64, output="torch", recognizer=recognizer, **kwargs)
            agent = Reinforce(env, seed=seed, patch_policy=patch_policy, **settings)
            timed(name, seed, agent.learn, episodes)
            agent.save(path, training_state=False)
            return agent

        def patch_policy(seed: int) -> Reinforce:
            return reinforce("patch", seed, PATCH_EPISODES, PATCH_HYPERPARAMETERS, skip=False)

        def skip_policy(seed: int, skip_cost: float) -> Reinforce:
            return reinforce(
                f"skip-{skip_cost:g}", seed, SKIP_EPISODES, SKIP_HYPERPARAMETERS, patch_policy=patch_policy(seed),
                reward="gain_over_previous", skip_cost=skip_cost,
            )  # fmt: skip

        def ppo(seed: int) -> PPO:
            env = make_vec_env(64, seed=seed, recognizer=recognizer, skip=False)
            kwargs = GlanceExtractor.policy_kwargs()
            model = PPO("MultiInputPolicy", env, seed=seed, policy_kwargs=kwargs, **PPO_HYPERPARAMETERS)
            timed("ppo", seed, model.learn, PPO_EPISODES)
            return model

        def tuned(policy: Any, seed: int, settings: Stage3Config = STAGE3, **kwargs: Any) -> Recognizer:
            return finetune(recognizer, policy, settings, seed=seed, **kwargs)

        for name, baseline in (
            ("random", RandomPolicy), ("center", CenterPolicy), ("gaussian", GaussianPolicy),
            ("true location", OraclePolicy),
        ):  # fmt: skip
            test(name, 0, lambda p=baseline: (p, recognizer), skip=False)
        for seed in config.seeds:
            test("learned", seed, lambda s=seed: (patch_policy(s), recognizer))
            # The curve over prices is for the first seed, the default price for all.
            for cost in sorted({DEFAULT_SKIP_COST, *(config.skip_costs if seed == config.seeds[0] else ())}):
                test(f"learned + skip, cost {cost:g}", seed, lambda s=seed, c=cost: (skip_policy(s, c), recognizer))
            test(
                "learned + skip + stage 3", seed,
                lambda s=seed: ((p := skip_policy(s, DEFAULT_SKIP_COST)), tuned(p, s)),
            )  # fmt: skip
            test("learned + stage 3", seed, lambda s=seed: ((p := patch_policy(s)), tuned(p, s)))
            # Two controls of the same number of steps: stage 3 itself with another policy, and, stronger, with other
            # random patches in every pass.
            test(
                "learned + stage 3 on random patches", seed,
                lambda s=seed: (patch_policy(s), tuned(RandomPolicy, s, skip=False)),
            )  # fmt: skip
            test(
                "learned + stage 3 on fresh random patches", seed,
                lambda s=seed: (
                    patch_policy(s),
                    tuned(RandomPolicy, s, replace(STAGE3, epochs=1), rollouts=STAGE3.epochs, skip=False),
                ),
            )  # fmt: skip
            test("SB3 PPO", seed, lambda s=seed: (ppo(s), recognizer))

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
            ("learned + stage 3", "learned + stage 3 on fresh random patches"),
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


def _settings_of(config: Config) -> dict[str, Any]:
    """All that determines the policies and evaluations in a folder."""
    return {
        "evaluation": [config.split, config.seed, RoamingFashion(config.split).fingerprint],
        "patch": [PATCH_EPISODES, PATCH_HYPERPARAMETERS],
        "skip": [SKIP_EPISODES, SKIP_HYPERPARAMETERS, DEFAULT_SKIP_COST],
        "ppo": [PPO_EPISODES, PPO_HYPERPARAMETERS],
        "stage 3": dataclasses.asdict(STAGE3),
        "recognizer": Recognizer.from_pretrained("roaming-fashion").fingerprint(),
    }


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
