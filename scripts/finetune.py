"""Fine-tune a recogniser on the patches that a policy picks: stage 3 of AdaFocus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich import print

from adafocus_env import Recognizer
from adafocus_env.recognition.training import Stage3Config
from adafocus_env.run_folder import RunFolder
from agents import evaluate, finetune, load_policy
from agents.presets import STAGE3


@dataclass
class Config:
    policy: str = "roaming-fashion"
    """Any policy: a baseline's or shipped policy's name, a reinforce.pt, a ppo.zip."""
    recognizer: str = "roaming-fashion"
    """A shipped name or a file."""
    videos: str = "roaming-fashion"
    """A registered data set."""
    rollouts: int = 1
    """How often each video is rolled out; more than once is for policies that draw at random."""
    seed: int = 0
    out: Path = Path("runs/finetune")
    """Folder for the recogniser, its metrics and its TensorBoard log."""
    stage3: Stage3Config = STAGE3


def main(config: Config) -> None:
    recognizer = Recognizer.from_pretrained(config.recognizer)
    policy = load_policy(config.policy)
    with RunFolder(config.out, config) as run:
        tuned = finetune(
            recognizer, policy, config.stage3, videos=config.videos, rollouts=config.rollouts, seed=config.seed,
            log=run.log, progress_bar=True,
        )  # fmt: skip
        for name, model in (("before", recognizer), ("after", tuned)):
            found = evaluate(policy, "val", recognizer=model, videos=config.videos).summary()
            run.log(f"val/{name}", 0, found)
            print(f"{name} stage 3, on the validation videos:", found)
    tuned.metadata = {**recognizer.metadata, "stage3": f"policy {config.policy}, seed {config.seed}"}
    tuned.save(config.out / "recognizer.safetensors")
    print(config.out / "recognizer.safetensors")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
