"""The arguments of the comparison of ways to save compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adafocus_env.recognition.recipes import Stage1Config, Stage3Config
from agents.presets import STAGE3


@dataclass
class SavingsArguments:
    """What is trained to compare ways to save compute, and how; :class:`agents.experiments.savings.Savings` does it.

    Every network that is compared has been trained further on equally many videos, all passes over them counted. Whole
    frames take all of them for the local CNN and the classifier together; AdaFocus+ takes a part for stage 3, in which
    the classifier alone learns from what the policy of each seed chooses.
    """

    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file, that all are trained further from."""
    network_videos: int = 72_000
    """Videos that every recogniser is trained on, all passes and stages counted."""
    whole_frames: Stage1Config = field(
        default_factory=lambda: Stage1Config(videos_per_step=16, local_learning_rate=1e-3)
    )
    """Training of a recogniser on whole frames; its steps follow from the number of videos."""
    patch_sizes: tuple[int, ...] = (24, 32, 48)
    """Patch sizes P of AdaFocus, in pixels."""
    patches: Stage1Config = field(default_factory=Stage1Config)
    """Stage 1 on patches of each size; its steps follow from the number of videos."""
    stage3: Stage3Config = field(default_factory=lambda: STAGE3)
    """Stage 3 on the patches of the skip policy at the price ``tuned_at``."""
    tuned_at: float = 0.02
    """Price of a focused frame whose skip policy chooses the patches of stage 3."""
    skip_costs: tuple[float, ...] = (0.01, 0.02, 0.04)
    """Prices of a focused frame for AdaFocus+; each has a policy of its own, and one that learns to stop besides."""
    every_price: tuple[float, ...] = (0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.12)
    """Prices that one policy is evaluated at, which learns for all between the lowest and the highest, for as many
    episodes as the policies of one price together."""
    resolution_costs: tuple[float, ...] = (0.02, 0.03, 0.04, 0.045, 0.05, 0.055, 0.06, 0.08, 0.16)
    """Prices of a frame at full resolution for adaptive resolution; each has a policy of its own."""
    soft_resolution_costs: tuple[float, ...] = (0.02, 0.04, 0.05, 0.06, 0.08)
    """The same for adaptive resolution by the learner of AdaFocus+, soft targets and then a skip policy."""
    frames: tuple[int, ...] = (1, 2, 4, 6, 8)
    """Numbers of evenly spaced whole frames to read."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of the policies, and of stage 3."""
    policy_videos: int | None = None
    """Number of training videos of the policies and of stage 3; by default all. The tables of all patches of all videos
    take most of the time."""
    val_videos: int = 2000
    """Number of validation videos on which policies and thresholds of exit are chosen."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks' training and of the local CNN; "bfloat16" is faster where the hardware has it."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the recognisers' training."""
    quick: bool = False
    """Rehearse on few videos; the figures mean nothing."""
    out: Path = Path("runs/compare_compute")
    """Folder for the recognisers, the policies, the tables and the figure."""

    def __post_init__(self) -> None:
        """Refuse settings that others decide.

        Raises:
            ValueError: Steps, epochs or the precision are given for one training alone.
        """
        for name in ("whole_frames", "patches"):
            config: Stage1Config = getattr(self, name)
            if (config.steps, config.epochs, config.precision) != (Stage1Config.steps, None, Stage1Config.precision):
                raise ValueError(
                    f"{name}: --network-videos decides how long it trains, and --precision is for all: leave steps, "
                    "epochs and precision out"
                )
