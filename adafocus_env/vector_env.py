"""The Markov decision process, batched: the only place where its rules are written."""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from adafocus_env.feature_bank import FeatureBank
from adafocus_env.patches import random_corners
from adafocus_env.random_draws import integers, uniform
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.render import SceneRenderer
from adafocus_env.rewards import BASELINES, Reward, get_reward
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.videos.registry import get_videos

DEFAULT_RECOGNIZER = "roaming-fashion"
DEFAULT_SKIP_COST = 0.015
"""λ where the action carries a skip bit and none is given, in label confidence."""

_LANE_LOAD = 64  # videos loaded at once: larger batches spend their time on fresh memory pages
_VIDEO_STREAM, _CANDIDATE_STREAM, _TOP_STREAM, _LEFT_STREAM = range(4)


class AdaFocusVectorEnv(VectorEnv[Any, Any, Any]):
    """Many episodes of ``AdaFocus-v0`` at once; see :class:`adafocus_env.AdaFocusEnv` for the environment itself.

    Made by ``gym.make_vec("AdaFocus-v0", num_envs=64)``. Lane i, seeded s + i, behaves as a single environment seeded
    s + i. Every random draw is a function of (lane seed, episode, step).

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
        reward: A name out of :data:`adafocus_env.rewards.REWARDS` or an object following the reward protocol.
        baseline: ``"sample"``, ``"exact"`` or ``"pixel"``: how the random patch's confidence is found.
        observation: ``"full"`` or ``"glance"``.
        render_mode: ``"rgb_array"``, ``"human"`` or ``None``.
        device: torch device of the recogniser and its table.
        autoreset_mode: ``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``, as :class:`gymnasium.vector.AutoresetMode` or its
            name or value.
        output: ``"numpy"``, or ``"torch"`` for tensors on ``device``.

    Attributes:
        num_frames: T, steps per episode.
        frame_size: (H, W), pixels.
        patch_size: P, pixels.
        num_patches: N.
        num_classes: Number of classes.
        videos: The data set.
        recognizer: The frozen copy of the recogniser.
        corners: (N, 2) int64, top and left of every candidate, pixels.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        videos: VideoDataset | str | None = None,
        recognizer: Recognizer | str | os.PathLike[str] | None = None,
        grid: int = 7,
        skip: bool = True,
        skip_cost: float | None = None,
        reward: str | Reward = "gain_over_random",
        baseline: str = "sample",
        observation: str = "full",
        render_mode: str | None = None,
        device: str | torch.device = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: Literal["numpy", "torch"] = "numpy",
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ValueError(f"num_envs must be an integer of at least 1, not {num_envs!r}")
        _check_choice("baseline", baseline, BASELINES)
        _check_choice("observation", observation, ("full", "glance"))
        _check_choice("output", output, ("numpy", "torch"))
        _check_choice("render_mode", render_mode, (*self.metadata["render_modes"], None))
        if not isinstance(skip, (bool, np.bool_)):
            raise ValueError(f"skip must be True or False, not {skip!r}")
        if skip_cost is None:
            skip_cost = DEFAULT_SKIP_COST if skip else 0.0
        if not isinstance(skip_cost, (int, float)) or not 0 <= skip_cost < float("inf"):
            raise ValueError(f"skip_cost must be a finite number of at least 0, not {skip_cost!r}")
        if isinstance(grid, bool) or not isinstance(grid, (int, np.integer)):
            raise ValueError(f"grid must be an integer of at least 2, not {grid!r}")
        if recognizer is None:
            recognizer = DEFAULT_RECOGNIZER
        if not isinstance(recognizer, (Recognizer, str, os.PathLike)):
            raise ValueError(f"recognizer must be a Recognizer, a path or a shipped name, not {recognizer!r}")
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device must be a torch device, not {device!r}") from error
        if not isinstance(recognizer, Recognizer):
            recognizer = Recognizer.from_pretrained(recognizer)

        self.num_envs = int(num_envs)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": _autoreset_mode(autoreset_mode)}
        self.videos = get_videos(videos, split)
        self.skip, self.skip_cost = bool(skip), float(skip_cost)
        self.reward, self.baseline = get_reward(reward), baseline
        self.observation, self.output = observation, output

        self.bank = FeatureBank.shared(recognizer, self.videos, int(grid), self.device)
        self.recognizer = self.bank.recognizer
        self.corners = self.bank.corners
        self.num_frames, self.frame_size = self.videos.num_frames, self.videos.frame_size
        self.patch_size, self.num_patches = self.recognizer.config.patch_size, len(self.corners)
        self.num_classes = self.videos.num_classes
        self._cost = self.recognizer.cost()
        self._labels = self.videos.labels.to(self.device)
        self._device_corners = self.corners.to(self.device)

        low, high = self.recognizer.glance_bounds
        hidden = self.recognizer.config.hidden_size
        glance_space = spaces.Box(low, high, self.recognizer.glance_shape, np.float32)
        self.single_observation_space: spaces.Space[Any] = glance_space
        if observation == "full":
            self.single_observation_space = spaces.Dict(
                glance=glance_space,
                belief=spaces.Box(-1, 1, (hidden,), np.float32),
                time=spaces.Box(0, 1, (1,), np.float32),
            )
        self.single_action_space: spaces.Space[Any] = (
            spaces.MultiDiscrete([self.num_patches, 2]) if skip else spaces.Discrete(self.num_patches)
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        # The state of every lane. `_time` is the number of frames seen; _lane_seed and _episode key the random draws.
        self._lane_seed = self._zeros(torch.int64)
        self._episode = self._zeros(torch.int64)
        self._video = self._zeros(torch.int64)
        self._label = self._zeros(torch.int64)
        self._time = self._zeros(torch.int64)
        self._hidden = torch.zeros(self.num_envs, hidden, device=self.device)
        self._confidence = self._zeros(torch.float32)
        self._video_gflops = self._zeros(torch.float64)
        self._needs_reset = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._seeded = False
        # Frames of the lanes' videos, loaded only when the bank misses something or a picture is drawn.
        self._frames: Tensor | None = None
        self._frames_loaded = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._renderer = SceneRenderer(self.videos.class_names, self.patch_size) if render_mode else None
        self._last_step: dict[str, Tensor] = {}
        self._stepped = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)  # since the last reset

    def _zeros(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.num_envs, dtype=dtype, device=self.device)

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
        options = dict(options or {})
        mask = self._read_reset_mask(options.pop("reset_mask", None))
        video = self._read_videos(options.pop("video", None), mask)
        if options:
            raise ValueError(f"options must hold nothing but 'video' and 'reset_mask', not {sorted(options)}")
        self._seed_lanes(seed, mask)
        self._start_episodes(mask, video)
        if self.render_mode == "human":
            self.render()
        return self._observe(), self._reset_info(mask)

    def _read_reset_mask(self, mask: Any) -> Tensor:
        if mask is None:
            return torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        mask = torch.as_tensor(mask, device=self.device)
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,) or not bool(mask.any()):
            raise ValueError(
                f"options['reset_mask'] must be {self.num_envs} booleans with at least one True, not {mask.dtype} of "
                f"shape {tuple(mask.shape)}"
            )
        return mask

    def _read_videos(self, video: Any, mask: Tensor) -> Tensor | None:
        if video is None:
            return None
        try:
            video = torch.as_tensor(np.asarray(video) if not isinstance(video, Tensor) else video, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"options['video'] must be an integer or {self.num_envs} integers, not {video!r}"
            ) from error
        if video.dtype.is_floating_point or video.dtype == torch.bool or video.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"options['video'] must be an integer or {self.num_envs} integers, not {video.dtype} of shape "
                f"{tuple(video.shape)}"
            )
        video = video.long().expand(self.num_envs)
        chosen = video[mask]
        if bool(((chosen < 0) | (chosen >= len(self.videos))).any()):
            raise ValueError(f"options['video'] must be between 0 and {len(self.videos) - 1}, not {chosen.tolist()}")
        return video

    def _seed_lanes(self, seed: int | list[int | None] | None, mask: Tensor) -> None:
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            seeds = [int(seed) + lane for lane in range(self.num_envs)]
        else:
            seeds = list(cast(list[int | None], seed))
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed must be an integer or {self.num_envs} integers, not {len(seeds)} of them")
        if any(lane_seed is not None and not 0 <= lane_seed < 2**62 for lane_seed in seeds):
            raise ValueError(f"seed must be between 0 and 2**62, not {seed}")
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        if not self._seeded:
            first = self.np_random.integers(2**31, size=self.num_envs)
            self._lane_seed = torch.as_tensor(first, device=self.device)
            self._episode.fill_(-1)  # the first episode is number 0
            self._seeded = True
        given = torch.tensor([lane_seed is not None for lane_seed in seeds], device=self.device) & mask
        values = torch.tensor([lane_seed or 0 for lane_seed in seeds], device=self.device)
        self._lane_seed = torch.where(given, values, self._lane_seed)
        self._episode = torch.where(given, -1, self._episode)

    def _start_episodes(self, mask: Tensor, video: Tensor | None = None) -> None:
        """Put the lanes of ``mask`` before the first frame of their next episode."""
        self._episode = self._episode + mask
        drawn = integers(len(self.videos), self._lane_seed, self._episode, _VIDEO_STREAM, 0)
        video = torch.where(mask, drawn if video is None else video, self._video)
        self._frames_loaded &= video == self._video
        self._video = video
        self._label = self._labels[video]
        self._time = torch.where(mask, 0, self._time)
        self._hidden = torch.where(mask[:, None], 0.0, self._hidden)
        self._video_gflops = torch.where(mask, 0.0, self._video_gflops)
        self._needs_reset = self._needs_reset & ~mask
        self._stepped = self._stepped & ~mask
        confidence, _ = self._confidence_in(self._hidden)
        self._confidence = torch.where(mask, confidence, self._confidence)
        self.bank.ensure_videos(self._video, self._load_videos)

    # ---------------------------------------------------------------------------------------------------- step

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one frame further in every lane.

        Args:
            actions: (num_envs, 2) integers (patch index, skip bit), or (num_envs,) patch indices without skip bit.

        Returns:
            Observations, rewards (num_envs,) float32, terminated and truncated (num_envs,) bool, and infos.

        Raises:
            gymnasium.error.ResetNeeded: A lane was not reset, or its episode is over and autoreset is disabled.
            ValueError: Actions of the wrong shape or dtype, or out of range.
            FloatingPointError: The recogniser's output is not finite.
        """
        patch, skipped = self._read_actions(actions)
        mode = self.metadata["autoreset_mode"]
        restart = self._needs_reset
        if bool(restart.any()):
            if mode is not AutoresetMode.NEXT_STEP or not self._seeded:
                raise gym.error.ResetNeeded("call reset() before the first step and after the end of an episode")
            if bool(restart.all()):  # the usual case: all episodes have the same length
                self._start_episodes(restart)
                false = torch.zeros_like(restart)
                zero = self._zeros(torch.float32)
                return (
                    self._observe(),
                    self._give(zero),
                    self._give(false),
                    self._give(false),
                    self._reset_info(restart),
                )
            self._start_episodes(restart)

        stepped = self._transition(patch, skipped, moving=~restart)
        done = ~restart & (self._time == self.num_frames)
        self._needs_reset = done
        info = self._step_info(stepped, done, ~restart)
        info.update(self._reset_info(torch.ones_like(restart)))
        reward = torch.where(restart, 0.0, stepped["reward"])
        self._last_step = stepped
        self._stepped = self._stepped | ~restart
        if self.render_mode == "human":
            self.render()
        if mode is AutoresetMode.SAME_STEP and bool(done.any()):
            info = self._restart_in_place(info, done)
        return self._observe(), self._give(reward), self._give(done.clone()), self._give(torch.zeros_like(done)), info

    def _read_actions(self, actions: Any) -> tuple[Tensor, Tensor]:
        """Patch indices (num_envs,) int64 and skip bits (num_envs,) bool."""
        shape = (self.num_envs, 2) if self.skip else (self.num_envs,)
        wanted = f"actions must be {shape} integers" + (" (patch index, skip bit)" if self.skip else "")
        try:
            values = actions.clone() if isinstance(actions, Tensor) else torch.as_tensor(np.array(actions))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{wanted}, not {actions!r}") from error
        if tuple(values.shape) != shape or values.is_floating_point() or values.dtype == torch.bool:
            raise ValueError(f"{wanted}, not {values.dtype} of shape {tuple(values.shape)}")
        values = values.to(self.device, torch.int64)
        limits = torch.tensor([self.num_patches, 2] if self.skip else self.num_patches, device=self.device)
        if bool(((values < 0) | (values >= limits)).any()):
            allowed = f"patch indices 0 to {self.num_patches - 1}" + (" and skip bits 0 or 1" if self.skip else "")
            raise ValueError(f"actions must hold {allowed}, not {values.tolist()}")
        if self.skip:
            return values[:, 0], values[:, 1] == 1
        return values, torch.zeros_like(values, dtype=torch.bool)

    def _transition(self, patch: Tensor, skipped: Tensor, moving: Tensor) -> dict[str, Tensor]:
        """Advance the classifier in the lanes of ``moving`` and find the reward. The rules of the process are here."""
        classifier = self.recognizer.classifier
        video, time = self._video, self._time.clamp(max=self.num_frames - 1)
        focused = ~skipped & moving
        frame_gates = self.bank.global_gates(video, time)
        hidden_gates = classifier.project_hidden(self._hidden)

        def confidence_after(local_gates: Tensor | None) -> Tensor:
            """Confidence on the label if the frame were focused, for one or, (num_envs, k, 3·D), several patches."""
            inputs, hidden, projected = frame_gates, self._hidden, hidden_gates
            if local_gates is not None and local_gates.ndim == 3:
                inputs, hidden, projected = inputs[:, None], hidden[:, None], projected[:, None]
            if local_gates is not None:
                inputs = inputs + local_gates
            return self._confidence_in(classifier.advance(inputs, hidden, projected))[0]

        local_gates, random_gates = self._patch_gates(video, time, patch, focused)
        after = classifier.advance(frame_gates + local_gates, self._hidden, hidden_gates)
        hidden = torch.where(focused[:, None], after, self._hidden)
        confidence, prediction = self._confidence_in(hidden)
        if not bool(torch.isfinite(confidence).all()):
            bad = int(video[~torch.isfinite(confidence)][0])
            raise FloatingPointError(f"the recogniser's confidence is not finite on video {bad}")

        match self.reward.reference:
            case "random":
                reference = confidence_after(random_gates)
                if reference.ndim == 2:
                    reference = reference.mean(dim=1)
            case "previous":
                reference = self._confidence
            case "blank":
                reference = confidence_after(None)
            case None:
                reference = torch.zeros_like(confidence)
        reference = torch.where(focused, reference, 0.0)
        reward = self.reward(confidence, reference, focused, self.skip_cost)
        if reward.shape != confidence.shape or not bool(torch.isfinite(reward).all()):
            raise ValueError(f"reward must give {tuple(confidence.shape)} finite numbers, not {reward}")

        gflops = self._cost.always + self._cost.local * focused.double()
        self._hidden = hidden
        self._confidence = torch.where(moving, confidence, self._confidence)
        self._time = self._time + moving
        self._video_gflops = self._video_gflops + torch.where(moving, gflops, 0.0)
        return {
            "reward": reward,
            "prediction": prediction,
            "confidence": confidence,
            "baseline_confidence": reference,
            "patch": patch,
            "skipped": skipped,
            "gflops": gflops,
        }

    def _patch_gates(self, video: Tensor, time: Tensor, patch: Tensor, focused: Tensor) -> tuple[Tensor, Tensor | None]:
        """Projected local vectors of the chosen and, if the reward wants them, of the random patches.

        Returns:
            (num_envs, 3·D), and (num_envs, 3·D), (num_envs, N, 3·D) with ``baseline="exact"``, or ``None``. Rows of
            lanes that are not focused are zero.
        """
        bank, lane = self.bank, focused.nonzero()[:, 0]
        candidates = patch[lane, None]
        if self.reward.reference == "random" and self.baseline == "sample":
            drawn = integers(self.num_patches, self._lane_seed, self._episode, _CANDIDATE_STREAM, time)
            candidates = torch.stack((patch[lane], drawn[lane]), dim=1)
        elif self.reward.reference == "random" and self.baseline == "exact":
            everywhere = torch.arange(self.num_patches, device=self.device).expand(len(lane), -1)
            candidates = torch.cat((patch[lane, None], everywhere), dim=1)

        query = torch.broadcast_tensors(lane[:, None], video[lane, None], time[lane, None], candidates)
        lanes, query_video, query_time, query_candidate = (part.flatten() for part in query)
        bank.ensure_patches(
            query_video, query_time, query_candidate, lambda rows: self._load_frames(lanes[rows], query_time[rows])
        )
        gates = bank.local_gates(video[lane, None], time[lane, None], candidates)
        chosen = self._scatter(lane, gates[:, 0])
        if self.reward.reference != "random":
            return chosen, None
        if self.baseline == "sample":
            return chosen, self._scatter(lane, gates[:, 1])
        if self.baseline == "exact":
            return chosen, self._scatter(lane, gates[:, 1:])
        draws = torch.stack(
            [uniform(self._lane_seed, self._episode, stream, time) for stream in (_TOP_STREAM, _LEFT_STREAM)], dim=-1
        )
        corners = random_corners(self.frame_size, self.patch_size, draws[lane])
        if not len(lane):
            return chosen, torch.zeros_like(chosen)
        return chosen, self._scatter(
            lane, bank.project_patches(self._load_frames(lane, time[lane]), corners, video[lane])
        )

    def _scatter(self, lane: Tensor, rows: Tensor) -> Tensor:
        """Rows of some lanes, spread over all lanes; zero elsewhere."""
        if len(lane) == self.num_envs:
            return rows
        return rows.new_zeros(self.num_envs, *rows.shape[1:]).index_copy_(0, lane, rows)

    def _confidence_in(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Confidence on the label and predicted class in states of shape (num_envs, D) or (num_envs, k, D)."""
        probabilities = torch.softmax(self.recognizer.classifier.predict(hidden), dim=-1)
        label = self._label.view(-1, *[1] * (hidden.ndim - 1)).expand(*hidden.shape[:-1], 1)
        return probabilities.gather(-1, label)[..., 0], probabilities.argmax(dim=-1)

    def _restart_in_place(self, info: dict[str, Any], done: Tensor) -> dict[str, Any]:
        """SAME_STEP autoreset: keep the end of the finished episodes in the info, start the next ones."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        observation = self._observe()
        for lane in done.nonzero()[:, 0].tolist():
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
            if not bool(done.all()) and key not in ("is_success", "_is_success", "video_gflops", "_video_gflops")
        }
        self._start_episodes(done)
        everyone = self._reset_info(torch.ones_like(done))
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
        """(num_envs,) int64, the frame that the next action of every lane is about; T after the last."""
        return self._time.clone()

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(num_envs, classes) float32, the classifier's softmax prediction in every lane's present state."""
        return torch.softmax(self.recognizer.classifier.predict(self._hidden), dim=-1)

    def _observe(self) -> Any:
        glance = self._give(self.bank.maps(self._video, self._time.clamp(max=self.num_frames - 1)))
        if self.observation == "glance":
            return glance
        time = (self._time.to(torch.float32) / self.num_frames)[:, None]
        return {"glance": glance, "belief": self._give(self._hidden.clone()), "time": self._give(time)}

    def _give(self, values: Tensor) -> Any:
        """Values as the ``output`` argument asks for; the caller owns them."""
        return values if self.output == "torch" else values.cpu().numpy()

    def _reset_info(self, mask: Tensor) -> dict[str, Any]:
        return self._masked({"video": self._video.clone(), "label": self._label.clone()}, mask)

    def _step_info(self, stepped: dict[str, Tensor], done: Tensor, moving: Tensor) -> dict[str, Any]:
        corners = self._device_corners[stepped["patch"]]
        size = torch.full_like(corners[:, :1], self.patch_size)
        values = {
            "prediction": stepped["prediction"].clone(),
            "confidence": stepped["confidence"],
            "baseline_confidence": stepped["baseline_confidence"],
            "patch": torch.cat((corners, size), dim=1),
            "skipped": stepped["skipped"].clone(),
            "gflops": stepped["gflops"],
        }
        info = self._masked(values, moving)
        if bool(done.any()):
            success = done & (stepped["prediction"] == self._label)
            info |= self._masked({"is_success": success, "video_gflops": self._video_gflops.clone()}, done)
        return info

    def _masked(self, values: dict[str, Tensor], mask: Tensor) -> dict[str, Any]:
        """Gymnasium's vector infos: each array with a mask of the lanes that have it."""
        info: dict[str, Any] = {}
        for key, value in values.items():
            info[key] = self._give(value)
            info[f"_{key}"] = self._give(mask.clone())
        return info

    # -------------------------------------------------------------------------------------------------- frames

    def _ensure_frames(self, lanes: Tensor) -> Tensor:
        """The (num_envs, T, 3, H, W) uint8 buffer, with the videos of the given lanes in it; each is loaded once."""
        if self._frames is None:
            shape = (self.num_envs, self.num_frames, *self.frame_size, 3)
            # Stored with the channels last, the layout in which crops and convolutions are fastest.
            self._frames = torch.empty(shape, dtype=torch.uint8, device=self.device).permute(0, 1, 4, 2, 3)
        absent = lanes[~self._frames_loaded[lanes]].unique()
        for chunk in absent.split(_LANE_LOAD):
            self._frames[chunk] = self.videos.frames(self._video[chunk].cpu()).to(self.device)
        self._frames_loaded[absent] = True
        return self._frames

    def _load_videos(self, lanes: Tensor) -> Tensor:
        """(n, T, 3, H, W) uint8: the videos in the given lanes."""
        return self._ensure_frames(lanes)[lanes]

    def _load_frames(self, lanes: Tensor, time: Tensor) -> Tensor:
        """(n, 3, H, W) uint8: one frame each of the videos in the given lanes."""
        return self._ensure_frames(lanes)[lanes, time]

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw the frame that was acted on last in every lane (before the first step: the first frame).

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
        step, stepped = self._last_step, self._stepped.tolist()
        time = torch.where(self._stepped, self._time - 1, self._time).clamp(0, self.num_frames - 1)
        frames = self._load_frames(lanes, time[lanes]).permute(0, 2, 3, 1).cpu().numpy()
        pictures = tuple(
            self._renderer.draw(
                frames[lane],
                corner=None if not stepped[lane] else tuple(self.corners[int(step["patch"][lane])].tolist()),
                skipped=stepped[lane] and bool(step["skipped"][lane]),
                label=int(self._label[lane]),
                prediction=None if not stepped[lane] else int(step["prediction"][lane]),
                confidence=float(self._confidence[lane]),
                gflops=float(self._video_gflops[lane]),
                progress=(int(time[lane]) + 1, self.num_frames),
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


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        if mode in (known.name, known.value):
            return known
    raise ValueError(f"autoreset_mode must be one of {[known.name for known in AutoresetMode]}, not {mode!r}")
