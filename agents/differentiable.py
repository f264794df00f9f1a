"""Where to look, learnt without reinforcement: gradients flow through the patch to its place (AdaFocusV2, CVPR 2022).

The recogniser's loss L is a function of the patch p, and once bilinear interpolation has made the crop continuous
(:func:`adafocus_env.patches.interpolated_crop`), the patch is a differentiable function of its corner (x, y):

    ∂L/∂x  =  Σ_pixels ∂L/∂p · ∂p/∂x,    p  =  Σ_k w_k(x, y)·p_k

with p_k the four patches at the pixels around the corner, and w_k their weights. The policy gives the position itself
and no distribution over positions, so the chain rule goes on to its weights. The loss is the cross-entropy of every
prediction with the video's label. A position has its share in all later predictions too, by way of the classifier's
state. Half of the patches are uniformly random instead, so the policy learns from states that others than itself lead
to (Sec. 3.2 and 3.3 of AdaFocusV2).

Here the recogniser is frozen; :mod:`agents.end_to_end` trains it along with the policy.

Such a gradient is the slope of the loss within a pixel, and the loss of a network that was trained on whole pixels is
rough there. ``interpolate="vectors"`` makes f_L's output continuous instead of its input: the vector at a position is
interpolated between those of the four candidates around it,

    ∂L/∂x  =  ∂L/∂e · ∂e/∂x,    e  =  Σ_k w_k(x, y)·e_k

so the slope is taken across the distance of two candidates. This is the environment's own addition: its
:class:`adafocus_env.FeatureBank` holds these vectors, so f_L runs neither forward nor backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from adafocus_env import AdaFocusTSMVectorEnv, AdaFocusVectorEnv
from adafocus_env.checks import Bounds, check_choice
from adafocus_env.patches import crop, grid_neighbours, interpolated_crop, real_corners
from agents.networks import RecurrentPolicy
from agents.reinforce import Hyperparameters, Reinforce
from agents.rollout import Rollout


@dataclass(frozen=True)
class DifferentiableHyperparameters(Hyperparameters):
    """Those of :class:`~agents.reinforce.Hyperparameters` that don't concern rewards, critics or the spread of
    positions, which play no part; and these.

    Attributes:
        interpolate: What is interpolated, the patch's ``"pixels"`` (AdaFocusV2) or the ``"vectors"`` of the candidates.
        random_share: Share of the patches that are uniformly random.
        gamma: How much of a position's gradient goes through the classifier's state from one frame to the next: γ = 1,
            AdaFocusV2's, is the gradient of the whole loss; with 0 a position learns from its own frame alone.
    """

    interpolate: Literal["pixels", "vectors"] = "pixels"
    random_share: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.5
    gamma: Annotated[float, Bounds(at_least=0, at_most=1)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("interpolate", self.interpolate, ("pixels", "vectors"))


def next_position(policy: RecurrentPolicy, observation: dict[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    """A policy's positions with gradients to its weights, (B, 2) in [0, 1], and its next recurrent state."""
    state = policy(observation, state)
    return policy.distribution(observation, state, None).mode(), state


def patches_at(frames: Tensor, positions: Tensor, patch_size: int) -> Tensor:
    """Patches at positions, with gradients to these.

    Args:
        frames: (B, 3, H, W) uint8.
        positions: (B, 2), from top left, 0, to bottom right, 1.
        patch_size: P, pixels.

    Returns:
        (B, 3, P, P) float32, from 0 to 255.
    """
    size = frames.shape[-2], frames.shape[-1]
    return interpolated_crop(frames, real_corners(2 * positions - 1, size, patch_size), patch_size)


