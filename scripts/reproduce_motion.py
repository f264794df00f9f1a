"""Reproduce the figures of AdaFocus-TSM on RoamingMotion (docs/results), with several seeds, on the whole test split.

For every seed, REINFORCE learns where to look (stage 2), over continuous positions and on the grid, and soft targets
learn it on the grid. Stage 3 follows the continuous policy. They are compared with policies that learn nothing, and
with a recogniser that is blind to the order of frames. Hyper-parameters were chosen on the validation split. What a
killed run has finished is not done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import print

from adafocus_env.command_line import SAME_COMMAND, run_script
from agents.presets import (
    CLIP_EPISODES,
    CLIP_HYPERPARAMETERS,
    CLIP_PATCH_HYPERPARAMETERS,
    CLIP_SOFT_TARGET_EPISODES,
    CLIP_SOFT_TARGET_HYPERPARAMETERS,
    CLIP_SOFT_TARGET_VIDEOS,
    CLIP_STAGE3,
)

if TYPE_CHECKING:
    from adafocus_env import FeatureBank, TSMRecognizer
    from agents import Reinforce
    from agents.experiments.record import Record


NAMES = {"continuous": "learned", "grid": "learned on the grid"}
SOFT_TARGETS = "soft targets on the grid"
SETTINGS = {"continuous": CLIP_HYPERPARAMETERS, "grid": CLIP_PATCH_HYPERPARAMETERS}
STAGE3_VIDEOS = 6000
"""Number of training videos in stage 3, enough for a linear head."""
BLIND = "order-blind, true location"
DIFFERENCES = (("learned", "random"), ("learned + stage 3", "learned"), ("true location", BLIND))


@dataclass
class Config:
    recognizer: str = "roaming-motion"
    """Name of a shipped recogniser, or a file."""
    order_blind: Path | None = None
    """A recogniser of train_recognizer.py --preset roaming-motion --no-shift, to compare with."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    actions: tuple[Literal["continuous", "grid"], ...] = ("continuous", "grid")
    """Kinds of actions for REINFORCE to learn; stage 3 follows the continuous policy."""
    soft_targets: bool = True
    """Let soft targets learn on the grid, too. They ask about all candidates of every clip, so they get fewer clips."""
    bank: Path | None = None
    """A file of a feature bank of the clips for soft targets, which is filled where it isn't; by default a table in
    memory."""
    episodes: int = CLIP_EPISODES
    """Training episodes of REINFORCE."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the random patches in evaluations."""
    out: Path = Path("runs/reproduce_motion")
    """Folder for the tables, the policies and the evaluations."""


def trainings(
    record: Record, seed: int, config: Config, every_candidate: FeatureBank
) -> dict[str, Callable[[], tuple[Any, TSMRecognizer]]]:
    """Functions by name that train with one seed and return a policy and the recogniser to evaluate it with."""
    from adafocus_env import RoamingMotion
    from agents import SoftTargets, finetune

    recognizer = record.recognizer

    def learned(action: str) -> Reinforce:
        return record.learn(action, seed, config.episodes, SETTINGS[action], action=action)

    def with_stage3() -> tuple[Reinforce, TSMRecognizer]:
        policy, videos = learned("continuous"), RoamingMotion("train", num_videos=STAGE3_VIDEOS)
        return policy, finetune(recognizer, policy, CLIP_STAGE3, videos=videos, seed=seed)

    def soft_targets() -> tuple[Reinforce, TSMRecognizer]:
        settings, env = CLIP_SOFT_TARGET_HYPERPARAMETERS, {"action": "grid", "baseline": "exact"}
        found = record.learn(
            "soft_targets", seed, CLIP_SOFT_TARGET_EPISODES, settings, kind=SoftTargets, features=every_candidate, **env
        )
        return found, recognizer

    made = {NAMES[action]: lambda action=action: (learned(action), recognizer) for action in config.actions}
    if "continuous" in config.actions:
        made["learned + stage 3"] = with_stage3
    return {**made, SOFT_TARGETS: soft_targets} if config.soft_targets else made


def determining_settings(config: Config, recognizer: TSMRecognizer, blind: TSMRecognizer | None) -> dict[str, Any]:
    """Everything that determines the policies and the evaluations in a folder."""
    from adafocus_env import RoamingMotion
    from agents.experiments.provenance import code_of

    return {
        "code": code_of(__file__),
        "evaluation": [config.split, config.seed, RoamingMotion(config.split).fingerprint],
        "policies": [config.episodes, SETTINGS],
        "soft targets": [CLIP_SOFT_TARGET_EPISODES, CLIP_SOFT_TARGET_HYPERPARAMETERS, CLIP_SOFT_TARGET_VIDEOS],
        "stage 3": [dataclasses.asdict(CLIP_STAGE3), STAGE3_VIDEOS],
        "recognizer": recognizer.fingerprint(),
        "order-blind": blind and blind.fingerprint(),
    }


def main(config: Config) -> None:
    from adafocus_env import FeatureBank, RoamingMotion, TSMRecognizer
    from adafocus_env.run_folder import RunFolder, check_settings
    from agents.baselines import OraclePolicy
    from agents.experiments.record import Record

    recognizer = TSMRecognizer.from_pretrained(config.recognizer)
    blind = None if config.order_blind is None else TSMRecognizer.from_pretrained(config.order_blind)
    check_settings(config.out / "settings.json", determining_settings(config, recognizer, blind))
    # The two tables are held here, so that all that follows shares them.
    banks = [FeatureBank.shared(recognizer, RoamingMotion(split)) for split in ("train", config.split)]
    fewer = RoamingMotion("train", num_videos=CLIP_SOFT_TARGET_VIDEOS)
    every_candidate = FeatureBank(recognizer, fewer, path=config.bank)
    with RunFolder(config.out, config, append=True) as run:
        # The reward doesn't affect these figures, so take the one that needs no reference patches.
        record = Record(run, recognizer, config.split, config.seed, reward="confidence")
        record.add_references()
        if blind is not None:
            record.add(BLIND, 0, lambda: (OraclePolicy, blind))
        for seed in config.seeds:
            for name, make in trainings(record, seed, config, every_candidate).items():
                record.add(name, seed, make)
        record.write_results(("confidence", "gflops"))
        record.write_claims((*NAMES.values(), SOFT_TARGETS), DIFFERENCES)
    del banks
    print(f"Everything is in {config.out}.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
