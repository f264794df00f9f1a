"""Convert a released AdaFocus checkpoint (stages 1 to 3, AdaFocus-TSM's too) to this package's files.

    python scripts/import_checkpoint.py 128s3_checkpoint.pth.tar
    ls runs/import_checkpoint

It holds recognizer.safetensors and policy.safetensors, which other programs take as --recognizer and --policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich import print

from adafocus_env.command_line import run_script


@dataclass
class Config:
    checkpoint: tyro.conf.Positional[Path]
    """The .pth.tar file."""
    patch_size: int | None = None
    """P, pixels; by default it is read from a file name such as the released ones (128s3_checkpoint, 144x144)."""
    seed: int = 0
    """Not used, as nothing here is random."""
    out: Path = Path("runs/import_checkpoint")
    """Folder for recognizer.safetensors and, from stage 2 on, policy.safetensors. The policy of AdaFocus-TSM stays in
    its .pth.tar file, which other scripts take as a policy."""


def main(config: Config) -> None:
    from adafocus_env import load_official_checkpoint
    from adafocus_env.recognition.official_policy import OfficialPolicy
    from adafocus_env.run_folder import RunFolder
    from agents import PaperPPO

    recognizer, policy = load_official_checkpoint(config.checkpoint, patch_size=config.patch_size)
    with RunFolder(config.out, config):
        recognizer.save(config.out / "recognizer.safetensors")
        print(config.out / "recognizer.safetensors")
        if isinstance(policy, OfficialPolicy):
            PaperPPO.from_official(policy).save(config.out / "policy.safetensors", training_state=False)
            print(config.out / "policy.safetensors")
        elif policy is not None:
            print(f"The policy of AdaFocus-TSM is used as it was released: --policy {config.checkpoint}")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
