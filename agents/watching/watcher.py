"""``Watcher``, which recognises a video window by window with one policy or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adafocus_env import Recognizer, TSMRecognizer
from adafocus_env.checks import Bounds, check_fields
from adafocus_env.prices import PRICE_NAMES, num_prices
from adafocus_env.recognition.deployment import Recognition, refuse_exit
from adafocus_env.videos.lists import MIN_FRAMES
from adafocus_env.videos.sources import Source, TimedPicture, windows
from adafocus_env.videos.views import Box, Resize, evaluation_view, in_original, middle_frames
from agents.environments import check_fit, fitting_arguments, is_policy, look_arguments, vector_env_class

SHOWN_SIDE = 360
"""Shorter side of the frames that are kept for pictures, at most, pixels."""

Choice = Literal["look", "skip", "stop", "left"]
"""What happens at a look: it is taken or skipped, the policy stops there, or the window was left before."""


@dataclass(frozen=True)
class Reading:
    """How a video is read.

    Attributes:
        num_frames: Frames in a window.
        stride: Frames from the beginning of one window to that of the next, at most ``num_frames``.
        every: Every so many-th frame of the video is read.
        frame_size: Height and width of the recogniser's view of a frame, pixels.
        resized: Shorter side of a frame before the view is cropped from its centre, pixels.
        resize: Library that resizes.
        looks: Looks at each frame.
        exit_threshold: A window is left as soon as a class is this probable; ``None`` never leaves one.
        prices: ``skip_cost`` and ``glance_cost``, in label confidence, for policies that act by them.

    Raises:
        ValueError: A number is out of range.
    """

    num_frames: Annotated[int, Bounds(at_least=1)]
    stride: Annotated[int, Bounds(at_least=1)]
    every: Annotated[int, Bounds(at_least=1)]
    frame_size: Annotated[int, Bounds(at_least=1)]
    resized: Annotated[int, Bounds(at_least=1)]
    resize: Resize = "torch"
    looks: Annotated[int, Bounds(at_least=1)] = 1
    exit_threshold: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stride > self.num_frames:
            raise ValueError(f"stride must be at most {self.num_frames}, the frames of a window, not {self.stride}")
        if self.resized < self.frame_size:
            raise ValueError(f"resized must be at least frame_size, {self.frame_size}, not {self.resized}")


@dataclass(frozen=True)
class Frame:
    """A frame that was read.

    Attributes:
        number: Its place in the video, from 0.
        time: Seconds since the video's first frame.
        size: Height and width of the original, pixels.
        view: (3, S, S) uint8, what the recogniser reads.
        shown: (h, w, 3) uint8, the original for pictures, shrunk unless it is small.
    """

    number: int
    time: float
    size: tuple[int, int]
    view: Tensor
    shown: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, picture: TimedPicture, reading: Reading) -> Frame:
        """The frame of a picture, which need not be kept."""
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]
        view = evaluation_view(pixels, reading.resized, reading.frame_size, reading.resize)[0]
        height, width = picture.pixels.shape[:2]
        share = min(1.0, SHOWN_SIDE / min(height, width))
        size = max(1, round(width * share)), max(1, round(height * share))
        shown = Image.fromarray(picture.pixels).resize(size, Image.Resampling.BOX)
        return cls(picture.number, picture.time, (height, width), view.clone(), np.asarray(shown))


@dataclass(frozen=True)
class Step:
    """A look at a frame; of a clip that is decided about at once (AdaFocus-TSM), each frame.

    Attributes:
        place: Place of the frame in the window.
        choice: What happens.
        corner: Top and left of the patch in the view, pixels; ``None`` if none is looked at.
        probabilities: (classes,) float32, the prediction afterwards.
        gflops: Multiply-adds / 1e9 that it cost; a clip's are spread evenly over its frames.
    """

    place: int
    choice: Choice
    corner: tuple[int, int] | None
    probabilities: npt.NDArray[np.float32]
    gflops: float


@dataclass(frozen=True)
class Seen:
    """What one policy saw in a window.

    Attributes:
        steps: Its looks.
        ended: Why it left the window before the end: it stopped itself, or a class reached ``exit_threshold``.
    """

    steps: tuple[Step, ...]
    ended: Literal["stop", "exit"] | None

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(classes,), the prediction at the end."""
        return self.steps[-1].probabilities

    @property
    def gflops(self) -> float:
        """Multiply-adds / 1e9 of the window."""
        return sum(step.gflops for step in self.steps)

    @property
    def length(self) -> int:
        """Number of steps until the window was left."""
        return sum(step.choice != "left" for step in self.steps)

    @property
    def taken(self) -> int:
        """How many looks were taken."""
        return sum(step.choice == "look" for step in self.steps)


