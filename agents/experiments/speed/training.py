"""Speed of whole training runs of REINFORCE and PPO, with a table that fills on the way and with a full one."""

from __future__ import annotations

import time
from typing import Any

from adafocus_env import AdaFocusVectorEnv, FeatureBank
from agents.experiments.speed.measuring import Results
from agents.experiments.speed.scales import EMBEDDED, GRID
from agents.presets import PATCH_EPISODES, PATCH_HYPERPARAMETERS
from agents.reinforce import Reinforce
from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, make_model, make_vec_env

PART = "training"
LANES = 64
IN_ENV = "share of time in env.step and reset"


class TimedEnv(AdaFocusVectorEnv):
    """The environment, with a count of the seconds that its ``step`` and ``reset`` take."""

    seconds = 0.0

    def step(self, actions: Any) -> Any:
        """Step all lanes."""
        started = time.perf_counter()
        found = super().step(actions)
        self.seconds += time.perf_counter() - started
        return found

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode in every lane."""
        started = time.perf_counter()
        found = super().reset(**kwargs)
        self.seconds += time.perf_counter() - started
        return found


def measure_training(results: Results, device: str, seed: int, *, quick: bool) -> None:
    """Measure both algorithms on the embedded benchmark; ``quick`` takes few videos and a fiftieth of the episodes."""
    recognizer, videos = EMBEDDED.recognizer(), EMBEDDED.videos("train", 500 if quick else None)
    share = 50 if quick else 1
    bank = FeatureBank(recognizer, videos, GRID, device)
    episodes = PATCH_EPISODES // share
    for state in ("cold", "warm"):
        env = TimedEnv(LANES, features=bank, skip=False, output="torch")
        seconds = _seconds_of(Reinforce(env, seed=seed, **PATCH_HYPERPARAMETERS), episodes * env.num_frames)
        _add(results, "REINFORCE", state, episodes, seconds)
        results.add(PART, f"REINFORCE, {state} table, {IN_ENV}", env.seconds / seconds, "")
    name = f"share of REINFORCE's time in env.step and reset, {LANES} envs, warm"
    results.add_ratio(PART, name, env.seconds / seconds, "at most 0.4")
    bank = FeatureBank(recognizer, videos, GRID, device)
    episodes = PPO_EPISODES // share
    for state in ("cold", "warm"):
        vec_env = make_vec_env(LANES, seed=seed, features=bank, skip=False)
        model = make_model("ppo", vec_env, seed=seed, device=device, **PPO_HYPERPARAMETERS)
        _add(results, "SB3 PPO", state, episodes, _seconds_of(model, episodes * videos.num_frames))


def _seconds_of(model: Any, timesteps: int) -> float:
    started = time.perf_counter()
    model.learn(timesteps)
    return time.perf_counter() - started


def _add(results: Results, name: str, state: str, episodes: int, seconds: float) -> None:
    results.add(PART, f"{name}, {state} table, {episodes} episodes", episodes / seconds, "episodes/s", LANES)
