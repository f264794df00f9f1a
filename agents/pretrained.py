"""Loading of policies by name or file, and writing of their files."""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import Any

import torch

from adafocus_env import load_official_checkpoint
from adafocus_env.files import write_atomically
from adafocus_env.weights import differences, find_file
from agents.baselines import BASELINE_POLICIES
from agents.reinforce import Reinforce
from agents.sb3 import SB3_ALGORITHMS, algorithm_class, algorithm_of

CHECKPOINTS = Path(__file__).parent / "checkpoints"
SHOWN_POLICIES = {
    "roaming-fashion": "roaming-fashion-skip",
    "roaming-motion": "roaming-motion",
    "still-fashion": "still-fashion",
}
"""The shipped policy that pictures show, by shipped recogniser, whose name is also that of its videos."""


def from_pretrained(name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Reinforce:
    """Load a shipped policy by name, or one written by ``Reinforce.save`` by path.

    Args:
        name_or_path: ``"roaming-fashion"``: the patch policy π, which sees the belief too. ``"roaming-fashion-skip"``:
            the skip policy π′ on top of it. ``"roaming-motion"``: the positions of AdaFocus-TSM.
            ``"still-fashion"``: five patches of a picture, for ``GlanceFocus-v0``. Or the path of a file, or of a
            folder that :func:`agents.save_pair` wrote; or ``"org/name"`` on the Hugging Face Hub
            (:func:`agents.push_to_hub`).
        device: torch device.

    Raises:
        FileNotFoundError: Neither a shipped name nor a file.
    """
    return Reinforce.load(find_file("policy", name_or_path, CHECKPOINTS, ".safetensors"), device=device)


def load_policy(name_or_path: str | os.PathLike[str], seed: int | None = None) -> Any:
    """Load any policy that :func:`agents.evaluate` takes, from a name or path such as a command line gives.

    Args:
        name_or_path: ``"random"``, ``"center"``, ``"gaussian"`` or ``"oracle"``; a shipped policy's name; a file of
            ``Reinforce.save``; an SB3 model's ``.zip``, whose name begins with its algorithm (``ppo.zip``,
            ``ppo-0.zip``); a released checkpoint, ``.pth.tar``, from stage 2 on; a folder that :func:`agents.save_pair`
            wrote; or ``"org/name"`` on the Hugging Face Hub.
        seed: Seed of the draws of the first four policies; ``None`` gives their class itself.

    Raises:
        FileNotFoundError: It is neither a known name nor a file.
        ImportError: The algorithm's package isn't installed.
        ValueError: The name of a ``.zip`` begins with no algorithm, a checkpoint has no policy, or a file is damaged or
            holds weights that are not finite.
    """
    if str(name_or_path) in BASELINE_POLICIES:
        baseline = BASELINE_POLICIES[str(name_or_path)]
        return baseline if seed is None else functools.partial(baseline, seed=seed)
    path = find_file("policy", name_or_path, CHECKPOINTS, ".safetensors")
    if path.name.endswith(".pth.tar"):
        _, policy = load_official_checkpoint(path, patch_size=96)  # no policy depends on it
        if policy is None:
            raise ValueError(f"{path} is a checkpoint of stage 1, before there is a policy: take one of stage 2 or 3")
        return policy
    if path.suffix == ".zip":
        algorithm = next((name for name in SB3_ALGORITHMS if path.stem.startswith(name)), None)
        if algorithm is None:
            known = [f"{name}.zip" for name in SB3_ALGORITHMS]
            raise ValueError(f"{path}: its name must begin with its algorithm's, as one of {known} does")
        kind = algorithm_class(algorithm)
        try:
            model = kind.load(path, device="cpu")
        except Exception as error:  # its class depends on what is wrong with the file
            raise ValueError(f"{path} is damaged, or {kind.__name__}.save didn't write it") from error
        weights = model.policy.state_dict()
        if problems := list(differences(weights, weights)):
            raise ValueError(f"{path}: " + "; ".join(problems))
        return model
    return Reinforce.load(path)


def save_policy(policy: Any, stem: str | os.PathLike[str], *, training_state: bool = True) -> Path:
    """Write a policy so that :func:`load_policy` reads it.

    Args:
        policy: A :class:`Reinforce`, or a model of Stable-Baselines3 (SB3).
        stem: The path without ``.safetensors`` or ``.zip``. The name of an SB3 model's file gets its algorithm put
            first, ``ppo-mine.zip``, unless it begins so. A model of a class that :func:`load_policy` doesn't know keeps
            the name, for the class's own ``load``.
        training_state: As in :meth:`Reinforce.save`; an SB3 model's file always holds it.

    Returns:
        The path of the file.
    """
    if isinstance(policy, Reinforce):
        path = Path(f"{os.fspath(stem)}.safetensors")
        policy.save(path, training_state=training_state)
    else:
        path, data = Path(f"{os.fspath(stem)}.zip"), io.BytesIO()
        algorithm = algorithm_of(policy)
        if algorithm is not None and not path.name.startswith(algorithm):
            path = path.with_name(f"{algorithm}-{path.name}")
        policy.save(data)
        write_atomically(path, data.getvalue())
    return path
