"""Training at scale: exact resumption, several processes, mixed precision, the paper's warm-up."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.recognition import optimization
from adafocus_env.recognition.optimization import Objective, Progress, optimize
from adafocus_env.recognition.recipes import Optimization, Stage0Config, Stage1Config, Stage3Config
from adafocus_env.recognition.training import train_stage0, train_stage1, train_stage3
from adafocus_env.recognition.warm_up import whole_frames
from adafocus_env.videos.description import open_description
from tests.conftest import make_tiny_recognizer
from tests.test_frame_folders import write_video

SCRIPTS = Path(__file__).parent.parent / "scripts"


class Killed(BaseException):
    """What stops a training run from within, wherever it is."""


def weights(recognizer: Recognizer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in recognizer.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def checkpoint_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "STEPS_BETWEEN_CHECKS", 1)
    monkeypatch.setattr(optimization, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


class TestResumption:
    """A run that was interrupted and resumed ends with the same weights as one that was not."""

    def train(self, stop_at: int | None = None, folder: Path | None = None, **config: Any) -> Recognizer:
        recognizer = make_tiny_recognizer()

        def log(stage: str, step: int, metrics: dict[str, float]) -> None:
            if step == stop_at:
                raise Killed

        torch.manual_seed(3)
        videos = RoamingFashion("train", num_videos=12, num_frames=2, frame_size=48)
        settings = Stage1Config(epochs=4, videos_per_step=5, **config)  # two steps a pass
        train_stage1(recognizer, videos, settings, seed=1, progress=Progress(log, folder=folder))
        return recognizer

    @pytest.mark.parametrize("within_passes", [False, True])
    @pytest.mark.parametrize("stop_at", [1, 2, 5, 8])
    def test_within_a_process(
        self, tmp_path: Path, stop_at: int, within_passes: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = weights(self.train())
        if within_passes:
            checkpoint_after_every_step(monkeypatch)
        with pytest.raises(Killed):
            self.train(stop_at, tmp_path)
        path, kept = tmp_path / "stage1.checkpoint", stop_at - 1 if within_passes else (stop_at - 1) // 2 * 2
        assert (torch.load(path, weights_only=True)["step"] if path.exists() else 0) == kept
        assert_equal(whole, weights(self.train(folder=tmp_path)))
        assert_equal(whole, weights(self.train(folder=tmp_path)))  # nothing is left to do

    @pytest.mark.parametrize("stop_at", [5, 6])
    def test_of_videos_that_change(self, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Training views are drawn as if nothing had happened."""
        description = data_on_disk(tmp_path / "data", videos=14)

        def train(stop_at: int | None, name: str) -> dict[str, torch.Tensor]:
            def log(stage: str, step: int, metrics: dict[str, float]) -> None:
                if step == stop_at:
                    raise Killed

            videos = open_description(description, "recognizer")  # a data set of its own, as in a process of its own
            recognizer = make_tiny_recognizer(num_classes=2, patch_size=16)
            torch.manual_seed(3)
            settings = Stage1Config(epochs=4, videos_per_step=5)  # two steps a pass
            train_stage1(recognizer, videos, settings, seed=1, progress=Progress(log, folder=tmp_path / name))
            return weights(recognizer)

        whole = train(None, "whole")
        checkpoint_after_every_step(monkeypatch)
        with pytest.raises(Killed):
            train(stop_at, "killed")
        assert_equal(whole, train(None, "killed"))

    def test_on_a_cpu_after_a_gpu(self, tmp_path: Path) -> None:
        """What the checkpoint keeps of the GPU's random numbers is left out."""
        with pytest.raises(Killed):
            self.train(5, tmp_path)
        path = tmp_path / "stage1.checkpoint"
        state = torch.load(path, weights_only=True)
        ((random, random_gpu),) = state["random"]
        assert random_gpu is None
        torch.save({**state, "random": [(random, torch.zeros(16, dtype=torch.uint8))]}, path)
        assert_equal(weights(self.train()), weights(self.train(folder=tmp_path)))

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        self.train(folder=tmp_path)
        with pytest.raises(ValueError, match=r"stage1\.checkpoint was written by a run with other settings"):
            self.train(folder=tmp_path, optimizer="sgd")

    def test_a_damaged_checkpoint_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "stage1.checkpoint").write_bytes(b"PK\x03\x04 half a file")
        with pytest.raises(ValueError, match=r"stage1\.checkpoint is no checkpoint"):
            self.train(folder=tmp_path)