@dataclass(frozen=True)
class Watched:
    """A window that was recognised.

    Attributes:
        frames: Its frames, fewer than ``num_frames`` if the video has fewer.
        fresh: How many of them, at the end, are in no window before.
        seen: What each policy saw, by its name. All have as many steps.
    """

    frames: tuple[Frame, ...]
    fresh: int
    seen: Mapping[str, Seen]


class Watcher:
    """Recognises videos window by window.

    Each window is a video of its own to recogniser and policies. What is kept of a video of any length is a window's
    frames, at most twice.

    Args:
        recognizer: The recogniser.
        policies: Policies, or functions that take an environment and return a policy, by name.
        class_names: One name per class.
        reading: How videos are read.

    Attributes:
        whole_gflops: Multiply-adds / 1e9 of a step if the local network read the whole frame, without glance or policy.

    Raises:
        ValueError: A policy can't act for this recogniser, or a patch doesn't fit into the frame.
    """

    def __init__(
        self,
        recognizer: Recognizer | TSMRecognizer,
        policies: Mapping[str, Any],
        class_names: Sequence[str],
        reading: Reading,
    ) -> None:
        config, size = recognizer.config, reading.frame_size
        self.recognizer, self.class_names, self.reading = recognizer, class_names, reading
        self._samplings: tuple[int, ...] = (reading.num_frames,)
        if isinstance(recognizer, TSMRecognizer):
            refuse_exit(reading.exit_threshold)
            self._samplings = recognizer.config.global_frames, recognizer.config.local_frames
        videos = _Blank(sum(self._samplings), size, class_names)
        self.policies = {name: _fitted(name, policy, recognizer, videos, reading) for name, policy in policies.items()}
        whole: Any = type(recognizer)(replace(config, patch_size=size)).cost()  # type: ignore[arg-type]
        steps = reading.num_frames if isinstance(recognizer, TSMRecognizer) else 1
        self.whole_gflops = (whole.local + whole.classifier) / steps
        self._fast = recognizer.deployed()

    def watch(self, source: Source) -> Iterator[Watched]:
        """Recognise a source's windows one after the other.

        Raises:
            ValueError: The source has too few frames, or a frame can't be decoded.
        """
        reading = self.reading
        frames = (Frame.of(picture, reading) for picture in source.read(reading.every))
        least, found = min(MIN_FRAMES, reading.num_frames), 0
        for window in windows(frames, reading.num_frames, reading.stride):
            found = len(window.items)
            if found < least:
                break
            yield Watched(window.items, window.fresh, self._seen_by_each(window.items))
        if found < least:
            which = f" when every {reading.every}th is read; pass every=1" if reading.every > 1 else ""
            raise ValueError(
                f"{source.name} has too few frames: {found}, where a window of {reading.num_frames} needs at least "
                f"{least}{which}"
            )

    def boxes(self, frame: Frame, step: Step) -> tuple[Box, Box] | None:
        """The patch of a step in the view and in the original frame; ``None`` if there is none."""
        if step.corner is None:
            return None
        side = self.recognizer.config.patch_size
        inside = Box(*step.corner, side, side)
        return inside, in_original(inside, *frame.size, self.reading.resized, self.reading.frame_size)

    def region(self, frame: Frame) -> Box:
        """The part of the original frame that the view shows."""
        size = self.reading.frame_size
        return in_original(Box(0, 0, size, size), *frame.size, self.reading.resized, size)

    def _seen_by_each(self, frames: Sequence[Frame]) -> dict[str, Seen]:
        chosen = np.concatenate([middle_frames(len(frames), count) for count in self._samplings])
        views = torch.stack([frames[place].view for place in chosen])[None]
        return {name: self._seen(views, policy, chosen, len(frames)) for name, policy in self.policies.items()}

    def _seen(self, views: Tensor, policy: Any, chosen: npt.NDArray[np.int64], available: int) -> Seen:
        """What one policy sees in a window, given its frames, (1, T, 3, S, S), and their places in it."""
        threshold, looks = self.reading.exit_threshold, self.reading.looks
        if isinstance(self._fast, TSMRecognizer):
            found = self._fast.recognize(views, policy)
            places, steps = np.arange(available), np.zeros(available, dtype=np.int64)
        else:
            price = list(_prices_for(policy, self.reading).values()) or None
            found = self._fast.recognize(views, policy, exit_threshold=threshold, looks=looks, price=price)
            places, steps = chosen.repeat(looks), np.arange(len(chosen) * looks)
        probabilities = found.logits[0].softmax(dim=-1).cpu().numpy()
        choices, ended = _choices(found, probabilities, threshold)
        corners, spent = found.corners[0].tolist(), found.step_gflops[0].tolist()
        share = len(spent) / len(steps)
        return Seen(
            tuple(
                Step(
                    place=int(place),
                    choice=choices[step],
                    corner=tuple(corners[step]) if choices[step] == "look" else None,
                    probabilities=probabilities[step],
                    gflops=spent[step] * share,
                )
                for place, step in zip(places, steps, strict=True)
            ),
            ended,
        )


