"""The arguments that all environments take, with their defaults and checks."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch

from adafocus_env.checks import Bounds, as_device, check_choice, check_fields
from adafocus_env.environments.rewards import BASELINES, Reward, get_reward
from adafocus_env.features.feature_bank import FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.prices import PRICE_NAMES, TYPICAL_PRICE, check_price
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.videos.registry import get_videos

DEFAULT_SKIP_COST = TYPICAL_PRICE
"""λ where the action carries a skip bit and no other price is given, in label confidence."""

OBSERVATIONS = ("full", "glance")
ACTIONS = ("grid", "continuous")


class _RenderModes(list[str]):
    """Names of modes. ``gym.make`` looks a mode up here before it calls us, and assumes that it is a string."""

    def __contains__(self, mode: object) -> bool:
        if mode is not None and not isinstance(mode, str):
            check_choice("render_mode", mode, (*self, None))
        return super().__contains__(mode)


RENDER_MODES = _RenderModes(("rgb_array", "human"))


@dataclass(frozen=True, kw_only=True)
class EnvironmentArguments:
    """What ``gym.make`` and ``gym.make_vec`` pass to an environment.

    Attributes:
        split: ``"recognizer"``, ``"train"``, ``"val"`` or ``"test"``, for videos given by name; the embedded ones also
            have ``"final"``, for published figures alone.
        videos: A registered name, or a data set object, which is one split already and is taken as it is; ``None`` is
            the embedded benchmark that goes with the environment.
        recognizer: A recogniser, a path or a shipped name; ``None`` is the shipped one. The environment keeps a frozen
            copy.
        grid: g; candidates form a g×g grid, N = g².
        action: ``"grid"``, a patch index, or ``"continuous"``, a position, without skip bit.
        looks: Decisions about each frame before the next one, each of them a step.
        skip: Whether the action carries a skip bit.
        stop: Whether an action can also end the episode: the second component is then 0, look, 1, skip, or 2, stop.
        glance_cost: The price of going on to the next step, that is of one more glance (where it is about another
            frame) and one more step of policy and classifier, in the reward's unit; only where the agent can stop.
            Or (low, high), as for ``skip_cost``.
        skip_cost: λ ≥ 0, the price of a focused frame in the reward's unit, which is label confidence by default;
            ``None`` is 0 without skip bit, else 0.015. Where candidates differ in compute, this is the price of the
            costliest, and the others' are in proportion. With (low, high) it is drawn anew for every episode
            (:func:`adafocus_env.prices.drawn_prices`), and the observation ``"full"`` shows it, so that one policy can
            act by every price. (λ, λ) shows a price that doesn't change.
        reward: A name out of :data:`~adafocus_env.environments.rewards.REWARDS`, or an object with the members of
            :class:`~adafocus_env.environments.rewards.Reward`.
        baseline: ``"sample"``, ``"exact"`` or ``"pixel"``: how the random patch's confidence is found.
        observation: ``"full"`` or ``"glance"``.
        render_mode: ``"rgb_array"``, ``"human"`` or ``None``.
        device: torch device of the recogniser and its table.
        features: Where the recogniser's outputs come from, in place of ``videos``, ``recognizer``, ``grid`` and
            ``device``: a :class:`FeatureBank`, perhaps in a file, or a :class:`FrozenFeatures`, which remembers
            nothing. ``None`` is a bank in memory, shared by all environments of the process that agree on those four;
            for videos that look different at every visit it is a ``FrozenFeatures``.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    split: str = "train"
    videos: VideoDataset | str | None = None
    recognizer: ImageNetworks[Any] | str | os.PathLike[str] | None = None
    grid: Annotated[int, Bounds(at_least=2)] = 7
    action: str = "grid"
    looks: Annotated[int, Bounds(at_least=1)] = 1
    skip: bool = True
    stop: bool = False
    glance_cost: float | tuple[float, float] = 0.0
    skip_cost: float | tuple[float, float] | None = None
    reward: str | Reward = "gain_over_random"
    baseline: str = "sample"
    observation: str = "full"
    render_mode: str | None = None
    device: str | torch.device = "cpu"
    features: FrozenFeatures | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("action", self.action, ACTIONS)
        if self.action == "continuous" and self.skip:
            raise ValueError("action='continuous' carries no skip bit: pass skip=False with it")
        for name in PRICE_NAMES:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_price(name, getattr(self, name)))
        if self.stop and not self.skip:
            raise ValueError("stop=True is a third choice beside looking and skipping: pass skip=True with it")
        if self.glance_cost and not self.stop:
            raise ValueError("glance_cost is the price of not stopping, so it needs stop=True")
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("observation", self.observation, OBSERVATIONS)
        check_choice("render_mode", self.render_mode, (*RENDER_MODES, None))
        if self.price_ranges and self.observation != "full":
            raise ValueError("a skip_cost or glance_cost that is drawn is shown: pass observation='full' with it")
        get_reward(self.reward)

    @property
    def prices(self) -> dict[str, float | tuple[float, float]]:
        """λ, with its default filled in, and, where the agent can stop, the price of going on: numbers, or the ranges
        that they are drawn from."""
        default = DEFAULT_SKIP_COST if self.skip else 0.0
        prices = default if self.skip_cost is None else self.skip_cost, self.glance_cost
        return dict(zip(PRICE_NAMES[: 1 + self.stop], prices, strict=False))

    @property
    def price_ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest of all prices, if any of them is drawn: observations then show them all."""
        if not any(isinstance(price, tuple) for price in self.prices.values()):
            return {}
        return {name: price if isinstance(price, tuple) else (price, price) for name, price in self.prices.items()}

    def find_features(
        self, recognizer_class: type[ImageNetworks[Any]], default_name: str, *, remember: bool = True
    ) -> FrozenFeatures:
        """The features, in a bank or computed online, that these arguments name.

        Args:
            recognizer_class: The environment's kind of recogniser.
            default_name: Shipped name of the recogniser and the videos that are taken where none are given.
            remember: Make a bank if the process shares none yet. Whoever visits every video only once has no use for
                one, and can spare its memory.

        Raises:
            ValueError: An argument is not allowed.
            MemoryError: A bank of these videos can grow beyond the memory.
        """
        if self.features is not None:
            self._check_features(recognizer_class)
            return self.features
        recognizer = _as_recognizer(default_name if self.recognizer is None else self.recognizer, recognizer_class)
        videos = get_videos(default_name if self.videos is None else self.videos, self.split)
        arguments = recognizer, videos, self.grid, as_device(self.device)
        if getattr(videos, "changing", False):
            return FrozenFeatures(*arguments)
        if remember:
            return FeatureBank.shared(*arguments)
        return FeatureBank.already_shared(*arguments) or FrozenFeatures(*arguments)

    def _check_features(self, recognizer_class: type[ImageNetworks[Any]]) -> None:
        """Raise ``ValueError`` unless ``features`` is of the right kind, and no other argument contradicts it."""
        features, default = self.features, {field.name: field.default for field in fields(self)}
        if not isinstance(features, FrozenFeatures):
            raise ValueError(f"features must be a FeatureBank or FrozenFeatures, not {features!r}")
        if self.videos is not None or self.recognizer is not None:
            raise ValueError("features brings its own videos and recognizer: pass either it or them")
        if self.grid not in (default["grid"], features.grid):
            raise ValueError(f"features has a grid of {features.grid}, so grid can't be {self.grid}: leave it out")
        if as_device(self.device) not in (as_device(default["device"]), as_device(features.device)):
            raise ValueError(f"features is on {features.device}, so device can't be {self.device}: leave it out")
        if not isinstance(features.recognizer, recognizer_class):
            raise ValueError(
                f"features must be of a {recognizer_class.__name__}, not of a {type(features.recognizer).__name__}"
            )


def _as_recognizer(recognizer: Any, kind: type[ImageNetworks[Any]]) -> ImageNetworks[Any]:
    if isinstance(recognizer, kind):
        return recognizer
    if not isinstance(recognizer, (str, os.PathLike)):
        raise ValueError(f"recognizer must be a {kind.__name__}, a path or a shipped name, not {recognizer!r}")
    try:
        return kind.from_pretrained(recognizer)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
