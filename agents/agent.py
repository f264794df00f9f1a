"""Base class of this package's agents: construction, ``predict``, ``save``, ``load``, and what SB3 asks of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger, configure
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from adafocus_env.checks import Bounds, as_device, check_integer
from adafocus_env.patches import can_stop
from adafocus_env.policies import decide
from adafocus_env.weights import load_weights
from agents.environments import observed_shapes
from agents.policy_file import made_for, read_state, with_network_of, write_state


class Agent:
    """A recurrent policy that learns; subclasses bring the network, ``learn``, and the class of hyper-parameters.

    :class:`agents.Reinforce` describes arguments and attributes.
    """

    hyperparameters_class: ClassVar[Any]
    """A dataclass with at least ``learning_rate``, ``averaging``, ``hidden_size`` and ``use_belief``."""
    takes_tensors: ClassVar[bool] = True
    policy: Any
    made_for: dict[str, Any]

    def __init__(
        self,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        *,
        seed: int = 0,
        patch_policy: Any = None,
        tensorboard_log: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        **hyperparameters: Any,
    ) -> None:
        vector_env = _as_vector_env(env)
        seed = check_integer("seed", seed, Bounds(at_least=0, below=2**63))
        self._build(
            vector_env.single_observation_space, vector_env.single_action_space, seed, patch_policy, hyperparameters,
            as_device(device if device is not None else getattr(vector_env.unwrapped, "device", "cpu")),
        )  # fmt: skip
        self._env: VectorEnv[Any, Any, Any] | None = vector_env
        self.made_for = made_for(vector_env)
        self._tensorboard_log = tensorboard_log

    def _build(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        seed: int,
        patch_policy: Any,
        hyperparameters: Mapping[str, Any],
        device: str | torch.device,
    ) -> None:
        known = sorted(field.name for field in fields(self.hyperparameters_class))
        unknown = sorted(set(hyperparameters) - set(known))
        if unknown:
            raise ValueError(f"unknown hyper-parameters {unknown}; {type(self).__name__} knows {known}")
        self.config = self.hyperparameters_class(**hyperparameters)
        self.observation_space, self.action_space = observation_space, action_space
        self.seed, self.patch_policy = int(seed), patch_policy
        self.device = torch.device(device)
        self._has_skip = isinstance(action_space, spaces.MultiDiscrete)
        self._has_stop = can_stop(action_space)
        frozen_space = getattr(patch_policy, "action_space", None)
        self._frozen_skips = self._has_stop and isinstance(frozen_space, spaces.MultiDiscrete)
        self._num_patches = _number_of_patches(action_space)
        if patch_policy is not None:
            _check_frozen(patch_policy, observation_space, action_space)
        glance, belief_size = _what_is_seen(observation_space, self.config.use_belief)
        if not belief_size and not isinstance(getattr(patch_policy, "observation_space", None), spaces.Dict):
            self.observation_space = glance  # all that this policy looks at, whatever else the environment shows
        with torch.random.fork_rng(devices=[]):  # seed the weights, leave the caller's generator alone
            torch.manual_seed(seed)
            self.policy = self._make_policy(glance.shape, belief_size).to(self.device)
        self._average = AveragedModel(self.policy, avg_fn=self._move_average)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._predict_generator = torch.Generator(self.device).manual_seed(
            seed
        )  # so that predict doesn't alter training
        self.num_timesteps = 0
        self.history: list[dict[str, float]] = []
        self._num_rollouts = 0
        self._num_episodes = 0
        self.trained_by, self._hyperparameters = type(self).__name__, asdict(self.config)
        self.made_for = {}
        self._env = None
        self._tensorboard_log = None
        self._logger: Logger | None = None

    def _make_policy(self, glance_shape: tuple[int, ...], belief_size: int) -> Any:
        """The network: called with observations and a recurrent state (B, hidden_size) it gives the next state, and
        its ``distribution(observations, state, frozen patches or None)`` is one of :mod:`agents.distributions`.

        Args:
            glance_shape: (C, h, w).
            belief_size: D, or 0 for a policy that looks at the glance alone.
        """
        raise NotImplementedError

    def _move_average(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The next average of a weight: a plain mean at first, so that a short run acts with what it learnt."""
        decay = min(self.config.averaging, int(count) / (int(count) + 1))
        return torch.lerp(current, average, decay)

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that :meth:`predict` runs; a frozen policy that has none to show raises ``AttributeError``."""
        return [self._average.module, *(() if self.patch_policy is None else self.patch_policy.networks)]

    def adopt_weights(self) -> None:
        """Act with the weights that ``policy`` has now, trained elsewhere, instead of their moving average."""
        self._average.module.load_state_dict(self.policy.state_dict())

    def _start_episodes(self, env: VectorEnv[Any, Any, Any]) -> Any:
        """Start one episode in every lane, and return the first observations.

        Rollouts are numbered and each has seeds of its own, so the agent's state needs no environment state.
        """
        observation, _ = env.reset(seed=(self.seed * 1_000_003 + self._num_rollouts * env.num_envs) % 2**31)
        self._num_rollouts += 1
        self._num_episodes += env.num_envs
        return observation

    # ----------------------------------------------------------------------------------------------------- predict

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Choose actions.

        Args:
            observation: A batch of observations, or one, as arrays or tensors.
            state: What the last call returned; ``None`` at the start.
            episode_start: (B,) bool, lanes whose recurrent state starts anew.
            deterministic: Arg-max, or the mean of positions (the paper's test time), instead of sampling.

        Returns:
            Actions in the form of the observations (array or tensor, batched or not), and the recurrent state.
        """
        glance = observation["glance"] if isinstance(observation, Mapping) else observation
        single = glance.ndim == 3
        if single:
            observation = (
                {key: value[None] for key, value in observation.items()}
                if isinstance(observation, Mapping)
                else observation[None]
            )
        tensors = self._tensors(observation)
        batch = tensors["glance"].shape[0]  # len would fix it in exported graphs
        hidden_array, patch_state = (None, None) if state is None else state
        hidden = torch.zeros(batch, self.config.hidden_size, device=self.device)
        if hidden_array is not None:
            hidden = torch.as_tensor(hidden_array, device=self.device)
        if episode_start is not None:
            starts = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.device)
            hidden = hidden * ~starts[:, None]
        policy: Any = self._average.module
        hidden = policy(tensors, hidden)
        frozen = None
        if self.patch_policy is not None:
            frozen, patch_state = self._frozen_choices(observation, patch_state, episode_start)
        distribution = policy.distribution(tensors, hidden, frozen)
        drawn = distribution.mode() if deterministic else distribution.sample(self._predict_generator)
        action = distribution.action(drawn)
        if single:
            action = action[0]
        if isinstance(glance, Tensor):
            return action, (hidden, patch_state)
        return action.cpu().numpy(), (hidden.cpu().numpy(), patch_state)

    def _frozen_choices(self, observation: Any, state: Any, episode_start: Any) -> tuple[Tensor, Any]:
        """The frozen policy's arg-max patches, (B,) int64, or (B, 2) with its skip bits if these are used too."""
        if isinstance(getattr(self.patch_policy, "observation_space", None), spaces.Box) and isinstance(
            observation, Mapping
        ):
            observation = observation["glance"]
        actions, state = decide(self.patch_policy, observation, state, episode_start)
        chosen = torch.as_tensor(actions, device=self.device).long()
        return chosen if chosen.ndim == 1 or self._frozen_skips else chosen[:, 0], state

    def _tensors(self, observation: Any) -> dict[str, Tensor]:
        if not isinstance(observation, Mapping):
            observation = {"glance": observation}
        return {
            key: torch.as_tensor(value, dtype=torch.float32, device=self.device) for key, value in observation.items()
        }

    # ----------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """Write the agent, with its frozen patch policy if that is one of ours too, as a safetensors file, atomically.

        Its metadata describes the policy and what it was made for, and holds a checksum, which :meth:`load` verifies.

        Args:
            path: File to write; by custom it ends in ``.safetensors``.
            training_state: Keep what exact resumption needs; without it the file is a fifth as large.
        """
        write_state(path, self._state(training_state))

    def _state(self, training_state: bool) -> dict[str, Any]:
        glance, belief = self.observation_space, 0
        if isinstance(self.observation_space, spaces.Dict):
            glance, belief = (
                self.observation_space["glance"],
                int(np.prod(self.observation_space["belief"].shape or ())),
            )
        assert isinstance(glance, spaces.Box)
        state: dict[str, Any] = {
            "algorithm": self.trained_by,
            "hyperparameters": self._hyperparameters,
            "glance": [list(glance.shape), float(glance.low.min()), float(glance.high.max())],
            "belief": belief,
            "num_patches": self._num_patches,
            "skip": self._has_skip,
            "stop": self._has_stop,
            "made_for": self.made_for,
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "num_rollouts": self._num_rollouts,
            "num_episodes": self._num_episodes,
            "average": self._average.module.state_dict(),
            "frozen_patches": self.patch_policy is not None,
        }
        if isinstance(self.patch_policy, Agent):
            state["patch_policy"] = self.patch_policy._state(training_state=False)
        if training_state:
            state["policy"] = self.policy.state_dict()
            state["num_averaged"] = self._average.n_averaged
            state["optimizer"] = self.optimizer.state_dict()
            state["generator"] = self._generator.get_state()
        return state

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | None = None,
        *,
        patch_policy: Any = None,
        tensorboard_log: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load an agent that :meth:`save` wrote, or that of an earlier version, whose files were torch's (``.pt``).

        What another class wrote acts as it did, but doesn't learn on. If that is a subclass with a network of its own,
        which must have been imported, the agent is of that subclass.

        Args:
            path: The file.
            env: Needed to learn on, not to predict.
            patch_policy: The frozen patch policy, where the file doesn't hold it because it is not one
                of ours.
            tensorboard_log: Folder for a TensorBoard log.
            device: torch device of the policy.

        Raises:
            FileNotFoundError: No such file.
            ValueError: The file was not written by an agent's ``save``, its bytes have changed since it was written,
                weights are not finite, or it doesn't fit the environment.
        """
        path = Path(path)
        state = read_state(path)
        try:
            agent = cls._from_state(state, patch_policy, device)
        except ValueError as error:
            raise ValueError(f"{path} can't be used as a policy: {error}") from error
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} can't be used as a policy: {error!r}") from error
        if env is not None:
            agent.set_env(env)
        agent._tensorboard_log = tensorboard_log
        return agent

    @classmethod
    def _from_state(cls, state: dict[str, Any], patch_policy: Any, device: str | torch.device) -> Self:
        if state["frozen_patches"] and patch_policy is None:
            if "patch_policy" not in state:
                raise ValueError("this skip policy's frozen patch policy is not in the file: pass it as patch_policy")
            frozen = state["patch_policy"]
            patch_policy = with_network_of(frozen.get("algorithm"), cls, Agent)._from_state(frozen, None, device)
        shape, low, high = state["glance"]
        glance = spaces.Box(low, high, tuple(shape), np.float32)
        observation_space: spaces.Space[Any] = glance
        if state["belief"]:
            observation_space = spaces.Dict(
                glance=glance,
                belief=spaces.Box(-1, 1, (state["belief"],), np.float32),
                time=spaces.Box(0, 1, (1,), np.float32),
            )
        patches = state["num_patches"]
        action_space: spaces.Space[Any] = (
            spaces.Box(-1, 1, (2,), np.float32)
            if patches is None
            else spaces.MultiDiscrete([patches, 2 + state.get("stop", False)])
            if state["skip"]
            else spaces.Discrete(patches)
        )
        trained_by = state.get("algorithm", cls.__name__)
        kind: Any = with_network_of(trained_by, cls, cls)
        agent = kind.__new__(kind)
        settings = dict(state["hyperparameters"])
        if trained_by != kind.__name__:  # another class can act with it, by the settings that both know
            known = {field.name for field in fields(kind.hyperparameters_class)}
            settings = {name: value for name, value in settings.items() if name in known}
        agent._build(observation_space, action_space, state["seed"], patch_policy, settings, device)
        load_weights(agent._average.module, state["average"])
        load_weights(agent.policy, state.get("policy", state["average"]))
        agent.trained_by, agent._hyperparameters = trained_by, {**agent._hyperparameters, **state["hyperparameters"]}
        agent.num_timesteps, agent._num_episodes = state["num_timesteps"], state["num_episodes"]
        agent._num_rollouts, agent.made_for = state["num_rollouts"], state.get("made_for", {})
        if "optimizer" in state:
            agent._average.n_averaged = state["num_averaged"].to(agent.device)
            moments = {int(number): moment for number, moment in state["optimizer"].get("state", {}).items()}
            agent.optimizer.load_state_dict({**state["optimizer"], "state": moments})
            agent._generator.set_state(state["generator"])
        return agent

    # ------------------------------------------------------------------------ what SB3's callbacks ask of a model

    @property
    def logger(self) -> Logger:
        """SB3 logger, to TensorBoard if ``tensorboard_log`` was given."""
        if self._logger is None:
            folder = self._tensorboard_log
            self._logger = Logger(None, []) if folder is None else configure(str(folder), ["tensorboard"])
        return self._logger

    def set_env(self, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | None) -> None:
        """Learn in another environment from now on; ``None`` lets go of the present one, and of its table.

        Raises:
            ValueError: Its spaces are not those that the agent was trained on, or another algorithm trained it.
        """
        if env is None:
            self._env = None
            return
        if self.trained_by != type(self).__name__:
            raise ValueError(f"this agent was trained by {self.trained_by}: go on with {self.trained_by}.load")
        vector_env = _as_vector_env(env)
        seen: Any = vector_env.single_observation_space
        if isinstance(seen, spaces.Dict) and isinstance(self.observation_space, spaces.Box):
            seen = seen["glance"]
        if (seen, vector_env.single_action_space) != (self.observation_space, self.action_space):
            raise ValueError(
                f"the agent was trained on {self.observation_space} and {self.action_space}, but env has "
                f"{vector_env.single_observation_space} and {vector_env.single_action_space}"
            )
        self._env, self.made_for = vector_env, made_for(vector_env)

    def get_env(self) -> Any:
        """The vector environment that the agent learns in, or ``None``."""
        return self._env

    def get_vec_normalize_env(self) -> None:
        """Observations are not normalised."""
        return

    def _init_callback(self, callback: Any) -> BaseCallback:
        if isinstance(callback, list):
            callback = CallbackList(callback)
        elif not isinstance(callback, BaseCallback):
            callback = ConvertCallback(callback) if callback is not None else CallbackList([])
        callback.init_callback(self)
        return callback


