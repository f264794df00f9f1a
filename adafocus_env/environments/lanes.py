"""Episodes side by side, one in every lane: their state on the device, and how a batch of decisions changes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adafocus_env.checks import brief
from adafocus_env.environments.actions import Decision
from adafocus_env.environments.arguments import EnvironmentArguments
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
from adafocus_env.environments.episodes import Episodes
from adafocus_env.environments.frame_buffer import FrameBuffer
from adafocus_env.environments.lane_blocks import in_blocks, lanes_per_block
from adafocus_env.environments.lane_progress import BoolArray, LaneProgress
from adafocus_env.environments.outputs import upload
from adafocus_env.environments.rewards import Reward
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.recognition.classifier import FrameContext


class Stepped(NamedTuple):
    """What a step of B lanes gave besides their new state; rewards and compute are 0 in lanes that rest."""

    reward: Tensor
    """(B,) float32."""
    baseline_confidence: Tensor
    """(B,) float32, the reference's; 0 where there is none and on skipped frames."""
    patch: Tensor
    """(B, 3) int64, top, left and size, pixels."""
    skipped: Tensor
    """(B,) bool."""
    gflops: Tensor
    """(B,) float64, multiply-adds / 1e9 of this step."""
    stopped: Tensor
    """(B,) bool."""
    candidate_rewards: Tensor | None
    """(B, N) float32, what every candidate would have earned, with the exact baseline."""


class Shown(NamedTuple):
    """What B lanes show: (B,) int64 each."""

    video: Tensor
    frame: Tensor
    label: Tensor