class Pull(torch.nn.Module):
    """One weight, whose loss has a gradient that doesn't depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("gradient", [1.0, 1e3])
def test_the_papers_optimiser_by_hand(gradient: float) -> None:
    """SGD with a momentum of 0.9, a cosine from the full rate to 0, and gradients clipped to a norm of 5."""
    videos = RoamingFashion("train", num_videos=4, num_frames=2, frame_size=48)
    pull, found = Pull(), []

    def loss_of(rows: torch.Tensor, _: None) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(float(pull.weight.detach()))
        return gradient * pull.weight.sum(), torch.ones(len(rows), dtype=torch.bool)

    optimize(
        "pull", Objective([pull], videos, loss_of, read=lambda rows: None), [0.1],
        Optimization(videos_per_step=4, optimizer="sgd", schedule="cosine", weight_decay=0.0),
        num_rows=4, steps=4, generator=torch.Generator(), progress=Progress(),
    )  # fmt: skip
    weight, velocity = 0.0, 0.0
    for step in range(4):
        assert found[step] == pytest.approx(weight, abs=1e-5)
        velocity = 0.9 * velocity + min(gradient, 5.0)
        weight -= 0.1 * (1 + math.cos(math.pi * step / 4)) / 2 * velocity
    assert float(pull.weight.detach()) == pytest.approx(weight, abs=1e-5)


def data_on_disk(folder: Path, videos: int = 10) -> Path:
    """Frame folders with lists and a description; the class is the brightness."""
    lines = [f"video{number} 4 {number % 2}" for number in range(videos)]
    for number in range(videos):
        write_video(folder / f"video{number}", 4, seed=number, size=(30, 40))
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:4]))
    description = folder / "data.toml"
    description.write_text(
        'root = "."\ntrain_list = "train.txt"\ntest_list = "test.txt"\nnum_classes = 2\n'
        "num_frames = 2\nframe_size = 24\nresized = 28\n"
    )
    return description


def script(name: str, *arguments: Any, torchrun: int = 0) -> list[str]:
    start = [sys.executable]
    if torchrun:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)]
    return [*start, str(SCRIPTS / name), *map(str, arguments)]


SMALL = (
    "--preset", "activitynet-96", "--global-backbone", "shufflenet_v2_x0_5", "--local-backbone", "resnet18",
    "--glance-size", "32", "--patch-size", "16", "--hidden-size", "8",
    "--stage0.epochs", "1", "--stage0.videos-per-step", "4", "--stage1.videos-per-step", "4",
)  # fmt: skip


@pytest.mark.slow
def test_a_script_killed_for_real_resumes_exactly(tmp_path: Path) -> None:
    """Training views, too, are drawn as if nothing had happened."""
    arguments = (*SMALL, "--videos", data_on_disk(tmp_path / "data"), "--stage1.epochs", "12")
    found = []
    for name in ("whole", "killed"):
        command = script("train_recognizer.py", *arguments, "--out", tmp_path / name)
        if name == "killed":
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while not (tmp_path / name / "stage1.checkpoint").exists():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (tmp_path / name / "activitynet-96.safetensors").exists()
            command.append("--resume")
        subprocess.run(command, check=True, capture_output=True)
        found.append(weights(Recognizer.from_pretrained(tmp_path / name / "activitynet-96.safetensors")))
    assert_equal(*found)


WORKER = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {root!r})
from adafocus_env import RoamingFashion
from adafocus_env.processes import process_group, process_number, num_processes
from adafocus_env.recognition.recipes import Stage3Config
from adafocus_env.recognition.training import train_stage3
from tests.conftest import make_tiny_recognizer

with process_group():
    recognizer = make_tiny_recognizer()
    recognizer.classifier.dropout.p = 0.0
    videos = RoamingFashion("train", num_videos=11, num_frames=3, frame_size=48)
    corners = torch.randint(0, 25, (11, 3, 2), generator=torch.Generator().manual_seed(0))
    skipped = torch.rand(11, 3, generator=torch.Generator().manual_seed(1)) < 0.3
    train_stage3(recognizer, videos, torch.arange(11), corners, skipped, Stage3Config(epochs=3, videos_per_step=5))
    recognizer.save(Path(sys.argv[1]) / f"{{process_number()}}-of-{{num_processes()}}.safetensors")
"""


BANK_WORKER = """
import sys
sys.path.insert(0, {root!r})
from adafocus_env import FeatureBank, FrozenFeatures, RoamingFashion
from adafocus_env.features.building import build_together
from adafocus_env.processes import process_group, process_number
from tests.conftest import make_tiny_recognizer

with process_group():
    arguments = make_tiny_recognizer(), RoamingFashion("train", num_videos=7, num_frames=2, frame_size=48), 3
    first = process_number() == 0
    bank = FeatureBank(*arguments, path=sys.argv[1]) if first else FrozenFeatures(*arguments)
    build_together(bank)
    if first:
        bank.close()
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """Batches of five, shared as three and two."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(root=str(SCRIPTS.parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(worker), str(tmp_path)], check=True, env=environment, capture_output=True)
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*together, str(worker), str(tmp_path)], check=True, env=environment, capture_output=True)
    one, first, second = (
        weights(Recognizer.from_pretrained(tmp_path / f"{name}.safetensors")) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert_equal(first, second)
    start = weights(make_tiny_recognizer())
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, first[name], rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(tensor, start[name], atol=1e-3) for name, tensor in one.items())


