"""Data sets on disk: list files, sampling, views, folders of JPEG frames, and what is wrong with them."""

from __future__ import annotations

import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrameFolders, FrozenFeatures, VideoDataset
from adafocus_env.videos import get_videos
from adafocus_env.videos.lists import Entry, read_list
from adafocus_env.videos.views import middle_frames, random_frames, training_view
from agents import Reinforce, evaluate
from agents.baselines import RandomPolicy
from tests.conftest import make_tiny_recognizer

FRAMES, SIZE, CLASSES = 4, 48, 10


def write_video(folder: Path, count: int, seed: int, size: tuple[int, int] = (64, 80)) -> None:
    """Smooth colours, so that JPEG keeps them, and another shade in every frame."""
    folder.mkdir(parents=True)
    base = np.random.default_rng(seed).integers(0, 200, (4, 5, 3), dtype=np.uint8)
    for number in range(1, count + 1):
        picture = Image.fromarray(base + np.uint8(number)).resize(size[::-1], Image.Resampling.BICUBIC)
        picture.save(folder / f"image_{number:05d}.jpg", quality=95)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    lines = []
    for row in range(24):
        count = 3 + row
        write_video(root / "frames" / f"class {row % 3}" / f"v_{row}", count, row)
        more = f", {(row + 5) % CLASSES}" if row % 4 == 0 else ""
        lines.append(f"class {row % 3}/v_{row}, {count}, {row % CLASSES}{more}")
    (root / "train.txt").write_text("\n".join(lines[:18]) + "\n")
    (root / "test.txt").write_text("\n".join(lines[18:]))
    (root / "data.toml").write_text(
        'root = "frames"\ntrain_list = "train.txt"\ntest_list = "test.txt"\n'
        f"num_classes = {CLASSES}\nnum_frames = {FRAMES}\nframe_size = {SIZE}\nresized = 56\n"
    )
    return root


def open_folders(root: Path, list_file: str | Path = "test.txt", **changes: object) -> FrameFolders:
    settings = {"num_classes": CLASSES, "num_frames": FRAMES, "frame_size": SIZE, "resized": 56, **changes}
    return FrameFolders(root / "frames", root / list_file, **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ list files


def test_lists_of_all_formats(tmp_path: Path) -> None:
    (tmp_path / "commas.txt").write_text("v_a b, 30, 7\nv_c,2,1\n\nv_d, 40, 3, 1, 9\n")
    (tmp_path / "spaces.txt").write_text("riding a bike/x y 30 7\nplain 12 0\n", encoding="utf-8-sig")  # by an editor
    commas, spaces = read_list(tmp_path / "commas.txt", 10), read_list(tmp_path / "spaces.txt", 10)
    assert commas.entries == (Entry("v_a b", 30, (7,), 1), Entry("v_d", 40, (3, 1, 9), 4))
    assert commas.short == 1
    assert spaces.entries == (Entry("riding a bike/x y", 30, (7,), 1), Entry("plain", 12, (0,), 2))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"v_b, 30", "one to three labels"),
        (b"v_b, 30, 1, 2, 3, 4", "one to three labels"),
        (b"v_b, thirty, 1", "'thirty' is not an integer"),
        (b"v_b, 30, 10", "label 10 is not between 0 and 9"),
        (b"v_b, 30, -1", "label -1"),
        (b"v_a, 30, 1", "in line 1 already"),
        (b"v_\xff, 30, 1", "not UTF-8"),
        (b", 30, 1", "needs a path"),
    ],
)
def test_bad_lines_are_named(line: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"v_a, 30, 7\n" + line + b"\nv_z, 30, 2")
    with pytest.raises(ValueError, match=match) as raised:
        read_list(path, 10)
    assert f"{path}, line 2: " in str(raised.value)
    found = read_list(path, 10, on_error="skip")
    assert [entry.path for entry in found.entries] == ["v_a", "v_z"]
    assert len(found.problems) == 1


# -------------------------------------------------------------------------------------------------------- sampling


def test_middles_are_the_papers() -> None:
    assert middle_frames(160, 16).tolist() == list(range(5, 160, 10))
    assert middle_frames(40, 16).tolist() == [int(40 / 16 / 2 + 40 / 16 * k) for k in range(16)]
    assert middle_frames(16, 16).tolist() == list(range(16))
    assert middle_frames(3, 5).tolist() == [0, 1, 2, 2, 2]


