"""The ablations as data: for each, the variants of the preset that its table compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adafocus_env.environments.rewards import REWARDS
from agents.experiments.algorithms import REFERENCES
from agents.experiments.bench import Bench
from agents.experiments.runner import Trial
from agents.presets import (
    ALL_ACTION_HYPERPARAMETERS,
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    SKIP_EPISODES,
    SOFT_TARGET_HYPERPARAMETERS,
)
from agents.reinforce import Hyperparameters


@dataclass(frozen=True)
class Variant:
    """One row of an ablation's table.

    Attributes:
        name: Name of the row.
        algorithm: A key of ``ALGORITHMS``, ``REFERENCES`` or ``PIPELINES``.
        settings: Hyper-parameters that differ from the preset's; for a pipeline, its arguments.
        env: Arguments of the environment that differ from the algorithm's.
        bench: Fields of :class:`Bench` that differ from the common bench's.
        length: Training episodes, as a multiple of the common number.
    """

    name: str
    algorithm: str = "reinforce"
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)
    length: float = 1.0

    def trials(self, seeds: Sequence[int], episodes: int, split: str) -> list[Trial]:
        """The trials of this row: one per seed, or a single one if the policy learns nothing."""
        if self.algorithm in REFERENCES:
            return [Trial(self.name, self.algorithm, split=split)]
        own = round(self.length * episodes)
        return [Trial(self.name, self.algorithm, seed, own, self.settings, self.env, split) for seed in seeds]

    def on(self, bench: Bench) -> Bench:
        """The bench of this row; if it differs from the common one, its feature banks stay in memory."""
        return replace(bench, **self.bench, folder=None) if self.bench else bench


def _steps(*steps: tuple[str, str, dict[str, Any], dict[str, Any]]) -> tuple[Variant, ...]:
    """Cumulative variants: each has a name, an algorithm, and the settings and environment arguments that it adds."""
    variants: list[Variant] = []
    settings: dict[str, Any] = {}
    env: dict[str, Any] = {}
    for name, algorithm, more_settings, more_env in steps:
        settings, env = settings | more_settings, env | more_env
        variants.append(Variant(name, algorithm, settings, env))
    return tuple(variants)


WITH_SKIPPING = (PATCH_EPISODES + SKIP_EPISODES) / PATCH_EPISODES
"""The length of a training that learns where to look, and then when not to."""
_AS_REINFORCE = {**PATCH_HYPERPARAMETERS, "episodes_per_batch": Hyperparameters.episodes_per_batch}
REFERENCE_ROWS = tuple(Variant(title, name) for name, (title, _) in REFERENCES.items())

ABLATIONS: dict[str, tuple[Variant, ...]] = {
    "policy": (
        Variant("learned"),
        Variant("learned, without recurrence", settings={"recurrent": False}),
        Variant("learned, on the glance alone", settings={"use_belief": False}),
        Variant("learned, on the glance alone, without recurrence", settings={"use_belief": False, "recurrent": False}),
    ),
    "reward": tuple(Variant(name, env={"reward": name}) for name in REWARDS),
    "baseline": (
        Variant("sample", env={"baseline": "sample"}),
        Variant("exact", env={"baseline": "exact"}),
        Variant("exact, all actions", "all_action", settings=_AS_REINFORCE),
    ),
    # From the paper's recipe to the preset, one change after the other. Gradients are clipped from the row with
    # normalised advantages on, as clipping makes little sense without them.
    "recipe": _steps(
        ("paper, as published", "paper", {}, {}),
        ("+ networks of 256 and 128", "paper", {"encoder_size": 256, "hidden_size": 128}, {}),
        ("+ averaged weights", "paper", {"averaging": 0.98}, {}),
        ("+ learning rate 3e-3", "paper", {"learning_rate": 3e-3}, {}),
        ("+ γ = 0.3", "paper", {"gamma": 0.3}, {}),
        ("+ belief", "paper", {"use_belief": True}, {"observation": "full"}),
        ("+ normalised advantages, clipped gradients", "reinforce", {"score_map": False}, {}),
        ("+ scores of the map", "reinforce", {"score_map": True}, {}),
        ("+ exact baseline", "reinforce", {}, {"baseline": "exact"}),
        ("+ all actions", "all_action", _AS_REINFORCE, {}),
        ("+ smaller batches, settings of its own", "all_action", ALL_ACTION_HYPERPARAMETERS, {}),
        ("+ soft targets", "soft_targets", SOFT_TARGET_HYPERPARAMETERS, {}),
    ),
    # What soft targets owe to the reward's unit and to the convolution of the map, and whether others gain by them too.
    "ingredients": tuple(
        Variant(f"{title}{added}", algorithm, settings, env)
        for algorithm, title in (
            ("reinforce", "REINFORCE"),
            ("ppo", "SB3 PPO"),
            ("all_action", "all-action"),
            ("soft_targets", "soft targets"),
        )
        for added, settings, env in (
            ("", {"score_map": False}, {}),
            (" + log-odds", {"score_map": False}, {"reward": "log_odds_over_random"}),
            (" + map", {"score_map": True}, {}),
            (" + log-odds + map", {"score_map": True}, {"reward": "log_odds_over_random"}),
        )
    ),
    "gamma": tuple(Variant(f"γ = {gamma:g}", settings={"gamma": gamma}) for gamma in (0.0, 0.3, 0.7, 0.9, 1.0)),
    "observation": (
        Variant("full", env={"observation": "full"}),
        Variant("glance", settings={"use_belief": False}, env={"observation": "glance"}),
    ),
    "stages": (
        Variant("stage 2 alone", "stages", {"rounds": 0}),
        *(Variant(f"stages 2 and 3, {rounds} times", "stages", {"rounds": rounds}) for rounds in (1, 2, 3)),
        Variant("stage 3 on random patches", "stages", {"rounds": 1, "patches": "random"}),
    ),
    "skipping": (
        Variant("patches, then skipping", "skipping", {"training": "sequential"}, length=WITH_SKIPPING),
        Variant("both at once", "skipping", {"training": "joint"}, length=WITH_SKIPPING),
    ),
    "stopping": tuple(
        Variant(title, "stopping", {"exit": rule}, length=WITH_SKIPPING)
        for title, rule in (
            ("every video to its end", "none"),
            ("left at a threshold", "threshold"),
            ("learned stopping", "learned"),
            ("left at a threshold, with the compute of learned stopping", "threshold as learned"),
        )
    ),
    "candidates": tuple(
        Variant(f"{title}, N = {grid * grid}", algorithm, bench={"grid": grid})
        for grid in (4, 5, 6, 7, 8)
        for algorithm, title in (("reinforce", "learned"), ("oracle", "true location"), ("random", "random"))
    ),
    "frames": tuple(
        Variant(f"{title}, T = {frames}", algorithm, bench={"changes": {"num_frames": frames}})
        for frames in (4, 8, 16)
        for algorithm, title in (("reinforce", "learned"), ("oracle", "true location"), ("random", "random"))
    ),
}
"""The variants of every ablation, by its name. They differ in arguments alone; none needs a recogniser of its own."""


def rows_of(name: str) -> tuple[Variant, ...]:
    """The rows of an ablation's table: its variants, and where they share a bench, the policies that learn nothing,
    which scores lie between."""
    variants = ABLATIONS[name]
    return variants if any(variant.bench for variant in variants) else (*REFERENCE_ROWS, *variants)
