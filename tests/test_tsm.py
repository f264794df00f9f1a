"""Temporal shift, and the recogniser of AdaFocus-TSM."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
import torchvision
from hypothesis import given, settings
from torch import Tensor, nn

from adafocus_env import load_official_checkpoint
from adafocus_env.recognition.backbones import BackboneConfig, build_backbone
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
from adafocus_env.recognition.presets import TSM_PRESETS
from adafocus_env.recognition.temporal_shift import TemporalShift, insert_temporal_shift, temporal_shift
from adafocus_env.recognition.tsm_recognizer import TSMConfig, TSMRecognizer
from tests.test_official_checkpoint import slim

TINY = TSMConfig(
    num_classes=4,
    global_backbone=BackboneConfig("tiny_resnet", (8, 16), (2, 1)),
    local_backbone=BackboneConfig("tiny_resnet", (8, 16), (2, 1)),
    glance_size=16,
    patch_size=12,
    global_frames=4,
    local_frames=3,
)


def shift_by_loop(features: Tensor, num_frames: int) -> Tensor:
    """Frame by frame and channel by channel."""
    shifted = torch.zeros_like(features)
    eighth = features.shape[1] // 8
    for place in range(len(features)):
        time = place % num_frames
        for channel in range(features.shape[1]):
            source = place + 1 if channel < eighth else place - 1 if channel < 2 * eighth else place
            if 0 <= time + source - place < num_frames:
                shifted[place, channel] = features[source, channel]
    return shifted


@given(
    clips=st.integers(1, 3), num_frames=st.integers(1, 5), channels=st.integers(1, 33), last=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_shift_is_the_loops(clips: int, num_frames: int, channels: int, last: bool, seed: int) -> None:
    features = torch.randn(clips * num_frames, channels, 3, 2, generator=torch.Generator().manual_seed(seed))
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    before = features.clone()
    shifted = temporal_shift(features, num_frames)
    assert torch.equal(shifted, shift_by_loop(features, num_frames))
    assert torch.equal(features, before)  # the shortcut needs it
    assert shifted.stride() == features.stride()


def test_gradients_flow_back_through_time() -> None:
    features = torch.randn(4, 8, 1, 1, requires_grad=True)
    temporal_shift(features, 4)[1].sum().backward()
    assert features.grad is not None
    assert [frame.flatten().nonzero().flatten().tolist() for frame in features.grad] == [
        [1],
        [2, 3, 4, 5, 6, 7],
        [0],
        [],
    ]


def make_clips(clips: int, frames: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(clips * frames, 3, 5, 5, generator=generator)
    images = 255 * nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
    return images.to(torch.uint8).unflatten(0, (clips, frames))


@torch.no_grad()
def fit_batch_norms(network: nn.Module, images: Tensor) -> None:
    """So that a random network tells images apart."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network.train()(images)
    network.eval()


@pytest.mark.parametrize(
    ("name", "count"), [("resnet50", 16), ("resnet18", 8), ("mobilenet_v2", 10), ("tiny_resnet", 2)]
)
def test_every_residual_branch_is_shifted(name: str, count: int) -> None:
    sizes = ((8, 16, 16), (2, 1, 1)) if name == "tiny_resnet" else ((), ())
    backbone = build_backbone(BackboneConfig(name, *sizes)).eval()
    images = make_clips(2, 3, 32).flatten(0, 1) / 128 - 1
    fit_batch_norms(backbone, images)
    plain = backbone(images)
    shifted = insert_temporal_shift(backbone, 3)
    assert sum(isinstance(module, TemporalShift) for module in backbone.modules()) == count
    assert not torch.allclose(shifted(images), plain, rtol=0.1)
    assert torch.allclose(shifted(images)[:3], shifted(images[:3]), atol=1e-5)  # clips don't mix