@pytest.mark.slow
def test_scripts_run_under_torchrun(tmp_path: Path) -> None:
    """Stages 0, 1 and 3 in two processes over gloo; one of them writes."""
    data = data_on_disk(tmp_path / "data")
    out = tmp_path / "recognizer"
    command = script(
        "train_recognizer.py", *SMALL, "--videos", data, "--stage1.epochs", "2", "--stage1.precision", "bfloat16",
        "--out", out, torchrun=2,
    )  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    recognizer = out / "activitynet-96.safetensors"
    assert Recognizer.from_pretrained(recognizer).config.num_classes == 2
    assert json.loads((out / "config.json").read_text())["stage1"]["optimizer"] == "sgd"
    command = script(
        "finetune.py", "--recognizer", recognizer, "--videos", data, "--policy", "center", "--stage3.epochs", "2",
        "--stage3.videos-per-step", "4", "--out", tmp_path / "finetuned", torchrun=2,
    )  # fmt: skip
    subprocess.run(command, check=True, env=environment, capture_output=True)
    before = Recognizer.from_pretrained(recognizer)
    after = Recognizer.from_pretrained(tmp_path / "finetuned" / "recognizer.safetensors")
    assert_equal(before.local_cnn.state_dict(), after.local_cnn.state_dict())
    assert before.fingerprint() != after.fingerprint()


@pytest.mark.slow
def test_processes_fill_a_bank_as_one_does(tmp_path: Path) -> None:
    videos = RoamingFashion("train", num_videos=7, num_frames=2, frame_size=48)
    whole = FeatureBank(make_tiny_recognizer(), videos, 3)
    whole.build()
    partly = FeatureBank(make_tiny_recognizer(), videos, 3, path=tmp_path / "bank")
    partly.ensure_videos(torch.tensor([4]), lambda rows: videos.frames(torch.tensor([4])[rows]))
    partly.close()
    worker = tmp_path / "worker.py"
    worker.write_text(BANK_WORKER.format(root=str(SCRIPTS.parent)))
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*together, str(worker), str(tmp_path / "bank")], check=True, capture_output=True)
    shared = FeatureBank(make_tiny_recognizer(), videos, 3, path=tmp_path / "bank")
    assert shared.full
    video, candidates = torch.arange(7), torch.arange(9).expand(7, 9)
    for time_step in range(2):
        moment = torch.full((7,), time_step)
        for found, wanted in zip(
            (*shared.glance(video, moment, videos.frames), shared.look(video, moment, candidates, None, no_cut)),
            (*whole.glance(video, moment, videos.frames), whole.look(video, moment, candidates, None, no_cut)),
            strict=True,
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def no_cut(elements: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    raise AssertionError("a full bank cuts nothing")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_papers_warm_up_and_recipe_lower_the_loss(precision: Any) -> None:
    recognizer = make_tiny_recognizer()
    recognizer.classifier.dropout.p = 0.0
    videos = RoamingFashion("train", num_videos=16, num_frames=2, frame_size=48, num_distractors=0)
    losses: dict[str, list[float]] = {}

    def log(stage: str, step: int, metrics: dict[str, float]) -> None:
        losses.setdefault(stage, []).append(metrics["loss"])

    common: dict[str, Any] = {"videos_per_step": 16, "optimizer": "sgd", "schedule": "cosine", "precision": precision}
    stage0 = Stage0Config(epochs=40, learning_rate=0.05, **common)
    train_stage0(recognizer, videos, stage0, objectives=whole_frames, progress=Progress(log))
    stage1 = Stage1Config(epochs=60, local_learning_rate=0.01, classifier_learning_rate=0.1, **common)
    train_stage1(recognizer, videos, stage1, progress=Progress(log))
    for stage in ("stage0/global", "stage0/local", "stage1"):
        assert losses[stage][-1] < 0.9 * losses[stage][0], stage


def test_too_many_processes_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafocus_env.recognition.optimization.num_processes", lambda: 9)
    videos = RoamingFashion("train", num_videos=8, num_frames=2, frame_size=48)
    with pytest.raises(ValueError, match="9 processes can't share batches of 4 videos"):
        train_stage1(make_tiny_recognizer(), videos, Stage1Config(steps=1, videos_per_step=4))


def test_stage3_needs_no_focused_frame() -> None:
    videos = RoamingFashion("train", num_videos=4, num_frames=2, frame_size=48)
    recognizer = make_tiny_recognizer()
    before = recognizer.fingerprint()
    skipped = torch.ones(4, 2, dtype=torch.bool)
    train_stage3(
        recognizer, videos, torch.arange(4), torch.zeros(4, 2, 2, dtype=torch.int64), skipped,
        Stage3Config(epochs=1, videos_per_step=4),
    )  # fmt: skip
    assert recognizer.fingerprint() != before


def test_training_that_diverges_says_so() -> None:
    recognizer, videos = make_tiny_recognizer(), RoamingFashion("recognizer", num_videos=8, num_frames=2)
    config = Stage1Config(steps=20, videos_per_step=4, local_learning_rate=1e30, classifier_learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"stage1, step \d+: gradients are not finite: lower the"):
        train_stage1(recognizer, videos, config)
