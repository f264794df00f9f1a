"""REINFORCE for AdaFocus, top to bottom: network, rollout, update, policy interface, checkpoints.

Trains the patch head (stage 2 of the paper, Sec. 3.3), the skip head over a frozen patch policy (AdaFocus+), or both
jointly, or a Gaussian position (AdaFocus-TSM), on whole episodes, with rewards-to-go, a learned value baseline and an
entropy bonus.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger, configure
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from adafocus_env.checks import Bounds, as_device, check_fields, check_integer, check_number
from adafocus_env.files import write_atomically
from adafocus_env.policies import decide
from adafocus_env.weights import load_weights, read_torch_file
from agents.environments import observed_shapes

FORMAT = "adafocus-reinforce-1"


@dataclass(frozen=True)
class Hyperparameters:
    """What ``Reinforce(env, **hyperparameters)`` takes.

    Attributes:
        learning_rate: Of Adam.
        gamma: γ, the discount of rewards-to-go (the paper's 0.7).
        episodes_per_batch: Episodes behind one update, collected in as many rollouts of the environment as needed.
        value_coefficient: Weight of the value baseline's squared error.
        entropy_coefficient: Weight of the entropy bonus.
        normalize_advantage: Scale the advantages of a batch to mean 0 and standard deviation 1.
        max_grad_norm: Gradients are clipped to this norm.
        averaging: Decay, per update, of the exponential average of the weights that ``predict`` acts with; it takes out
            the noise of the last few updates. 0 acts with the last weights.
        encoder_size: Length of the encoded glance.
        hidden_size: Length of the policy's own recurrent state.
        recurrent: Keep that state from frame to frame; ``False`` starts it anew on each (an ablation).
        use_belief: Let the policy see ``belief`` and ``time`` as well, if the environment shows them; otherwise the
            glance alone (the paper's state).
        position_std: Of continuous positions: standard deviation around their mean, on the scale [0, 1] (the paper's
            0.25).
        learn_position_std: Take it as where to start from, and learn it.
    """

    learning_rate: Annotated[float, Bounds(above=0)] = 1e-3
    gamma: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.7
    episodes_per_batch: Annotated[int, Bounds(at_least=1)] = 64
    value_coefficient: Annotated[float, Bounds(at_least=0)] = 0.5
    entropy_coefficient: Annotated[float, Bounds(at_least=0)] = 0.01
    normalize_advantage: bool = True
    max_grad_norm: Annotated[float, Bounds(above=0, finite=False)] = 1.0
    averaging: Annotated[float, Bounds(at_least=0, below=1)] = 0.98
    encoder_size: Annotated[int, Bounds(at_least=1)] = 256
    hidden_size: Annotated[int, Bounds(at_least=1)] = 128
    recurrent: bool = True
    use_belief: bool = False
    position_std: Annotated[float, Bounds(above=0)] = 0.25
    learn_position_std: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


# ---------------------------------------------------------------------------------------------------------- network


class RecurrentPolicy(nn.Module):
    """1×1 convolution, flatten, linear, GRU; a linear head each for patch, skip bit and value (paper, Sec. 3.1).

    Where actions are continuous positions, the patch head is a position head: the mean in [0, 1]² of a Gaussian.
    """

    def __init__(
        self,
        glance_shape: tuple[int, int, int],
        belief_size: int,
        num_patches: int | None,
        has_skip: bool,
        continuous: bool,
        config: Hyperparameters,
    ) -> None:
        super().__init__()
        channels, height, width = glance_shape
        self.encode_glance = nn.Sequential(
            nn.Conv2d(channels, 32, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * height * width, config.encoder_size),
            nn.ReLU(),
        )
        self.encode_belief = nn.Sequential(nn.Linear(belief_size + 1, 64), nn.ReLU()) if belief_size else None
        self.recurrent = config.recurrent
        self.gru = nn.GRUCell(config.encoder_size + (64 if belief_size else 0), config.hidden_size)
        self.patch_head = nn.Linear(config.hidden_size, num_patches) if num_patches else None
        self.skip_head = nn.Linear(config.hidden_size, 1) if has_skip else None
        self.position_head = nn.Linear(config.hidden_size, 2) if continuous else None
        if continuous:
            log_std = torch.tensor(config.position_std).log()
            self.position_log_std = nn.Parameter(log_std, requires_grad=config.learn_position_std)
        self.value_head = nn.Linear(config.hidden_size, 1)
        for head in (self.patch_head, self.skip_head, self.position_head, self.value_head):
            if head is not None:  # start undecided
                nn.init.orthogonal_(head.weight, gain=0.01)
                nn.init.zeros_(head.bias)

    def forward(self, observation: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """The next recurrent state, (B, hidden_size), after seeing a batch of observations."""
        features = self.encode_glance(observation["glance"])
        if self.encode_belief is not None:
            belief = torch.cat((observation["belief"], observation["time"]), dim=1)
            features = torch.cat((features, self.encode_belief(belief)), dim=1)
        return self.gru(features, hidden if self.recurrent else torch.zeros_like(hidden))

    def position(self, hidden: Tensor) -> Normal:
        """The Gaussian over continuous positions, (B, 2) on the scale [0, 1]."""
        assert self.position_head is not None
        return Normal(self.position_head(hidden).sigmoid(), self.position_log_std.exp())


# ---------------------------------------------------------------------------------------------------------- rollout


@dataclass(frozen=True)
class Rollout:
    """What a batch of whole episodes left behind, to learn from.

    Attributes:
        log_prob: (T, B) of the actions taken, by the trained heads.
        entropy: (T, B) of the trained heads.
        value: (T, B), what the critic said before each action.
        reward: (T, B).
        focused: (T, B) bool, whether the local CNN ran.
        patch_log_probs: (T, B, N) of all patches; (T, B, 0) where the patches are not trained.
        infos: (T, B, …) of every key in the agent's ``info_keys``.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    reward: Tensor
    focused: Tensor
    patch_log_probs: Tensor
    infos: dict[str, Tensor]

    @classmethod
    def stacked(cls, steps: Sequence[Rollout]) -> Rollout:
        """Steps, each without the time axis, as one."""
        return cls._combined(torch.stack, steps)

    @classmethod
    def joined(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """Several batches of episodes as one."""
        return cls._combined(functools.partial(torch.cat, dim=1), rollouts)

    @classmethod
    def _combined(cls, combine: Callable[[list[Tensor]], Tensor], parts: Sequence[Rollout]) -> Rollout:
        names = [field.name for field in fields(cls) if field.name != "infos"]
        infos = {key: combine([part.infos[key] for part in parts]) for key in parts[0].infos}
        return cls(**{name: combine([getattr(part, name) for part in parts]) for name in names}, infos=infos)


def rewards_to_go(rewards: Tensor, gamma: float) -> Tensor:
    """(T, B) rewards -> (T, B) returns: G_t = r_t + γ·G_{t+1}."""
    returns = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[0])
    for time in range(len(rewards) - 1, -1, -1):
        running = rewards[time] + gamma * running
        returns[time] = running
    return returns


def explained_variance(error: Tensor, returns: Tensor) -> float:
    """Share of the returns' variance that a critic with this error explains; ``nan`` where they don't vary."""
    variance = float(returns.var(correction=0))
    return 1 - float(error.var(correction=0)) / variance if variance > 0 else float("nan")


# ------------------------------------------------------------------------------------------------------------ agent


class Reinforce:
    """REINFORCE with a value baseline, in Stable-Baselines3's dialect.

    With a skip bit in the action space it trains both heads jointly, or, given ``patch_policy``, the skip head alone. A
    skipped frame shows no patch, so it gives no patch log-probability. Continuous positions are drawn from a Gaussian
    and clipped; ``predict`` takes its mean if deterministic. Every rollout reseeds the environment from the
    agent's seed and its own count, so training is deterministic on the CPU, and a loaded agent goes on exactly as the
    saved one would have.

    Args:
        env: ``gym.make_vec("AdaFocus-v0", …)`` or ``"AdaFocusTSM-v0"`` (fastest with ``output="torch"``), any other
            vector env over them, or a single env.
        seed: Seed of the weights, of the actions and of the environment.
        patch_policy: A policy over the same grid, frozen (arg-max): its patches are used, only the skip head is
            trained.
        tensorboard_log: Folder for a TensorBoard log; ``None`` writes none.
        device: torch device of the policy; ``None`` is the environment's.
        hyperparameters: Fields of :class:`Hyperparameters`.

    Attributes:
        observation_space: What the policy looks at, of one lane: the glance alone, or the whole observation.
        action_space: Of one lane.
        num_timesteps: Environment steps trained on so far.
        config: The :class:`Hyperparameters`.
        info_keys: What the algorithm reads of the environment's infos.
        takes_tensors: :meth:`predict` may be given tensors (:func:`adafocus_env.policies.decide`).
        history: What every update of this object's ``learn`` measured: ``episodes`` so far, and the metrics logged.

    Raises:
        ValueError: Unknown hyper-parameters, or an environment that is not AdaFocus's.
    """

    info_keys: ClassVar[tuple[str, ...]] = ()
    takes_tensors: ClassVar[bool] = True

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
        known = Hyperparameters.__dataclass_fields__
        unknown = sorted(set(hyperparameters) - set(known))
        if unknown:
            raise ValueError(f"unknown hyper-parameters {unknown}; Reinforce knows {sorted(known)}")
        self.config = Hyperparameters(**hyperparameters)
        self.observation_space, self.action_space = observation_space, action_space
        self.seed, self.patch_policy = int(seed), patch_policy
        self.device = torch.device(device)
        self._has_skip = isinstance(action_space, spaces.MultiDiscrete)
        self._continuous = isinstance(action_space, spaces.Box) and action_space.shape == (2,)
        self._num_patches: int | None = None
        if isinstance(action_space, spaces.MultiDiscrete):
            self._num_patches = int(action_space.nvec[0])
        elif isinstance(action_space, spaces.Discrete):
            self._num_patches = int(action_space.n)
        elif not self._continuous:
            raise ValueError(f"Reinforce needs patch indices or positions as actions, not {action_space}")
        if patch_policy is not None and not self._has_skip:
            raise ValueError(
                "patch_policy freezes the patches, so the environment must have skip=True to train anything"
            )
        frozen_space = getattr(patch_policy, "action_space", None)
        if isinstance(action_space, spaces.MultiDiscrete) and frozen_space is not None:
            patches = int(action_space.nvec[0])
            if frozen_space not in (spaces.Discrete(patches), spaces.MultiDiscrete([patches, 2])):
                raise ValueError(f"patch_policy acts in {frozen_space}, but the environment has {patches} patches")
        seen = observed_shapes(getattr(patch_policy, "observation_space", None))
        if not seen.items() <= (shown := observed_shapes(observation_space)).items():
            raise ValueError(f"patch_policy sees {seen}, but the environment shows {shown}")
        glance = observation_space["glance"] if isinstance(observation_space, spaces.Dict) else observation_space
        belief_size = 0
        if self.config.use_belief:
            if not isinstance(observation_space, spaces.Dict) or "belief" not in observation_space.spaces:
                raise ValueError("use_belief=True needs an environment that shows it: observation='full'")
            belief_size = int(np.prod(observation_space["belief"].shape or ()))
        if not isinstance(glance, spaces.Box) or len(glance.shape) != 3:
            raise ValueError(f"Reinforce needs a glance of shape (C, h, w), not {glance}")
        if not belief_size and not isinstance(getattr(patch_policy, "observation_space", None), spaces.Dict):
            self.observation_space = glance  # all that this policy looks at, whatever else the environment shows
        channels, height, width = glance.shape
        with torch.random.fork_rng(devices=[]):  # seed the weights, leave the caller's generator alone
            torch.manual_seed(seed)
            self.policy = RecurrentPolicy(
                (channels, height, width), belief_size, None if patch_policy is not None else self._num_patches,
                self._has_skip, self._continuous, self.config,
            ).to(self.device)  # fmt: skip
        self._average = AveragedModel(self.policy, avg_fn=self._move_average)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._predict_generator = torch.Generator(self.device).manual_seed(seed)  # leaves training as it would be
        self.num_timesteps = 0
        self.history: list[dict[str, float]] = []
        self._num_rollouts = 0
        self._num_episodes = 0
        self._env = None
        self._tensorboard_log = None
        self._logger: Logger | None = None

    def _move_average(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The next average of a weight: a plain mean at first, so that a short run acts with what it learnt."""
        decay = min(self.config.averaging, int(count) / (int(count) + 1))
        return torch.lerp(current, average, decay)

    # ------------------------------------------------------------------------------------------------------- learn

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False) -> Reinforce:
        """Train for at least ``total_timesteps`` further environment steps, in whole batches of episodes.

        Args:
            total_timesteps: Environment steps, summed over lanes.
            callback: An SB3 ``BaseCallback``, a list of them, or a function of (locals, globals) that returns False to
                stop; called after every step of the vector environment.
            progress_bar: Show one.

        Returns:
            The agent.

        Raises:
            ValueError: The agent was loaded without an environment.
        """
        check_number("total_timesteps", total_timesteps, Bounds(at_least=0))
        hook = self._init_callback(callback)
        hook.on_training_start(locals(), globals())
        end = self.num_timesteps + total_timesteps
        going = True
        with tqdm(total=total_timesteps, unit="step", disable=not progress_bar) as progress:
            while going and self.num_timesteps < end:
                before = self.num_timesteps
                going, metrics = self._update(hook)
                self.history.append({"episodes": self._num_episodes, **metrics})
                progress.update(self.num_timesteps - before)
                progress.set_postfix({key: f"{value:.3f}" for key, value in metrics.items()})
                for key, value in metrics.items():
                    self.logger.record(f"rollout/{key}" if key.startswith("ep_") else f"train/{key}", value)
                self.logger.dump(self.num_timesteps)
        hook.on_training_end()
        return self

    def _update(self, hook: BaseCallback) -> tuple[bool, dict[str, float]]:
        """Collect one batch of episodes and take one gradient step on it."""
        hook.on_rollout_start()
        rollout, going = self.collect(hook)
        hook.on_rollout_end()
        loss, metrics = self.loss(rollout)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self._average.update_parameters(self.policy)
        return going, {
            "ep_rew_mean": float(rollout.reward.sum(0).mean()),
            "ep_focused_mean": float(rollout.focused.float().sum(0).mean()),
            "entropy": float(rollout.entropy.detach().mean()),
            **{name: float(value) for name, value in metrics.items()},
            "grad_norm": float(norm),
        }

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """What a batch of episodes is to minimise, and the figures to log: the rule of the algorithm."""
        config = self.config
        returns = rewards_to_go(rollout.reward, config.gamma)
        advantage = returns - rollout.value.detach()
        explained = explained_variance(advantage, returns)
        if config.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        policy_loss = -(advantage * rollout.log_prob).mean()
        value_loss = nn.functional.mse_loss(rollout.value, returns)
        loss = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * rollout.entropy.mean()
        return loss, {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "explained_variance": explained,
        }

    def collect(self, callback: BaseCallback | None = None) -> tuple[Rollout, bool]:
        """Play the episodes of one update, sampling actions.

        Args:
            callback: Asked after every step whether to go on.

        Returns:
            The episodes, with gradients to the policy, and whether to go on.

        Raises:
            ValueError: The agent was loaded without an environment.
        """
        if self._env is None:
            raise ValueError("this agent has no environment to learn in: load it with Reinforce.load(path, env=env)")
        rollouts, going = [], True
        for _ in range(-(-self.config.episodes_per_batch // self._env.num_envs)):
            part, going = self._rollout(self._env, callback)
            rollouts.append(part)
            if not going:
                break
        return Rollout.joined(rollouts), going

    def _rollout(self, env: VectorEnv[Any, Any, Any], callback: BaseCallback | None) -> tuple[Rollout, bool]:
        """One whole episode per lane, and whether to go on."""
        lanes = env.num_envs
        # Rollouts are numbered and each has seeds of its own, so the agent's state needs no environment state.
        raw, _ = env.reset(seed=(self.seed * 1_000_003 + self._num_rollouts * lanes) % 2**31)
        self._num_rollouts += 1
        self._num_episodes += lanes
        hidden = torch.zeros(lanes, self.config.hidden_size, device=self.device)
        patch_state: Any = None
        episode_start = np.ones(lanes, dtype=bool)
        as_tensor = getattr(env.unwrapped, "output", "numpy") == "torch"
        steps: list[Rollout] = []
        done, going = False, True
        while not done:
            observation = self._tensors(raw)
            hidden = self.policy(observation, hidden)
            if self.patch_policy is not None:
                patch, patch_state = self._frozen_patches(raw, patch_state, episode_start)
            else:
                patch = None
            action, log_prob, entropy, patch_log_probs = self._act(self.policy, hidden, patch, self._generator)
            raw, reward, terminated, _, info = env.step(action if as_tensor else action.cpu().numpy())
            if missing := [key for key in self.info_keys if key not in info]:
                raise ValueError(
                    f"{type(self).__name__} reads {missing} in the infos, and this environment doesn't give it: make "
                    "the environment as the class asks for"
                )
            steps.append(
                Rollout(
                    log_prob=log_prob,
                    entropy=entropy,
                    value=self.policy.value_head(hidden)[:, 0],
                    reward=torch.as_tensor(reward, dtype=torch.float32, device=self.device),
                    focused=(
                        action[:, 1] == 0 if self._has_skip else torch.ones(lanes, dtype=torch.bool, device=self.device)
                    ),
                    patch_log_probs=patch_log_probs,
                    infos={key: torch.as_tensor(info[key], device=self.device) for key in self.info_keys},
                )
            )
            episode_start[:] = False
            self.num_timesteps += lanes
            done = bool(terminated[0])
            # A stop is kept in mind until the episodes end: unfinished ones have no return.
            going = (callback is None or callback.on_step()) and going
        return Rollout.stacked(steps), going

    def _act(
        self, policy: RecurrentPolicy, hidden: Tensor, patch: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample actions; their log-probabilities and entropies, of the trained heads alone, and the log-probabilities
        of all patches."""
        log_prob = entropy = torch.zeros(len(hidden), device=self.device)
        patch_log_probs = torch.empty(len(hidden), 0, device=self.device)
        if policy.position_head is not None:
            gaussian = policy.position(hidden)
            drawn = torch.normal(gaussian.mean.detach(), gaussian.stddev.detach(), generator=generator)
            log_prob, entropy = gaussian.log_prob(drawn).sum(dim=1), gaussian.entropy().sum(dim=1)
            return _as_action(drawn), log_prob, entropy, patch_log_probs
        skip = None
        if policy.skip_head is not None:
            bernoulli = Bernoulli(logits=policy.skip_head(hidden)[:, 0])
            skip = torch.bernoulli(bernoulli.probs.detach(), generator=generator)
            log_prob, entropy = bernoulli.log_prob(skip), bernoulli.entropy()
        if policy.patch_head is not None:
            categorical = Categorical(logits=policy.patch_head(hidden))
            patch = torch.multinomial(categorical.probs.detach(), 1, generator=generator)[:, 0]
            looked = 1.0 if skip is None else 1 - skip
            log_prob = log_prob + looked * categorical.log_prob(patch)
            entropy = entropy + looked * categorical.entropy()
            patch_log_probs = categorical.logits
        assert patch is not None
        action = patch if skip is None else torch.stack((patch, skip.long()), dim=1)
        return action, log_prob, entropy, patch_log_probs

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
            Actions, as the observations came (array or tensor, batched or not), and the recurrent state.
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
        batch = len(tensors["glance"])
        hidden_array, patch_state = (None, None) if state is None else state
        hidden = torch.zeros(batch, self.config.hidden_size, device=self.device)
        if hidden_array is not None:
            hidden = torch.as_tensor(hidden_array, device=self.device)
        if episode_start is not None:
            starts = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.device)
            hidden = hidden * ~starts[:, None]
        policy: RecurrentPolicy = self._average.module  # type: ignore[assignment]
        hidden = policy(tensors, hidden)
        patch = None
        if self.patch_policy is not None:
            patch, patch_state = self._frozen_patches(observation, patch_state, episode_start)
        if deterministic and policy.position_head is not None:
            action = _as_action(policy.position(hidden).mean)
        elif deterministic:
            if policy.patch_head is not None:
                patch = policy.patch_head(hidden).argmax(dim=1)
            assert patch is not None
            action = patch
            if policy.skip_head is not None:
                action = torch.stack((patch, (policy.skip_head(hidden)[:, 0] > 0).long()), dim=1)
        else:
            action, *_ = self._act(policy, hidden, patch, self._predict_generator)
        if single:
            action = action[0]
        given_tensor = isinstance(glance, Tensor)
        if given_tensor:
            return action, (hidden, patch_state)
        return action.cpu().numpy(), (hidden.cpu().numpy(), patch_state)

    def _frozen_patches(self, observation: Any, state: Any, episode_start: Any) -> tuple[Tensor, Any]:
        """The frozen patch policy's arg-max patches, (B,) int64."""
        if isinstance(getattr(self.patch_policy, "observation_space", None), spaces.Box) and isinstance(
            observation, Mapping
        ):
            observation = observation["glance"]
        actions, state = decide(self.patch_policy, observation, state, episode_start)
        patch = torch.as_tensor(actions, device=self.device)
        return (patch[:, 0] if patch.ndim == 2 else patch).long(), state

    def _tensors(self, observation: Any) -> dict[str, Tensor]:
        if not isinstance(observation, Mapping):
            observation = {"glance": observation}
        return {
            key: torch.as_tensor(value, dtype=torch.float32, device=self.device) for key, value in observation.items()
        }

    # ----------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """Write the agent, with its frozen patch policy if that is a :class:`Reinforce` too, atomically.

        The file is an archive with checksums of all that is in it, which :meth:`load` verifies.

        Args:
            path: File to write; by custom it ends in ``.pt``.
            training_state: Keep what exact resumption needs; without it the file is a third as large.
        """
        buffer = io.BytesIO()
        torch.save(self._state(training_state), buffer)
        write_atomically(path, buffer.getvalue())

    def _state(self, training_state: bool) -> dict[str, Any]:
        glance, belief = self.observation_space, 0
        if isinstance(self.observation_space, spaces.Dict):
            glance, belief = (
                self.observation_space["glance"],
                int(np.prod(self.observation_space["belief"].shape or ())),
            )
        assert isinstance(glance, spaces.Box)
        state: dict[str, Any] = {
            "format": FORMAT,
            "algorithm": type(self).__name__,
            "hyperparameters": asdict(self.config),
            "glance": [list(glance.shape), float(glance.low.min()), float(glance.high.max())],
            "belief": belief,
            "num_patches": self._num_patches,
            "skip": self._has_skip,
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "num_rollouts": self._num_rollouts,
            "num_episodes": self._num_episodes,
            "average": self._average.module.state_dict(),
            "frozen_patches": self.patch_policy is not None,
        }
        if isinstance(self.patch_policy, Reinforce):
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
    ) -> Reinforce:
        """Load an agent that :meth:`save` wrote.

        Args:
            path: The file.
            env: Needed to learn on, not to predict.
            patch_policy: The frozen patch policy, where the file doesn't hold it because it is not a
                :class:`Reinforce`.
            tensorboard_log: Folder for a TensorBoard log.
            device: torch device of the policy.

        Raises:
            FileNotFoundError: No such file.
            ValueError: The file is not such an agent's, its bytes have changed since it was written, weights are not
                finite, or it doesn't fit the environment.
        """
        path = Path(path)
        state = read_torch_file(path, "a policy file of Reinforce.save")
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError(f"{path} is not a policy file of format {FORMAT!r}; write one with Reinforce.save")
        try:
            agent = cls._from_state(state, patch_policy, device)
        except ValueError as error:
            raise ValueError(f"{path} can't be used as a policy: {error}") from error
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} can't be used as a policy of format {FORMAT!r}: {error!r}") from error
        if env is not None:
            if state.get("algorithm", cls.__name__) != cls.__name__:
                raise ValueError(f"{path} was trained by {state['algorithm']}: go on with {state['algorithm']}.load")
            agent.set_env(env)
        agent._tensorboard_log = tensorboard_log
        return agent

    @classmethod
    def _from_state(cls, state: dict[str, Any], patch_policy: Any, device: str | torch.device) -> Reinforce:
        if state["frozen_patches"] and patch_policy is None:
            if "patch_policy" not in state:
                raise ValueError("this skip policy's frozen patch policy is not in the file: pass it as patch_policy")
            patch_policy = cls._from_state(state["patch_policy"], None, device)
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
            else spaces.MultiDiscrete([patches, 2])
            if state["skip"]
            else spaces.Discrete(patches)
        )
        agent = cls.__new__(cls)
        agent._build(observation_space, action_space, state["seed"], patch_policy, state["hyperparameters"], device)
        load_weights(agent._average.module, state["average"])
        load_weights(agent.policy, state.get("policy", state["average"]))
        agent.num_timesteps, agent._num_episodes = state["num_timesteps"], state["num_episodes"]
        agent._num_rollouts = state["num_rollouts"]
        if "optimizer" in state:
            agent._average.n_averaged = state["num_averaged"].to(agent.device)
            agent.optimizer.load_state_dict(state["optimizer"])
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
            ValueError: Its spaces are not those that the agent was trained on.
        """
        if env is None:
            self._env = None
            return
        vector_env = _as_vector_env(env)
        seen: Any = vector_env.single_observation_space
        if isinstance(seen, spaces.Dict) and isinstance(self.observation_space, spaces.Box):
            seen = seen["glance"]
        if (seen, vector_env.single_action_space) != (self.observation_space, self.action_space):
            raise ValueError(
                f"the agent was trained on {self.observation_space} and {self.action_space}, but env has "
                f"{vector_env.single_observation_space} and {vector_env.single_action_space}"
            )
        self._env = vector_env

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


def _as_action(place: Tensor) -> Tensor:
    """Positions from top left, 0, to bottom right, 1, clipped to the frame, as actions from -1 to 1."""
    return 2 * place.clamp(0, 1) - 1


def _as_vector_env(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(env, VectorEnv):
        return env
    if isinstance(env, gym.Env):
        return SyncVectorEnv([lambda: env])
    raise ValueError(f"env must be made by gym.make or gym.make_vec, not {env!r}")