def test_what_can_not_be_shifted_is_refused() -> None:
    with pytest.raises(ValueError, match="residual blocks"):
        insert_temporal_shift(build_backbone(BackboneConfig("alexnet")), 3)
    with pytest.raises(ValueError, match="don't divide"):
        temporal_shift(torch.zeros(5, 8, 1, 1), 2)


@pytest.mark.parametrize("shift", [True, False])
def test_order_matters_with_shift_alone(shift: bool) -> None:
    torch.manual_seed(0)
    recognizer = TSMRecognizer(TSMConfig(**{**vars(TINY), "shift": shift})).eval()
    global_frames, local_frames = make_clips(2, 4, 40), make_clips(2, 3, 40, 1)
    corners = torch.tensor([[0, 28], [13, 7]])
    with torch.no_grad():
        logits = recognizer(global_frames, local_frames, corners)
        backwards = recognizer(global_frames.flip(1), local_frames.flip(1), corners)
    assert torch.allclose(logits, backwards, atol=1e-6) != shift


def test_a_clip_has_one_patch_position() -> None:
    torch.manual_seed(0)
    recognizer = TSMRecognizer(TINY).eval()
    global_frames, local_frames = make_clips(2, 4, 40), make_clips(2, 3, 40, 1)
    corners = torch.tensor([[0, 28], [13, 7]])
    patches = torch.stack([local_frames[0, ..., 0:12, 28:40], local_frames[1, ..., 13:25, 7:19]])
    with torch.no_grad():
        maps, logits = recognizer.glance(global_frames)
        assert maps.shape == (2, *recognizer.glance_shape) == (2, 4 * 16, 8, 8)
        wanted = logits + recognizer.look(patches)
        assert torch.allclose(recognizer(global_frames, local_frames, corners), wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"clips must be \(B, 4, 3"):
        recognizer(local_frames, local_frames, corners)
    with pytest.raises(IndexError):
        recognizer(global_frames, local_frames, corners + 13)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    recognizer, patches = TSMRecognizer(TINY), make_clips(2, 3, 12)
    for training in (True, False):
        first, second = (recognizer.train(training).look(patches) for _ in range(2))
        assert torch.equal(first, second) != training


