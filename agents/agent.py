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
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger, configure
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from adafocus_env.checks import Bounds, as_device, check_integer
from adafocus_env.patches import can_stop
from adafocus_env.policies import decide
from adafocus_env.weights import load_weights
from agents.environments import check_bound
from agents.networks import ENCODED
from agents.policy_file import made_for, read_state, with_network_of, write_state
from agents.policy_spaces import check_frozen, number_of_patches, spaces_as_numbers, spaces_from_numbers, what_is_seen


class Agent:
    """A recurrent policy that learns; subclasses bring the network, ``learn``, and the class of hyper-parameters.

    :class:`agents.Reinforce` describes arguments and attributes.
    """

    hyperparameters_class: ClassVar[Any]
    """A dataclass with at least ``learning_rate``, ``averaging``, ``hidden_size``, ``use_belief`` and
    ``share_encoder``."""
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
        check_bound(self, env)
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
        self._num_patches = number_of_patches(action_space)
        if patch_policy is not None:
            check_frozen(patch_policy, observation_space, action_space)
        if self.config.share_encoder and not isinstance(patch_policy, Agent):
            raise ValueError(
                "share_encoder=True shares the encoder of a frozen policy of this package: pass it as patch_policy"
                + ("" if patch_policy is None else f"; {type(patch_policy).__name__} has none that can be shared")
            )
        glance, beside = what_is_seen(observation_space, self.config.use_belief)
        if not beside and (
            patch_policy is None or isinstance(getattr(patch_policy, "observation_space", None), spaces.Box)
        ):
            self.observation_space = glance  # all that either policy looks at, whatever else the environment shows
        with torch.random.fork_rng(devices=[]):  # seed the weights, leave the caller's generator alone
            torch.manual_seed(seed)
            self.policy = self._make_policy(glance.shape, beside).to(self.device)
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

    def _make_policy(self, glance_shape: tuple[int, ...], beside: Mapping[str, int]) -> Any:
        """The network: called with observations and a recurrent state (B, hidden_size) it gives the next state, and
        its ``distribution(observations, state, frozen patches or None)`` is one of :mod:`agents.distributions`.

        Args:
            glance_shape: (C, h, w).
            beside: Lengths of what is seen beside the glance, by name; empty for a policy that looks at it alone.
        """
        raise NotImplementedError

    @property
    def encoded_size(self) -> int:
        """Length of the recurrent state that the policy acts by: its own, or that of the encoder it shares."""
        return self.patch_policy.encoded_size if self.config.share_encoder else self.config.hidden_size

    def encoded(self, state: Any) -> Tensor:
        """(B, encoded_size), that recurrent state, out of what :meth:`predict` returned."""
        hidden, patch_state = state
        return self.patch_policy.encoded(patch_state) if self.config.share_encoder else torch.as_tensor(hidden)

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
        seen = observation["glance"] if isinstance(observation, Mapping) else observation
        batch = seen.shape[0]  # len would fix it in exported graphs
        hidden_array, patch_state = (None, None) if state is None else state
        hidden = torch.zeros(batch, self.config.hidden_size, device=self.device)
        if hidden_array is not None:
            hidden = torch.as_tensor(hidden_array, device=self.device)
        if episode_start is not None:
            starts = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.device)
            hidden = hidden * ~starts[:, None]
        policy: Any = self._average.module
        tensors, frozen, patch_state = self._observe(observation, patch_state, episode_start)
        hidden = policy(tensors, hidden)
        distribution = policy.distribution(tensors, hidden, frozen)
        drawn = distribution.mode() if deterministic else distribution.sample(self._predict_generator)
        action = distribution.action(drawn)
        if single:
            action = action[0]
        if isinstance(glance, Tensor):
            return action, (hidden, patch_state)
        return action.cpu().numpy(), (hidden.cpu().numpy(), patch_state)

    def _observe(
        self, observation: Any, patch_state: Any, episode_start: Any
    ) -> tuple[dict[str, Tensor], Tensor | None, Any]:
        """A batch of observations as the network reads them; the frozen policy's arg-max patches on them, (B,) int64,
        or (B, 2) with its skip bits if these are used too, ``None`` without such a policy; and its next state."""
        tensors = self._tensors(observation)
        if self.patch_policy is None:
            return tensors, None, None
        actions, patch_state = decide(self.patch_policy, observation, patch_state, episode_start)
        if self.config.share_encoder:
            tensors[ENCODED] = self.patch_policy.encoded(patch_state).to(self.device)
        chosen = torch.as_tensor(actions, device=self.device).long()
        return tensors, chosen if chosen.ndim == 1 or self._frozen_skips else chosen[:, 0], patch_state

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
        state: dict[str, Any] = {
            "algorithm": self.trained_by,
            "hyperparameters": self._hyperparameters,
            **spaces_as_numbers(self.observation_space, self.action_space),
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

        On the kind of device that it was trained on it learns on exactly; on another, with other random numbers. What
        another class wrote acts as it did, but doesn't learn on. If that is a subclass with a network of its own,
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
        observation_space, action_space = spaces_from_numbers(state)
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
            if len(state["generator"]) == len(agent._generator.get_state()):  # the same kind of device
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
            ValueError: Its spaces are not those that the agent was trained on, another algorithm trained it, or a
                frozen policy inside it reads another environment.
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
        check_bound(self, env)
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


def _as_vector_env(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(env, VectorEnv):
        if can_stop(env.single_action_space) and env.metadata.get("autoreset_mode") is AutoresetMode.DISABLED:
            raise ValueError("env must reset lanes itself where they can stop one by one: leave autoreset_mode out")
        return env
    if isinstance(env, gym.Env):
        return SyncVectorEnv([lambda: env])
    raise ValueError(f"env must be made by gym.make or gym.make_vec, not {env!r}")
