"""Wrappers and helpers of Gymnasium and Stable-Baselines3 that users put around the environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from adafocus_env import RoamingFashion
from agents.sb3 import make_vec_env


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", ["AdaFocus-v0", "GlanceFocus-v0"])
def test_episode_statistics_in_every_mode(env_id: str, mode: AutoresetMode, env_kwargs: dict[str, Any]) -> None:
    if env_id == "GlanceFocus-v0":
        still = RoamingFashion("val", num_videos=12, num_frames=1, visible_fraction=1.0, frame_size=48)
        env_kwargs |= {"videos": still, "looks": 4, "skip": True}
    env = RecordEpisodeStatistics(gym.make_vec(env_id, 2, autoreset_mode=mode, **env_kwargs))
    env.reset(seed=0)
    found = []
    total = np.zeros(2)
    for step in range(14):
        _, reward, over, _, info = env.step(np.array([[step, 0], [15 - step, step % 2]]))
        total += reward
        if over.all():
            episode = info.get("final_info", info)["episode"] if "episode" not in info else info["episode"]
            np.testing.assert_allclose(episode["r"], total, atol=1e-5)
            found.append(episode["l"].tolist())
            total = np.zeros(2)
            if mode is AutoresetMode.DISABLED:
                env.reset()
    assert found == [[4, 4]] * 3


@pytest.mark.parametrize("batched", [True, False])
def test_sb3_normalises_and_evaluates(batched: bool, env_kwargs: dict[str, Any]) -> None:
    def make() -> VecNormalize:
        if batched:
            return VecNormalize(make_vec_env(2, skip=False, **env_kwargs), norm_obs_keys=["belief"])
        return VecNormalize(sb3_make_vec_env("AdaFocus-v0", 2, env_kwargs={"skip": False, **env_kwargs}))

    evaluation = make()
    evaluation.training = False
    callback = EvalCallback(evaluation, n_eval_episodes=4, eval_freq=4, verbose=0, warn=False)
    model = PPO("MultiInputPolicy", make(), n_steps=4, batch_size=8, n_epochs=1, seed=0)
    model.learn(16, callback=callback)
    assert callback.n_calls == 8
    assert np.isfinite(callback.last_mean_reward)
    np.testing.assert_array_equal(  # the callback hands on what training found
        evaluation.obs_rms["belief"].mean, model.get_vec_normalize_env().obs_rms["belief"].mean
    )