class Lanes:
    """The state of B episodes. Tensors are replaced, never changed in place.

    Args:
        num_envs: B.
        features: What the frozen recogniser says.
        reward: What is rewarded.
        arguments: Those of the environment.

    Attributes:
        episodes: Seeds and draws.
        progress: Steps taken.
        video: (B,) int64, the videos shown.
        label: (B,) int64, their classes.
        state: What the classifier makes of them.
        map: (B, C, h, w) float32, the current frame's global map.
        gflops: (B,) float64, spent on the videos so far.
        random_patches: The random patches of all T steps, (B, T) patch indices or (B, T, 2) corners, int64.
        price_names: The prices that are drawn for episodes; empty if all are fixed.
        prices: (B, k) float32, those of the present episodes, in this order.
        frames: The pixels.
        exact: Whether every candidate is considered in every step.
    """

    def __init__(
        self, num_envs: int, features: FrozenFeatures, reward: Reward, arguments: EnvironmentArguments
    ) -> None:
        self.num_envs, self.reward, self._skip = num_envs, reward, arguments.skip
        self._stop, baseline, looks = arguments.stop, arguments.baseline, arguments.looks
        compares_with_random = reward.reference == "random"
        self.exact = compares_with_random and baseline == "exact"
        self._read_from(features)
        # Constants on the device: top, left and size of every candidate; GFLOPs of a frame by candidate, and last,
        # when it is skipped; what a candidate costs as a share of the costliest, where they differ in compute.
        self._patch_size, self._num_patches = features.recognizer.config.patch_size, len(features.corners)
        self._squares = nn.functional.pad(features.corners, (0, 1), value=self._patch_size).to(self.device)
        local = features.local_gflops.to(self.device)
        cost = features.recognizer.cost()
        self._step_gflops, self._glance_gflops = nn.functional.pad(local, (0, 1)) + cost.always, cost.glance
        self._shares = None if bool((local == local[0]).all()) else local / local.max()
        self._all = torch.arange(num_envs, device=self.device)
        self._always, self._any_candidate = self._zeros(torch.bool) | True, self._zeros(torch.int64)
        self._everywhere = torch.arange(self._num_patches, device=self.device).expand(num_envs, -1)

        steps = np.zeros(num_envs, dtype=np.int64)
        num_steps = features.num_steps * looks
        self.at_start = LaneProgress(steps, num_steps, self.device, looks)
        self.progress = LaneProgress(steps + num_steps, num_steps, self.device, looks)  # all need a reset
        drawn_from = baseline if compares_with_random and not self.exact else None
        ranges = arguments.price_ranges
        self._fixed_prices: dict[str, Any] = arguments.prices
        self.price_names = tuple(ranges)
        self.episodes = Episodes(num_envs, features, num_steps, drawn_from, tuple(ranges.values()))
        self.prices = torch.zeros(num_envs, len(ranges), device=self.device)
        self.video, self.label = self._zeros(torch.int64), self._zeros(torch.int64)
        hidden = torch.zeros(num_envs, self._classifier.hidden_size, device=self.device)
        self.state = State(hidden, self._zeros(torch.float32), self._zeros(torch.int64))
        self.gflops = self._zeros(torch.float64)
        self.random_patches: Tensor | None = None
        self.map = torch.zeros(num_envs, *features.recognizer.glance_shape, device=self.device)
        self._frame_gates = torch.zeros(num_envs, self._classifier.gates_size, device=self.device)
        self.frames = FrameBuffer(features, num_envs)

    def _read_from(self, features: FrozenFeatures) -> None:
        """Set the attributes that come from the features."""
        self._features, self.device = features, features.device
        self._labels = features.videos.labels.to(self.device)
        self._classifier, self._blank_gates = features.recognizer.classifier, features.recognizer.blank_gates()

    def _zeros(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.num_envs, dtype=dtype, device=self.device)

    def __getstate__(self) -> dict[str, Any]:
        """For ``pickle`` and ``copy.deepcopy``: without what belongs to the features, which go by reference."""
        left_out = {"_labels", "_classifier", "_blank_gates"}
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_from(self._features)
        if self.episodes.seeded:  # a table that was made anew doesn't know the videos of these episodes yet
            with torch.no_grad():
                self._features.ensure_videos(self.video, self.frames.videos)

    def start(
        self,
        lanes: BoolArray,
        video: NDArray[np.int64] | None = None,
        prices: Mapping[str, NDArray[np.float64] | None] | None = None,
    ) -> None:
        """Put ``lanes``, (B,) bool, before the first frame of their next episode; ``video`` (B,) picks the videos, and
        ``prices`` by name, (B,) each, take the place of those that are drawn."""
        everyone, chosen = bool(lanes.all()), upload(lanes, self.device)
        self.progress = self.at_start if everyone else self.progress.restarted(lanes)

        def where_chosen(value: Tensor, otherwise: Tensor) -> Tensor:
            return value if everyone else torch.where(chosen.view(-1, *[1] * (value.ndim - 1)), value, otherwise)

        drawn = self.episodes.start(lanes)
        self.video = where_chosen(upload(drawn.video if video is None else video, self.device), self.video)
        self.frames.start(self.video, chosen)
        self.label = self._labels.index_select(0, self.video)
        self.gflops = where_chosen(torch.zeros_like(self.gflops), self.gflops)
        if self.price_names:
            for number, name in enumerate(self.price_names):
                if (given := (prices or {}).get(name)) is not None:
                    drawn.prices[:, number] = given
            self.prices = where_chosen(torch.from_numpy(drawn.prices).to(self.device, torch.float32), self.prices)
        if drawn.patches is not None:
            patches = drawn.patches.to(self.device)
            self.random_patches = patches if self.random_patches is None else where_chosen(patches, self.random_patches)
        self._features.ensure_videos(self.video, self.frames.videos)
        self.glance(lanes)
        started = start(self._classifier, self._frame_gates, self.label)
        self.state = State(*(where_chosen(*parts) for parts in zip(started, self.state, strict=True)))

    def glance(self, lanes: BoolArray) -> None:
        """Look at the current frames of ``lanes``, (B,) bool, through the global CNN, where it has not yet."""
        time, lanes = self.progress.frame, lanes & self.progress.at_new_frame
        if self._features.remembers or lanes.all():
            self.map, self._frame_gates = self._features.glance(
                self.video, time, lambda rows: self.frames.units(rows, time[rows])
            )
            return
        if not lanes.any():
            return
        some = torch.from_numpy(np.flatnonzero(lanes)).to(self.device)
        maps, gates = self._features.glance(
            self.video[some], time[some], lambda rows: self.frames.units(some[rows], time[some[rows]])
        )
        self.map = self.map.index_copy(0, some, maps)
        self._frame_gates = self._frame_gates.index_copy(0, some, gates)

    def step(self, decision: Decision, before: LaneProgress) -> Stepped:
        """Decide in the lanes that are running in ``before``; the others rest. All go on to their next step.

        Raises:
            FloatingPointError: The recogniser's output is not finite.
            ValueError: The reward is not.
        """
        place, skipped, stopped = decision
        focused = ~skipped if self._skip else self._always
        if before.any_over:
            focused = focused & upload(before.running, self.device)
        everyone = bool(focused.all()) if self._skip else not before.any_over
        after = self._consider(place, None if everyone else focused)
        patch = place if place.ndim == 1 else self._any_candidate  # places off the grid cost what candidates do
        price = self._look_price(patch)
        outcome = decide(self.state, after, focused, self.reward, price, everyone=everyone)
        self.state, reward = outcome.state, outcome.reward
        self.progress = before.next.restarted(before.over) if before.any_over else before.next
        if self._stop:
            self.progress = self.progress.stopped(stopped.cpu().numpy() & before.running)
            going_on = upload(before.running & self.progress.running, self.device)
            reward = reward - self.price("glance_cost") * going_on
        self._check_finite(reward)
        gflops = self._step_gflops.index_select(
            0, patch if everyone else torch.where(focused, patch, self._num_patches)
        )
        if not before.all_at_new_frame:
            gflops = gflops - self._glance_gflops * upload(~before.at_new_frame, self.device)
        if before.any_over:
            resting = upload(before.over, self.device)
            reward, gflops = reward.masked_fill(resting, 0.0), gflops.masked_fill(resting, 0.0)
        self.gflops = self.gflops + gflops
        return Stepped(
            reward=reward,
            baseline_confidence=outcome.reference,
            patch=self._squares_at(place),
            skipped=skipped,
            stopped=stopped,
            gflops=gflops,
            candidate_rewards=(
                counterfactual_rewards(after, outcome, focused, self.reward, self._look_price(self._everywhere))
                if self.exact
                else None
            ),
        )

    def price(self, name: str) -> Tensor | float:
        """A price in the present episodes: (B,) float32 if prices are drawn, else the number that it is in all."""
        return self.prices[:, self.price_names.index(name)] if self.price_names else self._fixed_prices[name]

    def _look_price(self, patch: Tensor) -> Tensor | float:
        """What it costs to look at candidates, (B,) or (B, N); a number, or (B, 1), where they don't differ in it."""
        price = self.price("skip_cost")
        if isinstance(price, Tensor):
            price = price.view(-1, *[1] * (patch.ndim - 1))
        return price if self._shares is None else (price * self._shares[patch]).float()

    @torch.inference_mode()
    def _consider(self, place: Tensor, focused: Tensor | None) -> Consequences:
        """What the classifier would say if the local CNN read the frame, at places that are patch indices or corners,
        in the ``focused`` lanes (``None``: in all)."""
        drawn = None
        if self.exact:
            drawn = self._everywhere
        elif self.random_patches is not None:
            drawn = self.random_patches[self.progress.now]
        looks = patches_to_read(place, self.reward.reference, drawn, exact=self.exact)
        # What the bank remembers is gathered anew for every frame, so it may be overwritten.
        frame_gates = self._frame_gates if self._features.remembers else self._frame_gates.clone()
        context = self._classifier.context(frame_gates, self.state.hidden)

        def of_lanes(
            lanes: Tensor, looks: Looks, focused: Tensor | None, shown: Shown, context: FrameContext
        ) -> Consequences:
            def cut(rows: Tensor, corners: Tensor) -> Tensor:
                return self.frames.cut(lanes[rows], shown.frame[rows], corners)

            gates = self._features.look(shown.video, shown.frame, looks.candidates, focused, cut, looks.anywhere)
            if self.reward.reference == "blank":
                gates = torch.cat((gates, self._blank_gates.expand_as(gates)), dim=1)
            return consider(self._classifier, context, gates, looks, shown.label)

        block = lanes_per_block(frame_gates.shape[1] * max(2, looks.candidates.shape[1]), self.device)
        shown = Shown(self.video, self.progress.frame, self.label)
        return in_blocks(of_lanes, block, self._all, looks, focused, shown, context)

    def _check_finite(self, reward: Tensor) -> None:
        if math.isfinite(reward.sum()):  # a cheap test that NaN and inf fail
            return
        lost = ~torch.isfinite(self.state.confidence)
        if bool(lost.any()):
            raise FloatingPointError(f"the recogniser's confidence is not finite on video {int(self.video[lost][0])}")
        raise ValueError(f"reward must give finite numbers, not {brief(reward)}")

    def _squares_at(self, place: Tensor) -> Tensor:
        """(B, 3) int64, top, left and size of places."""
        if place.ndim == 1:
            return self._squares.index_select(0, place)
        return nn.functional.pad(place, (0, 1), value=self._patch_size)
