"""Policies that ship with the package."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from agents.reinforce import Reinforce

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def from_pretrained(name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Reinforce:
    """Load a shipped policy by name, or one written by ``Reinforce.save`` by path.

    Args:
        name_or_path: ``"roaming-fashion"``: the patch policy π. ``"roaming-fashion-skip"``: the skip policy π′ on top of
            it. Or a path.
        device: torch device.

    Raises:
        FileNotFoundError: Neither a shipped name nor a file.
    """
    shipped = CHECKPOINTS / f"{name_or_path}.pt"
    if shipped.is_file():
        return Reinforce.load(shipped, device=device)
    if not Path(name_or_path).is_file():
        names = sorted(file.stem for file in CHECKPOINTS.glob("*.pt"))
        raise FileNotFoundError(f"policy {str(name_or_path)!r} is neither a file nor one of the shipped ones: {names}")
    return Reinforce.load(name_or_path, device=device)
