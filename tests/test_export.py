"""Graphs of torch.export and ONNX, and the program that runs them: the same patches and the same logits as eager."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from adafocus_env import Recognizer, TSMRecognizer
from adafocus_env.patches import grid_corners, position_corners
from adafocus_env.recognition.exported import ExportedRecognizer
from adafocus_env.recognition.official_policy import OfficialPolicy
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
from adafocus_env.videos import get_videos
from agents import Reinforce, from_pretrained, load_pair
from agents.baselines import RandomPolicy

SMALL = {"hidden_size": 8, "encoder_size": 8}


def same(recognizer: Recognizer | TSMRecognizer, policy: Any, frames: torch.Tensor, found: Any, **looks: int) -> None:
    """What graphs found is what ``recognize`` finds."""
    eager = recognizer.recognize(frames, policy, **looks)  # type: ignore[arg-type]
    assert torch.equal(eager.skipped, found.skipped)
    assert torch.equal(eager.frames, found.frames)
    assert torch.equal(eager.corners[~eager.skipped], found.corners[~found.skipped])
    assert (eager.logits - found.logits).abs().max() < 1e-4


def undecided(policy: Reinforce, scale: float = 50.0) -> Reinforce:
    """Heads of other weights, so that choices differ from frame to frame."""
    for head in (policy.policy.patch_head, policy.policy.skip_head, policy.policy.stop_head):
        if head is not None:
            head.weight.data.mul_(scale)
    policy.adopt_weights()
    return policy


@pytest.fixture(scope="module")
def shared(recognizer: Recognizer, videos: Any) -> dict[str, Any]:
    return {"recognizer": recognizer, "videos": videos, "grid": 4}


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_shipped_pair_looks_where_it_does_in_eager_mode(count: int, tmp_path: Path) -> None:
    recognizer, policy = load_pair("roaming-fashion")
    assert isinstance(recognizer, Recognizer)
    skipping = from_pretrained("roaming-fashion-skip")
    frames = get_videos("roaming-fashion", "test").frames(torch.arange(count))
    recognizer.export(tmp_path, skipping)
    same(recognizer, skipping, frames, ExportedRecognizer(tmp_path).recognize(frames))
    assert policy.action_space != skipping.action_space


def test_policies_of_all_kinds(recognizer: Recognizer, shared: dict[str, Any], tmp_path: Path) -> None:
    """One that stops, over a frozen one that skips; one of positions; a released one; with several looks at a frame."""
    env = gym.make_vec("AdaFocus-v0", 1, **shared)
    skips = undecided(Reinforce(env, use_belief=True, **SMALL))
    env = gym.make_vec("AdaFocus-v0", 1, stop=True, reward="gain_over_previous", **shared)
    stops = undecided(Reinforce(env, patch_policy=skips, **SMALL))
    env = gym.make_vec("AdaFocus-v0", 1, skip=False, action="continuous", observation="glance", **shared)
    moves = Reinforce(env, **SMALL)
    torch.manual_seed(0)
    released = OfficialPolicy(*recognizer.glance_shape[:2], num_patches=16, hidden_size=8)
    frames = shared["videos"].frames(torch.arange(12))
    for looks, policy in ((1, stops), (2, moves), (1, released)):
        found = ExportedRecognizer(recognizer.export(tmp_path, policy, looks=looks)).recognize(frames)
        same(recognizer, policy, frames, found, looks=looks)
        if policy is stops:
            assert 0 < found.skipped.float().mean() < 1
            assert len(found.frames.unique()) > 1  # videos are left one after the other
    single = ExportedRecognizer(tmp_path).recognize(frames[:1])
    same(recognizer, released, frames[:1], single)


@pytest.mark.slow
def test_policies_of_clips(tmp_path: Path) -> None:
    """The shipped pair; one of patch indices; a released one, in batches of other sizes."""
    recognizer, policy = load_pair("roaming-motion")
    assert isinstance(recognizer, TSMRecognizer)
    grid = Reinforce(gym.make_vec("AdaFocusTSM-v0", 1, action="grid", recognizer=recognizer), score_map=True, **SMALL)
    torch.manual_seed(0)
    released = OfficialTSMPolicy(*recognizer.glance_shape[:2], hidden_size=8).eval()
    released.actor[0].weight.data.mul_(20)
    clips = get_videos("roaming-motion", "test").frames(torch.arange(12))
    for other in (policy, undecided(grid), released):
        runs = ExportedRecognizer(recognizer.export(tmp_path, other))
        found = runs.recognize(clips)
        same(recognizer, other, clips, found)
        assert len(found.corners.unique(dim=0)) > 3
        same(recognizer, other, clips[:1], runs.recognize(clips[:1]))
    with pytest.raises(ValueError, match=r"frames must be \(B, 4 \+ 6, 3, H, W\)"):
        runs.recognize(clips[:, 1:])
    grid.action_space = spaces.MultiDiscrete([49, 2])
    with pytest.raises(ValueError, match="clips have no skip bit"):
        recognizer.export(tmp_path, grid)
    with pytest.raises(ValueError, match=r"glances of shape \(64, 7, 7\), but the recogniser's are \(256, 7, 7\)"):
        recognizer.export(tmp_path, from_pretrained("roaming-fashion"))


def test_it_runs_with_torch_alone(recognizer: Recognizer, shared: dict[str, Any], tmp_path: Path) -> None:
    """In a process where neither this package nor what it is built on can be imported."""
    policy = Reinforce(gym.make_vec("AdaFocus-v0", 1, skip=False, observation="glance", **shared), **SMALL)
    frames = shared["videos"].frames(torch.arange(3))
    recognizer.export(tmp_path, policy)
    np.save(tmp_path / "frames.npy", frames.numpy())
    program = (
        "import sys, torch, numpy\n"
        "for name in ('adafocus_env', 'agents', 'gymnasium', 'torchvision'): sys.modules[name] = None\n"
        "from exported import ExportedRecognizer\n"
        "found = ExportedRecognizer('.').recognize(torch.from_numpy(numpy.load('frames.npy')))\n"
        "numpy.savez('found.npz', **{name: part.numpy() for name, part in found._asdict().items()})\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npz")
    eager = recognizer.recognize(frames, policy)
    assert (found["corners"] == eager.corners.numpy()).all()
    assert np.abs(found["logits"] - eager.logits.numpy()).max() < 1e-4


needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra onnx"
)


@pytest.mark.slow
@needs_onnx
def test_onnx(recognizer: Recognizer, shared: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make_vec("AdaFocus-v0", 1, **shared)
    policy = undecided(Reinforce(env, use_belief=True, score_map=True, **SMALL))
    frames = shared["videos"].frames(torch.arange(12))
    recognizer.export(tmp_path, policy, graphs="onnx")
    assert json.loads((tmp_path / "settings.json").read_text())["graphs"] == "onnx"
    runs = ExportedRecognizer(tmp_path)
    for count in (12, 1):
        same(recognizer, policy, frames[:count], runs.recognize(frames[:count]))


@pytest.mark.slow
@needs_onnx
def test_clips_in_onnx(tmp_path: Path) -> None:
    recognizer, policy = load_pair("roaming-motion")
    clips = get_videos("roaming-motion", "test").frames(torch.arange(12))
    runs = ExportedRecognizer(recognizer.export(tmp_path, policy, graphs="onnx"))
    for count in (12, 1):
        same(recognizer, policy, clips[:count], runs.recognize(clips[:count]))


def test_corners_are_those_of_the_environment() -> None:
    runs = object.__new__(ExportedRecognizer)
    for grid in (2, 4, 7):
        runs.settings = {"grid": grid}
        corners, _ = runs._meaning(torch.arange(grid**2), (200 - 33, 75 - 33))
        assert torch.equal(corners, grid_corners(grid, (200, 75), 33))
    runs.settings = {"grid": None}
    positions = torch.cat((torch.rand(500, 2) * 2 - 1, torch.tensor([[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])))
    assert torch.equal(runs._meaning(positions, (80, 143))[0], position_corners(positions, (112, 175), 32))


def test_what_cannot_be_exported_is_refused(recognizer: Recognizer, shared: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make_vec("AdaFocus-v0", 1, skip=False, **shared)
    random = RandomPolicy(env)
    over_random = Reinforce(gym.make_vec("AdaFocus-v0", 1, **shared), patch_policy=random, **SMALL)
    for policy in (random, over_random):
        with pytest.raises(ValueError, match=f"torch networks alone.*{type(policy).__name__}"):
            recognizer.export(tmp_path, policy)
    own = Reinforce(env, **SMALL)
    with pytest.raises(ValueError, match="graphs must be one of"):
        recognizer.export(tmp_path, own, graphs="tf")  # type: ignore[arg-type]
    drawn = Reinforce(gym.make_vec("AdaFocus-v0", 1, skip_cost=(0.0, 0.1), **shared), **SMALL)
    with pytest.raises(ValueError, match=r"\['price'\].*train one at a fixed skip_cost"):
        recognizer.export(tmp_path, drawn)
    for network in own.networks:
        network.to("meta")
    with pytest.raises(ValueError, match="policy must be on the CPU to be exported, not on meta"):
        recognizer.export(tmp_path, own)
    assert not list(tmp_path.iterdir())
    (tmp_path / "settings.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="format 'other'"):
        ExportedRecognizer(tmp_path)
    runs = object.__new__(ExportedRecognizer)
    runs.settings = {"patch_size": 24}
    with pytest.raises(ValueError, match=r"frames must be \(B, T, 3, H, W\) uint8"):
        runs.recognize(torch.zeros(1, 2, 3, 20, 20, dtype=torch.uint8))
