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
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from adafocus_env import AdaFocusVectorEnv
from adafocus_env.patches import grid_of
from agents.candidate_scores import CandidateScores
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
    linear layer of their own. It is used as
    ``DQN("MultiInputPolicy", make_vec_env(64, skip=False), policy_kwargs=GlanceExtractor.policy_kwargs())``
    (``"MlpPolicy"`` with ``observation="glance"``); PPO and A2C do better with :class:`GlancePolicy`.

    Args:
        observation_space: The environment's, for the observation ``"full"`` or ``"glance"``.
        features_dim: Length of the encoded glance.
        grid: g; the scores of the g×g candidates (:class:`~agents.candidate_scores.CandidateScores`) then follow the
            features.

    Attributes:
        num_encoded: Length of the features without the scores.

    Raises:
        ValueError: The observations have no glance.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 256, *, grid: int | None = None
    ) -> None:
        beside = beside_glance(observation_space)
        glance = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
        if glance.shape is None or len(glance.shape) != 3:
            raise ValueError(f"GlanceExtractor needs a glance of shape (C, h, w), not {glance}")
        channels, height, width = glance.shape
        encoded = features_dim + (64 if beside else 0)
        super().__init__(observation_space, encoded + (grid or 0) ** 2)
        self.num_encoded = encoded
        self.candidate_scores = None if grid is None else CandidateScores(channels, encoded, grid)
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
        """(B, num_encoded) features of a batch of observations, or with scores (B, num_encoded + N)."""
        glance = observations["glance"] if isinstance(observations, dict) else observations
        features = [self.encode_glance(glance)]
        if self.encode_belief is not None:
            features.append(self.encode_belief(torch.cat(read_beside(observations, self._beside), dim=1)))
        encoded = torch.cat(features, dim=1)
        if self.candidate_scores is None:
            return encoded
        return torch.cat((encoded, self.candidate_scores(glance, encoded)), dim=1)

    @classmethod
    def policy_kwargs(cls, features_dim: int = 256) -> dict[str, Any]:
        """``policy_kwargs`` for an SB3 model: this extractor, and heads with a hidden layer of 128 on its features."""
        return {
            "features_extractor_class": cls,
            "features_extractor_kwargs": {"features_dim": features_dim},
            "net_arch": {"pi": [128], "vf": [128]},
        }


class GlancePolicy(ActorCriticPolicy):
    """The policy class for PPO and A2C: ``PPO(GlancePolicy, make_vec_env(64), **PPO_HYPERPARAMETERS)``.

    Its features are those of :class:`GlanceExtractor`. A convolution also scores every candidate by the glance's map at
    its place, so that what an item looks like is learnt once and not for every place anew. These scores are added to
    the logits of the patches; as mere features, mixed by a hidden layer, they help little.

    Args:
        observation_space: The environment's, for the observation ``"full"`` or ``"glance"``.
        action_space: The environment's. Positions have no scores.
        lr_schedule: As in SB3.
        kwargs: As in SB3, for instance ``net_arch`` or ``features_extractor_kwargs``, which may hold ``features_dim``.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], lr_schedule: Any, **kwargs: Any
    ) -> None:
        usual = GlanceExtractor.policy_kwargs()
        usual["features_extractor_kwargs"]["grid"] = grid_of(action_space)
        given = kwargs.pop("features_extractor_kwargs", None) or {}
        kwargs = {**usual, **kwargs, "features_extractor_kwargs": {**usual["features_extractor_kwargs"], **given}}
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build_mlp_extractor(self) -> None:
        """Called by SB3 before it makes the heads."""
        extractor: Any = self.features_extractor
        self.mlp_extractor: Any = _HeadsBesideScores(
            extractor.num_encoded, self.features_dim, self.net_arch, self.activation_fn, self.device
        )

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        extractor: Any = self.features_extractor
        weight: Any = self.action_net.weight
        if count := self.features_dim - extractor.num_encoded:
            with torch.no_grad():  # at first a patch's score counts for its own logit alone
                weight[:, -count:] = torch.eye(len(weight), count)


class _HeadsBesideScores(nn.Module):
    """SB3's ``MlpExtractor`` on the features, around which the scores go straight to the action's head."""

    def __init__(self, num_encoded: int, features_dim: int, net_arch: Any, activation: Any, device: Any) -> None:
        super().__init__()
        self._num_encoded = num_encoded
        self.layers = MlpExtractor(num_encoded, net_arch=net_arch, activation_fn=activation, device=device)
        self.latent_dim_pi = self.layers.latent_dim_pi + features_dim - num_encoded
        self.latent_dim_vf = self.layers.latent_dim_vf

    def forward_actor(self, features: Tensor) -> Tensor:
        encoded, scores = features[:, : self._num_encoded], features[:, self._num_encoded :]
        return torch.cat((self.layers.forward_actor(encoded), scores), dim=1)

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.layers.forward_critic(features[:, : self._num_encoded])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)


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


def make_model(name: str, env: VecEnv, *, seed: int = 0, score_map: bool | None = None, **settings: Any) -> Any:
    """A model of an algorithm in :data:`SB3_ALGORITHMS`, with :class:`GlanceExtractor` and heads of 128; of PPO and A2C
    with :class:`GlancePolicy`.

    Args:
        name: A key of :data:`SB3_ALGORITHMS`.
        env: As :func:`make_vec_env` makes it.
        seed: Seed of weights and actions.
        score_map: Whether PPO and A2C are to be of :class:`GlancePolicy`, as they are by default.
        settings: Further arguments of the algorithm's class.

    Raises:
        ImportError: Its package isn't installed.
        ValueError: DQN was given an environment whose actions are not discrete; or ``score_map`` is of an algorithm
            that can't score it.
    """
    if name == "dqn" and not isinstance(env.action_space, spaces.Discrete):
        raise ValueError("DQN takes discrete actions alone: make the environment with skip=False")
    can_score = name in ("ppo", "a2c")
    if score_map and not can_score:
        raise ValueError(f"score_map: {name} can't score the glance's map, only ppo and a2c can")
    kind, policy_kwargs = algorithm_class(name), GlanceExtractor.policy_kwargs()
    if can_score and score_map is not False:
        return kind(GlancePolicy, env, seed=seed, **settings)
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
