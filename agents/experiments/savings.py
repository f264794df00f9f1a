"""Ways to save compute, on the same videos: patches, fewer or smaller whole frames, and adaptive resolution."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from rich import print

from adafocus_env import FeatureBank, FrozenFeatures, Recognizer, ResolutionBank, RoamingFashion
from adafocus_env.features.resolution_bank import AR_NET_SCALES
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage1Config
from adafocus_env.recognition.training import train_stage1
from adafocus_env.recognition.whole_frames import read_at, train_whole_frames
from adafocus_env.run_folder import RunFolder
from agents.baselines import ScheduledPolicy
from agents.evaluation import Evaluation, evaluate
from agents.experiments.algorithms import LANES
from agents.experiments.compute import (
    Point,
    Tried,
    differences_at_equal_compute,
    exit_points,
    merged,
    merged_exits,
    on_read_frames,
)
from agents.experiments.kept import kept_evaluation, kept_policy
from agents.experiments.pipelines import matching_glance_cost
from agents.experiments.savings_arguments import SavingsArguments
from agents.finetuning import finetune
from agents.presets import (
    RESOLUTION_EPISODES,
    RESOLUTION_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    SOFT_TARGET_EPISODES,
    SOFT_TARGET_HYPERPARAMETERS,
    STOP_EPISODES,
    STOP_HYPERPARAMETERS,
)
from agents.reinforce import Reinforce
from agents.soft_targets import SoftTargets

ADAPTIVE = "adaptive resolution"
PATCHES, STOPPING, WHOLE = "AdaFocus+", "AdaFocus+ with learned stopping", "whole frames"
EVERY_PRICE, EVERY_PRICE_STOPPING = f"{PATCHES} for every price", f"{STOPPING} for every price"
NO_SKIP = "no skip"
ANY_PATCH, ANY_STOPPING, ANY_WHOLE = f"{PATCHES}, any P", f"{STOPPING}, any P", f"{WHOLE}, any size"
FAMILIES = {f"{PATCHES},": ANY_PATCH, f"{STOPPING},": ANY_STOPPING, f"{WHOLE} at": ANY_WHOLE}
"""Methods that are the same but for a size, by the beginning of their names, and the name of all of them together."""
EXIT = ", with exit"
"""What the name of a method ends with if it has conditional exit."""
TRIED_WITH_EXIT = (f"{PATCHES},", WHOLE, ADAPTIVE)
"""Methods that are tried with conditional exit too, by the beginning of their names."""
OURS = (f"{ANY_PATCH}{EXIT}", ANY_STOPPING, ANY_PATCH)
OTHERS = (ADAPTIVE, f"{ADAPTIVE}{EXIT}", ANY_WHOLE, f"{ANY_WHOLE}{EXIT}")
"""The methods whose compute is compared with that of :data:`OURS`."""
POLICY_TRAINING = {
    "patch": [SOFT_TARGET_EPISODES, SOFT_TARGET_HYPERPARAMETERS],
    "skip": [SKIP_EPISODES, SKIP_HYPERPARAMETERS],
    "stop": [STOP_EPISODES, STOP_HYPERPARAMETERS],
    "resolution": [RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS],
}
"""Episodes and hyper-parameters of each kind of policy, which are part of what determines the results."""


class Savings(SavingsArguments):
    """The training and evaluation of every way to save compute; what is in the folder is not made again."""

    def videos(self, split: str) -> RoamingFashion:
        """The videos of a split."""
        numbers = {"train": self.policy_videos, "val": self.val_videos}
        return RoamingFashion(split, num_videos=32 if self.quick else numbers.get(split))

    def stage1(self, name: str) -> Stage1Config:
        """The training on ``"whole_frames"``, or stage 1 on ``"patches"``, whose videos make up the common number
        together with those of stage 3."""
        config: Stage1Config = getattr(self, name)
        tuned = self.stage3.epochs * len(self.videos("train")) if name == "patches" else 0
        steps = (self.network_videos - tuned) // config.videos_per_step
        if steps < 1:
            needed = tuned + config.videos_per_step
            raise ValueError(f"network_videos must be at least {needed}, of which stage 3 takes {tuned}")
        return replace(config, steps=steps, precision=self.precision)

    def prepare(self, part: str | int) -> None:
        """Train the network of a part, and fill the tables that its policies learn from.

        Args:
            part: :data:`WHOLE`, or a patch size in pixels.
        """
        if part != WHOLE:
            self._patch_bank(int(part)).build()
            return
        for bank in self._resolution_banks().values():
            bank.ensure_videos(torch.arange(len(bank.videos)), bank.load_to_cut)

    def on_fewer_frames(self) -> list[Tried]:
        """Fewer and smaller whole frames, which nothing is learned for."""
        banks, tried = self._resolution_banks(), []
        for (choice, scale), count in itertools.product(enumerate(AR_NET_SCALES), self.frames):
            make = functools.partial(ScheduledPolicy, candidate=choice, frames=count)
            name = f"{WHOLE} at {scale:g}"
            tried.append(self._tried(name, f"{count} frames", 0, make, banks, on_read_frames, skip=True))
        return tried

    def on_whole_frames(self, seed: int) -> list[Tried]:
        """As in AR-Net, a resolution or a skip for every frame, by two learners."""
        banks, tried = self._resolution_banks(), []
        for cost in self.resolution_costs:
            env = {"features": banks["train"], "reward": "gain_over_previous", "skip_cost": cost}
            policy = self._learned(f"resolution-{cost:g}", seed, RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS, **env)
            tried.append(self._tried(ADAPTIVE, f"λ = {cost:g}", seed, policy, banks))
        settings = {**SOFT_TARGET_HYPERPARAMETERS, "score_map": False}  # resolutions lie in no grid
        for cost in self.soft_resolution_costs:
            price: dict[str, Any] = {"features": banks["train"], "skip_cost": cost}
            look = self._looking(f"soft_resolution-{cost:g}", seed, settings, **price)
            skip = self._skipping(f"soft_resolution_skip-{cost:g}", seed, look, **price)
            tried.append(self._tried(ADAPTIVE, f"soft targets, λ = {cost:g}", seed, skip, banks))
        return tried

    def _resolution_banks(self) -> dict[str, ResolutionBank]:
        """What the network of whole frames reads, at every resolution, by splits."""

        def train(recognizer: Recognizer, pool: RoamingFashion, settings: Stage1Config, **kwargs: Any) -> None:
            train_whole_frames(recognizer, pool, settings, AR_NET_SCALES, **kwargs)

        pool = self.videos("recognizer")
        recognizer = self._adapted("whole_frames", pool.frame_size[0], train, self.stage1("whole_frames"))
        readers = {scale: read_at(recognizer, pool, scale) for scale in AR_NET_SCALES}
        return {
            split: ResolutionBank(readers, self.videos(split), path=self._bank(split), precision=self.precision)
            for split in dict.fromkeys(("train", "val", self.split))
        }

    def _patch_bank(self, size: int) -> FeatureBank:
        """The training videos, as the recogniser after stage 1 on patches of one size reads them."""
        recognizer = self._adapted(f"patch{size}", size, train_stage1, self.stage1("patches"))
        return FeatureBank(recognizer, self.videos("train"), path=self._bank(f"patch{size}"), precision=self.precision)

    def on_patches(self, size: int, seed: int) -> list[Tried]:
        """AdaFocus and AdaFocus+ after stage 3, with patches of one size, in pixels, without and with learned stopping.

        All policies are evaluated with the recogniser that was fine-tuned on the patches of one of them.
        """
        bank = self._patch_bank(size)
        recognizer = Recognizer.from_pretrained(self._network(f"patch{size}"))
        look = self._looking(f"patch{size}", seed, SOFT_TARGET_HYPERPARAMETERS, features=bank)
        skips = {
            cost: self._skipping(f"skip{size}-{cost:g}", seed, look, features=bank, skip_cost=cost)
            for cost in dict.fromkeys((*self.skip_costs, self.tuned_at))
        }
        tuned = self._tuned(f"patch{size}-{seed}", seed, recognizer, skips[self.tuned_at], bank)
        banks: dict[str, FrozenFeatures] = {
            split: FeatureBank(tuned, self.videos(split), precision=self.precision)
            for split in dict.fromkeys(("train", "val", self.split))
        }
        name = f"{PATCHES}, {size}²"
        tried = [self._tried(name, NO_SKIP, seed, look, banks)]
        for cost, skip in skips.items():
            tried.append(self._tried(name, f"λ = {cost:g}", seed, skip, banks))
            stopping = {"skip_cost": cost, "glance_cost": matching_glance_cost(tuned, skip, cost)}
            stop = self._stopping(f"stop{size}-{cost:g}", seed, skip, banks, STOP_EPISODES, **stopping)
            tried.append(self._tried(f"{STOPPING}, {size}²", f"λ = {cost:g}", seed, stop, banks))
        return [*tried, *self._for_every_price(size, seed, look, tuned, bank, banks)]

    def _for_every_price(
        self,
        size: int,
        seed: int,
        look: Reinforce,
        tuned: Recognizer,
        bank: FeatureBank,
        banks: Mapping[str, FrozenFeatures],
    ) -> list[Tried]:
        """One policy for all prices, told each of them in turn, without and with learned stopping."""
        between, times = (min(self.every_price), max(self.every_price)), len({*self.skip_costs, self.tuned_at})
        name = f"{size}-{between[0]:g}-{between[1]:g}"
        skip = self._skipping(f"skip{name}", seed, look, times * SKIP_EPISODES, features=bank, skip_cost=between)
        going_on = matching_glance_cost(tuned, skip, 1.0)
        drawn = {"skip_cost": between, "glance_cost": tuple(going_on * price for price in between)}
        stop = self._stopping(f"stop{name}", seed, skip, banks, times * STOP_EPISODES, **drawn)
        tried = []
        for cost in self.every_price:
            setting = f"λ = {cost:g}"
            tried.append(self._tried(f"{EVERY_PRICE}, {size}²", setting, seed, skip, banks, skip_cost=cost))
            prices: dict[str, Any] = {"skip_cost": cost, "glance_cost": going_on * cost}
            tried.append(self._tried(f"{EVERY_PRICE_STOPPING}, {size}²", setting, seed, stop, banks, **prices))
        return tried

    def _bank(self, name: str) -> Path:
        return self.out / f"{name}.bank"

    def _network(self, name: str) -> Path:
        return self.out / f"{name}.safetensors"

    def _adapted(self, name: str, patch_size: int, train: Callable[..., None], settings: Stage1Config) -> Recognizer:
        """The recogniser of all, trained further on patches of one size."""
        path = self._network(name)
        if not path.exists():
            start = Recognizer.from_pretrained(self.recognizer)
            recognizer = Recognizer(replace(start.config, patch_size=patch_size))
            recognizer.load_state_dict(start.state_dict())  # convolutions fit any size
            torch.manual_seed(self.seed)  # for dropout
            with RunFolder(self.out / name, settings, append=True) as run:
                progress = Progress(run.log, bar=True, folder=run.path)
                train(recognizer, self.videos("recognizer"), settings, seed=self.seed, progress=progress)
            recognizer.metadata = {"training": f"scripts/compare_compute.py, {name}"}
            recognizer.save(path)
        return Recognizer.from_pretrained(path)

    def _tuned(self, name: str, seed: int, recognizer: Recognizer, policy: Any, features: FeatureBank) -> Recognizer:
        """The recogniser after stage 3 on a policy's patches."""
        path = self._network(name)
        if not path.exists():
            tuned = finetune(recognizer, policy, self.stage3, features=features, seed=seed)
            tuned.metadata = {"training": f"scripts/compare_compute.py, {name}"}
            tuned.save(path)
        return Recognizer.from_pretrained(path)

    def _looking(self, name: str, seed: int, settings: dict[str, Any], **env: Any) -> Reinforce:
        """A policy that looks at every frame, by soft targets."""
        env = {"skip": False, "baseline": "exact", **env}
        return self._learned(name, seed, SOFT_TARGET_EPISODES, settings, kind=SoftTargets, **env)

    def _skipping(self, name: str, seed: int, look: Reinforce, episodes: int = SKIP_EPISODES, **env: Any) -> Reinforce:
        """A policy that looks where another one does, and skips frames."""
        env = {"reward": "gain_over_previous", **env}
        return self._learned(name, seed, episodes, SKIP_HYPERPARAMETERS, look, **env)

    def _stopping(
        self, name: str, seed: int, skip: Reinforce, banks: Mapping[str, FrozenFeatures], episodes: int, **prices: Any
    ) -> Reinforce:
        """A policy that looks and skips as another one does, and ends videos."""
        env = {"features": banks["train"], "reward": "gain_over_previous", "stop": True, **prices}
        return self._learned(name, seed, episodes, STOP_HYPERPARAMETERS, skip, **env)

    def _learned(
        self, name: str, seed: int, episodes: int, settings: dict[str, Any], patch_policy: Any = None, **kwargs: Any
    ) -> Reinforce:
        """See :func:`kept_policy`."""
        path = self.out / "policies" / f"{name}-{seed}.safetensors"
        return kept_policy(path, seed, LANES if self.quick else episodes, settings, patch_policy, **kwargs)

    def _tried(
        self,
        method: str,
        setting: str,
        seed: int,
        policy: Any,
        banks: Mapping[str, FrozenFeatures],
        restrict: Callable[[Evaluation], Evaluation] = lambda found: found,
        **env: Any,
    ) -> Tried:
        """Evaluate a policy on the split of the figures, and on validation videos."""

        def on(split: str) -> Evaluation:
            path = self.out / "evaluations" / f"{method}, {setting}, {seed}, {split}.npz".replace(" ", "_")
            arguments = {"features": banks[split], "reward": "confidence", **env}
            return restrict(kept_evaluation(path, lambda: evaluate(policy, **arguments)))

        tried = Tried(method, setting, seed, on(self.split), on("val"))
        print(f"{method}, {setting}, seed {seed}: {tried.point.accuracy:.2f} % at {tried.point.gflops:.4f} GFLOPs")
        return tried