@given(st.integers(1, 300), st.integers(1, 24), st.integers(0, 1000))
def test_samples_lie_in_their_segments(available: int, frames: int, seed: int) -> None:
    drawn = random_frames(available, frames, np.random.default_rng(seed))
    for chosen in (drawn, middle_frames(available, frames)):
        assert len(chosen) == frames
        assert 0 <= chosen.min() <= chosen.max() < available
        assert (np.diff(chosen) >= (available >= frames)).all()
    if available >= frames:
        assert (drawn // (available // frames) == np.arange(frames)).all()


@pytest.mark.parametrize(("available", "frames", "length"), [(12, 4, 3), (14, 4, 3), (7, 7, 1), (9, 1, 9)])
def test_every_frame_of_a_segment_is_drawn_alike(available: int, frames: int, length: int) -> None:
    random = np.random.default_rng(0)
    drawn = np.stack([random_frames(available, frames, random) for _ in range(600)])
    for place, column in enumerate(drawn.T):
        numbers, counts = np.unique(column, return_counts=True)
        assert numbers.tolist() == [place * length + each for each in range(length)]  # 12 and 13 of 14 never
        assert counts.min() > 0.6 * 600 / length


# ----------------------------------------------------------------------------------------------------------- views


def test_frames_are_the_files_own(root: Path) -> None:
    videos = open_folders(root)
    assert isinstance(videos, VideoDataset)
    found = videos.frames(torch.tensor([2, 0]))
    assert found.shape == (2, FRAMES, 3, SIZE, SIZE)
    entry = videos.entries[2]
    for place, number in enumerate(middle_frames(entry.num_frames, FRAMES)):
        path = root / "frames" / entry.path / f"image_{number + 1:05d}.jpg"
        whole = functional.pil_to_tensor(Image.open(path))
        wanted = functional.center_crop(functional.resize(whole, [56]), [SIZE, SIZE])
        assert (found[0, place].int() - wanted.int()).abs().max() <= 1  # channels last or first: rounding
    assert videos.labels.tolist() == [row % CLASSES for row in range(18, 24)]
    assert videos.label_sets[2].nonzero()[:, 0].tolist() == [0, 5]


def test_training_views_are_alike_in_all_frames_and_repeatable(root: Path) -> None:
    first, again, other = (
        open_folders(root, training=True, seed=seed, num_workers=n) for seed, n in ((0, 1), (0, 4), (1, 1))
    )
    index = torch.arange(6)
    visits = [first.frames(index) for _ in range(2)]
    assert not torch.equal(*visits)
    # Another order, another number of workers: the same views.
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for visit in visits:
        assert torch.equal(again.frames(order), visit[order])
    assert not torch.equal(other.frames(index), visits[0])
    flat = torch.arange(30 * 40).view(1, 1, 30, 40).expand(5, 3, -1, -1).to(torch.uint8)
    view = training_view(flat, 16, np.random.default_rng(0))
    assert (view == view[:1]).all()


def test_processes_decode_what_threads_do(root: Path, tmp_path: Path) -> None:
    chosen = torch.tensor([3, 0, 3, 5])
    threads, processes = (
        open_folders(root, "train.txt", training=True, num_workers=1, processes=processes)
        for processes in (False, True)
    )
    for _ in range(2):  # every visit is another view
        assert torch.equal(threads.frames(chosen), processes.frames(chosen))
    assert torch.equal(pickle.loads(pickle.dumps(processes)).frames(chosen), threads.frames(chosen))
    (tmp_path / "train.txt").write_text("nowhere, 5, 1")
    lost = FrameFolders(root / "frames", tmp_path / "train.txt", num_classes=2, num_workers=1, processes=True)
    with pytest.raises(FileNotFoundError, match=r"image_00001.jpg is missing .*train.txt, line 1"):
        lost.frames(torch.tensor([0]))


def test_what_changes_is_not_remembered(root: Path) -> None:
    videos, recognizer = open_folders(root, training=True), make_tiny_recognizer()
    with pytest.raises(ValueError, match="FrozenFeatures"):
        FeatureBank(recognizer, videos, 4)
    env = AdaFocusVectorEnv(2, features=FrozenFeatures(recognizer, videos, 4), skip=False)
    first, _ = env.reset(seed=0, options={"video": 1})
    second, _ = env.reset(seed=0, options={"video": 1})
    assert not np.array_equal(first["glance"], second["glance"])


# ------------------------------------------------------------------------------------------------------ bad data


def broken(root: Path, tmp_path: Path, what: str) -> Path:
    """A list of one good and one bad video."""
    write_video(root / "frames" / f"bad {what}", 8, 3)
    path = root / "frames" / f"bad {what}" / "image_00008.jpg"
    match what:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-200])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a picture")
    (tmp_path / "list.txt").write_text(f"class 0/v_0, 3, 1\nbad {what}, 8, 2\n")
    return path


