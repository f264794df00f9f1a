"""The Markov decision process, batched: the only place where its rules are written."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, Literal, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor, nn

from adafocus_env.checks import (
    Bounds,
    as_array,
    as_device,
    brief,
    check_choice,
    check_flag,
    check_integer,
    check_number,
)
from adafocus_env.environments.dynamics import (
    Consequences,
    Looks,
    State,
    consider,
    counterfactual_rewards,
    decide,
    patches_to_read,
    start,
)
from adafocus_env.environments.frame_buffer import FrameBuffer
from adafocus_env.environments.lane_blocks import in_blocks, lanes_per_block
from adafocus_env.environments.lane_progress import BoolArray, LaneProgress
from adafocus_env.environments.render import SceneRenderer
from adafocus_env.environments.rewards import BASELINES, Reward, get_reward
from adafocus_env.features.feature_bank import FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.patches import random_corners
from adafocus_env.random_draws import as_integers, uniform
from adafocus_env.recognition.classifier import FrameContext
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.videos.registry import get_videos

DEFAULT_SKIP_COST = 0.015
"""λ where the action carries a skip bit and none is given, in label confidence."""

MAX_NUM_ENVS = 2**20
"""More lanes than any machine has memory for: beyond it ``num_envs`` is taken for a mistake."""

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
"""What patch indices and skip bits may come as."""

_VIDEO_STREAM, _CANDIDATE_STREAM, _TOP_STREAM, _LEFT_STREAM = range(4)


class _RenderModes(list[str]):
    """Names of modes. ``gym.make`` looks a mode up here before it calls us, and takes for granted that it is a name."""

    def __contains__(self, mode: object) -> bool:
        if mode is not None and not isinstance(mode, str):
            check_choice("render_mode", mode, (*self, None))
        return super().__contains__(mode)


class AdaFocusVectorEnv(VectorEnv[Any, Any, Any]):
    """Many episodes of ``AdaFocus-v0`` at once; see :class:`adafocus_env.AdaFocusEnv` for the environment itself.

    Made by ``gym.make_vec("AdaFocus-v0", num_envs=64)``. Lane i, seeded s + i, behaves as a single environment seeded
    s + i. Every random draw is a function of (lane seed, episode, step). Subclasses change the spaces and what a step
    is about (a frame here), not the rules.

    Args:
        num_envs: Lanes.
        split: ``"recognizer"``, ``"train"``, ``"val"`` or ``"test"``, for videos given by name.
        videos: A registered name, or a data set object, which is one split already and is taken as it is; ``None`` is
            ``"roaming-fashion"``, the embedded benchmark.
        recognizer: A :class:`Recognizer`, a path or a shipped name; ``None`` is ``"roaming-fashion"``. The environment
            keeps a frozen copy.
        grid: g; candidates form a g×g grid, N = g².
        skip: Whether the action carries a skip bit.
        skip_cost: λ ≥ 0, the price of a focused frame in label confidence; ``None`` is 0 without skip bit, else 0.015.
            Where candidates differ in compute, that of the costliest, the others' in proportion.
        reward: A name out of :data:`~adafocus_env.environments.rewards.REWARDS`, or an object with the members of
            :class:`~adafocus_env.environments.rewards.Reward`.
        baseline: ``"sample"``, ``"exact"`` or ``"pixel"``: how the random patch's confidence is found.
        observation: ``"full"`` or ``"glance"``.
        render_mode: ``"rgb_array"``, ``"human"`` or ``None``.
        device: torch device of the recogniser and its table.
        features: Where the recogniser's outputs come from, in place of ``videos``, ``recognizer``, ``grid`` and
            ``device``: a :class:`FeatureBank`, say in a file, or a :class:`FrozenFeatures`, which remembers nothing.
            ``None``: a bank in memory, shared by all environments of the process that agree on those four; for videos
            that are another view at every visit, ``FrozenFeatures``.
        autoreset_mode: ``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``, as :class:`gymnasium.vector.AutoresetMode` or its
            name or value.
        output: ``"numpy"``, or ``"torch"`` for tensors on ``device``.

    Attributes:
        num_frames: T, frames of a video.
        num_steps: Steps per episode, one for each frame.
        frame_size: (H, W), pixels.
        patch_size: P, pixels.
        num_patches: N.
        num_classes: Number of classes.
        videos: The data set.
        recognizer: The frozen copy of the recogniser.
        features: The recogniser's outputs: a :class:`FeatureBank` unless told otherwise.
        corners: (N, 2) int64, top and left of every candidate, pixels.
        grid: g.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    metadata: dict[str, Any] = {"render_modes": _RenderModes(("rgb_array", "human")), "render_fps": 4}  # noqa: RUF012
    recognizer_class: ClassVar[type[ImageNetworks[Any]]] = Recognizer
    default_name: ClassVar[str] = "roaming-fashion"
    """Of the shipped recogniser and the videos that go with it."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        videos: VideoDataset | str | None = None,
        recognizer: ImageNetworks[Any] | str | os.PathLike[str] | None = None,
        grid: int = 7,
        skip: bool = True,
        skip_cost: float | None = None,
        reward: str | Reward = "gain_over_random",
        baseline: str = "sample",
        observation: str = "full",
        render_mode: str | None = None,
        device: str | torch.device = "cpu",
        features: FrozenFeatures | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: Literal["numpy", "torch"] = "numpy",
    ) -> None:
        num_envs = check_integer("num_envs", num_envs, Bounds(at_least=1, at_most=MAX_NUM_ENVS))
        grid = check_integer("grid", grid, Bounds(at_least=2))
        check_choice("baseline", baseline, BASELINES)
        check_choice("observation", observation, ("full", "glance"))
        check_choice("output", output, ("numpy", "torch"))
        check_choice("render_mode", render_mode, (*self.metadata["render_modes"], None))
        skip = check_flag("skip", skip)
        if skip_cost is None:
            skip_cost = DEFAULT_SKIP_COST if skip else 0.0
        skip_cost = check_number("skip_cost", skip_cost, Bounds(at_least=0))
        mode, rule = _autoreset_mode(autoreset_mode), get_reward(reward)
        if features is None:
            features = self.find_features(split, videos, recognizer, grid, device)
        elif not isinstance(features, FrozenFeatures):
            raise ValueError(f"features must be a FeatureBank or FrozenFeatures, not {features!r}")
        elif videos is not None or recognizer is not None:
            raise ValueError("features brings its own videos and recognizer: pass either it or them")
        elif grid not in (7, features.grid):  # 7 may be the default
            raise ValueError(f"features has a grid of {features.grid}, so grid can't be {grid}: leave it out")
        elif as_device(device) not in (torch.device("cpu"), as_device(features.device)):  # "cpu" likewise
            raise ValueError(f"features is on {features.device}, so device can't be {device}: leave it out")
        if not isinstance(features.recognizer, self.recognizer_class):
            raise ValueError(
                f"features must be of a {self.recognizer_class.__name__}, not of a {type(features.recognizer).__name__}"
            )

        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.skip, self.skip_cost = skip, skip_cost
        self.reward, self.baseline = rule, baseline
        self._exact = self.reward.reference == "random" and baseline == "exact"
        self.observation, self.output = observation, output

        self._read_from(features)

        self.single_observation_space, self.single_action_space = self._spaces()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        self._action_shape: tuple[int, ...] = self.single_action_space.shape or ()
        self._alone = False  # a single environment's lane speaks of one action, not of many
        highest = torch.tensor([self.num_patches - 1, 1] if self.skip else self.num_patches - 1, device=self.device)
        self._lowest_action, self._highest_action = torch.zeros_like(highest), highest
        # Constants on the device: GFLOPs of a frame by candidate, and last, when it is skipped; the price of every
        # candidate, if they differ; top, left and size of every candidate.
        local = features.local_gflops.to(self.device)
        self._gflops = nn.functional.pad(local, (0, 1)) + self.recognizer.cost().always
        self._prices = None if bool((local == local[0]).all()) else (self.skip_cost * local / local.max()).float()
        self._squares = nn.functional.pad(self.corners, (0, 1), value=self.patch_size).to(self.device)
        self._never, self._any_candidate = self._zeros(torch.bool), self._zeros(torch.int64)
        self._always = ~self._never
        self._lanes = torch.arange(self.num_envs, device=self.device)
        self._everywhere = torch.arange(self.num_patches, device=self.device).expand(self.num_envs, -1)

        # This part of the state lives on the host. _lane_seed and _episode key the draws.
        steps = np.zeros(self.num_envs, dtype=np.int64)
        self._start = LaneProgress(steps, self.num_steps, self.device)
        self._progress = LaneProgress(steps + self.num_steps, self.num_steps, self.device)  # every lane needs a reset
        self._lane_seed, self._episode = np.zeros_like(steps), np.zeros_like(steps)
        self._seeded = False
        # What is drawn for an episode: stream and step of every number.
        streams = {"sample": [_CANDIDATE_STREAM], "pixel": [_TOP_STREAM, _LEFT_STREAM]}.get(baseline, [])
        if self.reward.reference != "random":
            streams = []
        self._streams = np.concatenate(([_VIDEO_STREAM], np.repeat(streams, self.num_steps))).astype(np.int64)
        self._stream_steps = np.concatenate(([0], np.tile(np.arange(self.num_steps), len(streams)))).astype(np.int64)
        # The rest lives on the device. These tensors are replaced, never changed in place.
        self._video = self._zeros(torch.int64)
        self._label = self._zeros(torch.int64)
        hidden = torch.zeros(self.num_envs, self._classifier.hidden_size, device=self.device)
        self._state = State(hidden, self._zeros(torch.float32), self._zeros(torch.int64))
        self._video_gflops = self._zeros(torch.float64)
        # The random patches of all steps of the episode: (num_envs, steps) candidates, or (num_envs, steps, 2) corners.
        pixel = baseline == "pixel"
        self._random_patches = torch.zeros(
            self.num_envs, self.num_steps, *((2,) if pixel else ()), dtype=torch.int64, device=self.device
        )
        # The current frame's global map and projected global vector.
        self._map = torch.zeros(self.num_envs, *self.recognizer.glance_shape, device=self.device)
        self._frame_gates = torch.zeros(self.num_envs, self._classifier.gates_size, device=self.device)
        self._frames = FrameBuffer(features, self.num_envs)
        self._renderer = SceneRenderer(self.videos.class_names, self.patch_size) if render_mode else None
        self._last_step: dict[str, Tensor] = {}

    def _read_from(self, features: FrozenFeatures) -> None:
        """Take from features all that is theirs."""
        self.features, self.device = features, features.device
        self.videos, self.recognizer = features.videos, features.recognizer
        self.corners, self.grid = features.corners, features.grid
        self.num_frames, self.frame_size = self.videos.num_frames, self.videos.frame_size
        self.num_steps = features.num_steps
        self.patch_size, self.num_patches = self.recognizer.config.patch_size, len(self.corners)
        self.num_classes = self.videos.num_classes
        self._labels = self.videos.labels.to(self.device)
        self._classifier, self._blank_gates = self.recognizer.classifier, self.recognizer.blank_gates()

    def __getstate__(self) -> dict[str, Any]:
        """For ``pickle`` and ``copy.deepcopy``, also in mid-episode: a copy goes on as the original would.

        The table goes by reference: :class:`FrozenFeatures` says how.
        """
        left_out = {"videos", "recognizer", "_labels", "_classifier", "_blank_gates"}
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_from(self.features)
        if self._seeded:  # a table that was made anew doesn't know the videos of these episodes yet
            with torch.no_grad():
                self.features.ensure_videos(self._video, self._frames.videos)

    @classmethod
    def find_features(
        cls,
        split: str = "train",
        videos: VideoDataset | str | None = None,
        recognizer: ImageNetworks[Any] | str | os.PathLike[str] | None = None,
        grid: int = 7,
        device: str | torch.device = "cpu",
        *,
        remember: bool = True,
    ) -> FrozenFeatures:
        """What an environment with these arguments reads.

        Args:
            split: As of the environment, like the other four.
            videos: The same.
            recognizer: The same.
            grid: The same.
            device: The same.
            remember: Make a bank if the process shares none yet. It is not worth its memory to those who visit every
                video once.

        Raises:
            ValueError: An argument is not allowed.
            MemoryError: A bank of these videos can grow beyond the memory.
        """
        model = _as_recognizer(cls.default_name if recognizer is None else recognizer, cls.recognizer_class)
        data = get_videos(cls.default_name if videos is None else videos, split)
        arguments = model, data, grid, as_device(device)
        if getattr(data, "changing", False):
            return FrozenFeatures(*arguments)
        if remember:
            return FeatureBank.shared(*arguments)
        return FeatureBank.already_shared(*arguments) or FrozenFeatures(*arguments)

    def _spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """Observations and actions of one lane."""
        low, high = self.recognizer.glance_bounds
        glance_space = spaces.Box(low, high, self.recognizer.glance_shape, np.float32)
        patches = self.num_patches
        action_space = spaces.MultiDiscrete([patches, 2]) if self.skip else spaces.Discrete(patches)
        if self.observation == "glance":
            return glance_space, action_space
        return spaces.Dict({"glance": glance_space} | self._spaces_beside_glance()), action_space

    def _spaces_beside_glance(self) -> dict[str, spaces.Space[Any]]:
        """What observations of one lane hold besides the glance."""
        hidden = self.recognizer.classifier.hidden_size
        return {"belief": spaces.Box(-1, 1, (hidden,), np.float32), "time": spaces.Box(0, 1, (1,), np.float32)}

    def _zeros(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.num_envs, dtype=dtype, device=self.device)

    def _upload(self, values: np.ndarray) -> Tensor:
        """One value per lane, to the device. Where all lanes agree, as they mostly do, nothing is transferred; on the
        CPU the tensor shares the array's memory."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cpu":
            return tensor
        if (values == values[0]).all():
            return torch.full_like(tensor, values.flat[0].item(), device=self.device)
        return tensor.to(self.device)

    # ------------------------------------------------------------------------------------------------ episodes

    @torch.no_grad()
    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: Lane i is seeded ``seed + i``, or with element i of a list; ``None`` goes on to the next episode of
                the lane's seed (random seeds at first).
            options: ``{"video": index or (num_envs,) indices}`` picks the videos; ``{"reset_mask": (num_envs,) bool}``
                resets some lanes only.

        Returns:
            Observations, and infos ``video`` and ``label`` of the lanes that were reset.

        Raises:
            ValueError: A seed or an option is not allowed.
        """
        if not isinstance(options, (Mapping, NoneType)):
            raise ValueError(f"options must be a dict, not {brief(options)}")
        options = dict(options or {})
        mask = self._read_reset_mask(options.pop("reset_mask", None))
        video = self._read_videos(options.pop("video", None), mask)
        if options:
            raise ValueError(f"options must hold nothing but 'video' and 'reset_mask', not {list(options)}")
        self._seed_lanes(seed, mask)
        self._start_episodes(mask, video)
        if self.render_mode == "human":
            self.render()
        return self._observe(), self._reset_info(mask)

    def _read_reset_mask(self, mask: Any) -> BoolArray:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        found = as_array(mask)
        if found.dtype != np.bool_ or found.shape != (self.num_envs,) or not found.any():
            raise ValueError(
                f"options['reset_mask'] must be {self._count('boolean')} with at least one True, not {brief(mask)}"
            )
        return found.copy()

    def _read_videos(self, video: Any, mask: BoolArray) -> NDArray[np.int64] | None:
        if video is None:
            return None
        found = as_array(video)
        if not np.issubdtype(found.dtype, np.integer) or found.shape not in ((), (self.num_envs,)):
            several = "" if self._alone else f" or {self._count('integer')}"
            raise ValueError(f"options['video'] must be an integer{several}, not {brief(video)}")
        if ((found < 0) | (found >= len(self.videos)))[mask if found.shape else ...].any():
            raise ValueError(f"options['video'] must be between 0 and {len(self.videos) - 1}, not {brief(video)}")
        return np.broadcast_to(found.astype(np.int64), self.num_envs).copy()

    def _count(self, thing: str) -> str:
        """So many things as there are lanes, in words."""
        return f"{self.num_envs} {thing}{'s' if self.num_envs > 1 else ''}"

    def _seed_lanes(self, seed: int | list[int | None] | None, mask: BoolArray) -> None:
        if seed is None and self._seeded:
            return  # every lane goes on to the next episode of its seed
        seeds: list[int | None]
        if seed is None or _is_seed(seed):
            seeds = [None if seed is None else int(cast(int, seed)) + lane for lane in range(self.num_envs)]
        elif isinstance(seed, (list, tuple)) and not self._alone and all(one is None or _is_seed(one) for one in seed):
            seeds = list(seed)
        else:
            several = "" if self._alone else ", or one of them (or None) per lane"
            raise ValueError(f"seed must be an integer of at least 0 and below 2**62{several}, not {brief(seed)}")
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be an integer or {self._count('integer')}, not {len(seeds)} of them")
        if _is_seed(seed):
            super().reset(seed=int(cast(int, seed)))
        if not self._seeded:
            self._lane_seed = self.np_random.integers(2**31, size=self.num_envs)
            self._episode = np.full(self.num_envs, -1)  # the first episode is number 0
            self._seeded = True
        given = mask & np.array([lane_seed is not None for lane_seed in seeds])
        self._lane_seed = np.where(given, [lane_seed or 0 for lane_seed in seeds], self._lane_seed)
        self._episode = np.where(given, -1, self._episode)

    def _start_episodes(self, mask: BoolArray, video: NDArray[np.int64] | None = None) -> None:
        """Put the lanes of ``mask`` before the first frame of their next episode."""
        self._episode = self._episode + mask
        everyone, chosen = bool(mask.all()), self._upload(mask)
        self._progress = self._start if everyone else self._progress.restarted(mask)

        def where_chosen(value: Tensor, otherwise: Tensor) -> Tensor:
            return value if everyone else torch.where(chosen.view(-1, *[1] * (value.ndim - 1)), value, otherwise)

        # All that an episode draws: its video, and its reference patches if there are any.
        draws = uniform(self._lane_seed[:, None], self._episode[:, None], self._streams, self._stream_steps)
        if video is None:
            video = as_integers(draws[:, 0], len(self.videos))
        self._video = where_chosen(self._upload(video), self._video)
        self._frames.start(self._video, chosen)
        self._label = self._labels.index_select(0, self._video)
        self._video_gflops = where_chosen(torch.zeros_like(self._video_gflops), self._video_gflops)
        if len(self._streams) > 1:
            self._random_patches = where_chosen(self._as_patches(draws[:, 1:]), self._random_patches)
        self.features.ensure_videos(self._video, self._frames.videos)
        self._glance(mask)
        started = start(self._classifier, self._frame_gates, self._label)
        self._state = State(*(where_chosen(*parts) for parts in zip(started, self._state, strict=True)))

    def _as_patches(self, draws: NDArray[np.float64]) -> Tensor:
        """The reference patches of all steps of episodes, out of uniform numbers: (num_envs, steps) candidates, of one
        for each step; or (num_envs, steps, 2) corners, of one for each top and then one for each left."""
        if self.baseline == "sample":
            return torch.from_numpy(as_integers(draws, self.num_patches)).to(self.device)
        places = draws.reshape(self.num_envs, 2, self.num_steps).swapaxes(1, 2)
        return random_corners(self.frame_size, self.patch_size, torch.from_numpy(places)).to(self.device)

    def _glance(self, mask: BoolArray) -> None:
        """Look at the current frames of the lanes of ``mask`` through the global CNN."""
        time = self._progress.frame
        if self.features.remembers or mask.all():
            self._map, self._frame_gates = self.features.glance(
                self._video, time, lambda rows: self._frames.units(rows, time[rows])
            )
            return
        lanes = torch.from_numpy(np.flatnonzero(mask)).to(self.device)
        maps, gates = self.features.glance(
            self._video[lanes], time[lanes], lambda rows: self._frames.units(lanes[rows], time[lanes[rows]])
        )
        self._map = self._map.index_copy(0, lanes, maps)
        self._frame_gates = self._frame_gates.index_copy(0, lanes, gates)

    # ---------------------------------------------------------------------------------------------------- step

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step in every lane.

        Args:
            actions: (num_envs, 2) integers (patch index, skip bit), or (num_envs,) patch indices without skip bit.

        Returns:
            Observations, rewards (num_envs,) float32, terminated and truncated (num_envs,) bool, and infos.

        Raises:
            gymnasium.error.ResetNeeded: A lane was not reset, or its episode is over and autoreset is disabled.
            ValueError: Actions of the wrong shape or dtype, or out of range.
            FloatingPointError: The recogniser's output is not finite.
        """
        place, skipped = self._read_actions(actions)
        mode = self.metadata["autoreset_mode"]
        before = self._progress
        if before.any_over:
            if mode is not AutoresetMode.NEXT_STEP or not self._seeded:
                raise gym.error.ResetNeeded("call reset() before the first step and after the end of an episode")
            self._start_episodes(before.over)
            if before.all_over:  # the usual case: all episodes have the same length
                nothing, reward = self._start.over, np.zeros(self.num_envs, dtype=np.float32)
                info = self._reset_info(before.over)
                return self._observe(), self._give(reward), self._give(nothing), self._give(nothing), info

        stepped = self._transition(place, skipped, before)
        self._progress = before.next.restarted(before.over) if before.any_over else before.next
        done = self._progress.over
        self._glance(before.running & self._progress.running)
        info = self._step_info(stepped, before)
        if self._renderer is not None:
            self._last_step = {name: stepped[name].clone() for name in ("patch", "skipped", "prediction")}
        if self.render_mode == "human":
            self.render()
        if mode is AutoresetMode.SAME_STEP and self._progress.any_over:
            info = self._restart_in_place(info, done)
        reward, truncated = self._give(stepped["reward"]), self._give(self._start.over)
        return self._observe(), reward, self._give(done), truncated, info

    def _read_actions(self, actions: Any) -> tuple[Tensor, Tensor]:
        """Places to look at, which are patch indices (num_envs,) or corners (num_envs, 2), both int64, and skip bits
        (num_envs,) bool."""
        values = self._as_actions(actions)
        if values is None or values.dtype not in INTEGERS:
            raise self._refusal(actions)
        values = values.to(self.device, torch.int64)
        allowed = values.clamp(self._lowest_action, self._highest_action)
        if not torch.equal(allowed, values):
            raise self._refusal(actions, values[allowed != values])
        if self.skip:
            return values[:, 0], values[:, 1] == 1
        return values, self._never

    def _as_actions(self, actions: Any) -> Tensor | None:
        """Actions as a tensor; ``None`` if they can't be, or have the wrong shape."""
        try:
            values = actions if isinstance(actions, Tensor) else torch.as_tensor(np.array(actions))
        except (TypeError, ValueError):
            return None
        return values if tuple(values.shape) == (self.num_envs, *self._action_shape) else None

    def _refusal(self, actions: Any, wrong: Tensor | None = None) -> ValueError:
        """What is said of actions that are not in the action space, in the terms of whoever passed them; ``wrong`` are
        the numbers that are out of range."""
        shape = self._action_shape if self._alone else (self.num_envs, *self._action_shape)
        name = "action" if self._alone else "actions"
        several, one, allowed = self._action_words
        given = actions[0] if self._alone else actions
        what = brief(given) if wrong is None else f"{wrong.flatten()[0].item()} in {brief(given)}"
        return ValueError(f"{name} must be {f'{shape} {several}' if shape else one} ({allowed}), not {what}")

    @property
    def _action_words(self) -> tuple[str, str, str]:
        """What actions are, one alone, and which are allowed."""
        patch = f"patch index from 0 to {self.num_patches - 1}"
        return "integers", "an integer", f"{patch} and skip bit 0 or 1" if self.skip else patch

    def _transition(self, place: Tensor, skipped: Tensor, before: LaneProgress) -> dict[str, Tensor]:
        """Decide in the lanes that are running; what the observations and infos need of it."""
        focused = ~skipped if self.skip else self._always
        if before.any_over:  # the lanes whose episodes are over rest
            focused = focused & self._upload(before.running)
        everyone = bool(focused.all()) if self.skip else not before.any_over
        after = self._consider(place, None if everyone else focused)
        patch = place if place.ndim == 1 else self._any_candidate  # places off the grid cost what candidates do
        price = self.skip_cost if self._prices is None else self._prices[patch]
        outcome = decide(self._state, after, focused, self.reward, price, everyone=everyone)
        self._state, reward = outcome.state, outcome.reward
        self._check_finite(reward)
        gflops = self._gflops.index_select(0, patch if everyone else torch.where(focused, patch, self.num_patches))
        if before.any_over:
            resting = self._upload(before.over)
            reward, gflops = reward.masked_fill(resting, 0.0), gflops.masked_fill(resting, 0.0)
        self._video_gflops = self._video_gflops + gflops
        stepped = {
            "reward": reward,
            "prediction": self._state.prediction,
            "confidence": self._state.confidence,
            "baseline_confidence": outcome.reference,
            "patch": self._squares_at(place),
            "skipped": skipped,
            "gflops": gflops,
        }
        if self._exact:
            price = self.skip_cost if self._prices is None else self._prices
            stepped["candidate_rewards"] = counterfactual_rewards(after, outcome, focused, self.reward, price)
        return stepped

    @torch.inference_mode()
    def _consider(self, place: Tensor, focused: Tensor | None) -> Consequences:
        """What the classifier would say if the local CNN read the frame, at places that are patch indices or corners,
        in the ``focused`` lanes (``None``: in all)."""
        drawn = None
        if self.reward.reference == "random":
            drawn = self._everywhere if self._exact else self._random_patches[self._progress.now]
        looks = patches_to_read(place, self.reward.reference, drawn, exact=self._exact)
        # What the bank remembers is gathered anew for every frame, so it may be overwritten.
        frame_gates = self._frame_gates if self.features.remembers else self._frame_gates.clone()
        context = self._classifier.context(frame_gates, self._state.hidden)

        def of_lanes(
            lanes: Tensor, looks: Looks, focused: Tensor | None, video: Tensor, frame: Tensor, label: Tensor,
            context: FrameContext,
        ) -> Consequences:  # fmt: skip
            gates = self.features.look(
                video, frame, looks.candidates, focused,
                lambda rows, corners: self._frames.cut(lanes[rows], frame[rows], corners), looks.anywhere,
            )  # fmt: skip
            if self.reward.reference == "blank":
                gates = torch.cat((gates, self._blank_gates.expand_as(gates)), dim=1)
            return consider(self._classifier, context, gates, looks, label)

        block = lanes_per_block(frame_gates.shape[1] * max(2, looks.candidates.shape[1]), self.device)
        return in_blocks(
            of_lanes, block, self._lanes, looks, focused, self._video, self._progress.frame, self._label, context
        )

    def _check_finite(self, reward: Tensor) -> None:
        if math.isfinite(reward.sum()):  # a cheap test that NaN and inf fail
            return
        lost = ~torch.isfinite(self._state.confidence)
        if bool(lost.any()):
            bad = int(self._video[lost][0])
            raise FloatingPointError(f"the recogniser's confidence is not finite on video {bad}")
        raise ValueError(f"reward must give finite numbers, not {reward.tolist()}")

    def _squares_at(self, place: Tensor) -> Tensor:
        """(num_envs, 3) int64, top, left and size of places."""
        if place.ndim == 1:
            return self._squares.index_select(0, place)
        return nn.functional.pad(place, (0, 1), value=self.patch_size)

    def _restart_in_place(self, info: dict[str, Any], done: BoolArray) -> dict[str, Any]:
        """SAME_STEP autoreset: keep the end of the finished episodes in the info, start the next ones."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        observation = self._observe()
        for lane in np.flatnonzero(done).tolist():
            final_obs[lane] = (
                {key: value[lane] for key, value in observation.items()}
                if isinstance(observation, dict)
                else observation[lane]
            )
        finished = self._give(done)
        final_info = {key: (value & finished if key.startswith("_") else value) for key, value in info.items()}
        continuing = {
            key: (value & ~finished if key.startswith("_") else value)
            for key, value in info.items()
            if not done.all() and key not in ("is_success", "_is_success", "video_gflops", "_video_gflops")
        }
        self._start_episodes(done)
        everyone = self._reset_info(np.ones_like(done))
        return {
            **continuing,
            **everyone,
            "final_obs": final_obs,
            "_final_obs": finished,
            "final_info": final_info,
            "_final_info": self._give(done),
        }

    # ------------------------------------------------------------------------------------ observations and infos

    @property
    def current_videos(self) -> Tensor:
        """(num_envs,) int64, the video in every lane."""
        return self._video.clone()

    @property
    def current_frames(self) -> Tensor:
        """(num_envs,) int64, the frame that the next action of every lane is about (0 where it is about all); after the
        last step the number of steps."""
        return self._upload(self._progress.steps.copy())

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(num_envs, classes) float32, the classifier's softmax prediction in every lane's present state."""
        return self._classifier.probabilities(self._state.hidden)

    def _observe(self) -> Any:
        # A gathered map is not used again, so it is the caller's; a computed one may be.
        glance = self._give(self._map if self.features.remembers else self._map.clone())
        return glance if self.observation == "glance" else {"glance": glance, **self._observe_beside_glance()}

    def _observe_beside_glance(self) -> dict[str, Any]:
        return {"belief": self._give(self._state.hidden.clone()), "time": self._give(self._progress.share)}

    def _give(self, values: Tensor | np.ndarray) -> Any:
        """Values as the ``output`` argument asks for. The caller owns them: arrays are copied, tensors are not, but for
        those of inference mode, with which one can't train."""
        if isinstance(values, Tensor):
            if self.output == "numpy":
                return values.cpu().numpy()
            return values.clone() if values.is_inference() else values
        return self._upload(values.copy()) if self.output == "torch" else values.copy()

    def _reset_info(self, mask: BoolArray) -> dict[str, Any]:
        return self._masked(self._reset_values(), mask)

    def _reset_values(self) -> dict[str, Tensor]:
        return {"video": self._video.clone(), "label": self._label.clone()}

    def _step_info(self, stepped: dict[str, Tensor], before: LaneProgress) -> dict[str, Any]:
        values = {
            "prediction": stepped["prediction"].clone(),
            "confidence": stepped["confidence"].clone(),
            "baseline_confidence": stepped["baseline_confidence"],
            "patch": stepped["patch"],
            "skipped": stepped["skipped"].clone(),
            "gflops": stepped["gflops"],
        }
        if self._exact:
            values["candidate_rewards"] = stepped["candidate_rewards"]
        if before.any_over:
            info = self._masked(values, before.running) | self._reset_info(self._start.running)
        else:
            info = self._masked(values | self._reset_values(), before.running)
        if self._progress.any_over:
            done = self._progress.over
            success = self._upload(done) & (stepped["prediction"] == self._label)
            info |= self._masked({"is_success": success, "video_gflops": self._video_gflops.clone()}, done)
        return info

    def _masked(self, values: dict[str, Tensor], mask: BoolArray) -> dict[str, Any]:
        """Gymnasium's vector infos: each array with a mask of the lanes that have it."""
        given = self._give(mask)
        info: dict[str, Any] = {}
        for key, value in values.items():
            info[key], info[f"_{key}"] = self._give(value), given
        return info

    # ------------------------------------------------------------------------------------------------ pictures

    def _pictures(self, lanes: Tensor, time: Tensor) -> Tensor:
        """(n, k, 3, H, W) uint8: what is drawn of steps, k frames side by side."""
        return self._frames.units(lanes, time)[:, None]

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
        if not self._seeded:
            raise gym.error.ResetNeeded("call reset() before render()")
        lanes = torch.arange(1 if self.render_mode == "human" else self.num_envs, device=self.device)
        step, steps = self._last_step, self._progress.steps
        stepped = ((steps > 0) & bool(step)).tolist()
        time = np.maximum(steps - 1, 0)
        frames = self._pictures(lanes, self._upload(time)[lanes]).permute(0, 1, 3, 4, 2).cpu().numpy()
        pictures = tuple(
            self._renderer.draw(
                frames[lane],
                corner=None if not stepped[lane] else tuple(step["patch"][lane, :2].tolist()),
                skipped=stepped[lane] and bool(step["skipped"][lane]),
                label=int(self._label[lane]),
                prediction=None if not stepped[lane] else int(step["prediction"][lane]),
                confidence=float(self._state.confidence[lane]),
                gflops=float(self._video_gflops[lane]),
                progress=(int(time[lane]) + 1, self.num_steps),
            )
            for lane in lanes.tolist()
        )
        if self.render_mode == "human":
            self._renderer.show(pictures[0])
            return None
        return pictures

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window of ``"human"`` mode."""
        if self._renderer is not None:
            self._renderer.close()


def _is_seed(seed: object) -> bool:
    return isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and bool(0 <= seed < 2**62)


def _as_recognizer(recognizer: Any, kind: type[ImageNetworks[Any]]) -> ImageNetworks[Any]:
    if isinstance(recognizer, kind):
        return recognizer
    if not isinstance(recognizer, (str, os.PathLike)):
        raise ValueError(f"recognizer must be a {kind.__name__}, a path or a shipped name, not {recognizer!r}")
    try:
        return kind.from_pretrained(recognizer)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    names = {name: known for known in AutoresetMode for name in (known.name, known.value)}
    if not isinstance(mode, str) or mode not in names:
        raise ValueError(f"autoreset_mode must be one of {[known.name for known in AutoresetMode]}, not {brief(mode)}")
    return names[mode]