def test_files_hold_it_all(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recognizer = TSMRecognizer(TINY)
    recognizer.metadata = {"note": "untrained"}
    recognizer.save(tmp_path / "tsm.safetensors")
    loaded = TSMRecognizer.from_pretrained(tmp_path / "tsm.safetensors")
    assert loaded.config == TINY
    assert loaded.metadata == recognizer.metadata
    assert loaded.fingerprint() == recognizer.fingerprint()


@pytest.mark.parametrize(("patch_size", "published"), [(144, 23.5), (160, 27.5), (176, 33.7)])
def test_published_compute(patch_size: int, published: float) -> None:
    cost = TSMRecognizer(TSM_PRESETS[f"something-v1-{patch_size}"]).eval().cost()
    assert cost.glance + cost.local == pytest.approx(published, rel=0.01)


# ---------------------------------------------------------------------------------------------- released checkpoints


class FlatBlock(nn.Module):
    """MobileNet-V2's block as the released code writes it."""

    def __init__(self, before: int, after: int, stride: int, expansion: int, num_frames: int) -> None:
        super().__init__()
        hidden = before * expansion
        self.shortcut = stride == 1 and before == after
        expand = [nn.Conv2d(before, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        if self.shortcut:
            self.conv[0] = ShiftByLoop(self.conv[0], num_frames)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv(features) if self.shortcut else self.conv(features)


class ShiftByLoop(nn.Module):
    def __init__(self, net: nn.Module, num_frames: int) -> None:
        super().__init__()
        self.net, self.num_frames = net, num_frames

    def forward(self, features: Tensor) -> Tensor:
        return self.net(shift_by_loop(features, self.num_frames))


class Released:
    """The released networks for Something-Something, with random weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        blocks: list[nn.Module] = []
        before = 32
        for expansion, after, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for number in range(count):
                blocks.append(FlatBlock(before, after, stride if number == 0 else 1, expansion, 8))
                before = after
        stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        top = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6())
        self.features = nn.Sequential(stem, *blocks, top)
        self.classifier = nn.Linear(1280, 174)
        resnet = torchvision.models.resnet50(weights=None)
        for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            for block in layer:
                block.conv1 = ShiftByLoop(block.conv1, 12)
        self.base_model = nn.Sequential(*list(resnet.children())[:-1])
        self.fc = nn.Linear(2048, 174)
        self.policy = OfficialTSMPolicy()
        for network, frames in ((self.features, 8), (self.base_model, 12)):
            fit_batch_norms(network, make_clips(1, frames, 64)[0] / 128 - 1)
        self.policy.eval()

    def file(self) -> dict[str, object]:
        glancer = {f"net.features.{name}": tensor for name, tensor in self.features.state_dict().items()}
        glancer |= {f"net.classifier.{name}": tensor for name, tensor in self.classifier.state_dict().items()}
        return {
            "epoch": 3,
            "glancer": glancer,
            "focuser": {f"net.base_model.{name}": tensor for name, tensor in self.base_model.state_dict().items()},
            "fc": self.fc.state_dict(),
            "policy": self.policy.state_dict(),
            "acc": torch.tensor(0.4),
        }


@pytest.fixture(scope="module")
def released() -> Released:
    return Released()


def test_files_of_stage_1_have_no_policy(released: Released, tmp_path: Path) -> None:
    """Not even a key for it, as those of ActivityNet have."""
    file = slim(released.file())
    del file["policy"]
    torch.save(file, tmp_path / "144x144.pth.tar")
    recognizer, policy = load_official_checkpoint(tmp_path / "144x144.pth.tar")
    assert isinstance(recognizer, TSMRecognizer)
    assert recognizer.config.patch_size == 144
    assert policy is None


def test_released_checkpoints_compute_what_they_did(released: Released, tmp_path: Path) -> None:
    torch.save(released.file(), tmp_path / "144s3.pth.tar")
    recognizer, policy = load_official_checkpoint(tmp_path / "144s3.pth.tar")
    assert isinstance(recognizer, TSMRecognizer)
    assert isinstance(policy, OfficialTSMPolicy)
    global_frames, local_frames = make_clips(1, 8, 224), make_clips(1, 12, 224, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images, patches = (
        (frames[0] / 255 - mean[:, None, None]) / std[:, None, None] for frames in (global_frames, local_frames)
    )
    with torch.no_grad():
        maps = released.features(images)
        logits = released.classifier(maps.mean((2, 3))).mean(0)
        local = released.fc(released.base_model(patches[..., 20:164, 60:204]).flatten(1)).mean(0)
        found_maps, found_logits = recognizer.glance(global_frames)
        found = recognizer(global_frames, local_frames, torch.tensor([[20, 60]]))
    torch.testing.assert_close(found_maps[0], maps.flatten(0, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_logits[0], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0], logits + local, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        place = released.policy(found_maps)
    action, _ = policy.predict(found_maps.numpy(), deterministic=True)
    assert torch.allclose(torch.from_numpy(action), 2 * place - 1, atol=1e-5)
    assert policy.action_space.contains(policy.predict(found_maps[0].numpy())[0])


def test_wrong_keys_of_tsm_are_listed(released: Released, tmp_path: Path) -> None:
    file = slim(released.file())
    glancer = file["glancer"]
    assert isinstance(glancer, dict)
    glancer["net.features.3.conv.0.weight"] = glancer.pop("net.features.3.conv.0.net.weight")
    torch.save(file, tmp_path / "144.pth.tar")
    with pytest.raises(ValueError, match="released checkpoint") as raised:
        load_official_checkpoint(tmp_path / "144.pth.tar")
    assert "glancer: net.features.3.conv.0.net.weight is missing" in str(raised.value)
    assert "glancer: net.features.3.conv.0.weight is unknown" in str(raised.value)
    assert str(raised.value).count("\n") == 2
