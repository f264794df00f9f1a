"""The policy of the released AdaFocus-TSM checkpoints (Something-Something), and their names of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from adafocus_env.recognition.official_policy import ReleasedPolicy
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer


class OfficialTSMPolicy(ReleasedPolicy):
    """π of AdaFocus-TSM as released: one position for a clip, drawn around a mean in [0, 1]² (paper, Sec. 4.2).

    Args:
        channels: C of the glance: the maps of all frames, stacked.
        side: Height and width of the glance.
        hidden_size: Length of the encoded glance and of the recurrent state.

    Attributes:
        action_space: Row and column of the patch, from −1 (top or left) to 1 (bottom or right).
    """

    std = 0.25
    """Standard deviation of the position around its mean, on the scale [0, 1]."""

    def __init__(self, channels: int = 10240, side: int = 7, hidden_size: int = 1024) -> None:
        super().__init__(channels, side)
        self.state_encoder = nn.Sequential(
            nn.Conv2d(channels, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * side * side, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
        )
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.actor = nn.Sequential(nn.Linear(hidden_size, 2), nn.Sigmoid())
        self.critic = nn.Sequential(nn.Linear(hidden_size, 1))
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def forward(self, glance: Tensor) -> Tensor:
        """(B, C, h, w) float32 glances to (B, 2) mean positions in [0, 1]."""
        output, _ = self.gru(self.state_encoder(glance)[None])
        mean: Tensor = self.actor(output[0])
        return mean

    def _choose(self, glance: Tensor, state: Any, episode_start: Any, deterministic: bool) -> tuple[Tensor, None]:
        mean = self(glance)
        place = mean if deterministic else torch.normal(mean, self.std).clamp(0, 1)
        return 2 * place - 1, None


def released_names(recognizer: TSMRecognizer) -> Iterator[tuple[str, str, str]]:
    """Names that the released files have for the tensors of a recogniser of MobileNet-V2 and ResNet-50.

    Yields:
        Part of the file, the released name, and our name.
    """
    for name in recognizer.state_dict():
        module, _, rest = name.partition(".")
        if module == "global_cnn":
            yield "glancer", f"net.features.{_flat(rest)}", name
        elif module == "global_head":
            yield "glancer", f"net.classifier.{rest}", name
        elif module == "local_cnn":
            yield "focuser", f"net.base_model.{rest}", name
        else:
            yield "fc", rest, name


def _flat(name: str) -> str:
    """Rename a tensor of torchvision's MobileNet-V2 for a network whose blocks number their layers without nesting."""
    match = re.fullmatch(r"(\d+)\.conv\.(\d+)\.(net\.)?(.+)", name)
    if match is None:
        return name
    block, place, rest = match[1], int(match[2]), match[4]
    nested = 1 if block == "1" else 2  # the first block doesn't expand, so it has one triple fewer
    if place < nested:
        inner, _, rest = rest.partition(".")
        place, shifted = 3 * place + int(inner), bool(match[3]) and inner == "0"
    else:
        place, shifted = 3 * nested + place - nested, False
    return f"{block}.conv.{place}.{'net.' if shifted else ''}{rest}"
