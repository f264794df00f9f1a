"""REINFORCE for AdaFocus, top to bottom: hyper-parameters, rollout, update, loss.

Trains the patch head (stage 2 of the paper, Sec. 3.3), the skip head over a frozen patch policy (AdaFocus+), or both
jointly, or a Gaussian position (AdaFocus-TSM), on whole episodes, with rewards-to-go, a learned value baseline and an
entropy bonus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from adafocus_env.checks import Bounds, check_number
from adafocus_env.progress import tqdm
from agents.agent import Agent
from agents.networks import NetworkHyperparameters, PolicyNetwork, RecurrentPolicy, SharedEncoderPolicy
from agents.rollout import Rollout


@dataclass(frozen=True)
class Hyperparameters(NetworkHyperparameters):
    """What ``Reinforce(env, **hyperparameters)`` takes: what shapes its network, as
    :class:`~agents.networks.NetworkHyperparameters` says, and these.

    Attributes:
        learning_rate: Of Adam.
        gamma: γ, the discount of rewards-to-go (the paper's 0.7).
        episodes_per_batch: Episodes behind one update, at least: they come in whole rollouts of all lanes.
        value_coefficient: Weight of the value baseline's squared error.
        entropy_coefficient: Weight of the entropy bonus.
        normalize_advantage: Scale the advantages of a batch to mean 0 and standard deviation 1.
        max_grad_norm: Gradients are clipped to this norm.
        averaging: Decay, per update, of the exponential average of the weights that ``predict`` acts with; it takes out
            the noise of the last few updates. 0 acts with the last weights.
    """

    learning_rate: Annotated[float, Bounds(above=0)] = 1e-3
    gamma: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.7
    episodes_per_batch: Annotated[int, Bounds(at_least=1)] = 64
    value_coefficient: Annotated[float, Bounds(at_least=0)] = 0.5
    entropy_coefficient: Annotated[float, Bounds(at_least=0)] = 0.01
    normalize_advantage: bool = True
    max_grad_norm: Annotated[float, Bounds(above=0, finite=False)] = 1.0
    averaging: Annotated[float, Bounds(at_least=0, below=1)] = 0.98


# ---------------------------------------------------------------------------------------------------------- rollout


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


class Reinforce(Agent):
    """REINFORCE with a value baseline, in Stable-Baselines3's dialect.

    With a skip bit in the action space it trains both heads jointly, or, given ``patch_policy``, the skip head alone.
    If actions can also end the episode, it trains that head too; given a ``patch_policy`` that skips, that alone. A
    skipped frame shows no patch, so it gives no patch log-probability. Continuous positions are drawn from a Gaussian
    and clipped; ``predict`` takes its mean if deterministic. Every rollout reseeds the environment from the
    agent's seed and its own count, so training is deterministic on the CPU, and a loaded agent goes on exactly as the
    saved one would have.

    Args:
        env: ``gym.make_vec("AdaFocus-v0", …)`` or ``"AdaFocusTSM-v0"`` (fastest with ``output="torch"``), any other
            vector env over them, or a single env.
        seed: Seed of the weights, of the actions and of the environment.
        patch_policy: A policy over the same grid, frozen (arg-max): its patches are used, only the other heads are
            trained. Where the agent can stop, the skip bits of a policy that has them are used as well.
        tensorboard_log: Folder for a TensorBoard log; ``None`` writes none.
        device: torch device of the policy; ``None`` is a vector environment's own, and the CPU for a single one.
        hyperparameters: Fields of :class:`Hyperparameters`.

    Attributes:
        observation_space: What the policy looks at, of one lane: the glance alone, or the whole observation.
        action_space: Of one lane.
        num_timesteps: Environment steps trained on so far.
        config: The :class:`Hyperparameters`.
        trained_by: Name of the class that trained it.
        made_for: The recogniser and the settings of the environment that it learnt in; see
            :func:`agents.policy_file.made_for`.
        info_keys: What the algorithm reads of the environment's infos.
        takes_tensors: :meth:`predict` may be given tensors (:func:`adafocus_env.policies.decide`).
        history: What every update of this object's ``learn`` measured: ``episodes`` so far, and the metrics logged.

    Raises:
        ValueError: Unknown hyper-parameters, or an environment that is not AdaFocus's.
    """

    info_keys: ClassVar[tuple[str, ...]] = ()
    hyperparameters_class: ClassVar[type[Hyperparameters]] = Hyperparameters
    config: Hyperparameters
    policy: PolicyNetwork

    def _make_policy(self, glance_shape: tuple[int, ...], beside: Mapping[str, int]) -> PolicyNetwork:
        heads = {
            "num_patches": None if self.patch_policy is not None else self._num_patches,
            "has_skip": self._has_skip and not self._frozen_skips,
            "has_stop": self._has_stop,
            "continuous": self._num_patches is None,
        }
        if self.config.share_encoder:
            return SharedEncoderPolicy(self.patch_policy.encoded_size, glance_shape, beside, self.config, **heads)
        return RecurrentPolicy(glance_shape, beside, self.config, **heads)

    # ------------------------------------------------------------------------------------------------------- learn

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False) -> Self:
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
            "ep_len_mean": float(rollout.running.float().sum(0).mean()),
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
        if config.normalize_advantage:
            taken = advantage[rollout.running]
            advantage = (advantage - taken.mean()) / (taken.std(correction=0) + 1e-8)
        policy_loss = -(advantage * rollout.log_prob).mean()
        return self.with_critic(policy_loss, rollout, returns)

    def with_critic(
        self, policy_loss: Tensor, rollout: Rollout, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A policy's loss with the critic's squared error and the entropy bonus added; and the figures to log.

        Args:
            policy_loss: A number.
            rollout: The episodes.
            target: (T, B), what the critic is to predict.
        """
        config, value = self.config, rollout.value
        if value.ndim == 3:
            value = value.gather(2, rollout.choice[..., None])[..., 0]
        value_loss = nn.functional.mse_loss(value, target)
        loss = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * rollout.entropy.mean()
        return loss, {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "explained_variance": explained_variance(target - value.detach(), target),
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
            raise ValueError("this agent has no environment to learn in: call set_env(env) or load it with env=env")
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
        raw = self._start_episodes(env)
        hidden = torch.zeros(lanes, self.config.hidden_size, device=self.device)
        patch_state: Any = None
        episode_start = np.ones(lanes, dtype=bool)
        as_tensor = getattr(env.unwrapped, "output", "numpy") == "torch"
        steps: list[Rollout] = []
        going, running = True, torch.ones(lanes, dtype=torch.bool, device=self.device)
        while running.any():
            observation, frozen, patch_state = self._observe(raw, patch_state, episode_start)
            hidden = self.policy(observation, hidden)
            distribution = self.policy.distribution(observation, hidden, frozen)
            drawn = distribution.sample(self._generator)
            action = distribution.action(drawn)
            raw, reward, terminated, _, info = env.step(action if as_tensor else action.cpu().numpy())
            if missing := [key for key in self.info_keys if key not in info]:
                raise ValueError(
                    f"{type(self).__name__} reads {missing} in the infos, and this environment doesn't give it: the "
                    "class says which environment it needs"
                )
            step = Rollout(
                log_prob=distribution.log_prob(drawn),
                entropy=distribution.entropy(drawn),
                value=self.policy.value(hidden),
                action=action,
                reward=torch.as_tensor(reward, dtype=torch.float32, device=self.device),
                focused=action[:, 1] == 0 if self._has_skip else torch.ones_like(running),
                running=running,
                patch_log_probs=distribution.patch_log_probs,
                choice_log_probs=distribution.choice_log_probs,
                choice=distribution.choice(drawn),
                infos={key: torch.as_tensor(info[key], device=self.device) for key in self.info_keys},
            )
            # Lanes end together unless the agent can stop; then what others play meanwhile belongs to no episode.
            steps.append(step if running.all() else step.restricted(running))
            episode_start[:] = False
            self.num_timesteps += lanes
            running = running & ~torch.as_tensor(terminated, device=self.device)
            # A stop is kept in mind until the episodes end: unfinished ones have no return.
            going = (callback is None or callback.on_step()) and going
        return Rollout.stacked(steps), going