def _names(dataclass: Any) -> list[str]:
    return sorted(field.name for field in fields(dataclass))


def _number_of_patches(action_space: spaces.Space[Any]) -> int | None:
    """N; ``None`` where actions are continuous positions."""
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec[0])
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.Box) and action_space.shape == (2,):
        return None
    raise ValueError(f"our agents need patch indices or positions as actions, not {action_space}")


def _check_frozen(patch_policy: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Raise ``ValueError`` unless a frozen policy fits these spaces and a skip head remains to be trained."""
    if not isinstance(action_space, spaces.MultiDiscrete):
        raise ValueError("patch_policy freezes the patches, so the environment must have skip=True to train anything")
    frozen_space, patches = getattr(patch_policy, "action_space", None), int(action_space.nvec[0])
    if frozen_space not in (None, spaces.Discrete(patches), spaces.MultiDiscrete([patches, 2])):
        raise ValueError(f"patch_policy acts in {frozen_space}, but the environment has {patches} patches")
    seen = observed_shapes(getattr(patch_policy, "observation_space", None))
    if not seen.items() <= (shown := observed_shapes(observation_space)).items():
        raise ValueError(f"patch_policy sees {seen}, but the environment shows {shown}")


def _what_is_seen(observation_space: spaces.Space[Any], use_belief: bool) -> tuple[spaces.Box, int]:
    """The glance's space, and the length of the belief (0 where it is not used).

    Raises:
        ValueError: The environment shows no glance, or not the belief that is to be used.
    """
    glance: Any = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
    belief_size = 0
    if use_belief:
        if not isinstance(observation_space, spaces.Dict) or "belief" not in observation_space.spaces:
            raise ValueError("use_belief=True needs an environment that shows it: observation='full'")
        belief_size = int(np.prod(observation_space["belief"].shape or ()))
    if not isinstance(glance, spaces.Box) or len(glance.shape) != 3:
        raise ValueError(f"our agents need a glance of shape (C, h, w), not {glance}")
    return glance, belief_size


def _as_vector_env(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(env, VectorEnv):
        return env
    if isinstance(env, gym.Env):
        return SyncVectorEnv([lambda: env])
    raise ValueError(f"env must be made by gym.make or gym.make_vec, not {env!r}")
