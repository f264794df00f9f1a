"""Reproduce the figures of still pictures (docs/results), with several training seeds, on the whole test split.

For every seed, soft targets learn where to look in a picture, again and again (GlanceFocus-v0). They are compared
with policies that learn nothing, after every number of looks. What a killed run has finished is not done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_positive, run_script
from agents.presets import SOFT_TARGET_HYPERPARAMETERS, STILL_EPISODES, STILL_PICTURES

if TYPE_CHECKING:
    from adafocus_env import Recognizer


@dataclass
class Config:
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    pictures: int = STILL_PICTURES
    """Number of training pictures. Soft targets ask about every candidate of each."""
    episodes: int = STILL_EPISODES
    """Training episodes."""
    looks: int | None = None
    """Looks at each picture; by default those of GlanceFocus-v0."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the random patches in evaluations."""
    out: Path = Path("runs/reproduce_stills")
    """Folder for the tables, the policies and the evaluations."""


def main(config: Config) -> None:
    from adafocus_env import FeatureBank, GlanceFocusVectorEnv, Recognizer
    from adafocus_env.environments.glance_env import DEFAULT_LOOKS
    from adafocus_env.run_folder import RunFolder, check_settings
    from adafocus_env.videos.registry import still_fashion
    from agents import SoftTargets
    from agents.experiments.provenance import code_of
    from agents.experiments.record import Record

    check_positive(pictures=config.pictures, episodes=config.episodes, looks=config.looks)
    recognizer = Recognizer.from_pretrained(GlanceFocusVectorEnv.default_name)
    train, tested = still_fashion("train", num_videos=config.pictures), still_fashion(config.split)
    looks = config.looks or DEFAULT_LOOKS
    settings = {
        "code": code_of(__file__),
        "evaluation": [config.split, config.seed, looks, tested.fingerprint],
        "policies": [config.episodes, SOFT_TARGET_HYPERPARAMETERS, train.fingerprint],
        "recognizer": recognizer.fingerprint(),
    }
    check_settings(config.out / "settings.json", settings)
    bank = FeatureBank.shared(recognizer, train)
    shown: dict[str, Any] = {"looks": looks, "skip": False}
    with RunFolder(config.out, config, append=True) as run:
        # The reward doesn't affect these figures, so take the one that needs no reference patches.
        record = Record(
            run, recognizer, config.split, config.seed, features=bank, videos=tested, reward="confidence", **shown
        )
        record.add_references()
        for seed in config.seeds:

            def learned(seed: int = seed) -> tuple[Any, Recognizer]:
                settings, env = SOFT_TARGET_HYPERPARAMETERS, {"baseline": "exact", **shown}
                return record.learn("patch", seed, config.episodes, settings, kind=SoftTargets, **env), recognizer

            record.add("learned", seed, learned)
        record.write_results(("confidence", "gflops"))
        record.write_claims(("learned",), (("learned", "random"),))
        record.write_steps(("learned", "random"))
    print(f"Everything is in {config.out}.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
