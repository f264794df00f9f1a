"""Released checkpoints, imitated: every key and shape, random weights; and what they compute, written down again."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from adafocus_env import Recognizer, load_official_checkpoint
from adafocus_env.patches import crop, grid_corners
from adafocus_env.recognition.official_policy import OfficialPolicy
from agents import PaperPPO, Reinforce, load_policy

CLASSES, PATCH = 7, 96
State = dict[str, Tensor]


def make_frames(count: int, seed: int) -> Tensor:
    """(count, 3, 224, 224) uint8 with large patterns, which random networks tell apart better than noise."""
    noise = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(noise, 224, mode="bicubic").clamp(0, 1)).to(torch.uint8)


class Official:
    """The released networks, by torchvision and by hand."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.glancer = torchvision.models.mobilenet_v2(weights=None, num_classes=CLASSES).eval()
        self.focuser = torchvision.models.resnet50(weights=None, num_classes=CLASSES).eval()
        for network in (self.glancer, self.focuser):  # fit the batch norms
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None
            with torch.no_grad():
                network.train()(make_frames(8, 0) / 128 - 1)
            network.eval()
        self.gru, self.fc = nn.GRU(3328, 1024, batch_first=True), nn.Linear(1024, CLASSES)
        self.conv, self.linear = nn.Conv2d(1280, 32, 1, bias=False), nn.Linear(1568, 1024)
        self.policy_gru, self.actor, self.critic = nn.GRU(1024, 1024), nn.Linear(1024, 49), nn.Linear(1024, 1)
        with torch.no_grad():
            self.conv.weight.mul_(20)
            self.actor.weight.mul_(20)  # so that decisions differ from frame to frame

    def policy_state(self) -> State:
        parts = {
            "state_encoder.0": self.conv, "state_encoder.3": self.linear, "gru": self.policy_gru,
            "actor.0": self.actor, "critic.0": self.critic,
        }  # fmt: skip
        return {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }

    def file(self, stage: int) -> dict[str, Any]:
        policy = self.policy_state()
        focuser = {f"net.{name}": tensor for name, tensor in self.focuser.state_dict().items()}
        if stage > 1:
            copies = ("policy.policy.", "policy.policy_old.")
            focuser |= {prefix + name: tensor for prefix in copies for name, tensor in policy.items()}
        fc = {f"gru.{k}": v for k, v in self.gru.state_dict().items()}
        return {
            "epoch": 9,
            "model_state_dict": {},
            "glancer": {f"net.{name}": tensor for name, tensor in self.glancer.state_dict().items()},
            "focuser": focuser,
            "fc": fc | {f"fc.{k}": v for k, v in self.fc.state_dict().items()},
            "policy": policy if stage > 1 else None,
            "acc": torch.tensor(0.75),
            "best_acc": np.float64(0.75),
            "optimizer": torch.optim.SGD(self.fc.parameters(), 0.1, momentum=0.9).state_dict(),
            "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        }


@pytest.fixture(scope="module")
def official() -> Official:
    return Official()


@pytest.fixture(scope="module")
def checkpoint(official: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "96s3_checkpoint.pth.tar"
    torch.save(official.file(3), path)
    return path


def test_networks_compute_what_the_released_ones_do(official: Official, checkpoint: Path) -> None:
    recognizer, policy = load_official_checkpoint(checkpoint)
    assert policy is not None
    assert recognizer.config.patch_size == PATCH
    frames = make_frames(6, 1).unflatten(0, (2, 3))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (frames / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        maps = official.glancer.features(images.flatten(0, 1))
        found_maps, found_vectors = recognizer.glance(frames.flatten(0, 1))
        torch.testing.assert_close(found_maps, maps, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found_vectors, maps.mean((2, 3)), atol=1e-4, rtol=1e-4)

        encoded = torch.relu(official.linear(torch.relu(official.conv(maps)).flatten(1))).unflatten(0, (2, 3))
        states = official.policy_gru(encoded.transpose(0, 1))[0]
        probabilities = torch.softmax(official.actor(states), dim=-1)  # (T, B, N)
        actions = probabilities.argmax(-1).T
        assert len(actions.unique()) > 1
        state = torch.zeros(2, 1024)
        for time in range(3):
            found, state = policy(found_maps.unflatten(0, (2, 3))[:, time], state)
            torch.testing.assert_close(found, probabilities[time], atol=1e-4, rtol=1e-4)

        tops = (actions // 7 * (224 - PATCH) / 6).long()
        lefts = (actions % 7 * (224 - PATCH) / 6).long()
        patches = torch.stack([
            images[b, t, :, tops[b, t] : tops[b, t] + PATCH, lefts[b, t] : lefts[b, t] + PATCH]
            for b in range(2) for t in range(3)
        ])  # fmt: skip
        headless = copy.deepcopy(official.focuser)
        headless.fc = nn.Identity()
        local = headless(patches)
        corners = grid_corners(7, (224, 224), PATCH)[actions]
        cut = crop(frames.flatten(0, 1), corners.flatten(0, 1), PATCH)
        torch.testing.assert_close(recognizer.look(cut), local, atol=1e-4, rtol=1e-4)
        vectors = torch.cat((maps.mean((2, 3)), local), dim=1).unflatten(0, (2, 3))
        logits = official.fc(official.gru(vectors)[0])
    result = recognizer.recognize(frames, policy)
    torch.testing.assert_close(result.logits, logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(result.corners, corners)
    agent = PaperPPO.from_official(policy)
    assert torch.equal(recognizer.recognize(frames, agent).corners, corners)
    assert torch.equal(recognizer.recognize(frames, load_policy(checkpoint)).corners, corners)


def test_stage_1_has_no_policy(official: Official, tmp_path: Path) -> None:
    path = tmp_path / "stage1.pth.tar"
    torch.save(official.file(1), path)
    named = tmp_path / "96s1.pth.tar"
    torch.save(official.file(1), named)
    with pytest.raises(ValueError, match="stage 1"):
        load_policy(named)
    with pytest.raises(ValueError, match="patch_size"):
        load_official_checkpoint(path)
    recognizer, policy = load_official_checkpoint(path, patch_size=160)
    assert policy is None
    assert recognizer.config.patch_size == 160
    assert recognizer.config.num_classes == CLASSES


def test_every_wrong_key_is_listed(official: Official, tmp_path: Path) -> None:
    file = official.file(3)
    del file["glancer"]["net.features.0.0.weight"]
    file["fc"]["gru.weight_hh_l1"] = torch.zeros(3)
    file["focuser"]["net.conv1.weight"] = torch.zeros(64, 3, 3, 3)
    del file["focuser"]["policy.policy_old.actor.0.bias"]
    path = tmp_path / "128s3.pth.tar"
    torch.save(file, path)
    with pytest.raises(ValueError, match="released checkpoint") as raised:
        load_official_checkpoint(path)
    for line in (
        "glancer: net.features.0.0.weight is missing",
        "fc: gru.weight_hh_l1 is unknown",
        "focuser: net.conv1.weight must be (64, 3, 7, 7), not (64, 3, 3, 3)",
        "focuser: policy.policy_old.actor.0.bias is missing",
    ):
        assert line in str(raised.value)
    assert str(raised.value).count("\n") == 4


def slim(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts with networks and nothing else, in a small file: every tensor is its first value, repeated."""
    return {
        part: {name: tensor.flatten()[0].expand(tensor.shape) for name, tensor in parts[part].items()}
        for part in ("glancer", "focuser", "fc", "policy")
        if parts.get(part) is not None
    }


@pytest.mark.parametrize("stage", [1, 2])  # files of stage 3 are like those of stage 2
def test_every_stage_loads_without_what_is_optional(official: Official, tmp_path: Path, stage: int) -> None:
    file = slim(official.file(stage))
    assert ("policy" in file) == (stage > 1)
    torch.save(file, tmp_path / "128checkpoint.pth.tar")
    recognizer, policy = load_official_checkpoint(tmp_path / "128checkpoint.pth.tar")
    assert recognizer.config.patch_size == 128
    assert (policy is None) == (stage == 1)


def test_prefixes_of_wrappers_are_taken_off(official: Official, tmp_path: Path) -> None:
    """DataParallel's and torch.compile's, around the whole or a part of it."""
    file = slim(official.file(3))
    path = tmp_path / "128.pth.tar"
    torch.save(file, path)
    plain, _ = load_official_checkpoint(path)
    for part, before, after in (
        ("glancer", "net.", "module.net."),
        ("focuser", "net.", "net._orig_mod."),
        ("fc", "", "_orig_mod.module."),
        ("policy", "", "module."),
    ):
        file[part] = {re.sub(f"^{before}", after, name): tensor for name, tensor in file[part].items()}
    torch.save(file, path)
    wrapped, policy = load_official_checkpoint(path)
    assert wrapped.fingerprint() == plain.fingerprint()
    assert policy is not None
    file["fc"]["fc.bias"] = file["fc"]["_orig_mod.module.fc.bias"]
    torch.save(file, path)
    with pytest.raises(ValueError, match=r"128\.pth\.tar: fc: fc\.bias is there twice"):
        load_official_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("96s1", True), ("128checkpoint", True), ("192s3_checkpoint", True), ("144x144", True), ("128", True),
        ("50epochs", False), ("144x160", False), ("96s4", False), ("2021_best", False), ("128s3_checkpoint-1", False),
        ("checkpoint", False), ("model_96", False), ("96 copy", False),
    ],
)  # fmt: skip
def test_the_patch_size_is_in_names_like_the_released_alone(tmp_path: Path, name: str, known: bool) -> None:
    path = tmp_path / f"{name}.pth.tar"
    torch.save({"epoch": 1}, path)
    with pytest.raises(ValueError, match="lacks" if known else "pass patch_size"):
        load_official_checkpoint(path)
    with pytest.raises(ValueError, match="lacks"):
        load_official_checkpoint(path, patch_size=96)


@pytest.mark.parametrize("size", ["96", 96.5, True, 0])
def test_a_patch_size_is_a_number_of_pixels(official: Official, tmp_path: Path, size: Any) -> None:
    torch.save(slim(official.file(1)), tmp_path / "model.pth.tar")
    with pytest.raises(ValueError, match="patch_size must be an integer"):
        load_official_checkpoint(tmp_path / "model.pth.tar", patch_size=size)


def test_a_policy_needs_no_patch_size(official: Official, tmp_path: Path) -> None:
    torch.save(slim(official.file(2)), tmp_path / "50epochs.pth.tar")
    assert isinstance(load_policy(tmp_path / "50epochs.pth.tar"), OfficialPolicy)


def test_tensors_that_can_not_be_weights_are_listed(official: Official, tmp_path: Path) -> None:
    file = slim(official.file(3))
    file["fc"]["fc.bias"] = torch.full((CLASSES,), torch.nan)
    file["policy"]["gru.bias_hh_l0"] = torch.full((3072,), -torch.inf)
    file["glancer"]["net.features.0.1.bias"] = torch.zeros(32, dtype=torch.int64)
    file["focuser"]["net.conv1.weight"] = file["focuser"]["net.conv1.weight"].to_sparse()
    torch.save(file, tmp_path / "128.pth.tar")
    with pytest.raises(ValueError, match=r"128\.pth\.tar") as raised:
        load_official_checkpoint(tmp_path / "128.pth.tar")
    for line in (
        "fc: fc.bias holds values that are not finite",
        "policy: gru.bias_hh_l0 holds values that are not finite",
        "glancer: net.features.0.1.bias must be torch.float32, not torch.int64",
        "focuser: net.conv1.weight must be torch.float32, not torch.float32 (torch.sparse_coo)",
    ):
        assert line in str(raised.value)
    assert str(raised.value).count("\n") == 4


class Harmful:
    """Would run code while it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"epoch": 1}, "lacks"),
        ([1, 2], "list"),
        ({"glancer": {}, "focuser": {}, "fc": {}, "policy": None}, "fc.bias"),
        ({"glancer": {}, "focuser": 3, "fc": {}, "policy": None}, "'focuser' must be"),
        ({"glancer": Harmful()}, "safely"),
    ],
)
def test_other_files_are_refused(content: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "128.pth.tar")
    with pytest.raises(ValueError, match=match):
        load_official_checkpoint(tmp_path / "128.pth.tar")
    assert not Path("harm-was-done").exists()
    (tmp_path / "96.pth.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="safely"):
        load_official_checkpoint(tmp_path / "96.pth.tar")
    with pytest.raises(FileNotFoundError):
        load_official_checkpoint(tmp_path / "absent.pth.tar")


def test_numpy_scalars_of_old_files_are_read(official: Official, tmp_path: Path) -> None:
    """Old versions of numpy pickled scalars under another module name."""
    path = tmp_path / "128.pth.tar"
    file = official.file(1)
    torch.save(file, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"numpy._core.multiarray") == 1
    path.write_bytes(re.sub(rb"numpy\._core\.multiarray", b"numpy.core.multiarray", data))
    assert load_official_checkpoint(path)[1] is None


@pytest.mark.slow
def test_the_script_writes_our_files(checkpoint: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "scripts" / "import_checkpoint.py"
    subprocess.run([sys.executable, script, checkpoint, "--out", tmp_path / "out"], check=True, timeout=120)
    recognizer, _ = load_official_checkpoint(checkpoint)
    assert (
        Recognizer.from_pretrained(tmp_path / "out" / "recognizer.safetensors").fingerprint()
        == recognizer.fingerprint()
    )
    assert isinstance(Reinforce.load(tmp_path / "out" / "policy.safetensors"), Reinforce)
    bad = tmp_path / "x.pth.tar"
    bad.write_bytes(b"")
    found = subprocess.run([sys.executable, script, bad], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 1
    assert "patch_size" in found.stderr
    assert "Traceback" not in found.stderr
