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
FAMILIES = {f"{PATCHES},": ANY_PATCH, f"{STOPPING},": ANY_STOPPING, WHOLE: ANY_WHOLE, ADAPTIVE: ADAPTIVE}
"""Methods that are the same but for a size, by the beginning of their names, and the name of all of them together."""
WITH_EXIT = {name: f"{name}, with exit" for name in (ANY_PATCH, ADAPTIVE, ANY_WHOLE)}
"""Names of the methods that are tried with conditional exit too."""
OURS = (WITH_EXIT[ANY_PATCH], ANY_STOPPING, ANY_PATCH)
OTHERS = (ADAPTIVE, WITH_EXIT[ADAPTIVE], ANY_WHOLE, WITH_EXIT[ANY_WHOLE])
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

    def on_whole_frames(self) -> list[Tried]:
        """Fewer frames, smaller frames, and, as in AR-Net, a resolution or a skip for every frame, by two learners."""

        def train(recognizer: Recognizer, pool: RoamingFashion, settings: Stage1Config, **kwargs: Any) -> None:
            train_whole_frames(recognizer, pool, settings, AR_NET_SCALES, **kwargs)

        pool = self.videos("recognizer")
        recognizer = self._adapted("whole_frames", pool.frame_size[0], train, self.stage1("whole_frames"))
        readers = {scale: read_at(recognizer, pool, scale) for scale in AR_NET_SCALES}
        banks: dict[str, FrozenFeatures] = {
            split: ResolutionBank(readers, self.videos(split), path=self._bank(split), precision=self.precision)
            for split in dict.fromkeys(("train", "val", self.split))
        }
        tried = []
        for (choice, scale), count in itertools.product(enumerate(AR_NET_SCALES), self.frames):
            make = functools.partial(ScheduledPolicy, candidate=choice, frames=count)
            name = f"{WHOLE} at {scale:g}"
            tried.append(self._tried(name, f"{count} frames", 0, make, banks, on_read_frames, skip=True))
        for seed, cost in itertools.product(self.seeds, self.resolution_costs):
            env = {"features": banks["train"], "reward": "gain_over_previous", "skip_cost": cost}
            policy = self._learned(f"resolution-{cost:g}", seed, RESOLUTION_EPISODES, RESOLUTION_HYPERPARAMETERS, **env)
            tried.append(self._tried(ADAPTIVE, f"λ = {cost:g}", seed, policy, banks))
        settings = {**SOFT_TARGET_HYPERPARAMETERS, "score_map": False}  # resolutions lie in no grid
        for seed, cost in itertools.product(self.seeds, self.soft_resolution_costs):
            price: dict[str, Any] = {"features": banks["train"], "skip_cost": cost}
            look = self._looking(f"soft_resolution-{cost:g}", seed, settings, **price)
            skip = self._skipping(f"soft_resolution_skip-{cost:g}", seed, look, **price)
            tried.append(self._tried(ADAPTIVE, f"soft targets, λ = {cost:g}", seed, skip, banks))
        return tried

    def on_patches(self, size: int) -> list[Tried]:
        """AdaFocus and AdaFocus+ after stage 3, with patches of one size, in pixels, without and with learned stopping.

        All policies of a seed are evaluated with the recogniser that was fine-tuned on the patches of one of them.
        """
        recognizer = self._adapted(f"patch{size}", size, train_stage1, self.stage1("patches"))
        bank = FeatureBank(recognizer, self.videos("train"), path=self._bank(f"patch{size}"), precision=self.precision)
        return [each for seed in self.seeds for each in self._with_patches(size, seed, recognizer, bank)]

    def _with_patches(self, size: int, seed: int, recognizer: Recognizer, bank: FeatureBank) -> list[Tried]:
        """The policies of one training seed, trained on a bank of the recogniser after stage 1."""
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

    def _adapted(self, name: str, patch_size: int, train: Callable[..., None], settings: Stage1Config) -> Recognizer:
        """The recogniser of all, trained further on patches of one size."""
        path = self.out / f"{name}.safetensors"
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
        path = self.out / f"{name}.safetensors"
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


def price_differences(points: Sequence[Point], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """What one policy for every price gains or loses against policies of one price each, with equal compute."""
    return [
        row
        for size in sizes
        for every, each in ((EVERY_PRICE, PATCHES), (EVERY_PRICE_STOPPING, STOPPING))
        for row in differences_at_equal_compute(points, f"{every}, {size}²", f"{each}, {size}²")
        if row["setting"] != NO_SKIP
    ]


def all_points(tried: Sequence[Tried], budgets: Sequence[float]) -> list[Point]:
    """The points of every method, of all methods of a family together, and of those with conditional exit.

    Args:
        tried: What :class:`Savings` has evaluated.
        budgets: GFLOPs per video for which thresholds of exit are chosen.
    """
    points = [each.point for each in tried]
    for start, name in FAMILIES.items():
        members = [each for each in tried if each.method.startswith(start)]
        methods = list(dict.fromkeys(each.method for each in members))
        if name not in methods:
            points += merged([each.point for each in members], methods, name)
        if name in WITH_EXIT:
            points += exit_points(members, WITH_EXIT[name], budgets)
    return points
