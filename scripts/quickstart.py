"""Run the whole of AdaFocus on the embedded benchmark, in minutes on a laptop.

The recogniser is the shipped one (stage 1). A policy learns where to look (stage 2), and a second one learns when not
to look (AdaFocus+). The recogniser is then fine-tuned on the patches that they chose (stage 3). At the end there are a
table, plots and an annotated clip that show what each step gained on the test split.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import print

from adafocus_env.command_line import as_called, run_script
from adafocus_env.recognition.recipes import Stage3Config
from agents.presets import (
    QUICK_EPISODES,
    QUICK_VIDEOS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    SOFT_TARGET_HYPERPARAMETERS,
    STAGE3,
)

if TYPE_CHECKING:
    from adafocus_env import Recognizer, RoamingFashion
    from adafocus_env.run_folder import RunFolder
    from agents import Reinforce


STAGES = {
    "Stage 2: where to look": 285,
    "AdaFocus+: when not to look": 21,
    "Stage 3: the classifier learns from the chosen patches": 60,
    "Evaluation on the test split, and pictures": 120,
}
"""What is done, and the seconds that it once took on a slow processor; estimates of time go by their shares."""


WHAT_NEXT = """
Look at film_strip.png, animation.gif (green: looked at; dimmed: skipped) and accuracy_compute.png.
What to try next:

    python scripts/render.py --policy {out}/skip_policy_0.015.safetensors --indices 4 5 6 7
    python scripts/train_policy.py --algo reinforce
    python scripts/train_policy.py --train skip --skip-cost 0.06
    python scripts/evaluate.py --policies random {out}/patch_policy.safetensors --exit-loss 0.003 --split test
"""


@dataclass
class Config:
    seed: int = 0
    """Seed of everything that is trained or drawn here."""
    out: Path = Path("runs/quickstart")
    """Folder for the table, the figures, the policies and the fine-tuned recogniser."""
    skip_costs: tuple[float, ...] = ()
    """Further prices of a focused frame at which to train skip policies, for a denser curve of accuracy and compute."""
    quick: bool = False
    """Rehearse every step in a minute, with hardly any training and few videos; the figures mean nothing."""


@dataclass(frozen=True)
class Trained:
    """The results of training: the patch policy, the skip policies by their price, and the fine-tuned recogniser."""

    patch_policy: Reinforce
    skip_policies: dict[float, Reinforce]
    recognizer: Recognizer

    @property
    def skip_policy(self) -> Reinforce:
        from adafocus_env.environments.arguments import DEFAULT_SKIP_COST

        return self.skip_policies[DEFAULT_SKIP_COST]


class Announcer:
    """Prints which stage begins, and about how long everything that is left takes at this machine's speed so far."""

    def __init__(self, config: Config) -> None:
        patches, skips, stage3, tests = STAGES.values()
        further = len(config.skip_costs)
        self._seconds = [patches, skips * (1 + further), stage3, tests + 15 * further]
        self._quick, self._started, self._begun = config.quick, time.perf_counter(), 0

    def begin(self) -> None:
        """Announce the next stage."""
        done, left = sum(self._seconds[: self._begun]), sum(self._seconds[self._begun :])
        if self._quick:
            estimate = "a rehearsal"
        elif not done:
            estimate = f"everything takes about {left // 220} minutes on a fast machine, {left // 60} on a slow one"
        else:
            minutes = left * (time.perf_counter() - self._started) / done / 60
            estimate = f"everything that is left takes about {minutes:.1f} minutes"
        stage = list(STAGES)[self._begun]
        self._begun += 1
        print(f"[bold]{self._begun} of {len(STAGES)}. {stage}[/bold] ({estimate})")


def learn(run: RunFolder, stage: str, agent: Reinforce, episodes: int) -> Reinforce:
    """Train an agent, log its metrics and save it."""
    vector_env = agent.get_env()
    started = time.perf_counter()
    agent.learn(episodes * vector_env.unwrapped.num_frames, progress_bar=True)
    print(f"{stage}: {episodes} episodes in {time.perf_counter() - started:.0f} s")
    for metrics in agent.history:
        run.log(stage, int(metrics["episodes"]), metrics)
    agent.save(run.path / f"{stage}.safetensors")
    agent.set_env(None)
    return agent