def _choices(
    found: Recognition, probabilities: npt.NDArray[np.float32], threshold: float | None
) -> tuple[list[Choice], Literal["stop", "exit"] | None]:
    """What happened at each step of a single video, and why it was left early."""
    skipped = found.skipped[0].tolist()
    steps = int((found.step_gflops[0] > 0).sum())
    choices: list[Choice] = ["skip" if each else "look" for each in skipped[:steps]]
    choices += ["left"] * (len(skipped) - steps)
    if steps == len(skipped):
        return choices, None
    if threshold is not None and probabilities[steps - 1].max() >= np.float32(threshold):
        return choices, "exit"
    choices[steps - 1] = "stop"
    return choices, "stop"


class _Blank:
    """A data set with a single blank video in the shape of the windows, for environments that only check a policy."""

    changing = True  # so that no feature bank is made

    def __init__(self, num_frames: int, size: int, class_names: Sequence[str]) -> None:
        self.num_frames, self.frame_size = num_frames, (size, size)
        self.class_names, self.num_classes = class_names, len(class_names)
        self.labels, self.fingerprint = torch.zeros(1, dtype=torch.int64), "blank"

    def __len__(self) -> int:
        return 1

    def frames(self, indices: Tensor) -> Tensor:
        return torch.zeros(len(indices), self.num_frames, 3, *self.frame_size, dtype=torch.uint8)


def _prices_for(policy: Any, reading: Reading) -> dict[str, float]:
    """Those prices that a policy sees, in the order in which it sees them."""
    return {name: reading.prices[name] for name in PRICE_NAMES[: num_prices(policy)] if name in reading.prices}


def _fitted(name: str, policy: Any, recognizer: Recognizer | TSMRecognizer, videos: _Blank, reading: Reading) -> Any:
    """A policy once it is known to fit, made for an environment if it is a function that makes one."""
    kind = vector_env_class(None, {"recognizer": recognizer})
    given = {"recognizer": recognizer, "videos": videos, **look_arguments(kind, reading.looks)}
    given |= _prices_for(policy, reading)
    try:
        env = kind(1, **fitting_arguments(policy, kind, given))
        policy = policy if is_policy(policy) else policy(env)
        check_fit(policy, env)
    except ValueError as error:
        raise ValueError(f"policy {name}: {error}") from error
    env.close()
    return policy
