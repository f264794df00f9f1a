from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from gymnasium import spaces
from safetensors.torch import save_file
from torch import Tensor

from adafocus_env import AdaFocusVectorEnv, Recognizer, RecognizerConfig, RoamingFashion
from adafocus_env.patches import best_candidate, grid_corners
from adafocus_env.policies import rows_of_state
from adafocus_env.recognition import BackboneConfig, assessment
from adafocus_env.recognition.backbones import build_backbone, map_shape
from adafocus_env.recognition.classifier import RecurrentClassifier
from adafocus_env.recognition.compute_cost import policy_gflops
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage0Config, Stage1Config, Stage3Config
from adafocus_env.recognition.training import patch_accuracy, train_stage0, train_stage1, train_stage3
from adafocus_env.recognition.warm_up import located_items
from agents import Evaluation, Reinforce, evaluate
from tests.conftest import TINY, make_tiny_recognizer


def test_save_and_load_is_bit_exact(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    recognizer.metadata = {"training": "none"}
    recognizer.save(tmp_path / "r.safetensors")
    loaded = Recognizer.from_pretrained(tmp_path / "r.safetensors")
    assert loaded.config == recognizer.config
    assert loaded.metadata == {"training": "none"}
    assert loaded.fingerprint() == recognizer.fingerprint()
    for name, tensor in recognizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    frames = videos.frames(torch.arange(2))
    corners = torch.zeros(2, 4, 2, dtype=torch.int64)
    assert torch.equal(loaded(frames, corners), recognizer(frames, corners))
    assert [file.name for file in tmp_path.iterdir()] == ["r.safetensors"]  # no temporary file is left


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Recognizer.from_pretrained(tmp_path / "text")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="format"):
        Recognizer.from_pretrained(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="shipped"):
        Recognizer.from_pretrained(tmp_path / "absent")


