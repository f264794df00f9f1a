"""Loads recognisers of either kind by name or path."""

from __future__ import annotations

import os

import torch

from adafocus_env.recognition.image_networks import read_format
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer


def load_recognizer(
    name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> Recognizer | TSMRecognizer:
    """Load a shipped recogniser by name, or a saved one by path, of the kind that its file holds.

    Args:
        name_or_path: ``"roaming-fashion"``, ``"roaming-motion"`` or ``"still-fashion"``; a path, also of a folder that
            :func:`agents.save_pair` wrote; or ``"org/name"`` on the Hugging Face Hub.
        device: torch device.

    Returns:
        A :class:`Recognizer` or a :class:`TSMRecognizer`, in evaluation mode.

    Raises:
        FileNotFoundError: It is neither a shipped name nor a file.
        ValueError: The file doesn't hold a recogniser.
    """
    kind = TSMRecognizer if read_format(name_or_path) == TSMRecognizer.file_format else Recognizer
    return kind.from_pretrained(name_or_path, device)
