"""Evaluate policies on every video of a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from adafocus_env import FeatureBank, load_recognizer
from adafocus_env.run_folder import RunFolder
from adafocus_env.videos import get_videos
from agents import evaluate, load_policy
from agents.environments import vector_env_class
from agents.report import print_table, table_row

POLICIES = {"roaming-fashion": ("roaming-fashion", "roaming-fashion-skip"), "roaming-motion": ("roaming-motion",)}
"""Shipped policies by recogniser."""


@dataclass
class Config:
    policies: tuple[str, ...] = ()
    """Baselines' or shipped policies' names, reinforce.pt or ppo.zip files; by default all of the kind."""
    split: str = "val"
    """Choose on "val"; look at "test" once."""
    recognizer: str = "roaming-fashion"
    """A shipped name or a file, of either kind."""
    videos: str | None = None
    """A registered data set, or a TOML file that describes one on disk; by default the recogniser's kind's."""
    seed: int = 0
    out: Path = Path("runs/evaluate")
    """Folder for the table."""


def main(config: Config) -> None:
    recognizer = load_recognizer(config.recognizer)
    default = vector_env_class(None, {"recognizer": recognizer}).default_name
    data = config.videos or default
    policies = config.policies or ("random", "center", "gaussian", *POLICIES[default], "oracle")
    videos = get_videos(data, config.split)
    bank = FeatureBank.shared(recognizer, videos)  # held here, so that all policies share one table
    rows = []
    with RunFolder(config.out, config) as run:
        for name in policies:
            found = evaluate(
                load_policy(name), config.split, recognizer=recognizer, videos=videos, seed=config.seed,
                progress_bar=True,
            )  # fmt: skip
            run.log(f"{config.split}/{name}", 0, found.summary())
            rows.append(table_row(name, found))
        path = run.write_table(config.split, rows)
    del bank
    print_table(rows, title=f"{data}, {config.split} split")
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
