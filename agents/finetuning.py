"""Stage 3: fine-tuning of the recogniser on the patches that a policy picks (paper, Sec. 3.3)."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
import torch

from adafocus_env import FrozenFeatures, Recognizer, TSMRecognizer
from adafocus_env.checks import Bounds, brief, check_integer
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage3Config
from adafocus_env.recognition.training import train_stage3
from adafocus_env.videos.registry import get_videos
from agents.baselines import seeded
from agents.evaluation import evaluate

Kind = TypeVar("Kind", Recognizer, TSMRecognizer)


def finetune(
    recognizer: Kind,
    policy: Any,
    config: Stage3Config | None = None,
    *,
    split: str = "train",
    videos: Any = None,
    features: FrozenFeatures | None = None,
    rollouts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    **env_kwargs: Any,
) -> Kind:
    """Fine-tune a copy of a recogniser on a policy's patches, skipped frames included.

    Args:
        recognizer: The recogniser, which stays as it is.
        policy: As in :func:`agents.evaluate`.
        config: Settings of the training; ``None`` takes the defaults.
        split: The split to train on, for videos given by name.
        videos: As in ``gym.make``.
        features: Outputs of the recogniser's CNNs for some videos, as in ``gym.make``, in place of ``videos``.
        rollouts: Number of rollouts of each video; several make sense for a policy that draws at random.
        seed: Seed of the rollouts and of the training.
        progress: Progress bars of rollouts and training, and logs and checkpoints of the training.
        env_kwargs: As in ``gym.make``.

    Returns:
        The fine-tuned copy, in evaluation mode.

    Raises:
        ValueError: As in :func:`agents.evaluate`; or an argument has a wrong type or is out of range.
    """
    config = config or Stage3Config()
    if not isinstance(recognizer, ImageNetworks):
        raise ValueError(f"recognizer must be a Recognizer or a TSMRecognizer, not {brief(recognizer)}")
    if not isinstance(config, Stage3Config):
        raise ValueError(f"config must be a Stage3Config, not {brief(config)}")
    rollouts = check_integer("rollouts", rollouts, Bounds(at_least=1))
    seed = check_integer("seed", seed, Bounds(at_least=0))
    data = get_videos(videos, split) if features is None else features.videos
    looks: dict[str, Any] = {"features": features}
    if features is None:
        looks = {"videos": data, "recognizer": recognizer, "device": recognizer.device}
    # The reward plays no part here, so take the one that needs no reference patches.
    runs = [
        evaluate(
            seeded(policy, seed * rollouts + rollout),  # no two rollouts draw alike
            split,
            reward="confidence",
            seed=seed,
            progress_bar=progress is not None and progress.bar,
            **{**looks, **env_kwargs},
        )
        for rollout in range(rollouts)
    ]
    tuned = copy.deepcopy(recognizer)
    indices = torch.arange(len(data)).repeat(rollouts)
    corners = torch.from_numpy(np.concatenate([run.corners for run in runs]))
    skipped = torch.from_numpy(np.concatenate([run.skipped for run in runs]))
    train_stage3(tuned, data, indices, corners, skipped, config, seed=seed, progress=progress)
    return tuned
