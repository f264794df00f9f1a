"""The deployment path, which recognises videos with a policy at the cost of the networks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from adafocus_env.checks import Bounds, as_array, brief, check_integer
from adafocus_env.patches import can_stop, crop, grid_corners, grid_of, position_corners
from adafocus_env.policies import decide, rows_of_state
from adafocus_env.prices import as_policy_price
from adafocus_env.recognition.compute_cost import policy_gflops
from adafocus_env.recognition.image_networks import ImageNetworks


@dataclass(frozen=True)
class Recognition:
    """The result of recognising videos with a policy.

    Attributes:
        logits: (B, T, classes) float32, the prediction after every look (one at each frame, unless there are more).
        corners: (B, T, 2) int64, top and left of every patch, pixels; meaningless where skipped.
        skipped: (B, T) bool, frames on which the local CNN did not run.
        gflops: (B,) float64, multiply-adds / 1e9 of every video, including the policy's own.
        frames: (B,) int64, number of frames that were glanced at; T, unless the video was left early.
        step_gflops: (B, T) float64, what each look of these cost; 0 after the video was left.
    """

    logits: Tensor
    corners: Tensor
    skipped: Tensor
    gflops: Tensor
    frames: Tensor
    step_gflops: Tensor


def recognize_frames(
    recognizer: ImageNetworks[Any],
    frames: Tensor,
    policy: Any,
    grid: int | None,
    exit_threshold: float | Sequence[float] | None,
    looks: int,
    price: float | Sequence[float] | None,
) -> Recognition:
    """See :meth:`adafocus_env.Recognizer.recognize`."""
    _check_request(frames, policy)
    looks = check_integer("looks", looks, Bounds(at_least=1))
    choices = _Choices(recognizer, frames, policy, grid, price)
    videos, times = frames.shape[0], frames.shape[1] * looks
    thresholds = as_thresholds(exit_threshold, times)
    if choices.can_stop or (thresholds <= 1).any():  # else no confidence can reach one
        return _recognize_until_certain(recognizer, frames, policy, choices, thresholds, looks)
    # All videos' first frames, then all second ones, as the policy and the classifier read them: (frames, B).
    order = torch.arange(videos * frames.shape[1], device=recognizer.device).view(videos, -1).t()
    reader = _FrameReader(recognizer, frames.flatten(0, 1))
    reader.resize_all()
    maps, frame_gates = (part.unflatten(0, order.shape) for part in reader.glance(order.flatten()))
    order, frame_gates = (part.repeat_interleave(looks, dim=0) for part in (order, frame_gates))  # (T, B, …)
    classifier = recognizer.classifier
    corners = torch.zeros(times, videos, 2, dtype=torch.int64, device=recognizer.device)
    skipped = torch.zeros_like(order, dtype=torch.bool)
    states = [classifier.start(frame_gates[0])]  # before the first frame, and after each

    def look(when: slice) -> Tensor:
        """(steps, videos, 3·D) of the patches in some steps, in one batch; zero where skipped."""
        focused = ~skipped[when]
        gates = torch.zeros_like(frame_gates[when])
        if bool(focused.any()):
            gates[focused] = reader.look(order[when][focused], corners[when][focused])
        return gates

    def advance(time: int, patch_gates: Tensor) -> None:
        before = states[-1]
        after = classifier.advance(patch_gates, classifier.context(frame_gates[time], before))
        states.append(torch.where(skipped[time, :, None], before, after))

    sees_belief = not isinstance(getattr(policy, "observation_space", None), spaces.Box)
    for time in range(times):
        corners[time], skipped[time], _ = choices.next(maps[time // looks], states[-1], time / times)
        if sees_belief:
            advance(time, look(slice(time, time + 1))[0])
    if not sees_belief:
        for time, patch_gates in enumerate(look(slice(None))):
            advance(time, patch_gates)

    logits = classifier.predict(torch.stack(states[1:], dim=1))
    steps = torch.full((videos,), times, device=recognizer.device)
    return _recognition(recognizer, policy, logits, corners.transpose(0, 1), skipped.t(), steps, looks)


def _recognition(
    recognizer: ImageNetworks[Any],
    policy: Any,
    logits: Tensor,
    corners: Tensor,
    skipped: Tensor,
    steps: Tensor,
    looks: int,
) -> Recognition:
    """The result of ``steps``, (B,), with what it cost."""
    cost, number = recognizer.cost(), torch.arange(logits.shape[1], device=logits.device)
    glanced = number % looks == 0  # at the first look at a frame
    each = cost.classifier + policy_gflops(policy) + cost.glance * glanced.double()
    spent = torch.where(number < steps[:, None], each, 0.0) + cost.local * (~skipped).double()
    return Recognition(logits, corners, skipped, spent.sum(dim=1), -(-steps // looks), spent)


def _recognize_until_certain(
    recognizer: ImageNetworks[Any],
    frames: Tensor,
    policy: Any,
    choices: _Choices,
    thresholds: npt.NDArray[np.float64],
    looks: int,
) -> Recognition:
    """Step by step, with the videos that are neither certain nor stopped: nothing is computed of the others."""
    classifier, device = recognizer.classifier, recognizer.device
    videos, times = len(frames), len(thresholds)
    reader = _FrameReader(recognizer, frames.flatten(0, 1))
    logits = torch.empty(videos, times, recognizer.config.num_classes, device=device)
    corners = torch.zeros(videos, times, 2, dtype=torch.int64, device=device)
    skipped = torch.ones(videos, times, dtype=torch.bool, device=device)
    steps = torch.zeros(videos, dtype=torch.int64, device=device)
    going = torch.arange(videos, device=device)
    maps, frame_gates, hidden = torch.empty(0), torch.empty(0), torch.empty(0)
    for time in range(times):
        number = going * frames.shape[1] + time // looks
        if time % looks == 0:
            maps, frame_gates = reader.glance(number)
        if time == 0:
            hidden = classifier.start(frame_gates)
        chosen, passed, stopped = choices.next(maps, hidden, time / times)
        focused = ~passed
        patch_gates = torch.zeros_like(frame_gates)
        if bool(focused.any()):
            patch_gates[focused] = reader.look(number[focused], chosen[focused])
        after = classifier.advance(patch_gates, classifier.context(frame_gates.clone(), hidden))
        hidden = torch.where(focused[:, None], after, hidden)
        found = classifier.predict(hidden)
        logits[going, time:] = found[:, None]
        corners[going, time], skipped[going, time], steps[going] = chosen, passed, time + 1
        certain = found.softmax(dim=1).amax(dim=1) >= thresholds[time]
        staying = torch.nonzero(~(certain | stopped))[:, 0]
        if len(staying) < len(going):
            going, hidden, maps, frame_gates = (part[staying] for part in (going, hidden, maps, frame_gates))
            choices.keep(staying)
        if not len(going):
            break
    return _recognition(recognizer, policy, logits, corners, skipped, steps, looks)


def refuse_exit(exit_threshold: object) -> None:
    """Raise ``ValueError`` if AdaFocus-TSM, which decides once per clip, is asked to leave clips early."""
    if exit_threshold is not None:
        raise ValueError("exit_threshold: a clip is decided about at once, so none can be left early")


def refuse_skips(policy: Any) -> None:
    """Raise ``ValueError`` if AdaFocus-TSM, which reads every clip, is given a policy with a skip bit."""
    if isinstance(policy.action_space, spaces.MultiDiscrete):
        raise ValueError(f"the policy acts in {policy.action_space}, but clips have no skip bit")


def as_thresholds(exit_threshold: float | Sequence[float] | None, times: int) -> npt.NDArray[np.float64]:
    """(T,) the confidence at which a video is left after each of its frames; infinite for ``None``.

    Args:
        exit_threshold: A number, or one for each frame; ``None`` never leaves a video.
        times: T.

    Raises:
        ValueError: It is none of these, or not above 0.
    """
    if exit_threshold is None:
        return np.full(times, np.inf)
    found = as_array(exit_threshold)
    number = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
    if not number or found.shape not in ((), (times,)) or not bool((found > 0).all()):
        raise ValueError(
            f"exit_threshold must be a number above 0, or one for each of {times} frames, not {brief(exit_threshold)}"
        )
    return np.broadcast_to(found.astype(np.float64), times)


def recognize_clips(recognizer: ImageNetworks[Any], clips: Tensor, policy: Any) -> Recognition:
    """See :meth:`adafocus_env.TSMRecognizer.recognize`."""
    _check_request(clips, policy)
    clips = clips.to(recognizer.device)
    refuse_skips(policy)
    patch_size = recognizer.config.patch_size
    glanced = recognizer.batches(recognizer.glanced(clips), recognizer.config.glance_size)
    maps, logits = (torch.cat(part) for part in zip(*map(recognizer.glance, glanced), strict=True))
    corners, _, _ = _Choices(recognizer, clips, policy, grid_of(policy.action_space)).next(maps)
    patches = recognizer.batches(recognizer.cut(clips, corners), patch_size)
    cost = recognizer.cost()
    spent = cost.always + cost.local + policy_gflops(policy)
    gflops = torch.full((len(clips), 1), spent, dtype=torch.float64, device=recognizer.device)
    return Recognition(
        logits=(logits + torch.cat([recognizer.look(batch) for batch in patches]))[:, None],
        corners=corners[:, None],
        skipped=torch.zeros(len(clips), 1, dtype=torch.bool, device=recognizer.device),
        gflops=gflops[:, 0],
        frames=torch.full((len(clips),), clips.shape[1], device=recognizer.device),
        step_gflops=gflops,
    )


class _FrameReader:
    """Runs a recogniser's CNNs on frames, (M, 3, H, W) uint8, and projects the results to the classifier's gates."""

    def __init__(self, recognizer: ImageNetworks[Any], frames: Tensor) -> None:
        self._recognizer, self._frames = recognizer, frames.to(recognizer.device)
        self._small: Tensor | None = None

    def resize_all(self) -> None:
        """Resize all frames at once, if all will be glanced at. Resizing uses one thread, and between the CNN's batches
        would keep the CNN's threads waiting."""
        # Channels are last in memory; if they are last in the shape too, whole frames are copied.
        self._small = self._recognizer.resized(self._frames).permute(0, 2, 3, 1)

    def glance(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Maps, (n, C, h, w), and projected global vectors, (n, 3·D), of the frames numbered ``chosen``, (n,) int64."""
        recognizer = self._recognizer
        if self._small is None:
            whole = self._frames.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
            small = recognizer.resized(whole)
        else:
            small = self._small.index_select(0, chosen).permute(0, 3, 1, 2)
        glances = [recognizer.glance(batch) for batch in recognizer.batches(small, recognizer.config.glance_size)]
        maps, vectors = (torch.cat(part) for part in zip(*glances, strict=True))
        return maps, recognizer.classifier.project_global(vectors)

    def look(self, chosen: Tensor, corners: Tensor) -> Tensor:
        """Projected local vectors, (n, 3·D), of one patch of each of these frames, at ``corners``, (n, 2) int64."""
        recognizer, size = self._recognizer, self._recognizer.config.patch_size
        patches = crop(self._frames, corners, size, chosen)
        vectors = torch.cat([recognizer.look(batch) for batch in recognizer.batches(patches, size)])
        return recognizer.classifier.project_local(vectors)


class _Choices:
    """What a policy chooses for the videos that are still going on, step after step; ``can_stop`` says whether it can
    end them.

    Args:
        recognizer: Sets the size of patches.
        frames: (B, T, 3, H, W), the videos.
        policy: The policy.
        grid: g, of patch indices; ``None`` takes it from the policy's action space.
        price: What the policy is to act by, if it sees prices.

    Raises:
        ValueError: The policy acts neither in patch indices of this grid nor in positions, or needs another ``price``.
    """

    def __init__(
        self,
        recognizer: ImageNetworks[Any],
        frames: Tensor,
        policy: Any,
        grid: int | None,
        price: float | Sequence[float] | None = None,
    ) -> None:
        self._policy, self._space, self._state = policy, policy.action_space, None
        self._sizes = (frames.shape[-2], frames.shape[-1]), recognizer.config.patch_size
        self._device = recognizer.device
        self.can_stop = can_stop(self._space)
        shown = as_policy_price(policy, price)
        self._price = None if shown is None else torch.from_numpy(shown).to(self._device)
        self._candidates: Tensor | None = None
        acts_in = grid_of(self._space)
        if acts_in != (grid or acts_in) or (acts_in is None and not isinstance(self._space, spaces.Box)):
            raise ValueError(f"the policy acts in {self._space}, which are not the patch indices of grid {grid}")
        if acts_in is not None:
            self._candidates = grid_corners(acts_in, *self._sizes).to(self._device)

    def next(self, maps: Tensor, hidden: Tensor | None = None, time: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Corners, (B, 2) int64; whether the frame is not read, (B,) bool; and whether the video is stopped, (B,) bool.

        Args:
            maps: (B, C, h, w), what the policy glances at.
            hidden: (B, D), the classifier's state; ``None`` where there is none to be seen.
            time: Steps taken, as a share of all.
        """
        observation = {"glance": maps}
        if hidden is not None:
            observation |= {"belief": hidden, "time": hidden.new_full((len(maps), 1), time)}
        if self._price is not None:
            observation["price"] = self._price.expand(len(maps), -1)
        actions, self._state = decide(self._policy, observation, self._state, np.full(len(maps), time == 0))
        chosen = _check_actions(actions, self._space, len(maps)).to(self._device)
        if self._candidates is None:
            never = torch.zeros(len(maps), dtype=torch.bool, device=self._device)
            return position_corners(chosen, *self._sizes), never, never
        patch, choice = (chosen, torch.zeros_like(chosen)) if chosen.ndim == 1 else chosen.unbind(dim=1)
        return self._candidates[patch], choice > 0, choice > 1

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the videos, (n,) int64 indices of those of the last step."""
        self._state = rows_of_state(self._state, rows)


def _check_request(frames: Any, policy: Any) -> None:
    """Raise ``ValueError`` unless these are a batch of videos and a policy."""
    if isinstance(policy, type) or not hasattr(policy, "predict") or not hasattr(policy, "action_space"):
        raise ValueError(
            f"policy must have SB3's predict and an action_space, not be {policy!r}: a class has to be made first"
        )
    wanted = "frames must be a (B, T, 3, H, W) tensor of uint8"
    if not isinstance(frames, Tensor):
        raise ValueError(f"{wanted}, not {type(frames).__name__}")
    shape = tuple(frames.shape)
    if frames.ndim != 5 or frames.dtype != torch.uint8 or shape[2] != 3:
        last = frames.ndim == 5 and shape[2] != 3 and shape[4] == 3
        remedy = ": the channels are last, so pass frames.permute(0, 1, 4, 2, 3)" if last else ""
        raise ValueError(f"{wanted}, not {frames.dtype} of shape {shape}{remedy}")
    if not frames.numel():
        raise ValueError(f"frames must hold at least one video of at least one frame, not be of shape {shape}")


def _check_actions(actions: Any, space: spaces.Space[Any], videos: int) -> Tensor:
    """A policy's actions on some videos, after checking that all of them are in its action space."""
    chosen = torch.as_tensor(actions)
    shape = (videos, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    else:
        count = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n  # type: ignore[attr-defined]
        low, high = torch.tensor(0), torch.as_tensor(count) - 1
    low, high = low.to(chosen.device), high.to(chosen.device)
    if tuple(chosen.shape) != shape or not bool(((chosen >= low) & (chosen <= high)).all()):
        raise ValueError(f"the policy's actions must be {shape}, each in {space}, not {chosen.tolist()}")
    return chosen
