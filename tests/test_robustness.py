"""Jobs that are killed, interrupted or out of disk: nothing is corrupted, and they go on to the same end.

``pytest -m robustness`` takes two minutes; with ``--whole`` it kills every long job twenty times.
"""

from __future__ import annotations

import csv
import gc
import io
import itertools
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.weights import is_safetensors
from agents.baselines import CenterPolicy
from tests.forked_scripts import ForkedScripts, Running
from tests.test_frame_folders import write_video

pytestmark = pytest.mark.robustness

KILLS = 20


@dataclass(frozen=True)
class Job:
    """A long job at its smallest, and how it goes on after a kill."""

    script: str
    arguments: tuple[object, ...]
    resume: tuple[str, ...] = ()
    quick: bool = False
    """Whether it is killed in the short campaign too."""


EXPERIMENT = ("--videos", "{data}", "--episodes", 64, "--jobs", 1, "--banks", "{banks}", "--trials", "{out}/trials")
POLICY = ("--videos", "{data}", "--num-envs", 8, "--episodes", 256)
JOBS = {
    "stages 0 and 1": Job(
        "train_recognizer",
        ("--videos", "{data}", "--stage0.epochs", 2, "--stage1.epochs", 3, "--stage0.videos-per-step", 4,
         "--stage1.videos-per-step", 4),
        ("--resume",),
    ),
    "stages 0 and 1 of AdaFocus-TSM": Job(
        "train_recognizer",
        ("--preset", "roaming-motion", "--videos", "{motion}", "--stage0.epochs", 2, "--stage1.epochs", 2),
        ("--resume",),
    ),
    "reinforce": Job("train_policy", POLICY, ("--resume",), quick=True),
    "all_action": Job("train_policy", (*POLICY, "--algo", "all_action"), ("--resume",)),
    "paper": Job("train_policy", (*POLICY, "--algo", "paper"), ("--resume",)),
    "skip": Job("train_policy", (*POLICY, "--train", "skip"), ("--resume",)),
    "both": Job("train_policy", (*POLICY, "--train", "both"), ("--resume",)),
    "ppo, which starts anew": Job("train_policy", (*POLICY, "--algo", "ppo")),
    "stage 3": Job(
        "finetune", ("--videos", "{data}", "--policy", "roaming-fashion-skip", "--stage3.epochs", 3), ("--resume",)
    ),
    "bank": Job("build_feature_bank", ("--videos", "{data}"), quick=True),
    "tune": Job("tune", (*EXPERIMENT, "--settings", 2, "--seeds", 1, "--algorithms", "reinforce", "all_action")),
    "compare": Job(
        "compare_algorithms", (*EXPERIMENT, "--seeds", 2, "--split", "val", "--algorithms", "reinforce", "ppo")
    ),
    "ablate": Job("ablate", (*EXPERIMENT, "--seeds", 1, "--split", "val", "--ablations", "reward")),
    "extraction": Job(
        "extract_frames", ("{videos}", "{videos}/list.txt", "--num-classes", 10, "--jobs", 1), quick=True
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data set of frame folders, one for AdaFocus-TSM, encoded videos."""
    folder = tmp_path_factory.mktemp("data")
    for row in range(15):
        write_video(folder / "frames" / f"v{row}", 3, row, (64, 64))
    (folder / "train.txt").write_text("".join(f"v{row}, 3, {row % 10}\n" for row in range(12)))  # 3 are for "val"
    (folder / "test.txt").write_text("".join(f"v{row}, 3, {row % 10}\n" for row in range(12, 15)))
    text = 'root = "frames"\ntrain_list = "train.txt"\ntest_list = "test.txt"\nnum_classes = 10\n'
    (folder / "data.toml").write_text(f"{text}num_frames = 2\nframe_size = 56\nresized = 64\n")
    (folder / "motion.toml").write_text(f"{text}num_frames = [4, 6]\nframe_size = 56\nresized = 64\n")
    videos = folder / "videos"
    videos.mkdir()
    for number in range(8):
        write_mp4(videos / f"v{number}.mp4", 40, number)
    (videos / "list.txt").write_text("".join(f"v{number}.mp4 {number}\n" for number in range(8)))
    places = {"data": folder / "data.toml", "motion": folder / "motion.toml", "videos": videos, "banks": folder}
    return {name: str(place) for name, place in places.items()}


def write_mp4(path: Path, frames: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 200, (64, 80, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture + np.uint8(number), format="rgb24")))
        container.mux(stream.encode())


def start(
    scripts: ForkedScripts, job: Job, places: dict[str, str], folder: Path, *, resume: bool = False, **options: Any
) -> Running:
    """Start a job that writes to a folder."""
    folder.mkdir(exist_ok=True, parents=True)
    arguments = [str(argument).format(**places, out=folder / "out") for argument in job.arguments]
    more = job.resume if resume else ()
    log = folder.with_name(f"{folder.name}.log")
    return scripts.start(job.script, *arguments, *more, "--out", folder / "out", log=log, **options)


# ------------------------------------------------------------------------------------------- what a job leaves behind


def results(folder: Path) -> dict[str, Any]:
    """Everything that a job left in a folder, times aside, in a form that compares."""
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_aside(path)
    }


def is_aside(path: Path) -> bool:
    """Logs and pictures of times, and what says how the job was started."""
    return (
        path.name.startswith("events.out.tfevents")
        or path.suffix in (".png", ".md", ".lock")
        or path.name in (".lock", "config.json", "progress.csv")
    )


def content(path: Path) -> Any:
    if path.suffix == ".checkpoint" and not is_safetensors(path):
        return plain(torch.load(path, weights_only=True))
    if path.suffix == ".zip":  # of Stable-Baselines3, beside whose weights are times
        with zipfile.ZipFile(path) as archive:
            return plain(torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {key: arrays[key].tolist() for key in arrays if "seconds" not in key}
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [
                {key: value for key, value in row.items() if key != "seconds"}
                for row in csv.DictReader(file)
                if "seconds" not in row.get("metric", "")
            ]
    return path.read_bytes()


def plain(value: Any) -> Any:
    """Tensors as their bytes, wherever they are."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    differing = [name for name in wanted if found[name] != wanted[name]]
    assert not differing


@pytest.fixture(scope="module")
def unkilled(
    scripts: ForkedScripts, places: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Any:  # fmt: skip
    """Seconds of computing and results of jobs that nobody kills, each found once."""
    known: dict[str, tuple[float, dict[str, Any]]] = {}

    def find(name: str) -> tuple[float, dict[str, Any]]:
        if name not in known:
            folder = tmp_path_factory.mktemp("unkilled") / "job"
            running = start(scripts, JOBS[name], places, folder)
            assert running.wait() == 0, running.errors[-2000:]
            known[name] = running.cpu_used, results(folder)
        return known[name]

    return find


# ------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_goes_on_to_the_same_end(
    name: str, scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path, whole: bool
) -> None:
    job = JOBS[name]
    if not (whole or job.quick):
        pytest.skip("--whole")
    seconds, wanted = unkilled(name)
    kills, tried, ends, in_a_row = KILLS if whole else 2, 0, 0, 0
    draw = random.Random(name)
    folder = tmp_path / "job"
    while tried < kills or in_a_row:
        running = start(scripts, job, places, folder, resume=in_a_row > 0)
        if tried < kills:
            running.wait_until(draw.uniform(0, seconds))
            running.kill()
        if running.wait() == -signal.SIGKILL:
            tried, in_a_row = tried + 1, in_a_row + 1
        else:
            assert running.status == 0, running.errors[-2000:]
            assert_same(results(folder), wanted)
            ends, in_a_row = ends + 1, 0
            shutil.rmtree(folder)
    print(f"\n{name}: {tried} kills, {ends} runs that ended, all equal; {seconds:.1f} s of computing unkilled")


@pytest.mark.parametrize("name", ["reinforce", "bank", "stages 0 and 1", "extraction"])
def test_a_job_that_is_killed_again_and_again_ends(
    name: str, scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path, whole: bool
) -> None:
    """Each time it gets further, although it never has the time to do all."""
    job = JOBS[name]
    if not (whole or name == "extraction"):
        pytest.skip("--whole")
    seconds, wanted = unkilled(name)
    for kills in range(60):
        running = start(scripts, job, places, tmp_path / "job", resume=kills > 0)
        running.wait_until(0.7 * seconds)
        running.kill()
        if running.wait() != -signal.SIGKILL:
            break
    assert running.status == 0, running.errors[-2000:]
    assert_same(results(tmp_path / "job"), wanted)


# ----------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["reinforce", "bank", "stage 3", "extraction"])
def test_a_signal_ends_a_job_in_one_sentence_and_it_goes_on(
    name: str, number: signal.Signals, scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path,
    whole: bool,
) -> None:  # fmt: skip
    job = JOBS[name]
    if not (whole or job.quick):
        pytest.skip("--whole")
    seconds, wanted = unkilled(name)
    for share in (0.6, 0.4, 0.2, 0.1):  # on a busy machine a job may end between two looks at its clock
        running = start(scripts, job, places, tmp_path / "job")
        running.wait_until(share * seconds)
        if running.kill(number) and running.wait() != 0:
            break
        shutil.rmtree(tmp_path / "job")
    assert running.wait() == 128 + number
    assert "Traceback" not in running.errors
    assert running.message.startswith(f"{job.script}.py: stopped by {number.name}: the same command")
    assert str(tmp_path / "job" / "out") in running.message
    resumed = start(scripts, job, places, tmp_path / "job", resume=True)
    assert resumed.wait() == 0, resumed.errors[-2000:]
    assert_same(results(tmp_path / "job"), wanted)


# -------------------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize(
    "name", ["reinforce", "bank", "extraction", "stage 3", "stages 0 and 1", "ppo, which starts anew"]
)
def test_a_full_disk_is_one_clear_error_and_the_job_goes_on_once_there_is_room(
    name: str, scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path, whole: bool
) -> None:
    job = JOBS[name]
    if not (whole or job.quick):
        pytest.skip("--whole")
    _, wanted = unkilled(name)
    limit = 1_000 if name == "extraction" else 100_000  # less than a frame, than a bank or a network
    running = start(scripts, job, places, tmp_path / "job", file_limit=limit)
    assert running.wait() == 1
    assert "File too large" in running.message
    assert str(tmp_path / "job" / "out") in running.message
    assert "Traceback" not in running.errors
    resumed = start(scripts, job, places, tmp_path / "job", resume=True)
    assert resumed.wait() == 0, resumed.errors[-2000:]
    assert_same(results(tmp_path / "job"), wanted)


# ----------------------------------------------------------------------------------------------- two at the same time


@pytest.mark.parametrize("name", ["reinforce", "bank"])
def test_a_second_run_in_the_folder_is_told_so_and_the_first_goes_on(
    name: str, scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path
) -> None:
    seconds, wanted = unkilled(name)
    first = start(scripts, JOBS[name], places, tmp_path / "job")
    first.wait_until(0.5 * seconds)
    os.killpg(first.pid, signal.SIGSTOP)
    second = scripts.run(
        JOBS[name].script, "--videos", places["data"], "--out", tmp_path / "job" / "out", log=tmp_path / "second.log"
    )
    os.killpg(first.pid, signal.SIGCONT)
    assert second.status == 1
    assert f"another run is writing to {tmp_path / 'job' / 'out'}" in second.message
    assert first.wait() == 0, first.errors[-2000:]
    assert_same(results(tmp_path / "job"), wanted)


def test_readers_wait_for_the_writer_of_a_bank_and_then_read_the_same(
    scripts: ForkedScripts, places: dict[str, str], unkilled: Any, tmp_path: Path
) -> None:
    seconds, _ = unkilled("bank")
    bank = tmp_path / "job" / "out" / "bank.adafocus"
    reading = ("--videos", places["data"], "--split", "train", "--policies", "roaming-fashion", "--bank", bank)
    training = ("--videos", places["data"], "--episodes", 8, "--num-envs", 4, "--bank", bank)
    writer = start(scripts, JOBS["bank"], places, tmp_path / "job")
    while writer.poll() is None and not bank.exists():
        writer.wait(0.01)
    writer.wait_until(writer.cpu_seconds() + 0.1 * seconds)
    os.killpg(writer.pid, signal.SIGSTOP)
    for number, arguments in enumerate((("evaluate", *reading), ("train_policy", *training))):
        beside = scripts.run(*arguments, "--out", tmp_path / f"beside{number}", log=tmp_path / f"beside{number}.log")
        assert beside.status == 1
        assert f"{bank} is being filled" in beside.message
        assert "wait until it is done" in beside.message
    os.killpg(writer.pid, signal.SIGCONT)
    assert writer.wait() == 0, writer.errors[-2000:]
    folders = [tmp_path / f"reader{number}" for number in range(2)]
    readers = [scripts.start("evaluate", *reading, "--out", each, log=each.with_suffix(".log")) for each in folders]
    assert [reader.wait() for reader in readers] == [0, 0], readers[0].errors[-2000:]
    assert_same(*map(results, folders))


# --------------------------------------------------------------------------------------------------------- endurance


def resources() -> tuple[float, int]:
    """MB of resident memory, and open file descriptors."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def assert_no_growth(what: str, rounds: int, work: Callable[[], None], tolerance: float) -> None:
    """Neither memory nor file descriptors grow after a tenth of the rounds.

    Args:
        what: The rounds' name.
        rounds: How many.
        work: What is done in each.
        tolerance: MB of what an allocator may keep.
    """
    for _ in range(max(1, rounds // 10)):
        work()
    before = resources()
    for _ in range(rounds - rounds // 10):
        work()
    after = resources()
    print(f"\n{rounds} {what}: {before[0]:.0f} to {after[0]:.0f} MB, {before[1]} to {after[1]} file descriptors")
    assert after[0] - before[0] < tolerance
    assert after[1] <= before[1]


def test_steps_leave_nothing_behind(recognizer: Recognizer, videos: RoamingFashion, whole: bool) -> None:
    env = gym.make_vec("AdaFocus-v0", 4096 if whole else 256, recognizer=recognizer, videos=videos, grid=4)
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(16)]
    numbers = itertools.cycle(range(16))
    steps = 200_000 if whole else 2_000
    assert_no_growth(f"steps of {env.num_envs} lanes", steps, lambda: env.step(actions[next(numbers)]) and None, 32)


def test_environments_that_are_made_and_closed_leave_nothing_behind(
    recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path, whole: bool
) -> None:
    places = itertools.cycle([None, tmp_path / "bank"])

    def work() -> None:
        bank = FeatureBank(recognizer, videos, 4, path=next(places))
        for env in (gym.make_vec("AdaFocus-v0", 8, features=bank), gym.make("AdaFocus-v0", features=bank)):
            env.reset(seed=0)
            env.step(env.action_space.sample())
            env.close()
        bank.close()

    assert_no_growth("environments", 200 if whole else 20, work, 32)


def test_recognising_leaves_nothing_behind(recognizer: Recognizer, videos: RoamingFashion, whole: bool) -> None:
    policy = CenterPolicy(gym.make("AdaFocus-v0", recognizer=recognizer, videos=videos, grid=4))
    frames = videos.frames(torch.arange(8))
    assert_no_growth("times", 200 if whole else 20, lambda: recognizer.recognize(frames, policy) and None, 32)