def savings_of(arguments: SavingsArguments) -> Savings:
    """What is to be done with some arguments."""
    return Savings(**{field.name: getattr(arguments, field.name) for field in fields(SavingsArguments)})


def price_differences(points: Sequence[Point]) -> list[dict[str, Any]]:
    """What one policy for every price gains or loses against policies of one price each, with equal compute."""
    return [
        row
        for method in dict.fromkeys(point.method for point in points)
        for every, each in ((EVERY_PRICE, PATCHES), (EVERY_PRICE_STOPPING, STOPPING))
        if method.startswith(f"{every},")
        for row in differences_at_equal_compute(points, method, method.replace(every, each, 1))
        if row["setting"] != NO_SKIP
    ]


def points_of(tried: Sequence[Tried], budgets: Sequence[float]) -> list[Point]:
    """The points of every method, without and, where that is tried, with conditional exit.

    Args:
        tried: What :class:`Savings` has evaluated.
        budgets: GFLOPs per video for which thresholds of exit are chosen.
    """
    points = [each.point for each in tried]
    for method in dict.fromkeys(each.method for each in tried):
        if method.startswith(TRIED_WITH_EXIT):
            points += exit_points([each for each in tried if each.method == method], f"{method}{EXIT}", budgets)
    return points


def points_of_families(points: Sequence[Point]) -> list[Point]:
    """The points of all methods that are the same but for a size, together, without and with conditional exit."""
    methods = list(dict.fromkeys(point.method for point in points))
    found = []
    for start, name in FAMILIES.items():
        members = [method for method in methods if method.startswith(start)]
        found += merged(points, [method for method in members if not method.endswith(EXIT)], name)
        found += merged_exits(points, [method for method in members if method.endswith(EXIT)], f"{name}{EXIT}")
    return found
