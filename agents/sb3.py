"""Stable-Baselines3 (SB3) on the batched environment: its vector environment, network and models."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from adafocus_env import AdaFocusVectorEnv
from agents.environments import vector_env_class
from agents.policy_spaces import beside_glance, read_beside


class AdaFocusVecEnv(VecEnv):
    """SB3's ``VecEnv`` over one :class:`AdaFocusVectorEnv`: n lanes in one batch, not n Python environments.

    At the end of an episode a lane's info holds the environment's infos of that step, ``terminal_observation``, and
    ``episode`` (return ``r`` and length ``l``, as SB3's ``Monitor`` gives them). Other steps' infos are empty, which
    keeps the loop free of per-lane work.

    Args:
        env: An environment with ``autoreset_mode="SAME_STEP"`` and NumPy output.
    """

    def __init__(self, env: AdaFocusVectorEnv) -> None:
        self.env = env
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._actions: Any = None
        self.render_mode = env.render_mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every lane; ``seed`` and ``set_options`` of SB3's interface are honoured.

        Raises:
            ValueError: Only some lanes have options, or lanes have different ones.
        """
        seeds: Any = self._seeds
        seeds = None if all(seed is None for seed in seeds) else seeds
        options: dict[str, Any] | None = None
        if any(self._options):
            if any(lane.keys() != self._options[0].keys() for lane in self._options):
                raise ValueError(f"set_options must give every lane the same options, not {self._options}")
            options = {key: np.array([lane[key] for lane in self._options]) for key in self._options[0]}
        observation, info = self.env.reset(seed=seeds, options=options)
        self.reset_infos = [
            {"video": int(v), "label": int(y)} for v, y in zip(info["video"], info["label"], strict=True)
        ]
        self._returns[:], self._lengths[:] = 0, 0
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Step all lanes, and return observations, rewards, dones and infos."""
        observation, reward, terminated, _, info = self.env.step(self._actions)
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if terminated.any():
            final = info["final_info"]
            keys = [key for key in final if not key.startswith("_")]
            for lane in np.flatnonzero(terminated):
                infos[lane] = {key: final[key][lane] for key in keys}
                infos[lane]["terminal_observation"] = info["final_obs"][lane]
                infos[lane]["TimeLimit.truncated"] = False
                infos[lane]["episode"] = {"r": float(self._returns[lane]), "l": int(self._lengths[lane]), "t": 0.0}
                self._returns[lane], self._lengths[lane] = 0, 0
        return observation, reward, terminated, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per lane; needs ``render_mode="rgb_array"``."""
        pictures = self.env.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute once per lane; all lanes share one environment."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the one environment that all lanes share."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the shared environment once, and return its result once per lane."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Lanes are never wrapped. Episodes' returns are in the infos, as after SB3's ``Monitor``."""
        from stable_baselines3.common.monitor import Monitor

        return [wrapper_class is Monitor] * len(list(self._get_indices(indices)))


def make_vec_env(
    num_envs: int, *, env_id: str | None = None, seed: int | None = None, **env_kwargs: Any
) -> AdaFocusVecEnv:
    """An SB3 ``VecEnv`` over the batched environment.

    Args:
        num_envs: Number of lanes.
        env_id: As in :func:`agents.evaluate`; ``None`` chooses by the recogniser that is passed.
        seed: Lane i is seeded ``seed + i``; ``None`` leaves that to SB3's model.
        env_kwargs: As in ``gym.make("AdaFocus-v0", …)``.

    Raises:
        ValueError: ``output`` or ``autoreset_mode`` is given; SB3 knows only one value of each.
    """
    if taken := {"output", "autoreset_mode"} & env_kwargs.keys():
        raise ValueError(f"{sorted(taken)} can't be chosen here: SB3 takes NumPy arrays and resets in the same step")
    kind = vector_env_class(env_id, env_kwargs)
    env = kind(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, output="numpy", **env_kwargs)
    vec_env = AdaFocusVecEnv(env)
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


class GlanceExtractor(BaseFeaturesExtractor):
    """Features of ``glance``, and of ``belief``, ``time`` and ``price`` where they are shown, for any SB3 policy.

    The glance goes through a 1×1 convolution and a linear layer, as in the paper's policy, and the others through a
    linear layer of their own. With ``score_map``, a convolution also scores every cell of the glance's map, so that
    what an item looks like is learnt once and not for every place anew. It is used as
    ``PPO("MultiInputPolicy", make_vec_env(64), policy_kwargs=GlanceExtractor.policy_kwargs())`` (``"MlpPolicy"`` with
    ``observation="glance"``).

    Args:
        observation_space: The environment's, for the observation ``"full"`` or ``"glance"``.
        features_dim: Length of the encoded glance.
        score_map: Whether the map's cells are scored too.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 256, *, score_map: bool = False
    ) -> None:
        beside = beside_glance(observation_space)
        glance = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
        if glance.shape is None or len(glance.shape) != 3:
            raise ValueError(f"GlanceExtractor needs a glance of shape (C, h, w), not {glance}")
        channels, height, width = glance.shape
        super().__init__(observation_space, features_dim + (64 if beside else 0) + (height * width if score_map else 0))
        self.score_cells: nn.Module | None = None
        if score_map:
            self.score_cells = nn.Sequential(
                nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.Flatten()
            )
        self.encode_glance = nn.Sequential(
            nn.Conv2d(channels, 32, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * height * width, features_dim),
            nn.ReLU(),
        )
        self._beside = tuple(beside)
        self.encode_belief: nn.Module | None = None
        if beside:
            self.encode_belief = nn.Sequential(nn.Linear(sum(beside.values()), 64), nn.ReLU())

    def forward(self, observations: Any) -> Tensor:
        """(B, features_dim) features of a batch of observations."""
        glance = observations["glance"] if isinstance(observations, dict) else observations
        features = [self.encode_glance(glance)]
        if self.encode_belief is not None:
            features.append(self.encode_belief(torch.cat(read_beside(observations, self._beside), dim=1)))
        if self.score_cells is not None:
            features.append(self.score_cells(glance))
        return torch.cat(features, dim=1)

    @classmethod
    def policy_kwargs(cls, features_dim: int = 256, *, score_map: bool = True) -> dict[str, Any]:
        """``policy_kwargs`` for an SB3 model: this extractor, and heads with a hidden layer of 128 on its features."""
        return {
            "features_extractor_class": cls,
            "features_extractor_kwargs": {"features_dim": features_dim, "score_map": score_map},
            "net_arch": {"pi": [128], "vf": [128]},
        }


SB3_ALGORITHMS = {
    "ppo": ("stable_baselines3", "PPO"),
    "a2c": ("stable_baselines3", "A2C"),
    "dqn": ("stable_baselines3", "DQN"),
    "recurrent_ppo": ("sb3_contrib", "RecurrentPPO"),
}
"""Package and class of every SB3 algorithm that scripts know by name."""


def algorithm_class(name: str) -> Any:
    """The class of an algorithm in :data:`SB3_ALGORITHMS`.

    Raises:
        ImportError: Its package isn't installed.
    """
    package, kind = SB3_ALGORITHMS[name]
    try:
        return getattr(importlib.import_module(package), kind)
    except ImportError as error:
        raise ImportError(f"{kind} needs {package}: pip install 'adafocus-env[compare]'") from error


def algorithm_of(model: Any) -> str | None:
    """Key of :data:`SB3_ALGORITHMS` for a model of that class or a subclass; ``None`` if it has none."""
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__}
    return next((name for name, kind in SB3_ALGORITHMS.items() if kind in bases), None)


def make_model(name: str, env: VecEnv, *, seed: int = 0, score_map: bool = True, **settings: Any) -> Any:
    """A model of an algorithm in :data:`SB3_ALGORITHMS`, with :class:`GlanceExtractor` and heads of 128.

    Args:
        name: A key of :data:`SB3_ALGORITHMS`.
        env: As :func:`make_vec_env` makes it.
        seed: Seed of weights and actions.
        score_map: Of :class:`GlanceExtractor`.
        settings: Further arguments of the algorithm's class.

    Raises:
        ImportError: Its package isn't installed.
        ValueError: DQN was given an environment whose actions are not discrete.
    """
    if name == "dqn" and not isinstance(env.action_space, spaces.Discrete):
        raise ValueError("DQN takes discrete actions alone: make the environment with skip=False")
    kind, policy_kwargs = algorithm_class(name), GlanceExtractor.policy_kwargs(score_map=score_map)
    if name == "dqn":
        policy_kwargs["net_arch"] = [128]
    if name == "recurrent_ppo":
        policy_kwargs["lstm_hidden_size"] = 128
    policy = "MultiInput" if isinstance(env.observation_space, spaces.Dict) else "Mlp"
    policy += "LstmPolicy" if name == "recurrent_ppo" else "Policy"
    return kind(policy, env, seed=seed, policy_kwargs=policy_kwargs, **settings)


PPO_EPISODES = 19_200
PPO_HYPERPARAMETERS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "gamma": 0.7,
    "gae_lambda": 0.95,
    "ent_coef": 0.01,
}
"""SB3 PPO's settings for 64 lanes of the embedded benchmark, chosen on its validation split."""
