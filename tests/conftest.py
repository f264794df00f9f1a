"""Small things to test on: a data set of a few short videos and an untrained recogniser for it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from adafocus_env import Recognizer, RecognizerConfig, RoamingFashion
from adafocus_env.patches import crop
from adafocus_env.recognition import BackboneConfig
from tests.forked_scripts import ForkedScripts, Running

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="the whole campaign of the tests of robustness")


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether the whole campaign of the tests of robustness was asked for."""
    return bool(request.config.getoption("--whole"))


def make_tiny_recognizer(seed: int = 0, **changes: object) -> Recognizer:
    """An untrained recogniser whose predictions depend visibly on the patch; see :func:`test_the_patch_matters`."""
    torch.manual_seed(seed)
    recognizer = Recognizer(dataclasses.replace(TINY, **changes)).eval()  # type: ignore[arg-type]
    gru, size = recognizer.classifier.gru, recognizer.config.patch_size
    with torch.no_grad():
        # Fit the batch norms, and stretch what differs between patches, which random networks hardly tell apart.
        frames = make_tiny_videos().frames(torch.arange(12)).flatten(0, 1)
        corners = torch.randint(frames.shape[-1] - size, (len(frames), 2))
        recognizer.train()
        for _ in range(20):
            recognizer.glance(frames)
            recognizer.look(crop(frames, corners, size))
        recognizer.eval()
        vectors = recognizer.look(crop(frames, corners, size))
        local = gru.weight_ih_l0[:, recognizer.glance_shape[0] :]
        local.normal_(0, 0.2).div_(vectors.std(dim=0).clamp(min=0.1))
        gru.bias_ih_l0.sub_(local @ vectors.mean(dim=0))
        recognizer.classifier.fc.weight.mul_(8)
    return recognizer


def make_tiny_videos() -> RoamingFashion:
    return RoamingFashion("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)


@pytest.fixture(scope="session")
def scripts() -> Iterator[ForkedScripts]:
    """Runs the project's scripts, in forks of a process that has imported everything."""
    scripts = ForkedScripts()
    yield scripts
    scripts.close()


@pytest.fixture
def extract(scripts: ForkedScripts, tmp_path: Path) -> Callable[..., Running]:
    """Runs extract_frames.py with the arguments that it is called with."""
    return lambda *arguments: scripts.run("extract_frames", *arguments, log=tmp_path / "extract_frames.log")


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    return make_tiny_recognizer()


@pytest.fixture(scope="session")
def videos() -> RoamingFashion:
    return make_tiny_videos()


@pytest.fixture
def env_kwargs(recognizer: Recognizer, videos: RoamingFashion) -> dict[str, object]:
    return {"recognizer": recognizer, "videos": videos, "grid": 4}
