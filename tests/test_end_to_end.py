"""Data sets on disk through all stages, by the scripts alone."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from adafocus_env import RoamingFashion, load_recognizer
from tests.forked_scripts import ForkedScripts

SCRIPTS = Path(__file__).parent.parent / "scripts"


def write_activitynet(folder: Path, num_train: int, num_test: int, num_frames: int, size: int) -> Path:
    """The embedded benchmark as JPEG frame folders with ActivityNet's lists; the description's path."""
    for name, split, count in (("train", "train", num_train), ("test", "val", num_test)):
        videos = RoamingFashion(split, num_videos=count, num_frames=num_frames)  # type: ignore[arg-type]
        lines = []
        for number in range(count):
            path = folder / "frames" / f"v_{name}{number}"
            path.mkdir(parents=True)
            for place, frame in enumerate(videos.frames(torch.tensor([number]))[0], start=1):
                picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BICUBIC)
                picture.save(path / f"image_{place:05d}.jpg", quality=95)
            lines.append(f"v_{name}{number}, {num_frames}, {int(videos.labels[number])}")
        (folder / f"actnet_{name}.txt").write_text("\n".join(lines) + "\n")
    description = folder / "activitynet.toml"
    description.write_text(
        'root = "frames"\ntrain_list = "actnet_train.txt"\ntest_list = "actnet_test.txt"\nnum_classes = 10\n'
        f"num_frames = {num_frames}\nframe_size = {size}\nresized = {size}\nflip = false\n"
    )
    return description


def run(name: str, *arguments: object) -> None:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.slow
def test_all_stages_from_frame_folders(tmp_path: Path) -> None:
    videos = ("--videos", write_activitynet(tmp_path, num_train=40, num_test=8, num_frames=3, size=64))
    run(
        "train_recognizer.py", *videos, "--preset", "activitynet-96", "--patch-size", 32, "--hidden-size", 16,
        "--global-backbone", "shufflenet_v2_x0_5", "--local-backbone", "resnet18", "--glance-size", 64,
        "--stage0.epochs", 1, "--stage0.videos-per-step", 8, "--stage1.epochs", 2, "--stage1.videos-per-step", 8,
        "--out", tmp_path / "recognizer",
    )  # fmt: skip
    common = (*videos, "--recognizer", tmp_path / "recognizer" / "activitynet-96.safetensors")
    train = (*common, "--num-envs", 8, "--episodes", 64)
    run("train_policy.py", *train, "--out", tmp_path / "reinforce")
    run("train_policy.py", *train, "--algo", "ppo", "--out", tmp_path / "ppo")
    patch_policy = tmp_path / "reinforce" / "reinforce.safetensors"
    run("train_policy.py", *train, "--train", "skip", "--patch-policy", patch_policy, "--out", tmp_path / "skip")
    skip_policy = tmp_path / "skip" / "reinforce.safetensors"
    run("train_policy.py", *train, "--train", "stop", "--patch-policy", skip_policy, "--out", tmp_path / "stop")
    stop_policy = tmp_path / "stop" / "reinforce.safetensors"
    run("finetune.py", *common, "--policy", skip_policy, "--stage3.epochs", 2, "--out", tmp_path / "finetuned")
    tuned = (*videos, "--recognizer", tmp_path / "finetuned" / "recognizer.safetensors")
    policies = ("random", patch_policy, tmp_path / "ppo" / "ppo.zip", skip_policy, stop_policy)
    run("evaluate.py", *tuned, "--split", "test", "--policies", *policies, "--out", tmp_path / "evaluation")
    with open(tmp_path / "evaluation" / "test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(policies)
    leave = ("--exit-loss", 0.5, "--policies", skip_policy, "--out", tmp_path / "left")
    run("evaluate.py", *tuned, "--split", "test", *leave)
    with open(tmp_path / "left" / "test.csv", newline="") as file:
        (left,) = csv.DictReader(file)
    assert 1 <= float(left["frames"]) < 3
    assert 0 < float(left["exit_threshold"]) < 1
    assert float(left["gflops"]) < float(rows[3]["gflops"])
    run("render.py", *tuned, "--policy", skip_policy, "--split", "test", "--indices", 0, 1, "--out", tmp_path / "drawn")
    assert Image.open(tmp_path / "drawn" / "animation.gif").n_frames == 2 * 3  # type: ignore[attr-defined]
    assert Image.open(tmp_path / "drawn" / "film_strip.png").size[0] > 0


@pytest.mark.slow
def test_all_stages_from_picture_folders(scripts: ForkedScripts, tmp_path: Path) -> None:
    """With three looks at each picture."""
    for split, count in (("train", 30), ("val", 10)):
        scenes = RoamingFashion("val", num_videos=count, num_frames=1, frame_size=48, visible_fraction=1.0)
        for number, label in enumerate(scenes.labels.tolist()):
            path = tmp_path / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = scenes.frames(torch.tensor([number]))[0, 0].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(path)
    description = tmp_path / "pictures.toml"
    description.write_text(
        'kind = "pictures"\nroot = "."\ntrain_folder = "train"\ntest_folder = "val"\nframe_size = 48\nresized = 48\n'
        f"class_names = {[str(label) for label in range(10)]}\n"
    )
    common = ("--videos", description, "--looks", 3)

    def run_forked(name: str, *arguments: object) -> None:
        found = scripts.run(name, *common, *arguments, log=tmp_path / f"{name}.log")
        assert found.status == 0, found.errors[-3000:]

    run_forked(
        "train_recognizer", "--patch-size", 24, "--hidden-size", 8, "--glance-size", 24, "--stage0.epochs", 1,
        "--stage0.videos-per-step", 8, "--stage1.epochs", 1, "--stage1.videos-per-step", 8, "--out", tmp_path,
    )  # fmt: skip
    trained = ("--recognizer", tmp_path / "roaming-fashion.safetensors")
    train = (*trained, "--num-envs", 4, "--episodes", 32, "--out", tmp_path)
    run_forked("train_policy", *train)
    run_forked("train_policy", *train, "--algo", "ppo", "--num-envs", 64)
    policy = tmp_path / "reinforce.safetensors"
    run_forked("finetune", *trained, "--policy", policy, "--stage3.epochs", 1, "--out", tmp_path)
    before, after = (load_recognizer(path).classifier for path in (trained[1], tmp_path / "recognizer.safetensors"))
    assert not torch.equal(before.fc.weight, after.fc.weight)
    policies = ("random", policy, tmp_path / "ppo.zip")
    run_forked("evaluate", *trained, "--split", "test", "--policies", *policies, "--out", tmp_path)
    with open(tmp_path / "test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    cost = load_recognizer(trained[1]).cost()
    spent = cost.glance + 3 * (cost.local + cost.classifier)  # a picture is glanced at once
    assert float(rows[0]["gflops"]) == pytest.approx(spent, abs=1e-4)


@pytest.mark.slow
def test_one_stage_from_frame_folders(tmp_path: Path) -> None:
    videos = ("--videos", write_activitynet(tmp_path, num_train=24, num_test=8, num_frames=3, size=64))
    short = ("--stage0.epochs", 1, "--stage0.videos-per-step", 8, "--end-to-end.epochs", 2)
    run("train_end_to_end.py", *videos, *short, "--end-to-end.videos-per-step", 8, "--out", tmp_path / "trained")
    trained = (*videos, "--recognizer", tmp_path / "trained" / "recognizer.safetensors")
    policy = tmp_path / "trained" / "policy.safetensors"
    run("evaluate.py", *trained, "--split", "test", "--policies", policy, "--out", tmp_path / "evaluation")
    assert len((tmp_path / "evaluation" / "test.csv").read_text().splitlines()) == 2
