"""Train a policy on a frozen recogniser: stage 2 of AdaFocus, and the skip policy of AdaFocus+.

python scripts/train_policy.py                              # patch policy, REINFORCE
python scripts/train_policy.py --algo ppo                   # patch policy, Stable-Baselines3 PPO
python scripts/train_policy.py --train skip --patch-policy runs/train_policy/reinforce.pt
python scripts/train_policy.py --train both                 # patch and skip heads jointly
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import tyro
from rich import print
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

from adafocus_env import FeatureBank, Recognizer
from adafocus_env.run_folder import RunFolder
from adafocus_env.videos import get_videos
from agents import Reinforce, evaluate, load_policy
from agents.evaluation import is_policy
from agents.figures import learning_curves
from agents.presets import PATCH_EPISODES, PATCH_HYPERPARAMETERS, SKIP_EPISODES, SKIP_HYPERPARAMETERS
from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, GlanceExtractor, make_vec_env


@dataclass
class Config:
    algo: Literal["reinforce", "ppo"] = "reinforce"
    """The algorithm; PPO is Stable-Baselines3's."""
    train: Literal["patch", "skip", "both"] = "patch"
    """Which heads: where to look, when not to look (over --patch-policy), or both jointly."""
    patch_policy: str = "roaming-fashion"
    """The frozen patch policy under --train skip: a shipped name or a file."""
    episodes: int | None = None
    """Episodes to train for; the default depends on what is trained."""
    num_envs: int = 64
    """Episodes at once."""
    observation: Literal["full", "glance"] = "full"
    """What the environment shows; "glance" is the paper's state."""
    reward: str | None = None
    """Default: gain_over_random, or gain_over_previous under --train skip (the paper's)."""
    baseline: Literal["sample", "exact", "pixel"] = "sample"
    """How the random patch's confidence is found."""
    skip_cost: float | None = None
    """Price of a focused frame; the default is the environment's."""
    recognizer: str = "roaming-fashion"
    """A shipped name or a file."""
    videos: str = "roaming-fashion"
    """A registered data set."""
    bank: Path | None = None
    """A file of build_feature_bank.py, for these videos and this recogniser; by default the table is in memory."""
    seed: int = 0
    out: Path = Path("runs/train_policy")
    """Folder for the policy, its metrics and its TensorBoard log."""


def train_reinforce(config: Config, env_kwargs: dict[str, Any], run: RunFolder) -> tuple[Any, Path]:
    skip_alone = config.train == "skip"
    env = gym.make_vec("AdaFocus-v0", num_envs=config.num_envs, output="torch", **env_kwargs)
    settings = SKIP_HYPERPARAMETERS if skip_alone else PATCH_HYPERPARAMETERS
    if config.observation == "glance":
        settings = {**settings, "use_belief": False}
    patch_policy = load_policy(config.patch_policy) if skip_alone else None
    if patch_policy is not None and not is_policy(patch_policy):  # a baseline is made for an environment
        patch_policy = patch_policy(env)
    agent = Reinforce(
        env,
        seed=config.seed,
        patch_policy=patch_policy,
        **settings,
    )
    episodes = config.episodes or (SKIP_EPISODES if skip_alone else PATCH_EPISODES)
    agent.learn(episodes * env.unwrapped.num_frames, progress_bar=True)
    for metrics in agent.history:
        run.log("train", int(metrics["episodes"]), metrics)
    points = [(step["episodes"], step["ep_rew_mean"]) for step in agent.history]
    learning_curves(config.out / "learning_curve.png", {"reinforce": points}, ylabel="return of an episode")
    path = config.out / "reinforce.pt"
    agent.save(path)
    return agent, path


def train_ppo(config: Config, env_kwargs: dict[str, Any], run: RunFolder) -> tuple[Any, Path]:
    env = make_vec_env(config.num_envs, seed=config.seed, **env_kwargs)
    policy = "MlpPolicy" if config.observation == "glance" else "MultiInputPolicy"
    model = PPO(policy, env, seed=config.seed, policy_kwargs=GlanceExtractor.policy_kwargs(), **PPO_HYPERPARAMETERS)
    model.set_logger(configure(str(config.out / "ppo"), ["tensorboard", "csv"]))
    model.learn((config.episodes or PPO_EPISODES) * env.env.num_frames, progress_bar=True)
    path = config.out / "ppo.zip"
    model.save(path)
    return model, path


def main(config: Config) -> None:
    if config.algo == "ppo" and config.train == "skip":
        raise SystemExit("--train skip needs --algo reinforce: SB3's PPO has no frozen patch policy")
    skip = config.train != "patch"
    recognizer, videos = Recognizer.from_pretrained(config.recognizer), get_videos(config.videos, "train")
    env_kwargs: dict[str, Any] = {
        "features": FeatureBank.open(config.bank, recognizer, videos)
        if config.bank
        else FeatureBank.shared(recognizer, videos),
        "observation": config.observation,
        "reward": config.reward or ("gain_over_previous" if config.train == "skip" else "gain_over_random"),
        "baseline": config.baseline,
        "skip": skip,
        "skip_cost": config.skip_cost,
    }
    with RunFolder(config.out, config) as run:
        started = time.perf_counter()
        policy, path = (train_reinforce if config.algo == "reinforce" else train_ppo)(config, env_kwargs, run)
        seconds = time.perf_counter() - started
        shared = {name: env_kwargs[name] for name in ("skip_cost", "reward")}
        found = evaluate(policy, "val", videos=config.videos, recognizer=recognizer, **shared).summary()
        run.log("val", 0, {**found, "training_seconds": seconds})
    print(f"{path}, trained in {seconds:.0f} s; on the validation videos:", found)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
