"""What runs on a GPU says what it says on the CPU. Without a GPU these tests are skipped."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from adafocus_env import (
    AdaFocusVectorEnv,
    FeatureBank,
    FrozenFeatures,
    Recognizer,
    RoamingFashion,
    RoamingMotion,
    TSMRecognizer,
)
from adafocus_env.recognition import optimization
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage0Config, Stage1Config
from adafocus_env.recognition.training import train_stage0, train_stage1
from agents import Reinforce, evaluate, from_pretrained, load_policy
from agents.sb3 import make_model, make_vec_env
from agents.soft_targets import SoftTargets
from tests.conftest import make_tiny_recognizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _in_full_float32() -> Iterator[None]:
    """TensorFloat32, the default of convolutions on a GPU, has three digits."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


def weights(recognizer: Recognizer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in recognizer.state_dict().items()}


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(one.cpu().double(), other.cpu().double(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", [FeatureBank, FrozenFeatures])
@pytest.mark.parametrize(
    "arguments",
    [
        {"skip": False},
        {"skip": False, "baseline": "exact", "observation": "glance"},
        {"skip": True, "skip_cost": (0.01, 0.1), "reward": "gain_over_previous"},
        {"skip": True, "stop": True, "skip_cost": 0.01, "glance_cost": 0.01, "reward": "gain_over_previous"},
        {"skip": False, "action": "continuous"},
    ],
    ids=["sample", "exact", "skip", "stop", "continuous"],
)
def test_environments_agree(kind: Any, arguments: dict[str, Any], videos: RoamingFashion) -> None:
    """The same episodes, step by step, and tensors stay on the GPU. Glances are not interpolated, as this differs."""
    unresized = make_tiny_recognizer(glance_interpolation="nearest")
    on_cpu, on_gpu = (
        AdaFocusVectorEnv(5, features=kind(unresized, videos, 4, device), output="torch", **arguments)
        for device in DEVICES
    )
    on_cpu.action_space.seed(0)
    one, other = (env.reset(seed=7) for env in (on_cpu, on_gpu))
    for _ in range(12):
        compare(one, other)
        actions = on_cpu.action_space.sample()
        one, other = on_cpu.step(actions), on_gpu.step(torch.from_numpy(actions).cuda())


def compare(one: Any, other: Any) -> None:
    """Compare what two environments gave, the second one on the GPU."""
    if isinstance(one, torch.Tensor):
        assert other.device.type == "cuda"
        assert one.dtype == other.dtype
        close(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            compare(value, other[key])
    else:
        for parts in zip(one, other, strict=True):
            compare(*parts)


def test_numpy_goes_in_and_comes_out(recognizer: Recognizer, videos: RoamingFashion) -> None:
    env = gym.make("AdaFocus-v0", features=FeatureBank(recognizer, videos, 4, "cuda"))
    check_env(env.unwrapped, skip_render_check=True)


def test_shipped_policies_look_where_they_look() -> None:
    recognizer, videos = Recognizer.from_pretrained("roaming-fashion"), RoamingFashion("val", num_videos=100)
    frames, policy = videos.frames(torch.arange(100)), from_pretrained("roaming-fashion-skip")
    one, other = (recognizer.to(device).recognize(frames.to(device), policy) for device in DEVICES)
    same = (one.corners == other.corners.cpu()).all(dim=-1) & (one.skipped == other.skipped.cpu())
    assert same.float().mean() > 0.9  # a sixth of the glances' pixels is rounded otherwise
    found = [
        evaluate(policy, features=FeatureBank(recognizer.to(device), videos, 7, device), reward="confidence").accuracy
        for device in DEVICES
    ]
    assert abs(found[0] - found[1]) <= 0.02


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_deployment_with_exit(precision: Any) -> None:
    recognizer, videos = Recognizer.from_pretrained("roaming-fashion"), RoamingFashion("val", num_videos=64)
    frames, policy = videos.frames(torch.arange(64)), from_pretrained("roaming-fashion-skip")
    one = recognizer.deployed().recognize(frames, policy, exit_threshold=0.8)
    other = recognizer.to("cuda").deployed(precision).recognize(frames.cuda(), policy, exit_threshold=0.8)
    assert other.logits.device.type == "cuda"
    assert (one.frames == other.frames.cpu()).float().mean() > 0.85
    agreed = (one.logits[:, -1].argmax(dim=1) == other.logits[:, -1].argmax(dim=1).cpu()).float().mean()
    assert agreed > 0.9


def test_clips_of_the_tsm_family() -> None:
    recognizer, videos = TSMRecognizer.from_pretrained("roaming-motion"), RoamingMotion("val", num_videos=40)
    frames, policy = videos.frames(torch.arange(40)), from_pretrained("roaming-motion")
    one, other = (recognizer.to(device).recognize(frames.to(device), policy) for device in DEVICES)
    same = (one.corners == other.corners.cpu()).all(dim=-1)
    assert same.float().mean() > 0.6  # of one choice a clip; glances differ as above, and this policy minds
    agreed = one.logits.argmax(dim=-1) == other.logits.argmax(dim=-1).cpu()
    assert agreed.float().mean() > 0.9


def test_a_bank_filled_on_the_gpu_is_read_on_the_cpu(
    tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    path = tmp_path / "gpu.bank"
    filled = FeatureBank(recognizer, videos, 4, "cuda", path=path)
    filled.build()
    filled.close()
    read, own = FeatureBank(recognizer, videos, 4, path=path), FeatureBank(recognizer, videos, 4)
    own.build()
    one, other = (AdaFocusVectorEnv(12, features=bank, skip=False, output="torch") for bank in (own, read))
    for env in (one, other):
        env.reset(seed=0)
    close(one.step([3] * 12)[1], other.step([3] * 12)[1])
    read.close()


@pytest.mark.parametrize("kind", [Reinforce, SoftTargets])
def test_agents_learn_and_move_to_the_cpu(
    kind: Any, tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    bank = FeatureBank(recognizer, videos, 4, "cuda")
    exact = {"baseline": "exact"} if kind is SoftTargets else {}
    make = {"num_envs": 8, "features": bank, "skip": False, "output": "torch"} | exact
    agent = kind(AdaFocusVectorEnv(**make), seed=0, hidden_size=8, encoder_size=8)
    agent.learn(8 * 4 * 2)
    assert agent.device.type == "cuda"
    agent.save(tmp_path / "policy.safetensors")
    on_cpu = load_policy(tmp_path / "policy.safetensors")
    frames = videos.frames(torch.arange(6))
    one, other = recognizer.to("cpu").recognize(frames, on_cpu), recognizer.to("cuda").recognize(frames.cuda(), agent)
    assert (one.corners == other.corners.cpu()).all()
    recognizer.to("cpu")


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_sb3_trains(algorithm: str, recognizer: Recognizer, videos: RoamingFashion) -> None:
    env = make_vec_env(8, seed=0, features=FeatureBank(recognizer, videos, 4, "cuda"), skip=False)
    settings = {"n_steps": 8, "n_epochs": 1} if algorithm == "ppo" else {"learning_starts": 8}
    model = make_model(algorithm, env, seed=0, device="cuda", **settings)
    model.learn(64)
    assert model.device.type == "cuda"


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_recognisers_train_and_resume(precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with dropout, whose random numbers are the GPU's."""
    videos = RoamingFashion("train", num_videos=12, num_frames=2, frame_size=48)
    torch.use_deterministic_algorithms(True, warn_only=True)

    def train(stop_at: int | None, folder: Path | None) -> dict[str, torch.Tensor]:
        def log(stage: str, step: int, metrics: dict[str, float]) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        recognizer = make_tiny_recognizer().to("cuda")
        torch.manual_seed(3)
        config = Stage1Config(epochs=4, videos_per_step=5, precision=precision)
        train_stage1(recognizer, videos, config, seed=1, progress=Progress(log, folder=folder))
        return weights(recognizer)

    whole = train(None, None)
    monkeypatch.setattr(optimization, "STEPS_BETWEEN_CHECKS", 1)
    monkeypatch.setattr(optimization, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(3, tmp_path)
    resumed = train(None, tmp_path)
    torch.use_deterministic_algorithms(False)
    for name, tensor in whole.items():
        close(tensor, resumed[name], 1e-3)


def test_stage0_trains() -> None:
    recognizer = make_tiny_recognizer().to("cuda")
    before = weights(recognizer)
    config = Stage0Config(global_steps=3, local_steps=3, precision="float16")
    train_stage0(recognizer, RoamingFashion("train", num_videos=12, num_frames=2, frame_size=48), config, seed=1)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(recognizer).items())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(recognizer).values())


def test_a_step_waits_for_the_gpu_only_where_it_says_so(recognizer: Recognizer, videos: RoamingFashion) -> None:
    """Twice: actions are checked before they act, rewards before they are given."""
    bank = FeatureBank(recognizer, videos, 4, "cuda")
    bank.build()
    env = AdaFocusVectorEnv(64, features=bank, skip=False, output="torch", autoreset_mode="DISABLED")
    actions = torch.zeros(64, dtype=torch.int64, device="cuda")
    env.reset(seed=0)
    for _ in range(env.num_frames):  # an episode makes the tensors that all others share
        env.step(actions)
    env.reset()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        env.step(actions)
    torch.cuda.set_sync_debug_mode("default")
    waits = [f"{Path(each.filename).name}:{each.lineno}" for each in found if "synchronizing" in str(each.message)]
    assert len(waits) == 2, waits
