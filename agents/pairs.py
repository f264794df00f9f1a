"""A recogniser and its policy in one folder, or in one repository of the Hugging Face Hub, beside a model card."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adafocus_env import Recognizer, TSMRecognizer, load_recognizer
from adafocus_env.files import write_atomically
from adafocus_env.hub import is_repository, load_hub
from adafocus_env.weights import find_file
from agents.agent import Agent
from agents.environments import observed_shapes
from agents.model_card import CardNotes, model_card
from agents.pretrained import CHECKPOINTS, SHOWN_POLICIES, from_pretrained, load_policy
from agents.reinforce import Reinforce

CARD = "README.md"


def save_pair(
    folder: str | os.PathLike[str],
    recognizer: Recognizer | TSMRecognizer,
    policy: Agent,
    *,
    title: str | None = None,
    data: str | None = None,
    command: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    limits: str | None = None,
) -> Path:
    """Write a recogniser, its policy and a model card to a folder.

    Its path then stands for both wherever a script or a function takes a recogniser or a policy: :func:`load_pair`,
    ``load_recognizer``, :func:`agents.load_policy`, ``--recognizer`` and ``--policy``.

    Args:
        folder: Gets ``recognizer.safetensors``, ``policy.safetensors``, without training state, and ``README.md``.
        recognizer: The recogniser that is deployed, after stage 3 if there was one.
        policy: One of this package's own agents; a released policy is one after ``PaperPPO.from_official``.
        title: Of the model card; ``None`` is the folder's name.
        data: On the card: what both were trained on.
        command: On the card: how.
        metrics: On the card: figures by name, such as ``Evaluation.summary()``.
        limits: On the card: what the pair is not good for, beside what is true of all.

    Returns:
        The folder.

    Raises:
        ValueError: The policy, or the frozen one in it, is not one of this package's, or sees glances or beliefs of
            other sizes.

    Warns:
        UserWarning: The policy was trained on the glances of another network than this recogniser's.
    """
    if not isinstance(policy, Agent):
        raise ValueError(
            f"policy must be one of this package's own agents, whose files hold tensors and settings alone, not a "
            f"{type(policy).__name__}: agents.pretrained.save_policy writes models of Stable-Baselines3"
        )
    check_pair(recognizer, policy)
    folder = Path(folder)
    notes = CardNotes(title or folder.resolve().name, data, command, dict(metrics or {}), limits)
    recognizer.save(folder / "recognizer.safetensors")
    policy.save(folder / "policy.safetensors", training_state=False)
    write_atomically(folder / CARD, model_card(recognizer, policy, notes).encode())
    return folder


def push_to_hub(
    repository: str, recognizer: Recognizer | TSMRecognizer, policy: Agent, *, private: bool = False, **card: Any
) -> str:
    """Upload a recogniser, its policy and a model card to the Hugging Face Hub, with the rights that
    ``huggingface_hub`` finds there (``hf auth login``).

    Args:
        repository: ``"org/name"``, which is made if it doesn't exist.
        recognizer: See :func:`save_pair`.
        policy: See :func:`save_pair`.
        private: Whether a repository that is made is private.
        card: What the card is to say; see :func:`save_pair`.

    Returns:
        The address of the repository. :func:`load_pair` takes its name.

    Raises:
        ImportError: ``huggingface_hub`` isn't installed.
        ValueError: ``repository`` is no such name, or recogniser and policy can't be saved as a pair.
    """
    if not is_repository(repository):
        raise ValueError(
            f'repository must be "org/name" on the Hugging Face Hub, and no folder here, not {repository!r}'
        )
    api = load_hub().HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save_pair(folder, recognizer, policy, **{"title": repository.split("/")[1], **card})
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="A recogniser and its policy")
    return str(address)


def load_pair(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[Recognizer | TSMRecognizer, Reinforce]:
    """Load a recogniser and its policy, for ``recognizer.recognize(frames, policy)``.

    Args:
        folder: A folder that :func:`save_pair` wrote, the shipped name of a recogniser and a policy, or the name of a
            repository on the Hugging Face Hub, ``"org/name"``.
        device: torch device of both.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: A file is damaged, or recogniser and policy don't fit.
    """
    recognizer, policy = load_recognizer(folder, device), from_pretrained(folder, device)
    check_pair(recognizer, policy)
    return recognizer, policy


def load_policy_for(
    recognizer: Recognizer | TSMRecognizer,
    source: str,
    policy: str | None,
    seed: int | None = None,
    *,
    skip: bool = True,
) -> tuple[str, Any]:
    """Load the policy that was asked for, or else the one that goes with a recogniser.

    Args:
        recognizer: The recogniser.
        source: What it was loaded from: a shipped name, a file, a folder that :func:`save_pair` wrote, or a repository.
        policy: What :func:`agents.load_policy` takes; ``None`` is the policy that ships with a shipped recogniser, or
            that in the folder or the repository.
        seed: See :func:`agents.load_policy`.
        skip: Whether the policy of a shipped recogniser is the one that skips frames, where there is one.

    Returns:
        The policy's name or path, and the policy.

    Raises:
        ValueError: ``policy`` is ``None`` and the recogniser has none, or as in :func:`check_pair`.
    """
    name = policy or _goes_with(source, skip=skip)
    loaded = load_policy(name, seed)
    if isinstance(loaded, Agent):
        check_pair(recognizer, loaded)
    return name, loaded


def _goes_with(source: str, *, skip: bool) -> str:
    """Name of the policy that goes with a recogniser; see :func:`load_policy_for`."""
    if source in SHOWN_POLICIES:
        return SHOWN_POLICIES[source] if skip else source
    try:
        if not Path(source).is_file():  # a file holds the recogniser alone
            find_file("policy", source, CHECKPOINTS, ".safetensors")
            return source
    except FileNotFoundError:
        pass
    raise ValueError(
        f"no policy goes with the recogniser {source}, which is neither shipped nor a folder of save_pair: give one "
        "that was trained on it, or a baseline such as random, with --policy"
    )


def check_pair(recognizer: Recognizer | TSMRecognizer, policy: Agent) -> None:
    """Refuse a policy that can't read what a recogniser shows it or that no file holds, and warn of one that has learnt
    to read another.

    A policy may well be deployed with another recogniser than it was trained on, as stage 3 trains f_C and f_L on the
    patches of a fixed policy. But what it knows is how to read the maps of one f_G.

    Raises:
        ValueError: Shapes of glance or belief differ, or the frozen policy in this one is not one of this package's.
    """
    frozen = policy.patch_policy
    while isinstance(frozen, Agent):
        frozen = frozen.patch_policy
    if frozen is not None:
        raise ValueError(
            f"policy: the frozen patch policy in it is a {type(frozen).__name__}, which no policy file holds: train it "
            "over one of this package's own agents, or save both apart, for Reinforce.load(path, patch_policy=…)"
        )
    shown: dict[str, Any] = {"glance": recognizer.glance_shape}
    if isinstance(recognizer, Recognizer):
        shown["belief"] = (recognizer.config.hidden_size,)
    seen = observed_shapes(policy.observation_space)
    if different := sorted(name for name in shown.keys() & seen.keys() if shown[name] != seen[name]):
        raise ValueError(f"the policy sees {seen}, but the recogniser shows another {' and '.join(different)}: {shown}")
    if policy.made_for.get("glance") not in (None, recognizer.glance_fingerprint()):
        warnings.warn(
            "the policy was trained on the glances of another network than this recogniser's f_G: its choices may mean "
            "nothing here, so train a policy on this recogniser",
            stacklevel=3,
        )