def test_forward_equals_torchs_gru(recognizer: Recognizer, videos: RoamingFashion) -> None:
    frames = videos.frames(torch.arange(3))
    corners = torch.randint(0, 25, (3, 4, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = []
        for time in range(4):
            patches = torch.stack(
                [frame[:, top : top + 24, left : left + 24]
                 for frame, (top, left) in zip(frames[:, time], corners[:, time].tolist(), strict=True)]
            )  # fmt: skip
            features.append(torch.cat((recognizer.glance(frames[:, time])[1], recognizer.look(patches)), dim=1))
        states, _ = recognizer.classifier.gru(torch.stack(features, dim=1))
        wanted = recognizer.classifier.fc(states)
        torch.testing.assert_close(recognizer(frames, corners), wanted, atol=1e-5, rtol=0)


def test_dropout_acts_in_training_alone(videos: RoamingFashion) -> None:
    classifier = RecurrentClassifier(3, 3, 400, 400, dropout=0.8)
    hidden = torch.ones(5, 400)
    with torch.no_grad():
        classifier.fc.weight.copy_(torch.eye(400))
        classifier.fc.bias.zero_()
        first, second = (classifier.train().predict(hidden) for _ in range(2))
        assert not torch.equal(first, second)
        kept = first > 0
        torch.testing.assert_close(first[kept], torch.full((int(kept.sum()),), 5.0))  # 1 / (1 - 0.8)
        assert float(kept.float().mean()) == pytest.approx(0.2, abs=0.05)
        assert torch.equal(classifier.eval().predict(hidden), hidden)
        recognizer, frames = make_tiny_recognizer(), videos.frames(torch.arange(2))
        corners = torch.zeros(2, 4, 2, dtype=torch.int64)
        for training in (True, False):
            first, second = (recognizer.train(training)(frames, corners) for _ in range(2))
            assert torch.equal(first, second) != training


def test_skipped_frames_do_not_count(recognizer: Recognizer, videos: RoamingFashion) -> None:
    frames, corners = videos.frames(torch.arange(2)), torch.zeros(2, 4, 2, dtype=torch.int64)
    skipped = torch.tensor([[False, True, False, True], [True, True, True, True]])
    with torch.no_grad():
        logits = recognizer(frames, corners, skipped)
        shorter = recognizer(frames[:1, [0, 2]], corners[:1, [0, 2]])
    torch.testing.assert_close(logits[0, [1, 3]], logits[0, [0, 2]])
    torch.testing.assert_close(logits[0, [0, 2]], shorter[0])
    nothing_seen = recognizer.classifier.fc(torch.zeros(1, TINY.hidden_size))
    torch.testing.assert_close(logits[1], nothing_seen.expand(4, -1))


def test_normalisation_and_glance_size() -> None:
    recognizer = make_tiny_recognizer(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0), glance_interpolation="nearest")
    seen: list[torch.Tensor] = []
    recognizer.global_cnn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = torch.full((1, 3, 48, 48), 255, dtype=torch.uint8)
    frames[:, :, ::2, ::2] = 0  # nearest interpolation by two takes these pixels
    recognizer.glance(frames)
    assert seen[0].shape == (1, 3, 24, 24)
    torch.testing.assert_close(seen[0].mean(dim=(0, 2, 3)), torch.tensor([-1.0, -0.5, 0.0]))


def test_patches_between_pixels_are_read_with_gradients(recognizer: Recognizer) -> None:
    whole = torch.randint(256, (2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = whole.float().requires_grad_()
    vectors = recognizer.look(patches)
    assert torch.equal(vectors, recognizer.look(whole))
    assert torch.equal(patches, whole.float())  # nothing was written into them
    vectors.sum().backward()
    assert patches.grad is not None
    assert bool(patches.grad.any())


@pytest.mark.parametrize("bad", [torch.zeros(1, 4, 3, 48, 48), torch.zeros(1, 4, 1, 48, 48, dtype=torch.uint8)])
def test_bad_frames_are_errors(bad: torch.Tensor, recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        recognizer(bad, torch.zeros(1, 4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="corners"):
        recognizer(torch.zeros(1, 4, 3, 48, 48, dtype=torch.uint8), torch.zeros(1, 3, 2, dtype=torch.int64))


def test_torchvision_backbones_by_name() -> None:
    """Paper scale is a configuration: MobileNet-V2, ResNet-50, GRU 1024."""
    config = RecognizerConfig(
        num_classes=200, global_backbone=BackboneConfig("mobilenet_v2"), local_backbone=BackboneConfig("resnet50"),
        patch_size=96,
    )  # fmt: skip
    recognizer = Recognizer(config)
    assert recognizer.glance_shape == (1280, 7, 7)
    assert recognizer.glance_bounds == (0.0, 6.0)
    assert recognizer.local_size == 2048
    assert recognizer.classifier.gru.weight_ih_l0.shape == (3072, 3328)
    with pytest.raises(ValueError, match="no-such-net"):
        Recognizer(dataclasses.replace(config, local_backbone=BackboneConfig("no-such-net")))


def test_every_stage_lowers_its_loss(videos: RoamingFashion) -> None:
    recognizer = make_tiny_recognizer()
    recognizer.classifier.dropout.p = 0.0
    data = RoamingFashion("recognizer", num_videos=32, num_frames=4, frame_size=48, num_distractors=0)
    losses: dict[str, list[float]] = {}

    def log(stage: str, step: int, metrics: dict[str, float]) -> None:
        losses.setdefault(stage, []).append(metrics["loss"])

    progress = Progress(log)
    train_stage0(recognizer, data, Stage0Config(global_steps=60, local_steps=60, videos_per_step=8), progress=progress)
    frozen = copy.deepcopy(recognizer.global_cnn.state_dict())
    train_stage1(recognizer, data, Stage1Config(steps=80, videos_per_step=16), progress=progress)
    assert all(torch.equal(tensor, recognizer.global_cnn.state_dict()[name]) for name, tensor in frozen.items())
    corners = torch.zeros(32, 4, 2, dtype=torch.int64)
    skipped = torch.zeros(32, 4, dtype=torch.bool)
    before = recognizer.fingerprint()
    train_stage3(
        recognizer,
        data,
        torch.arange(32),
        corners,
        skipped,
        Stage3Config(epochs=40, videos_per_step=16),
        progress=progress,
    )
    assert recognizer.fingerprint() != before
    assert not recognizer.training
    for stage in ("stage0/global", "stage0/local", "stage1", "stage3"):
        assert losses[stage][-1] < losses[stage][0], stage


def test_training_is_deterministic() -> None:
    data = RoamingFashion("recognizer", num_videos=16, num_frames=2, frame_size=48)
    found = []
    for _ in range(2):
        recognizer = make_tiny_recognizer()
        torch.manual_seed(1)
        train_stage0(recognizer, data, Stage0Config(global_steps=3, local_steps=3, videos_per_step=4), seed=5)
        train_stage1(recognizer, data, Stage1Config(steps=3, videos_per_step=4), seed=5)
        found.append(recognizer.fingerprint())
    assert found[0] == found[1]


def test_stage3_can_train_the_local_cnn(videos: RoamingFashion) -> None:
    recognizer = make_tiny_recognizer()
    before = copy.deepcopy(recognizer.state_dict())
    corners, skipped = torch.zeros(12, 4, 2, dtype=torch.int64), torch.zeros(12, 4, dtype=torch.bool)
    config = Stage3Config(epochs=2, videos_per_step=6, local_learning_rate=1e-3)
    train_stage3(recognizer, videos, torch.arange(12), corners, skipped, config)
    changed = {
        name.split(".")[0] for name, tensor in recognizer.state_dict().items() if not torch.equal(before[name], tensor)
    }
    assert changed == {"local_cnn", "classifier"}


@pytest.mark.parametrize("local_rate", [0.0, 1e-9])
def test_the_first_loss_of_stage3_is_that_of_the_forward_pass(local_rate: float, videos: RoamingFashion) -> None:
    recognizer = make_tiny_recognizer(dropout=0.0)
    indices, random = torch.tensor([7, 2, 9, 2, 4]), torch.Generator().manual_seed(0)
    corners = torch.randint(0, 25, (5, 4, 2), generator=random)
    skipped = torch.rand(5, 4, generator=random) < 0.4
    recognizer.local_cnn.train(local_rate > 0)
    with torch.no_grad():
        logits = recognizer(videos.frames(indices), corners, skipped)
        labels = videos.labels[indices, None].expand(-1, 4)
        wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    losses: list[float] = []
    progress = Progress(lambda stage, step, metrics: losses.append(metrics["loss"]))
    config = Stage3Config(epochs=1, videos_per_step=5, local_learning_rate=local_rate)
    train_stage3(recognizer, videos, indices, corners, skipped, config, progress=progress)
    assert losses == [pytest.approx(float(wanted), rel=1e-5)]


def test_stage3_trains_the_local_cnn_at_its_own_rate(videos: RoamingFashion) -> None:
    corners, skipped = torch.zeros(12, 4, 2, dtype=torch.int64), torch.zeros(12, 4, dtype=torch.bool)
    moved = []
    for rate in (1e-4, 1e-3):
        recognizer = make_tiny_recognizer()
        before = [parameter.detach().clone() for parameter in recognizer.local_cnn.parameters()]
        config = Stage3Config(
            epochs=1, videos_per_step=12, schedule="cosine", local_learning_rate=rate, classifier_learning_rate=0.1
        )
        train_stage3(recognizer, videos, torch.arange(12), corners, skipped, config)
        after = recognizer.local_cnn.parameters()
        moved.append(max(float((one - other).detach().abs().max()) for one, other in zip(after, before, strict=True)))
    assert 0 < moved[0] < 2 * 1e-4 < moved[1] < 2 * 1e-3  # a step of Adam is as long as its rate


def test_stage1_drops_out_and_lets_the_global_cnn_be(videos: RoamingFashion) -> None:
    """Whatever mode the recogniser was in: running statistics of batch norms are weights too."""
    found = []
    for dropout in (0.0, 0.5):
        recognizer = make_tiny_recognizer(dropout=dropout).train()
        before = copy.deepcopy(recognizer.state_dict())
        torch.manual_seed(0)
        train_stage1(recognizer, videos, Stage1Config(steps=2, videos_per_step=6))
        after = recognizer.state_dict()
        same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
        assert {name for name in after if name.startswith("global_cnn")} <= same
        assert not any(name.startswith("local_cnn") for name in same)
        found.append(recognizer.classifier.fc.weight.detach().clone())
    assert not torch.equal(*found)


def test_stage0_teaches_the_item_where_it_is_seen(videos: RoamingFashion) -> None:
    """A frame or patch that doesn't show the item is of the class "nothing"."""
    recognizer, rows = make_tiny_recognizer(), torch.arange(12)
    of_both = located_items(recognizer, videos, Stage0Config(), torch.Generator())
    objectives = dict(zip(("stage0/global", "stage0/local"), of_both, strict=True))
    boxes, visible = (part.flatten(0, 1) for part in videos.locations(rows))
    labels = videos.labels.repeat_interleave(4)
    frames, anywhere = videos.frames(rows), torch.zeros(12, 4, 2)  # top left, or, in every other frame, at the item
    near = boxes[:, :2] + (boxes[:, 2:] - 24) // 2
    corners = torch.where(torch.arange(48)[:, None] % 2 == 0, near.clamp(0, 24), 0)
    covered = (torch.minimum(corners + 24, boxes[:, :2] + 28) - torch.maximum(corners, boxes[:, :2])).clamp(min=0)
    shown = visible & (covered.prod(dim=1) >= 0.5 * 28 * 28)
    assert 0 < int((shown & visible).sum()) < int(visible.sum()) < 48
    for name, targets, drawn in (
        ("global", torch.where(visible, labels, 10), ()),
        ("local", torch.where(shown, labels, 10), (anywhere, torch.zeros(12, 4, 2, dtype=torch.int64))),
    ):
        head = objectives[f"stage0/{name}"].networks[1]
        assert isinstance(head, torch.nn.Linear)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.linspace(-2, 2, 11))
            loss, _ = objectives[f"stage0/{name}"](rows, frames, *drawn)
        logits = head.bias.detach().clone()
        if name == "global":
            logits[:-1] += np.log(recognizer.glance_shape[1] * recognizer.glance_shape[2])  # log-sum-exp over places
        wanted = -torch.log_softmax(logits, dim=0)[targets].mean()
        assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_patch_accuracy_is_that_of_the_forward_pass(recognizer: Recognizer, videos: RoamingFashion) -> None:
    corners = torch.randint(0, 25, (12, 4, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = recognizer(videos.frames(torch.arange(12)), corners)
    assert patch_accuracy(recognizer, videos, corners) == pytest.approx(
        float((logits[:, -1].argmax(dim=-1) == videos.labels).float().mean())
    )


def test_reference_ways_to_look(
    recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item's place where it is seen, elsewhere a random one; nothing at all for the glances."""
    looks: dict[str, tuple[torch.Tensor, bool]] = {}
    names = iter(("random", "center", "true_location", "glances_only"))

    def noted(*arguments: Any, blank: bool = False) -> float:
        looks[next(names)] = arguments[2], blank
        return 0.25

    monkeypatch.setattr(assessment, "patch_accuracy", noted)
    found = assessment.reference_accuracies(recognizer, videos, grid=5)
    assert set(found) == set(looks)
    assert set(found.values()) == {25.0}
    assert [name for name, (_, blank) in looks.items() if blank] == ["glances_only"]
    boxes, visible = videos.locations(torch.arange(12))
    corners = grid_corners(5, (48, 48), 24)
    best = corners[best_candidate(corners, 24, boxes)]
    assert torch.equal(looks["true_location"][0], torch.where(visible[..., None], best, looks["random"][0]))
    assert looks["random"][0].flatten(0, 1).unique(dim=0).shape[0] > 10
    assert bool((looks["center"][0] == 12).all())


def make_policy(observation: str, env_kwargs: dict[str, Any]) -> Reinforce:
    """One that decides differently from frame to frame."""
    env = AdaFocusVectorEnv(2, observation=observation, **env_kwargs)
    policy = Reinforce(env, seed=3, use_belief=observation == "full")
    for parameter in policy._average.parameters():
        parameter.data.mul_(3)
    return policy


@pytest.mark.parametrize("observation", ["full", "glance"])
@pytest.mark.parametrize("skip", [True, False])
def test_recognize_equals_the_environment(
    observation: str, skip: bool, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    """The deployment path, batched or frame by frame, ends where the environment's episodes end, at the same price."""
    policy = make_policy(observation, {"skip": skip, **env_kwargs})
    found = evaluate(policy, "val", **env_kwargs)
    result = recognizer.recognize(videos.frames(torch.arange(12)), policy, grid=4)
    assert torch.equal(result.corners[~result.skipped], torch.from_numpy(found.corners)[~result.skipped])
    assert torch.equal(result.skipped, torch.from_numpy(found.skipped))
    torch.testing.assert_close(
        torch.softmax(result.logits[:, -1], dim=-1), torch.from_numpy(found.probabilities), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(result.gflops, torch.from_numpy(found.gflops))
    assert found.policy_gflops > 0
    with pytest.raises(ValueError, match="grid"):
        recognizer.recognize(videos.frames(torch.arange(1)), policy, grid=5)


class Noting:
    """A policy that notes what it is told."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, spaces.MultiDiscrete([16, 2])
        self.observed: list[Any] = []
        self.starts: list[list[bool]] = []

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, **_: Any) -> tuple[Any, Any]:
        self.observed.append(copy.deepcopy(observation))
        self.starts.append(episode_start.tolist())
        time = len(self.starts) - 1
        return np.array([[5 * time % 16, time == 1], [3, time == 2], [9, 0]]), state


def test_recognize_tells_a_policy_what_the_environment_does(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    """In whatever mode the recogniser is: for its time it evaluates."""
    env = AdaFocusVectorEnv(3, **env_kwargs)
    observation, _ = env.reset(seed=0, options={"video": np.arange(3)})
    told, acting = Noting(env.single_observation_space), Noting(env.single_observation_space)
    training = copy.deepcopy(recognizer).train()
    result = training.recognize(videos.frames(torch.arange(3)), told)
    assert training.training
    for time in range(4):
        assert told.starts[time] == [time == 0] * 3
        for name, values in observation.items():
            np.testing.assert_allclose(told.observed[time][name], values, atol=1e-5)
        observation, *_ = env.step(acting.predict(observation, episode_start=np.array([time == 0] * 3))[0])
    torch.testing.assert_close(torch.softmax(result.logits[:, -1], dim=-1), env.probabilities, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name",
    ["convnext_tiny", "densenet121", "googlenet", "inception_v3", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5",
     "squeezenet1_1", "swin_t", "vgg11"],
)  # fmt: skip
def test_torchvision_models_are_cut_before_their_pooling(name: str) -> None:
    """What is kept, pooled and put through the rest of the model is what the model says."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name)).eval()
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **AUXILIARY.get(name, {})).eval()
    image = torch.randn(1, 3, 96, 96)
    maps = []
    pooling = [m for m in model.modules() if isinstance(m, torch.nn.AdaptiveAvgPool2d)]
    with torch.no_grad():
        if pooling and name != "squeezenet1_1":
            pooling[-1].register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
            model(image)
            torch.testing.assert_close(backbone(image), maps[0])
        found = backbone(image)
    assert found.ndim == 4
    assert found.shape[1] > max(found.shape[2:])
    assert map_shape(copy.deepcopy(backbone), 96) == tuple(found.shape[1:])


AUXILIARY = {name: {"aux_logits": False, "init_weights": False} for name in ("googlenet", "inception_v3")}


def test_backbones_that_cannot_serve_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'vit_b_16' has no feature map"):
        build_backbone(BackboneConfig("vit_b_16"))
    with pytest.raises(ValueError, match=r"no weights 'IMAGENET9' of 'mobilenet_v2', but .*IMAGENET1K_V1"):
        build_backbone(BackboneConfig("mobilenet_v2"), "IMAGENET9")
    with pytest.raises(ValueError, match="tiny_resnet"):
        build_backbone(BackboneConfig("tiny_resnet", (4,), (2,)), "DEFAULT")

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(ConnectionError, match="weights=None"):
        build_backbone(BackboneConfig("mobilenet_v2"), "DEFAULT")


def test_traced_backbones_are_deployed_too() -> None:
    torch.manual_seed(0)
    networks = {"global_backbone": BackboneConfig("shufflenet_v2_x0_5"), "local_backbone": BackboneConfig("mnasnet0_5")}
    recognizer = Recognizer(RecognizerConfig(5, **networks, glance_size=96, patch_size=64, hidden_size=16)).eval()
    fast, images = recognizer.deployed(), torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    torch.testing.assert_close(fast.glance(images), recognizer.glance(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.look(images), recognizer.look(images), atol=1e-5, rtol=1e-4)
    assert not any("bn" in name or isinstance(m, torch.nn.BatchNorm2d) for name, m in fast.local_cnn.named_modules())


class Constant:
    """A policy that always acts alike."""

    def __init__(self, action: Any, action_space: spaces.Space[Any]) -> None:
        self.action, self.action_space = action, action_space

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[Any, Any]:
        return np.array([self.action] * 3), state


@pytest.mark.parametrize(
    ("action", "space"),
    [
        (-1, spaces.Discrete(16)),
        (16, spaces.Discrete(16)),
        ([3, 5], spaces.MultiDiscrete([16, 2])),
        ([16, 1], spaces.MultiDiscrete([16, 2])),
        ([3, 0], spaces.Discrete(16)),
    ],
)
def test_actions_outside_the_space_are_errors(
    action: Any, space: spaces.Space[Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    with pytest.raises(ValueError, match="the policy's actions must be"):
        recognizer.recognize(videos.frames(torch.arange(3)), Constant(action, space))


def test_recognize_names_what_is_no_policy_or_no_tensor(recognizer: Recognizer, videos: RoamingFashion) -> None:
    frames = videos.frames(torch.arange(3))
    with pytest.raises(ValueError, match="has to be made first"):
        recognizer.recognize(frames, Constant)
    with pytest.raises(ValueError, match=r"must be a \(B, T, 3, H, W\) tensor"):
        recognizer.recognize(frames.numpy(), Constant(0, spaces.Discrete(16)))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- conditional exit


def half_leave_at(confidence: Tensor) -> float:
    """A threshold at which half of the videos are left before their last frame, and no confidence lies on it."""
    highest = confidence[:, :-1].amax(dim=1).sort().values
    return float(highest[len(highest) // 2 - 1 : len(highest) // 2 + 1].mean())


@pytest.mark.parametrize("observation", ["full", "glance"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_video_is_left_on_the_first_frame_that_is_certain(
    observation: str, per_frame: bool, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    policy, frames = make_policy(observation, env_kwargs), videos.frames(torch.arange(12))
    whole = recognizer.recognize(frames, policy)
    confidence = whole.logits.softmax(dim=2).amax(dim=2)
    threshold = half_leave_at(confidence)
    thresholds = [1.5, *[threshold] * 3] if per_frame else [threshold] * 4
    result = recognizer.recognize(frames, policy, exit_threshold=thresholds if per_frame else threshold)
    early = 0
    for video in range(12):
        certain = [time for time in range(4) if confidence[video, time] >= thresholds[time]]
        seen = 1 + min([*certain, 3])
        early += seen < 4
        assert result.frames[video] == seen
        torch.testing.assert_close(result.logits[video, :seen], whole.logits[video, :seen], atol=1e-4, rtol=1e-4)
        assert torch.equal(result.logits[video, seen:], result.logits[video, seen - 1].expand(4 - seen, -1))
        assert torch.equal(result.skipped[video, :seen], whole.skipped[video, :seen])
        assert bool(result.skipped[video, seen:].all())
        looked = ~result.skipped[video]
        assert torch.equal(result.corners[video][looked], whole.corners[video][looked])
        cost = recognizer.cost()
        wanted = seen * (cost.always + policy_gflops(policy)) + int(looked.sum()) * cost.local
        assert float(result.gflops[video]) == pytest.approx(wanted)
    assert 0 < early < 12


@pytest.mark.parametrize("observation", ["full", "glance"])
@pytest.mark.parametrize("threshold", [1.01, float("inf"), [2.0] * 4])
def test_what_no_confidence_reaches_changes_nothing(
    observation: str, threshold: Any, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    policy, frames = make_policy(observation, env_kwargs), videos.frames(torch.arange(6))
    whole, result = (recognizer.recognize(frames, policy, exit_threshold=each) for each in (None, threshold))
    for name, value in vars(whole).items():
        assert torch.equal(getattr(result, name), value), name
    assert whole.frames.tolist() == [4] * 6


@pytest.mark.parametrize("observation", ["full", "glance"])
def test_evaluation_leaves_videos_where_recognition_does(
    observation: str, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    policy, frames = make_policy(observation, env_kwargs), videos.frames(torch.arange(12))
    confidence = recognizer.recognize(frames, policy).logits.softmax(dim=2).amax(dim=2)
    threshold = half_leave_at(confidence)
    result = recognizer.recognize(frames, policy, exit_threshold=threshold)
    found, whole = (evaluate(policy, exit_threshold=each, num_envs=5, **env_kwargs) for each in (threshold, None))
    assert found.frames.tolist() == result.frames.tolist()
    np.testing.assert_array_equal(found.skipped, result.skipped)
    np.testing.assert_allclose(found.gflops, result.gflops)
    np.testing.assert_allclose(found.probabilities, result.logits[:, -1].softmax(dim=1), atol=1e-5)
    np.testing.assert_array_equal(found.predictions, result.logits.argmax(dim=2))
    assert found.frames_per_video < whole.frames_per_video == 4
    assert found.gflops_per_video < whole.gflops_per_video
    assert found.policy_gflops == pytest.approx(policy_gflops(policy) * found.frames_per_video)
    found.save(tmp_path / "found.npz")
    assert Evaluation.load(tmp_path / "found.npz").frames.tolist() == found.frames.tolist()


def test_nothing_is_computed_of_a_video_that_was_left(
    env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    glanced, looked, asked = [], [], []
    policy = make_policy("full", env_kwargs)

    def counting(of: Any, rows: list[int]) -> Any:
        def call(images: Any, *args: Any, **kwargs: Any) -> Any:
            rows.append(len(images["glance"] if isinstance(images, dict) else images))
            return of(images, *args, **kwargs)

        return call

    monkeypatch.setattr(recognizer, "glance", counting(recognizer.glance, glanced))
    monkeypatch.setattr(recognizer, "look", counting(recognizer.look, looked))

    frames = videos.frames(torch.arange(12))
    confidence = recognizer.recognize(frames, policy).logits.softmax(dim=2).amax(dim=2)
    policy_gflops(policy)  # which is measured once, by asking
    monkeypatch.setattr(policy, "predict", counting(policy.predict, asked))
    for rows in (glanced, looked):
        rows.clear()
    result = recognizer.recognize(frames, policy, exit_threshold=half_leave_at(confidence))
    assert sum(glanced) == sum(asked) == int(result.frames.sum()) < 48
    assert sum(looked) == int((~result.skipped).sum())
    glanced.clear()
    assert recognizer.recognize(frames, policy, exit_threshold=1e-6).frames.tolist() == [1] * 12
    assert sum(glanced) == 12


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), "high", [0.5, 0.5], True, [[0.5] * 4]])
def test_other_thresholds_are_refused(
    threshold: Any, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    policy = make_policy("glance", env_kwargs)
    with pytest.raises(ValueError, match="exit_threshold must be a number above 0, or one for each of 4 frames"):
        recognizer.recognize(videos.frames(torch.arange(1)), policy, exit_threshold=threshold)
    with pytest.raises(ValueError, match="exit_threshold must be"):
        evaluate(policy, exit_threshold=threshold, **env_kwargs)


def test_rows_of_recurrent_states() -> None:
    rows = torch.tensor([2, 0])
    ours, torchs = torch.arange(6.0).view(3, 2), np.arange(12.0).reshape(2, 3, 2)
    state = rows_of_state((ours, {"lstm": (torchs, None)}), rows)
    assert torch.equal(state[0], ours[rows])
    np.testing.assert_array_equal(state[1]["lstm"][0], torchs[:, [2, 0]])
    assert state[1]["lstm"][1] is None


def test_a_video_of_one_frame_may_be_left_after_it(recognizer: Recognizer) -> None:
    videos = RoamingFashion("val", num_videos=6, num_frames=1, frame_size=48, num_distractors=1)
    policy = make_policy("glance", {"videos": videos, "recognizer": recognizer, "grid": 4})
    found = evaluate(policy, exit_threshold=0.5, videos=videos, recognizer=recognizer)
    assert found.frames.tolist() == [1] * 6
