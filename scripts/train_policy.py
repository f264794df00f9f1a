"""Train a policy on a frozen recogniser: stage 2 of AdaFocus, the skip policy of AdaFocus+, and when to stop.

This package's own agents leave a checkpoint every minute. With `--resume` they go on to the same policy.

    # where to look, by REINFORCE, or by Stable-Baselines3's PPO
    python scripts/train_policy.py
    python scripts/train_policy.py --algo ppo
    # when not to look, or both at once
    python scripts/train_policy.py --train skip --patch-policy runs/train_policy/reinforce.safetensors
    python scripts/train_policy.py --train both
    # when a video needs no further glance
    python scripts/train_policy.py --train stop --patch-policy runs/train_policy/reinforce.safetensors
    # AdaFocus-TSM: one continuous position per clip; and still pictures
    python scripts/train_policy.py --recognizer roaming-motion
    python scripts/train_policy.py --recognizer still-fashion --algo soft_targets
"""

from __future__ import annotations

import csv
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import print

from adafocus_env.command_line import WITH_RESUME, check_known, check_positive, run_script
from agents.presets import (
    CLIP_EPISODES,
    CLIP_HYPERPARAMETERS,
    CLIP_PATCH_HYPERPARAMETERS,
    PATCH_EPISODES,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    SOFT_CHOICE_HYPERPARAMETERS,
    STOP_EPISODES,
    STOP_HYPERPARAMETERS,
)

if TYPE_CHECKING:
    from adafocus_env import FeatureBank, Recognizer
    from adafocus_env.run_folder import RunFolder
    from agents import Reinforce


FROZEN = {"skip": "roaming-fashion", "stop": "roaming-fashion-skip"}
"""Heads that are trained alone, and the shipped policies beneath them."""
HEAD_LEARNERS = ("reinforce", "soft_choices")
"""Their learners."""
LEARN_POSITIONS = ("reinforce", "advantage_weighted", "ppo", "ppo_glance", "a2c", "recurrent_ppo")
"""Learners that can act in continuous positions on AdaFocusTSM-v0."""


@dataclass
class Config:
    algo: str = "reinforce"
    """One of soft_targets, reinforce, all_action, advantage_weighted, differentiable, localizer, paper, paper_tuned,
    ppo, ppo_glance, a2c, dqn and recurrent_ppo; or my_module:MyAgent, one of your own as for compare_algorithms.py;
    with --train skip or stop, reinforce or soft_choices."""
    train: Literal["patch", "skip", "stop", "both"] = "patch"
    """Heads to train: where to look; when not to look, or when to end the video, over --patch-policy; or where and when
    not to look, jointly."""
    patch_policy: str | None = None
    """The frozen policy beneath --train skip or stop, by a shipped name or a file; by default roaming-fashion, or
    roaming-fashion-skip. Over one that looks at every frame, --train stop learns to skip too. The new policy's file
    contains it."""
    episodes: int | None = None
    """Training episodes; the default depends on what is trained."""
    num_envs: int = 64
    """Number of episodes that run in parallel, at most as many as in the algorithm's batch."""
    observation: Literal["full", "glance"] | None = None
    """What the environment shows; "glance" is the paper's state. By default the algorithm decides."""
    reward: str | None = None
    """Name of the reward; by default the paper's: gain_over_random, or gain_over_previous with --train skip or stop."""
    baseline: Literal["sample", "exact", "pixel"] | None = None
    """How the confidence of a random patch is found. By default the algorithm decides."""
    skip_cost: float | tuple[float, float] | None = None
    """Price of a focused frame; the default is the environment's. Two numbers, low and high, train one policy for all
    prices between them, which then acts by the price that evaluate.py --skip-cost gives."""
    glance_cost: float | tuple[float, float] | None = None
    """Price of going on to the next frame, for --train stop; by default as much for a GFLOP as --skip-cost. Two numbers
    as there."""
    recognizer: str = "roaming-fashion"
    """A shipped recogniser's name or a file; its kind decides between AdaFocus-v0 and AdaFocusTSM-v0."""
    videos: str | None = None
    """A registered data set, or a TOML file that describes one on disk; by default the shipped videos for the
    recogniser's kind."""
    looks: int | None = None
    """Looks at each frame, for still pictures; by default 5 with --recognizer still-fashion, else 1."""
    action: Literal["continuous", "grid"] | None = None
    """AdaFocusTSM-v0 only: any position, or a patch index. By default the first, with algorithms that can."""
    bank: Path | None = None
    """A file that build_feature_bank.py made for these videos and this recogniser; by default, a table in memory."""
    resume: bool = False
    """Go on from the checkpoint in --out."""
    seed: int = 0
    """Seed of the weights, the episodes and the actions."""
    out: Path = Path("runs/train_policy")
    """Folder for the policy, its checkpoint, its metrics, its learning curve and its TensorBoard log."""

    @property
    def label(self) -> str:
        """The algorithm's name in those of files."""
        return self.algo.rpartition(":")[2]