@pytest.mark.parametrize("what", ["missing", "truncated", "empty", "text"])
def test_bad_frames_are_named_never_replaced(what: str, root: Path, tmp_path: Path) -> None:
    path = broken(root, tmp_path, what)
    videos = open_folders(root, tmp_path / "list.txt", num_frames=8)
    with pytest.raises((ValueError, FileNotFoundError), match=r"list\.txt, line 2") as raised:
        videos.frames(torch.tensor([0, 1]))
    assert str(path) in str(raised.value)
    (problem,) = videos.problems()
    assert str(path) in problem
    left = open_folders(root, tmp_path / "list.txt", num_frames=8, on_error="skip")
    assert [entry.path for entry in left.entries] == ["class 0/v_0"]
    assert left.skipped == [problem]
    assert len(left.frames(torch.tensor([0]))) == 1


def test_what_does_not_fit_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        open_folders(root, "absent.txt")
    with pytest.raises(ValueError, match="frame_size"):
        open_folders(root, frame_size=99)
    with pytest.raises(ValueError, match="template"):
        open_folders(root, template="image.jpg")
    with pytest.raises(ValueError, match="class_names"):
        open_folders(root, class_names=["one"])
    with pytest.raises(IndexError):
        open_folders(root).frames(torch.tensor([6]))
    (tmp_path / "bad.toml").write_text('root = "x"\nlists = 3\n')
    with pytest.raises(ValueError, match="lists"):
        get_videos(str(tmp_path / "bad.toml"), "test")
    lists = 'train_list = "test.txt"\ntest_list = "test.txt"\nnum_classes = 4\n'
    for line, match in (("root = 3", "root"), (f'root = "{root}"\nframe_size = "48"', "frame_size must be an integer")):
        (tmp_path / "typed.toml").write_text(f"{line}\n{lists}")
        with pytest.raises(ValueError, match=rf"typed\.toml.*{match}"):
            get_videos(str(tmp_path / "typed.toml"), "test")
    with pytest.raises(ValueError, match=r"takes none of its \d+ videos"):
        open_folders(root, keep=lambda entry: False)
    for wrong in ({"on_error": "Raise"}, {"separator": ";"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_list(root / "test.txt", 4, **wrong)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        get_videos(str(tmp_path / "none.toml"), "test")


# ------------------------------------------------------------------------------------------------------ end to end


def test_splits_of_a_description_are_disjoint(root: Path) -> None:
    found = {split: get_videos(str(root / "data.toml"), split) for split in ("recognizer", "train", "val", "test")}
    paths = {split: {entry.path for entry in videos.entries} for split, videos in found.items()}  # type: ignore[attr-defined]
    assert paths["recognizer"] == paths["train"]
    assert not paths["train"] & paths["val"]
    assert len(paths["train"] | paths["val"]) == 18
    assert len(paths["test"]) == 6
    assert [split for split, videos in found.items() if getattr(videos, "changing", False)] == ["recognizer"]


def test_everything_runs_on_a_folder(root: Path) -> None:
    recognizer, videos = make_tiny_recognizer(), str(root / "data.toml")
    env = gym.make("AdaFocus-v0", videos=videos, recognizer=recognizer, grid=4, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render().shape[-1] == 3  # type: ignore[union-attr]
    vector_env = gym.make_vec("AdaFocus-v0", 8, videos=videos, recognizer=recognizer, grid=4, skip=False)
    agent = Reinforce(vector_env, seed=0).learn(4 * 8 * 4)
    for policy in (agent, RandomPolicy):
        found = evaluate(policy, "test", videos=videos, recognizer=recognizer, grid=4, num_envs=4)
        assert found.num_videos == 6
