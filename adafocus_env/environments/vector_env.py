"""``AdaFocus-v0`` as a vector environment: Gymnasium's protocol around lanes of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from adafocus_env.checks import Bounds, brief, check_integer
from adafocus_env.environments.actions import Actions, PatchActions, PositionActions
from adafocus_env.environments.arguments import RENDER_MODES, EnvironmentArguments
from adafocus_env.environments.lane_progress import BoolArray, LaneProgress
from adafocus_env.environments.lanes import Lanes, Stepped
from adafocus_env.environments.outputs import Outputs, upload
from adafocus_env.environments.render import SceneRenderer
from adafocus_env.environments.reset_arguments import read_prices, read_reset_mask, read_seeds, read_videos
from adafocus_env.environments.rewards import get_reward
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.prices import shown_price
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.recognizer import Recognizer

_OF_THE_END = "is_success", "video_gflops", "stopped", "frames"
MAX_NUM_ENVS = 2**20
"""More lanes than any machine has memory for: beyond it ``num_envs`` is taken for a mistake."""


class AdaFocusVectorEnv(VectorEnv[Any, Any, Any]):
    """Many episodes of ``AdaFocus-v0`` at once; see :class:`adafocus_env.AdaFocusEnv` for the environment itself.

    Made by ``gym.make_vec("AdaFocus-v0", num_envs=64)``. Lane i, seeded s + i, behaves as a single environment seeded
    s + i. Every random draw is a function of (lane seed, episode, step). Subclasses change the spaces and what a step
    covers (here a frame), not the rules.

    Args:
        num_envs: Lanes.
        autoreset_mode: ``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``, as :class:`gymnasium.vector.AutoresetMode` or its
            name or value.
        output: ``"numpy"``, or ``"torch"`` for tensors on ``device``.
        arguments: Those of :class:`~adafocus_env.environments.arguments.EnvironmentArguments`.

    It has the attributes of :class:`adafocus_env.AdaFocusEnv`, and these.

    Attributes:
        videos: The data set.
        recognizer: The frozen copy of the recogniser.
        features: The recogniser's outputs: a :class:`FeatureBank` unless told otherwise.
        corners: (N, 2) int64, top and left of every candidate, pixels.
        grid: g.
        action: What actions are: patch indices, ``"grid"``, or positions, ``"continuous"``.
        looks: Steps about each frame.
        skip: Whether the action carries a skip bit.
        skip_cost: λ; (low, high) if it is drawn.
        stop: Whether an action can end the episode.
        glance_cost: The price of going on to the next step; (low, high) if it is drawn.
        reward: What is rewarded.
        baseline: How the random patch is found.
        observation: What observations hold.
        output: What kind of values the environment gives.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012
    recognizer_class: ClassVar[type[ImageNetworks[Any]]] = Recognizer
    default_name: ClassVar[str] = "roaming-fashion"
    """Name of the default recogniser and of its videos."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: str = "numpy",
        **arguments: Any,
    ) -> None:
        self.num_envs = check_integer("num_envs", num_envs, Bounds(at_least=1, at_most=MAX_NUM_ENVS))
        self.metadata = {**self.metadata, "autoreset_mode": _autoreset_mode(autoreset_mode)}
        given = EnvironmentArguments(**arguments)
        features = given.find_features(self.recognizer_class, self.default_name)
        self.output, self._outputs = output, Outputs(output, features.device)
        self.action, self.skip, self.stop = given.action, given.skip, given.stop
        self.skip_cost, self.glance_cost = given.prices["skip_cost"], given.glance_cost
        self.reward = get_reward(given.reward)
        self.baseline, self.observation, self.render_mode = given.baseline, given.observation, given.render_mode
        self.looks = given.looks
        self._read_from(features)
        self._lanes = Lanes(self.num_envs, features, self.reward, given)
        self._actions = self._make_actions()
        self.single_action_space = self._actions.space
        self.single_observation_space = self._observation_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        self._alone = False  # the lane of a single environment speaks of one action, not of many
        self._renderer = SceneRenderer(self.videos.class_names, self.patch_size) if self.render_mode else None
        self._last_step: dict[str, Tensor] = {}

    def _read_from(self, features: FrozenFeatures) -> None:
        """Set the attributes that come from the features."""
        self.features, self.device = features, features.device
        self.videos, self.recognizer = features.videos, features.recognizer
        self.corners, self.grid = features.corners, features.grid
        self.num_frames, self.frame_size = self.videos.num_frames, self.videos.frame_size
        self.num_steps = features.num_steps * self.looks
        self.patch_size, self.num_patches = self.recognizer.config.patch_size, len(self.corners)
        self.num_classes = self.videos.num_classes

    def __getstate__(self) -> dict[str, Any]:
        """For ``pickle`` and ``copy.deepcopy``, also in mid-episode: a copy goes on as the original would.

        The table goes by reference: :class:`FrozenFeatures` says how.
        """
        return {name: value for name, value in vars(self).items() if name not in ("videos", "recognizer")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_from(self.features)

    @classmethod
    def find_features(cls, *, remember: bool = True, **arguments: Any) -> FrozenFeatures:
        """What an environment with these arguments reads.

        Args:
            remember: Make a bank if the process shares none yet. Whoever visits every video only once has no use for
                one, and can spare its memory.
            arguments: Those of :class:`~adafocus_env.environments.arguments.EnvironmentArguments`.

        Raises:
            ValueError: An argument is not allowed.
            MemoryError: A bank of these videos can grow beyond the memory.
        """
        given = EnvironmentArguments(**arguments)
        return given.find_features(cls.recognizer_class, cls.default_name, remember=remember)

    # ------------------------------------------------------------------------------ spaces, which subclasses change

    def _make_actions(self) -> Actions:
        if self.action == "continuous":
            return PositionActions(self.frame_size, self.patch_size, self.num_envs, self.device)
        return PatchActions(self.num_patches, self.num_envs, self.device, skip=self.skip, stop=self.stop)

    def _observation_space(self) -> spaces.Space[Any]:
        """Observations of one lane."""
        low, high = self.recognizer.glance_bounds
        glance = spaces.Box(low, high, self.recognizer.glance_shape, np.float32)
        return (
            glance if self.observation == "glance" else spaces.Dict({"glance": glance} | self._spaces_beside_glance())
        )

    def _spaces_beside_glance(self) -> dict[str, spaces.Space[Any]]:
        """What observations of one lane hold besides the glance."""
        hidden, count = self.recognizer.classifier.hidden_size, len(self._lanes.price_names)
        shapes = {"belief": (-1, hidden), "time": (0, 1)} | ({"price": (-1, count)} if count else {})
        return {name: spaces.Box(low, 1, (size,), np.float32) for name, (low, size) in shapes.items()}

    def _observe_beside_glance(self) -> dict[str, Any]:
        give, lanes = self._outputs.give, self._lanes
        always = {"belief": give(lanes.state.hidden.clone()), "time": give(lanes.progress.share)}
        return always | ({"price": give(shown_price(lanes.prices))} if lanes.price_names else {})

    def _pictures(self, lanes: Tensor, time: Tensor) -> Tensor:
        """(n, k, 3, H, W) uint8: what is drawn of steps, k frames side by side."""
        return self._lanes.frames.units(lanes, time)[:, None]

    # ------------------------------------------------------------------------------------------------ reset and step

    @torch.no_grad()
    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: Lane i is seeded ``seed + i``, or with element i of a list; ``None`` goes on to the next episode of
                the lane's seed (random seeds at first).
            options: ``{"video": index or (num_envs,) indices}`` picks the videos; ``{"reset_mask": (num_envs,) bool}``
                resets some lanes only; where prices are drawn, ``{"skip_cost": number or (num_envs,) numbers}``, and
                likewise ``glance_cost``, sets them for this episode.

        Returns:
            Observations, and infos ``video`` and ``label`` of the lanes that were reset (and prices that were drawn).

        Raises:
            ValueError: A seed or an option is not allowed.
        """
        if not isinstance(options, (Mapping, NoneType)):
            raise ValueError(f"options must be a dict, not {brief(options)}")
        options = dict(options or {})
        mask = read_reset_mask(options.pop("reset_mask", None), self.num_envs)
        video = read_videos(options.pop("video", None), mask, len(self.videos), alone=self._alone)
        prices = read_prices(options, self._lanes.price_names, self.num_envs, alone=self._alone)
        if options:
            allowed = " and ".join(repr(name) for name in ("video", "reset_mask", *prices))
            raise ValueError(f"options must hold nothing but {allowed}, not {list(options)}")
        seeds = read_seeds(seed, self.num_envs, alone=self._alone)
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        self._lanes.episodes.seed(seeds, mask, self.np_random)
        self._lanes.start(mask, video, prices)
        if self.render_mode == "human":
            self.render()
        return self._observe(), self._reset_info(mask)

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step in every lane.

        Args:
            actions: (num_envs, 2) integers (patch index, and whether to look, skip or stop), or (num_envs,) patch
                indices without skip bit; or (num_envs, 2) positions, if actions are continuous.

        Returns:
            Observations, rewards (num_envs,) float32, terminated and truncated (num_envs,) bool, and infos.

        Raises:
            gymnasium.error.ResetNeeded: A lane was not reset, or its episode is over and autoreset is disabled.
            ValueError: Actions of the wrong shape or dtype, or out of range.
            FloatingPointError: The recogniser's output is not finite.
        """
        decision = self._actions.read(actions, alone=self._alone)
        mode, lanes, give = self.metadata["autoreset_mode"], self._lanes, self._outputs.give
        before, nowhere = lanes.progress, lanes.at_start.over
        if before.any_over:
            if mode is not AutoresetMode.NEXT_STEP or not lanes.episodes.seeded:
                raise gym.error.ResetNeeded("call reset() before the first step and after the end of an episode")
            lanes.start(before.over)
            if before.all_over:  # the usual case: all episodes have the same length
                nothing = np.zeros(self.num_envs, dtype=np.float32)
                return self._observe(), give(nothing), give(nowhere), give(nowhere), self._reset_info(before.over)

        stepped = lanes.step(decision, before)
        done = lanes.progress.over
        lanes.glance(before.running & lanes.progress.running)
        info = self._step_info(stepped, before)
        if self._renderer is not None:
            names = "patch", "skipped", "stopped"
            self._last_step = {name: getattr(stepped, name) for name in names}
            self._last_step["prediction"] = lanes.state.prediction
            self._last_step = {name: value.clone() for name, value in self._last_step.items()}
        if self.render_mode == "human":
            self.render()
        if mode is AutoresetMode.SAME_STEP and lanes.progress.any_over:
            info = self._restart_in_place(info, done)
        return self._observe(), give(stepped.reward), give(done), give(nowhere), info

    def _restart_in_place(self, info: dict[str, Any], done: BoolArray) -> dict[str, Any]:
        """SAME_STEP autoreset: keep the end of the finished episodes in the info, start the next ones."""
        final_obs = self._outputs.observations(self._observe(), done)
        final_info = self._outputs.restricted(info, done)
        of_the_end = {f"{mask}{name}" for mask in ("", "_") for name in _OF_THE_END}
        going_on = {key: value for key, value in info.items() if key not in of_the_end and not done.all()}
        continuing = self._outputs.restricted(going_on, ~done)
        self._lanes.start(done)
        return {
            **continuing,
            **self._reset_info(np.ones_like(done)),
            "final_obs": final_obs,
            "_final_obs": self._outputs.give(done),
            "final_info": final_info,
            "_final_info": self._outputs.give(done),
        }

    # ------------------------------------------------------------------------------------ observations and infos

    @property
    def current_videos(self) -> Tensor:
        """(num_envs,) int64, the video in every lane."""
        return self._lanes.video.clone()

    @property
    def current_frames(self) -> Tensor:
        """(num_envs,) int64, the frame that the next action of every lane is about (0 in AdaFocus-TSM, whose only
        action covers all frames); after the last step one more than the last."""
        return upload(self._lanes.progress.steps // self.looks, self.device)

    @property
    def current_steps(self) -> Tensor:
        """(num_envs,) int64, steps that every lane has taken in its episode."""
        return upload(self._lanes.progress.steps.copy(), self.device)

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(num_envs, classes) float32, the classifier's softmax prediction in every lane's present state."""
        return self.recognizer.classifier.probabilities(self._lanes.state.hidden)

    def _observe(self) -> Any:
        # A map from a bank is fresh memory, so the caller may have it; a computed one is read again, so it is cloned.
        glance = self._outputs.give(self._lanes.map if self.features.remembers else self._lanes.map.clone())
        return glance if self.observation == "glance" else {"glance": glance, **self._observe_beside_glance()}

    def _reset_info(self, mask: BoolArray) -> dict[str, Any]:
        return self._outputs.info(self._reset_values(), mask)

    def _reset_values(self) -> dict[str, Tensor]:
        lanes = self._lanes
        values = {"video": lanes.video.clone(), "label": lanes.label.clone()}
        return values | dict(zip(lanes.price_names, lanes.prices.clone().unbind(dim=1), strict=True))

    def _step_info(self, stepped: Stepped, before: LaneProgress) -> dict[str, Any]:
        lanes = self._lanes
        values = {
            "prediction": lanes.state.prediction.clone(),
            "confidence": lanes.state.confidence.clone(),
            "baseline_confidence": stepped.baseline_confidence,
            "patch": stepped.patch,
            "skipped": stepped.skipped.clone(),
            "gflops": stepped.gflops,
        }
        if stepped.candidate_rewards is not None:
            values["candidate_rewards"] = stepped.candidate_rewards
        if before.any_over:
            info = self._outputs.info(values, before.running) | self._reset_info(lanes.at_start.running)
        else:
            info = self._outputs.info(values | self._reset_values(), before.running)
        if lanes.progress.any_over:
            done = lanes.progress.over
            success = upload(done, self.device) & (lanes.state.prediction == lanes.label)
            at_end = {"is_success": success, "video_gflops": lanes.gflops.clone()}
            if self.stop:
                frames = upload(before.steps // self.looks + 1, self.device)
                at_end |= {"stopped": stepped.stopped.clone(), "frames": frames}
            info |= self._outputs.info(at_end, done)
        return info

    # ------------------------------------------------------------------------------------------------ pictures

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw what was acted on last in every lane (before the first step: what will be acted on first).

        Returns:
            One (height, width, 3) uint8 RGB picture per lane; ``None`` in ``"human"`` mode, which shows lane 0.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._renderer is None:
            gym.logger.warn("render() needs render_mode='rgb_array' or 'human' in gym.make")
            return None
        if not self._lanes.episodes.seeded:
            raise gym.error.ResetNeeded("call reset() before render()")
        drawn = torch.arange(1 if self.render_mode == "human" else self.num_envs, device=self.device)
        step, steps = self._last_step, self._lanes.progress.steps
        stepped = ((steps > 0) & bool(step)).tolist()
        time = np.maximum(steps - 1, 0)
        shown = self._pictures(drawn, upload(time // self.looks, self.device)[drawn])
        frames = shown.permute(0, 1, 3, 4, 2).cpu().numpy()
        pictures = tuple(
            self._renderer.draw(
                frames[lane],
                corner=None if not stepped[lane] else tuple(step["patch"][lane, :2].tolist()),
                choice="look" if not stepped[lane] else _choice(step, lane),
                label=int(self._lanes.label[lane]),
                prediction=None if not stepped[lane] else int(step["prediction"][lane]),
                confidence=float(self._lanes.state.confidence[lane]),
                gflops=float(self._lanes.gflops[lane]),
                progress=(int(time[lane]) + 1, self.num_steps),
            )
            for lane in drawn.tolist()
        )
        if self.render_mode == "human":
            self._renderer.show(pictures[0])
            return None
        return pictures

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window of ``"human"`` mode."""
        if self._renderer is not None:
            self._renderer.close()


def _choice(step: Mapping[str, Tensor], lane: int) -> str:
    return "stop" if step["stopped"][lane] else "skip" if step["skipped"][lane] else "look"


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    names = {name: known for known in AutoresetMode for name in (known.name, known.value)}
    if not isinstance(mode, str) or mode not in names:
        raise ValueError(f"autoreset_mode must be one of {[known.name for known in AutoresetMode]}, not {brief(mode)}")
    return names[mode]
