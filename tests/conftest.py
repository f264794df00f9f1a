"""Small things to test on: a data set of a few short videos and an untrained recogniser for it."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from adafocus_env import Recognizer, RecognizerConfig, RoamingFashion
from adafocus_env.recognition import BackboneConfig

torch.set_num_threads(1)  # the networks here are too small to share

TINY = RecognizerConfig(
    num_classes=10,
    global_backbone=BackboneConfig("tiny_resnet", widths=(4, 8), strides=(2, 2)),
    local_backbone=BackboneConfig("tiny_resnet", widths=(4, 8, 12), strides=(2, 2, 2)),
    glance_size=24,
    glance_interpolation="bilinear",
    patch_size=24,
    hidden_size=16,
    dropout=0.5,
)


def make_tiny_recognizer(seed: int = 0, **changes: object) -> Recognizer:
    """An untrained recogniser whose predictions depend visibly on the patch."""
    import dataclasses

    torch.manual_seed(seed)
    recognizer = Recognizer(dataclasses.replace(TINY, **changes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in recognizer.classifier.parameters():
            parameter.mul_(3)
        for name, buffer in recognizer.named_buffers():  # batch norms that do something
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return recognizer


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    return make_tiny_recognizer()


@pytest.fixture(scope="session")
def videos() -> RoamingFashion:
    return RoamingFashion("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)


@pytest.fixture
def env_kwargs(recognizer: Recognizer, videos: RoamingFashion) -> dict[str, object]:
    return {"recognizer": recognizer, "videos": videos, "grid": 4}