def train(config: Config, run: RunFolder, recognizer: Recognizer, stages: Announcer) -> Trained:
    """Stage 2, AdaFocus+ and stage 3."""
    import gymnasium as gym

    from adafocus_env import FeatureBank, RoamingFashion
    from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
    from adafocus_env.recognition.optimization import Progress
    from agents import Reinforce, SoftTargets, finetune

    # Soft targets ask about every candidate of every frame that they visit, so they visit fewer videos.
    videos = RoamingFashion("train", num_videos=32 if config.quick else QUICK_VIDEOS)
    patch_episodes, skip_episodes = (n // (100 if config.quick else 1) for n in (QUICK_EPISODES, SKIP_EPISODES))
    bank = FeatureBank.shared(recognizer, videos)  # held here, so that all training shares one table
    env = functools.partial(gym.make_vec, "AdaFocus-v0", features=bank, output="torch")
    stages.begin()
    lanes = SOFT_TARGET_HYPERPARAMETERS["episodes_per_batch"]
    patch_env = env(num_envs=lanes, skip=False, baseline="exact")
    patch_agent = SoftTargets(patch_env, seed=config.seed, **SOFT_TARGET_HYPERPARAMETERS)
    patch_policy = learn(run, "patch_policy", patch_agent, patch_episodes)
    stages.begin()
    skip_policies = {}
    for cost in sorted({DEFAULT_SKIP_COST, *config.skip_costs}):
        skip_env = env(num_envs=64, reward="gain_over_previous", skip_cost=cost)
        skip_agent = Reinforce(skip_env, seed=config.seed, patch_policy=patch_policy, **SKIP_HYPERPARAMETERS)
        skip_policies[cost] = learn(run, f"skip_policy_{cost:g}", skip_agent, skip_episodes)
    stages.begin()
    stage3, progress = Stage3Config(epochs=1) if config.quick else STAGE3, Progress(run.log, bar=True)
    skip_policy = skip_policies[DEFAULT_SKIP_COST]
    videos = RoamingFashion("train", num_videos=32 if config.quick else None)
    tuned = finetune(recognizer, skip_policy, stage3, videos=videos, seed=config.seed, progress=progress)
    tuned.save(config.out / "recognizer.safetensors")
    del bank
    return Trained(patch_policy, skip_policies, tuned)


def test(
    config: Config, run: RunFolder, recognizer: Recognizer, trained: Trained, videos: RoamingFashion
) -> list[dict[str, Any]]:
    """Evaluate everything, draw accuracy against compute, and return the rows of the table."""
    from adafocus_env import FeatureBank
    from agents import evaluate
    from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
    from agents.figures import accuracy_against_compute
    from agents.report import table_row

    bank = FeatureBank.shared(recognizer, videos)
    # The table shows no returns, so take the reward that needs no reference patches.
    common: dict[str, Any] = {"videos": videos, "reward": "confidence", "seed": config.seed}
    entries: list[tuple[str, Any, Recognizer, dict[str, Any]]] = [
        ("random", RandomPolicy, recognizer, {"skip": False}),
        ("center", CenterPolicy, recognizer, {"skip": False}),
        ("gaussian", GaussianPolicy, recognizer, {"skip": False}),
        ("learned", trained.patch_policy, recognizer, {}),
        ("learned + skip", trained.skip_policy, recognizer, {}),
        ("learned + skip + stage 3", trained.skip_policy, trained.recognizer, {}),
        ("true location (oracle)", OraclePolicy, recognizer, {"skip": False}),
    ]
    rows, points = [], {}
    for name, policy, model, env_kwargs in entries:
        found = evaluate(policy, "test", recognizer=model, progress_bar=True, **common, **env_kwargs)
        run.log(f"test/{name}", 0, found.summary())
        rows.append(table_row(name, found))
        points[name] = (found.gflops_per_video, 100 * found.accuracy)
    curve = [points["learned"], points["learned + skip"]]
    for cost in config.skip_costs:
        found = evaluate(trained.skip_policies[cost], "test", recognizer=recognizer, **common)
        run.log("test/skip_cost", round(1000 * cost), found.summary())
        curve.append((found.gflops_per_video, 100 * found.accuracy))
    del bank
    run.write_table("table", rows)
    accuracy_against_compute(
        config.out / "accuracy_compute.png", points, {"learned, falling skip cost": sorted(curve, reverse=True)}
    )
    return rows


def main(config: Config) -> None:
    from adafocus_env import Recognizer, RoamingFashion
    from adafocus_env.run_folder import RunFolder
    from agents.figures import animation, film_strip, learning_curves, play
    from agents.report import print_table

    started = time.perf_counter()
    recognizer = Recognizer.from_pretrained("roaming-fashion")
    videos = RoamingFashion("test", num_videos=128 if config.quick else None)
    with RunFolder(config.out, config) as run:
        stages = Announcer(config)
        trained = train(config, run, recognizer, stages)
        stages.begin()
        rows = test(config, run, recognizer, trained, videos)
        agents = {"patch policy": trained.patch_policy, "skip policy": trained.skip_policy}
        learning_curves(
            config.out / "learning_curves.png",
            {
                name: [(step["episodes"], step["ep_rew_mean"]) for step in agent.history]
                for name, agent in agents.items()
            },
            ylabel="return of an episode",
        )
        pictures = play(trained.skip_policy, range(4), videos=videos, recognizer=trained.recognizer)
        film_strip(config.out / "film_strip.png", pictures)
        animation(config.out / "animation.gif", pictures)
    print_table(rows, title=f"RoamingFashion, {len(videos)} test videos, seed {config.seed}")
    print(f"Everything is in {config.out}, after {(time.perf_counter() - started) / 60:.1f} minutes.")
    sys.stdout.write(as_called(WHAT_NEXT.format(out=config.out)))  # rich would break the lines


if __name__ == "__main__":
    run_script(main, Config, __doc__)