def frozen_policy(config: Config) -> Reinforce:
    """The policy beneath a head that is trained alone."""
    from agents import Reinforce, load_policy

    name = config.patch_policy or FROZEN[config.train]
    policy = load_policy(name)
    if not isinstance(policy, Reinforce):
        raise ValueError(
            f"--patch-policy: {name} is no policy of this package's own agents, and the {config.train} policy's "
            "file holds no other; in Python there is Reinforce(env, patch_policy=…)"
        )
    return policy


def make_head(config: Config, features: FeatureBank, env_kwargs: dict[str, Any]) -> Reinforce:
    """Make an agent that learns when to skip, or when to stop, over a frozen policy."""
    from adafocus_env import AdaFocusVectorEnv
    from agents import Reinforce, SoftChoices

    frozen = frozen_policy(config)
    env = AdaFocusVectorEnv(config.num_envs, features=features, output="torch", **env_kwargs)
    presets: dict[str, dict[str, Any]] = {"skip": SKIP_HYPERPARAMETERS, "stop": STOP_HYPERPARAMETERS}
    kind, settings = {
        "reinforce": (Reinforce, presets[config.train]),
        "soft_choices": (SoftChoices, SOFT_CHOICE_HYPERPARAMETERS),
    }[config.algo]
    return kind(env, seed=config.seed, patch_policy=frozen, **settings_for(config, settings))


def going_on(config: Config, recognizer: Recognizer) -> float | tuple[float, float]:
    """The price of going on: as given, or at which a GFLOP of it costs as much as one of a look."""
    from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
    from agents.experiments.pipelines import matching_glance_cost

    if config.glance_cost is not None:
        return config.glance_cost
    match = functools.partial(matching_glance_cost, recognizer, frozen_policy(config))
    price = DEFAULT_SKIP_COST if config.skip_cost is None else config.skip_cost
    return (match(price[0]), match(price[1])) if isinstance(price, tuple) else match(price)


def settings_for(config: Config, settings: Mapping[str, Any], *, belief: bool = True) -> dict[str, Any]:
    """An algorithm's settings, without the belief if the agent sees the glance alone."""
    without = {"use_belief": False} if "use_belief" in settings else {}
    return {**settings, **({} if belief and config.observation != "glance" else without)}


def train_own(agent: Reinforce, timesteps: int, config: Config, run: RunFolder) -> Reinforce:
    """Train one of the package's own agents, from its checkpoint if it is to be resumed."""
    from agents.checkpointing import Checkpoints

    checkpoint = config.out / f"{config.label}.checkpoint"
    if config.resume and checkpoint.exists():
        made = agent
        agent = type(made).load(checkpoint, patch_policy=made.patch_policy, device=made.device)
        if agent.made_for["recognizer"] != made.made_for["recognizer"]:
            raise ValueError(f"--resume: {checkpoint} is of another recogniser than {config.recognizer}")
        agent.set_env(made.get_env())
    checkpoints = Checkpoints(checkpoint, run.log)
    agent.learn(max(0, timesteps - agent.num_timesteps), checkpoints, progress_bar=True)
    checkpoints.save()
    return agent


def curve_of(config: Config, num_steps: int, *, own: bool) -> list[tuple[float, float]]:
    """Read the learning curve, (episodes, mean return) points, from the log of the training."""
    from adafocus_env.run_folder import read_metrics

    if own:
        return [
            (float(step), float(value))
            for stage, step, metric, value in read_metrics(config.out)
            if (stage, metric) == ("train", "ep_rew_mean")
        ]
    with open(config.out / config.label / "progress.csv", newline="") as file:
        return [
            (float(row["time/total_timesteps"]) / num_steps, float(row["rollout/ep_rew_mean"]))
            for row in csv.DictReader(file)
            if row.get("rollout/ep_rew_mean")
        ]


def environment_arguments(config: Config, defaults: Mapping[str, Any], *, of_clips: bool) -> dict[str, Any]:
    """Arguments of the environment: from the command line, or else the algorithm's, or else the paper's."""
    given = {name: getattr(config, name) for name in ("observation", "reward", "baseline", "skip_cost")}
    arguments: dict[str, Any] = {
        "reward": "gain_over_previous" if config.train in FROZEN else "gain_over_random",
        **defaults,
        **{name: value for name, value in given.items() if value is not None},
    }
    if not of_clips:
        arguments["skip"] = config.train != "patch"
    elif config.action or config.algo in LEARN_POSITIONS:
        arguments["action"] = config.action or "continuous"
    return arguments


def check_actions(config: Config, *, of_clips: bool) -> None:
    """Refuse options that the environment or the algorithm couldn't follow."""
    from agents.experiments.algorithms import ALGORITHMS

    if of_clips and config.train != "patch":
        raise ValueError("--train: AdaFocusTSM-v0 has no skip bit, so there is only the patch to train")
    if config.glance_cost is not None and config.train != "stop":
        raise ValueError("--glance-cost: it is the price of not stopping, so it needs --train stop")
    if not of_clips and config.train == "patch" and isinstance(config.skip_cost, tuple):
        raise ValueError(
            "--skip-cost: with --train patch every frame is focused, whatever the price: for a policy that acts by "
            "prices, add --train skip or --train both; else give one number, or none"
        )
    if config.action == "continuous" and not of_clips:
        raise ValueError("--action: continuous is for AdaFocus-TSM recognisers alone: leave it out")
    if config.action == "continuous" and config.algo in ALGORITHMS and config.algo not in LEARN_POSITIONS:
        raise ValueError(
            f"--action: {config.algo} doesn't learn positions on AdaFocusTSM-v0: leave it out, or take one of "
            f"{', '.join(LEARN_POSITIONS)}"
        )


