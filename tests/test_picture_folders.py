"""Still pictures on disk in a folder per class."""

from __future__ import annotations

import pickle
import shutil
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional

import agents
from adafocus_env import PictureFolders, VideoDataset
from adafocus_env.videos import get_videos
from adafocus_env.videos.checking import check_description
from agents.baselines import RandomPolicy
from tests.conftest import make_tiny_recognizer

SIZE, RESIZED = 48, 56
CLASSES = ["ant", "bee", "cat"]
VIEW = {"frame_size": SIZE, "resized": RESIZED}


def write_picture(path: Path, seed: int, size: tuple[int, int] = (64, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes with JPEG and PNG pictures of several sizes; the test split lacks the first class."""
    folder = tmp_path / "pictures"
    seed = 0
    for split, count in (("train", 12), ("test", 3)):
        for name in CLASSES if split == "train" else CLASSES[1:]:
            for number in range(count):
                seed += 1
                ending = (".jpg", ".PNG")[number % 2]
                write_picture(folder / split / name / f"{number}{ending}", seed, (60 + seed, 90 - seed % 7))
    write_picture(folder / "train" / "bee" / "more" / "0.jpeg", 99)
    (folder / "train" / "bee" / "notes.txt").write_text("no picture")
    (tmp_path / "data.toml").write_text(
        'kind = "pictures"\nroot = "pictures"\ntrain_folder = "train"\ntest_folder = "test"\n'
        f"frame_size = {SIZE}\nresized = {RESIZED}\n"
    )
    return folder


def test_they_are_those_of_image_folder(root: Path) -> None:
    """In the same order, with the same labels, seen as evaluation sees frames."""
    found, wanted = PictureFolders(root, **VIEW), ImageFolder(str(root / "train"))
    assert isinstance(found, VideoDataset)
    assert (found.num_frames, found.frame_size, found.num_classes) == (1, (SIZE, SIZE), 3)
    assert found.class_names == wanted.classes == CLASSES
    assert [str(root / entry.path) for entry in found.entries] == [path for path, _ in wanted.samples]
    assert found.labels.tolist() == wanted.targets
    assert len(found) == 37
    frames = found.frames(torch.arange(37))
    assert frames.shape == (37, 1, 3, SIZE, SIZE)
    for row in (0, 1, 20, 36):
        picture = functional.pil_to_tensor(wanted[row][0])
        view = functional.center_crop(functional.resize(picture, [RESIZED]), [SIZE])
        assert torch.equal(frames[row, 0], view)
    assert torch.equal(found.frames(torch.tensor([20])), frames[20:21])


def test_training_views_change_with_every_visit_and_not_with_batching(root: Path) -> None:
    one, other = (PictureFolders(root, training=True, seed=3, **VIEW) for _ in range(2))
    assert one.changing
    first, second = one.frames(torch.tensor([4, 5])), one.frames(torch.tensor([4, 5]))
    assert not torch.equal(first, second)
    for wanted in (first, second):
        assert torch.equal(torch.cat([other.frames(torch.tensor([row])) for row in (5, 4)]).flip(0), wanted)


def test_fingerprints_tell_changes(root: Path) -> None:
    def found(**changes: object) -> str:
        return PictureFolders(root, **{**VIEW, **changes}).fingerprint

    first = found()
    assert found() == first
    assert found(training=True) != first
    assert found(resized=60) != first
    shutil.move(root / "train" / "ant" / "0.jpg", root / "train" / "bee" / "moved.jpg")
    moved = found()
    assert moved != first
    write_picture(root / "train" / "bee" / "moved.jpg", 7)
    assert found() != moved


def test_a_description_opens_every_split(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root.parent / "data.toml"
    splits = {split: get_videos(str(path), split) for split in ("recognizer", "train", "val", "test")}
    paths = {split: {entry.path for entry in videos.entries} for split, videos in splits.items()}  # type: ignore[attr-defined]
    assert paths["recognizer"] == paths["train"]
    assert not paths["train"] & paths["val"]
    assert len(paths["train"] | paths["val"]) == 37
    assert paths["val"]
    assert all(videos.class_names == CLASSES for videos in splits.values())
    assert splits["test"].labels.tolist() == [1, 1, 1, 2, 2, 2]  # although class 0 has no folder there
    assert [getattr(videos, "changing", False) for videos in splits.values()] == [True, False, False, False]
    report = check_description(path)
    assert report.problems == ()
    monkeypatch.chdir(root.parent)  # relative paths are the description's
    assert get_videos("data.toml", "test").fingerprint == splits["test"].fingerprint
    shutil.copy(root / "train" / "ant" / "0.jpg", root / "train" / "ant" / "copy.jpg")
    (root / "train" / "ant" / "copy.jpg").write_bytes(b"damaged")
    assert any("copy.jpg can't be decoded (class ant)" in problem for problem in check_description(path).problems)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('train_list = "a"', "unknown .'train_list'."),
        ("num_frames = 3", "unknown .'num_frames'."),
        ('template = "a"', "unknown .'template'."),
        ("class_names = 3", "class_names must be a sequence of strings, not 3"),
        ('class_names = ["ant", "ant"]', "class_names must name every class once"),
        ('class_names = ["ant", "bee"]', "cat is the folder of no class; classes are ant, bee"),
    ],
)
def test_bad_descriptions_are_named(line: str, message: str, root: Path) -> None:
    path = root.parent / "data.toml"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"(?s)data\.toml: .*{message}"):
        get_videos(str(path), "train")


def test_folders_must_be_there(root: Path) -> None:
    path = root.parent / "data.toml"
    path.write_text('kind = "pictures"\nroot = "pictures"\n')
    with pytest.raises(ValueError, match=r"'test_folder', 'train_folder'.*must be given"):
        get_videos(str(path), "train")
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures at .*absent"):
        PictureFolders(root, "absent")
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty must have a folder for each class"):
        PictureFolders(root, "empty")
    (root / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"dog has no picture in it; names end in \.jpg"):
        PictureFolders(root)
    with pytest.raises(TypeError, match=r"takes no \['num_frames', 'template'\]; it takes \['flip'"):
        PictureFolders(root, num_frames=4, template="a")


def test_damaged_and_missing_pictures_are_named(root: Path) -> None:
    (root / "train" / "bee" / "1.PNG").write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = PictureFolders(root, **VIEW)
    rows = {Path(entry.path).name: row for row, entry in enumerate(pictures.entries) if "bee" in entry.path}
    with pytest.raises(ValueError, match=r"bee.1\.PNG can't be decoded \(class bee\)"):
        pictures.frames(torch.tensor([rows["1.PNG"]]))
    (root / "train" / "bee" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"bee.2\.jpg is missing \(class bee\)"):
        pictures.frames(torch.tensor([rows["2.jpg"]]))
    assert len(pictures.problems()) == len(pictures.problems(every_frame=True)) == 2
    with pytest.warns(UserWarning, match=r"(?s)35 videos, 1 left out.*1\.PNG can't be decoded"):
        left = PictureFolders(root, on_error="skip", **VIEW)
    assert (len(left), len(left.skipped)) == (35, 1)


def test_they_can_be_played(root: Path) -> None:
    pictures = pickle.loads(pickle.dumps(PictureFolders(root, **VIEW)))
    recognizer = make_tiny_recognizer(num_classes=3)
    arguments = {"videos": pictures, "recognizer": recognizer, "grid": 4, "looks": 2}
    env = gym.make("GlanceFocus-v0", **arguments)
    env.reset(seed=0)
    assert [env.step(action)[2] for action in (0, 15)] == [False, True]
    assert agents.evaluate(RandomPolicy, env_id="GlanceFocus-v0", **arguments).corners.shape == (37, 2, 2)