class Differentiable(Reinforce):
    """The policy alone, over the environment's frozen recogniser, by back-propagation of its cross-entropy.

    Arguments and everything else as :class:`agents.Reinforce`, with ``interpolate`` and ``random_share`` besides, and
    another ``gamma``: see :class:`DifferentiableHyperparameters`. The environment is a vector environment of frames
    with continuous positions. Its videos and the recogniser's outputs are used, not its steps: the reward that is
    logged is the cross-entropy's negative.

    Raises:
        ValueError: The actions are not positions, or the environment is not such a one.
    """

    hyperparameters_class: ClassVar[type[Hyperparameters]] = DifferentiableHyperparameters
    config: DifferentiableHyperparameters
    policy: RecurrentPolicy

    def __init__(self, env: Any, **kwargs: Any) -> None:
        super().__init__(env, **kwargs)
        if self._num_patches is not None:
            raise ValueError(
                "Differentiable learns positions: make the environment with action='continuous', skip=False"
            )
        _frame_by_frame(env)

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The mean cross-entropy of all predictions."""
        loss = rollout.infos["cross_entropy"].mean()
        return loss, {"policy_loss": loss.detach()}

    def _rollout(self, env: VectorEnv[Any, Any, Any], callback: BaseCallback | None) -> tuple[Rollout, bool]:
        """One whole episode per lane, recognised along the policy's positions, and whether to go on."""
        world = _frame_by_frame(env)
        self._start_episodes(env)
        steps, lanes, video = world.num_steps, env.num_envs, world.current_videos
        load = functools.cache(lambda: world.features.load_to_cut(video))
        maps, frame_gates = self._glances(world, video, load)
        read = self._reader(world, video, load)
        random = torch.rand(steps, lanes, 1, generator=self._generator, device=self.device) < self.config.random_share
        places = torch.rand(steps, lanes, 2, generator=self._generator, device=self.device)
        classifier, label = world.recognizer.classifier, world.videos.labels.to(self.device)[video]
        state, hidden = maps.new_zeros(lanes, self.config.hidden_size), classifier.start(frame_gates[0])
        losses, positions, going = [], [], True
        for step in range(steps):
            share = maps.new_full((lanes, 1), step / steps)
            observation = {"glance": maps[step], "belief": hidden.detach(), "time": share}
            position, state = next_position(self.policy, observation, state)
            position = torch.where(random[step], places[step], position)
            before = torch.lerp(hidden.detach(), hidden, self.config.gamma)
            context = classifier.context(frame_gates[step].clone(), before)
            hidden = classifier.advance(read(step // world.looks, position), context)
            losses.append(nn.functional.cross_entropy(classifier.predict(hidden), label, reduction="none"))
            positions.append(position.detach())
            self.num_timesteps += lanes
            going = (callback is None or callback.on_step()) and going
        return _as_rollout(torch.stack(losses), torch.stack(positions)), going

    def _glances(self, world: AdaFocusVectorEnv, video: Tensor, load: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What f_G says of every step's frame: maps (T, B, C, h, w) and projected vectors (T, B, G)."""
        shape = world.num_steps, len(video)
        frame = torch.arange(shape[0], device=self.device).repeat_interleave(shape[1]) // world.looks
        lane = torch.arange(shape[1], device=self.device).repeat(shape[0])
        world.features.ensure_videos(video, lambda rows: load()[rows])
        said = world.features.glance(video[lane], frame, lambda rows: load()[lane[rows], frame[rows]])
        maps, frame_gates = (part.unflatten(0, shape) for part in said)
        return maps, frame_gates

    def _reader(
        self, world: AdaFocusVectorEnv, video: Tensor, load: Callable[[], Tensor]
    ) -> Callable[[int, Tensor], Tensor]:
        """A function of a frame's number and of positions, (B, 2), that gives the projected vectors of what f_L reads
        there, (B, G), with gradients to the positions."""
        recognizer, patch_size = world.recognizer, world.patch_size

        def through_pixels(frame: int, position: Tensor) -> Tensor:
            patches = patches_at(load()[:, frame], position, patch_size)
            return recognizer.classifier.project_local(recognizer.look(patches))

        def between_vectors(frame: int, position: Tensor) -> Tensor:
            def cut(rows: Tensor, corners: Tensor) -> Tensor:
                return crop(load()[:, frame], corners, patch_size, rows)

            candidates, weights = grid_neighbours(position, world.grid)
            gates = world.features.look(video, torch.full_like(video, frame), candidates, None, cut)
            return (weights[:, :, None] * gates).sum(dim=1)

        return through_pixels if self.config.interpolate == "pixels" else between_vectors


def _as_rollout(losses: Tensor, positions: Tensor) -> Rollout:
    """Episodes in the form that :class:`Reinforce` logs, from (T, B) losses and (T, B, 2) positions."""
    nothing = torch.zeros_like(losses, requires_grad=False)
    return Rollout(
        log_prob=nothing,
        entropy=nothing,
        value=nothing,
        action=2 * positions - 1,
        reward=-losses.detach(),
        focused=torch.ones_like(nothing, dtype=torch.bool),
        running=torch.ones_like(nothing, dtype=torch.bool),
        patch_log_probs=nothing[..., None][..., :0],
        choice_log_probs=nothing[..., None],
        choice=torch.zeros_like(nothing, dtype=torch.int64),
        infos={"cross_entropy": losses},
    )


def _frame_by_frame(env: Any) -> AdaFocusVectorEnv:
    """The environment itself, without wrappers.

    Raises:
        ValueError: It shows no frames one by one, draws prices, or is not a vector environment of this package.
    """
    world = env.unwrapped
    if not isinstance(world, AdaFocusVectorEnv) or isinstance(world, AdaFocusTSMVectorEnv):
        raise ValueError(
            "Differentiable needs AdaFocus-v0 or GlanceFocus-v0 as a vector environment, made by gym.make_vec"
        )
    if isinstance(world.skip_cost, tuple):
        raise ValueError("Differentiable pays no price of compute: make the environment with a skip_cost that is fixed")
    return world
