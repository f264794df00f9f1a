"""The whole of AdaFocus on the embedded benchmark, in minutes on a laptop.

Shipped recogniser (stage 1) -> a policy learns where to look (stage 2) -> a second one learns when not to look
(AdaFocus+) -> the recogniser is fine-tuned on what they chose (stage 3) -> a table, plots and an annotated clip of
what it bought, on the test split.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich import print

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.command_line import run_script
from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage3Config
from adafocus_env.run_folder import RunFolder
from agents import Reinforce, evaluate, finetune
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.figures import accuracy_against_compute, animation, film_strip, learning_curves, play
from agents.presets import PATCH_EPISODES, PATCH_HYPERPARAMETERS, SKIP_EPISODES, SKIP_HYPERPARAMETERS, STAGE3
from agents.report import print_table, table_row


@dataclass
class Config:
    seed: int = 0
    """Seed of everything that is trained and drawn here."""
    out: Path = Path("runs/quickstart")
    """Folder for the table, the figures, the policies and the fine-tuned recogniser."""
    skip_costs: tuple[float, ...] = ()
    """Further prices of a focused frame to train skip policies for, for a denser accuracy/compute curve."""
    quick: bool = False
    """A rehearsal of every step in a minute: hardly any training, few videos. Its numbers mean nothing."""


def train(
    run: RunFolder, stage: str, episodes: int, settings: dict[str, Any], seed: int, env_kwargs: dict[str, Any],
    patch_policy: Any = None,
) -> Reinforce:  # fmt: skip
    env = gym.make_vec("AdaFocus-v0", num_envs=64, output="torch", **env_kwargs)
    agent = Reinforce(env, seed=seed, patch_policy=patch_policy, **settings)
    started = time.perf_counter()
    agent.learn(episodes * env.unwrapped.num_frames, progress_bar=True)
    print(f"{stage}: {episodes} episodes in {time.perf_counter() - started:.0f} s")
    for metrics in agent.history:
        run.log(stage, int(metrics["episodes"]), metrics)
    agent.save(run.path / f"{stage}.pt")
    agent.set_env(None)
    return agent


def main(config: Config) -> None:
    started = time.perf_counter()
    share = 100 if config.quick else 1
    patch_episodes, skip_episodes = PATCH_EPISODES // share, SKIP_EPISODES // share
    recognizer = Recognizer.from_pretrained("roaming-fashion")
    train_videos = RoamingFashion("train", num_videos=128) if config.quick else RoamingFashion("train")
    test_videos = RoamingFashion("test", num_videos=256) if config.quick else RoamingFashion("test")
    common: dict[str, Any] = {"recognizer": recognizer, "videos": train_videos}

    with RunFolder(config.out, config) as run:
        print("[bold]Stage 2: where to look")
        bank = FeatureBank.shared(recognizer, train_videos)  # held here, so that all that trains shares one table
        patch_policy = train(
            run, "patch_policy", patch_episodes, PATCH_HYPERPARAMETERS, config.seed, {**common, "skip": False}
        )
        print("[bold]AdaFocus+: when not to look")
        skip_policies = {
            skip_cost: train(
                run, f"skip_policy_{skip_cost:g}", skip_episodes, SKIP_HYPERPARAMETERS, config.seed,
                {**common, "reward": "gain_over_previous", "skip_cost": skip_cost}, patch_policy,
            )
            for skip_cost in sorted({DEFAULT_SKIP_COST, *config.skip_costs})
        }  # fmt: skip
        skip_policy = skip_policies[DEFAULT_SKIP_COST]
        print("[bold]Stage 3: the classifier learns from what they chose")
        stage3 = Stage3Config(epochs=1) if config.quick else STAGE3
        tuned = finetune(
            recognizer, skip_policy, stage3, videos=train_videos, seed=config.seed, progress=Progress(run.log, bar=True)
        )
        tuned.save(config.out / "recognizer.safetensors")
        del bank

        print("[bold]What it bought, on the test split")
        bank = FeatureBank.shared(recognizer, test_videos)
        # The table shows no returns, so take the reward that needs no reference patches.
        test: dict[str, Any] = {"videos": test_videos, "reward": "confidence", "seed": config.seed}
        entries: list[tuple[str, Any, Recognizer, dict[str, Any]]] = [
            ("random", RandomPolicy, recognizer, {"skip": False}),
            ("center", CenterPolicy, recognizer, {"skip": False}),
            ("gaussian", GaussianPolicy, recognizer, {"skip": False}),
            ("learned", patch_policy, recognizer, {}),
            ("learned + skip", skip_policy, recognizer, {}),
            ("learned + skip + stage 3", skip_policy, tuned, {}),
            ("true location (oracle)", OraclePolicy, recognizer, {"skip": False}),
        ]
        rows, points = [], {}
        for name, policy, model, env_kwargs in entries:
            found = evaluate(policy, "test", recognizer=model, progress_bar=True, **test, **env_kwargs)
            run.log(f"test/{name}", 0, found.summary())
            rows.append(table_row(name, found))
            points[name] = (found.gflops_per_video, 100 * found.accuracy)
        curve = [points["learned"], points["learned + skip"]]
        for skip_cost in config.skip_costs:
            policy = skip_policies[skip_cost]
            found = evaluate(policy, "test", recognizer=recognizer, **test)
            run.log("test/skip_cost", round(1000 * skip_cost), found.summary())
            curve.append((found.gflops_per_video, 100 * found.accuracy))
        curve.sort(reverse=True)
        del bank

        run.write_table("table", rows)
        learning_curves(
            config.out / "learning_curves.png",
            {
                name: [(step["episodes"], step["ep_rew_mean"]) for step in agent.history]
                for name, agent in (("patch policy", patch_policy), ("skip policy", skip_policy))
            },
            ylabel="return of an episode",
        )
        accuracy_against_compute(config.out / "accuracy_compute.png", points, {"learned, falling skip cost": curve})
        pictures = play(skip_policy, range(4), videos=test_videos, recognizer=tuned)
        film_strip(config.out / "film_strip.png", pictures)
        animation(config.out / "animation.gif", pictures)
    print_table(rows, title=f"RoamingFashion, {len(test_videos)} test videos, seed {config.seed}")
    print(f"everything is in {config.out}; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