def make_policy(config: Config, features: FeatureBank, env_kwargs: dict[str, Any], *, of_clips: bool) -> Any:
    """The untrained policy."""
    from agents.experiments.algorithms import get_algorithm

    if config.train in FROZEN:
        return make_head(config, features, env_kwargs)
    algorithm = get_algorithm(config.algo)
    settings = algorithm.settings
    if of_clips and config.algo == "reinforce":
        settings = CLIP_HYPERPARAMETERS if env_kwargs["action"] == "continuous" else CLIP_PATCH_HYPERPARAMETERS
    settings = settings_for(config, settings, belief=not of_clips)
    return algorithm.make(features, config.seed, env_kwargs, settings, config.num_envs)


def main(config: Config) -> None:
    from stable_baselines3.common.logger import configure

    from adafocus_env import AdaFocusTSMVectorEnv, FeatureBank, load_recognizer
    from adafocus_env.recognition.optimization import clear_checkpoints
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos
    from agents import Reinforce, evaluate
    from agents.environments import acts_in_positions, look_arguments, shipped_pair, vector_env_class
    from agents.experiments.algorithms import get_algorithm, get_algorithms
    from agents.figures import learning_curves
    from agents.pretrained import save_policy
    from agents.sb3 import PPO_EPISODES

    if config.train in FROZEN:
        check_known("--algo", [config.algo], HEAD_LEARNERS)
    else:
        get_algorithms("--algo", [config.algo])
        if config.patch_policy is not None:
            raise ValueError(f"--patch-policy: with --train {config.train} none is frozen: leave it out")
    check_positive(episodes=config.episodes, num_envs=config.num_envs, looks=config.looks)
    recognizer = load_recognizer(config.recognizer)
    env_class = vector_env_class(None, {"recognizer": recognizer})
    of_clips = issubclass(env_class, AdaFocusTSMVectorEnv)
    check_actions(config, of_clips=of_clips)
    default_videos, default_looks = shipped_pair(config.recognizer, env_class)
    data, number = config.videos or default_videos, config.looks or default_looks
    videos = get_videos(data, "train")
    features = (
        FeatureBank.open(config.bank, recognizer, videos) if config.bank else FeatureBank.shared(recognizer, videos)
    )
    defaults = {} if config.train in FROZEN else get_algorithm(config.algo).env
    looks = look_arguments(env_class, number)
    env_kwargs = {**environment_arguments(config, defaults, of_clips=of_clips), **looks}
    if config.train == "stop":
        env_kwargs |= {"stop": True, "glance_cost": going_on(config, features.recognizer)}
    num_steps = features.num_steps * number
    with RunFolder(config.out, config, append=config.resume, may_change=("resume", "episodes")) as run:
        if not config.resume:
            clear_checkpoints(config.out)
        started = time.perf_counter()
        policy = make_policy(config, features, env_kwargs, of_clips=of_clips)
        if config.action and acts_in_positions(policy) != (config.action == "continuous"):
            raise ValueError(
                f"--action: {config.algo} doesn't follow it, but acts in {policy.action_space}: leave it out"
            )
        own = isinstance(policy, Reinforce)
        if config.resume and not own:
            raise ValueError(f"--resume: models of Stable-Baselines3, such as {config.algo}'s, always start anew")
        if not own:
            policy.set_logger(configure(str(config.out / config.label), ["tensorboard", "csv"]))
        default = CLIP_EPISODES if of_clips else PATCH_EPISODES if own else PPO_EPISODES
        default = {"skip": SKIP_EPISODES, "stop": STOP_EPISODES}.get(config.train, default)
        timesteps = (config.episodes or default) * num_steps
        if own:
            policy = train_own(policy, timesteps, config, run)
        else:
            policy.learn(timesteps, progress_bar=True)
        path = save_policy(policy, config.out / config.label)
        if points := curve_of(config, num_steps, own=own):
            learning_curves(config.out / "learning_curve.png", {config.label: points}, ylabel="return of an episode")
        seconds = time.perf_counter() - started
        shared = {name: env_kwargs[name] for name in ("skip_cost", "glance_cost", "reward") if name in env_kwargs}
        found = evaluate(policy, "val", videos=data, recognizer=recognizer, **shared, **looks).summary()
        run.log("val", 0, {**found, "training_seconds": seconds})
        clear_checkpoints(config.out)
    print(f"{path} was trained in {seconds:.0f} s. On the validation videos:", found)


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=f"{WITH_RESUME}; models of Stable-Baselines3 start anew")
