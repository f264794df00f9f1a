"""What skipping leaves out and what the check of a data set finds, on files that are damaged in many ways."""

from __future__ import annotations

import re
import shutil
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from adafocus_env import FrameFolders, VideoFiles
from adafocus_env.videos.checking import check_description
from adafocus_env.videos.listed_videos import ListedVideos
from scripts.extract_frames import check

SMALL = {"num_classes": 10, "num_frames": 4, "frame_size": 16, "resized": 16}
FRAMES = 11  # of which training with T = 4 may draw the first 8, and evaluation reads 1, 4, 6 and 9, from 0
DAMAGE = ["cut", "zeros", "empty", "text", "missing", "other size", "no end marker", "longer", "other format"]


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "frame.jpg"
    base = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(base).resize((32, 24)).save(path)
    return path


def write_frames(folder: Path, frame: Path, count: int = FRAMES) -> None:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        shutil.copy(frame, folder / f"image_{number:05d}.jpg")


def damage(path: Path, how: str, share: float) -> None:
    data = path.read_bytes()
    place = int(share * (len(data) - 1))
    match how:
        case "cut":
            path.write_bytes(data[:place])
        case "zeros":
            path.write_bytes(data[:place] + bytes(min(60, len(data) - place)) + data[place + 60 :])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("no picture")
        case "missing":
            path.unlink()
        case "other size":
            Image.new("RGB", (24, 32)).save(path)
        case "no end marker":
            path.write_bytes(data[:-2])
        case "longer":
            path.write_bytes(data + bytes(100))
        case "other format":
            Image.open(path).save(path, "PNG")


def list_of(root: Path, lines: list[str]) -> Path:
    path = root / "list.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def readable(videos: ListedVideos, frames: list[int] | None) -> list[str]:
    """Paths of the videos that can be read: in evaluation, or all of these frames."""
    found = []
    for row, entry in enumerate(videos.entries):
        try:
            if frames is None:
                videos.frames(torch.tensor([row]))
            else:
                videos._read(entry, lambda _: np.array(frames))
        except (ValueError, FileNotFoundError):
            continue
        found.append(entry.path)
    return found


def opened(cls: type[ListedVideos], root: Path, path: Path, **kwargs: object) -> ListedVideos:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(root, path, **{**SMALL, **kwargs})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- frame folders


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    damages=st.lists(
        st.lists(
            st.tuples(st.integers(1, FRAMES), st.sampled_from(DAMAGE), st.floats(0, 1)),
            max_size=3,
            unique_by=lambda damaged: damaged[0],
        ),
        min_size=3,
        max_size=3,
    ),
)
def test_skipping_leaves_out_exactly_what_reading_fails_on(
    damages: list[list[tuple[int, str, float]]], frame: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    write_frames(tmp_path / "good", frame)
    for row, damaged in enumerate(damages):
        write_frames(tmp_path / f"v{row}", frame)
        for number, how, share in damaged:
            damage(tmp_path / f"v{row}" / f"image_{number:05d}.jpg", how, share)
    path = list_of(tmp_path, [f"good {FRAMES} 1", *(f"v{row} {FRAMES} 1" for row in range(len(damages)))])
    for training, drawn in ((False, None), (True, list(range(8)))):
        left = opened(FrameFolders, tmp_path, path, training=training, on_error="skip")
        every = opened(FrameFolders, tmp_path, path, training=training)
        assert [entry.path for entry in left.entries] == readable(every, drawn)
        assert len(left.skipped) == len(every.entries) - len(left.entries)
        for _ in range(4 if training else 1):
            left.frames(torch.arange(len(left)))


@pytest.mark.parametrize("repeat", ["last", "first"])
def test_training_skips_short_videos_by_what_they_show(repeat: str, frame: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "good", frame)
    write_frames(tmp_path / "short", frame, 3)
    (tmp_path / "short" / "image_00003.jpg").unlink()
    path = list_of(tmp_path, ["good 11 1", "short 3 1"])
    left = opened(FrameFolders, tmp_path, path, training=True, on_error="skip", repeat=repeat)
    assert [entry.path for entry in left.entries] == ["good", "short"][: 1 if repeat == "last" else 2]


@pytest.mark.parametrize(
    ("how", "number", "match"),
    [
        ("missing", 11, r"image_00011\.jpg is missing \(.*line 1, which says 11 frames\)"),
        ("missing", 3, r"image_00003\.jpg is missing"),
        ("empty", 1, r"image_00001\.jpg can't be decoded"),
        ("other size", 4, r"image_00004\.jpg has 24×32 pixels, a frame before it 32×24"),
        ("cut", 5, r"image_00005\.jpg can't be decoded .*line 1.*[Tt]runcated"),
        ("longer", 5, None),
        ("other format", 5, None),
    ],
)
def test_problems_of_frames_by_default(how: str, number: int, match: str | None, frame: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "v", frame)
    damage(tmp_path / "v" / f"image_{number:05d}.jpg", how, 0.6)
    videos = opened(FrameFolders, tmp_path, list_of(tmp_path, ["v 11 1"]))
    for every_frame in (False, True):
        problems = videos.problems(every_frame=every_frame)
        assert len(problems) == (match is not None)
        if match is not None:
            with pytest.raises(ValueError, match=match):
                raise ValueError(problems[0])


def test_frames_that_evaluation_does_not_read_are_decoded_on_demand(frame: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "v", frame)
    damage(tmp_path / "v" / "image_00003.jpg", "cut", 0.8)
    videos = opened(FrameFolders, tmp_path, list_of(tmp_path, ["v 11 1"]))
    assert videos.problems() == []
    assert "image_00003.jpg can't be decoded" in videos.problems(every_frame=True)[0]
    shutil.copy(frame, tmp_path / "v" / "image_00003.jpg")
    assert list(videos.examine(every_frame=True)) == [(None, 11)]
    assert list(videos.examine()) == [(None, 4)]


def test_lists_that_count_too_few_frames_are_found(frame: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "v", frame)
    videos = opened(FrameFolders, tmp_path, list_of(tmp_path, ["v 9 1"]))
    (problem,) = videos.problems()
    assert "image_00011.jpg is there, but" in problem
    assert "line 1 says 9 frames" in problem


# ---------------------------------------------------------------------------------------------------- video files

FORMATS = {
    "slow.mp4": ("libx264", {}),
    "fast.mp4": ("libx264", {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "v.mkv": ("libx264", {}),
    "v.webm": ("libvpx", {}),
    "v.avi": ("mpeg4", {}),
    "v.ts": ("mpeg2video", {}),
    "v.flv": ("libx264", {}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    base = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for name, (codec, options) in FORMATS.items():
        with av.open(str(folder / name), "w", options=options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.gop_size, stream.bit_rate = 10, 1_000_000
            for number in range(48):
                picture = av.VideoFrame.from_ndarray(np.roll(base, (number, number * 3), (0, 1)), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_cut_files_are_found(name: str, whole: Path, tmp_path: Path) -> None:
    data = (whole / name).read_bytes()
    for percent in (100, 60, 30):
        (tmp_path / f"{percent} {name}").write_bytes(data[: len(data) * percent // 100])
    path = list_of(tmp_path, [f"{percent} {name}, 1" for percent in (100, 60, 30)])
    videos = opened(VideoFiles, tmp_path, path)
    for every_frame in (False, True):
        found = [bool(problem) for problem, _ in videos.examine(every_frame=every_frame)]
        assert found == [False, True, True]
    assert "line 2" in videos.problems()[0]


@pytest.mark.parametrize("name", ["fast.mp4", "v.mkv", "v.avi"])
@pytest.mark.parametrize("training", [False, True])
def test_skipping_files_leaves_out_exactly_what_reading_fails_on(
    name: str, training: bool, whole: Path, tmp_path: Path
) -> None:
    data = (whole / name).read_bytes()
    random = np.random.default_rng(0)
    for row in range(8):
        place = int(random.integers(len(data)))
        junk = bytes(60) if row % 2 else random.bytes(300)
        (tmp_path / f"{row} {name}").write_bytes((data[:place] + junk + data[place + len(junk) :])[: len(data)])
    (tmp_path / f"8 {name}").write_bytes(data[: len(data) // 2])
    (tmp_path / f"9 {name}").write_bytes(data)
    path = list_of(tmp_path, [f"{row} {name}, 1" for row in range(10)])
    left, every = (opened(VideoFiles, tmp_path, path, training=training, on_error=e) for e in ("skip", "raise"))
    found = []
    for row, entry in enumerate(every.entries):
        try:
            if training:
                every._read(entry, lambda available: np.arange(available // 4 * 4))
            else:
                every.frames(torch.tensor([row]))
            found.append(entry.path)
        except ValueError:
            pass
    assert [entry.path for entry in left.entries] == found
    assert f"9 {name}" in found
    left.frames(torch.arange(len(left)))


@pytest.mark.parametrize("name", ["fast.mp4", "v.mkv", "v.avi", "v.ts"])
def test_damage_in_the_middle_is_found_by_decoding_all(name: str, whole: Path, tmp_path: Path) -> None:
    data = bytearray((whole / name).read_bytes())
    (tmp_path / f"good {name}").write_bytes(data)
    place = int(len(data) * 0.45)
    data[place : place + 800] = bytes(800)
    (tmp_path / name).write_bytes(data)
    videos = opened(VideoFiles, tmp_path, list_of(tmp_path, [f"good {name}, 1", f"{name}, 1"]), num_frames=1)
    (good, frames), (problem, _) = videos.examine(every_frame=True)
    assert (good, frames) == (None, 48)
    assert f"{name} can't be decoded" in str(problem)
    assert "line 2" in str(problem)


# ------------------------------------------------------------------------------------------------ the whole check


def describe(root: Path, train: list[str], test: list[str], more: str = "") -> Path:
    (root / "train.txt").write_text("\n".join(train))
    (root / "test.txt").write_text("\n".join(test))
    path = root / "data.toml"
    path.write_text(
        'root = "."\ntrain_list = "train.txt"\ntest_list = "test.txt"\nnum_classes = 6\n'
        f"num_frames = 4\nframe_size = 16\nresized = 16\n{more}"
    )
    return path


@pytest.mark.parametrize("more", ["", 'on_error = "skip"\n'])
def test_the_check_compares_the_lists(more: str, frame: Path, tmp_path: Path) -> None:
    train = [f"v{k} 4 {k % 2}" for k in range(30)]
    for line in train:
        write_frames(tmp_path / line.split()[0], frame, 4)
    for name in ("only", "too short"):
        write_frames(tmp_path / name, frame, 4)
    path = describe(tmp_path, train, ["only 4 1", "./v3/ 4 1", "v7 4 5", "too short 2 1"], more)
    report = check_description(path)
    assert len(report.problems) == 3
    assert "'v3' is to be tested" in report.problems[0]
    assert "test.txt, line 2" in report.problems[0]
    assert "train.txt, line 4" in report.problems[0]
    assert report.problems[2] == "class 5 has no video to train on, but 1 in test"
    notes = "\n".join(report.notes)
    assert "'too short' has 2 frames, fewer than 3" in notes
    assert "3 of 6 classes have no video: 2, 3, 4" in notes
    (tmp_path / "v0" / "image_00001.jpg").unlink()
    assert len(check_description(path).problems) == 4


def test_the_check_says_what_it_did_not_look_at(
    frame: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(31):
        write_frames(tmp_path / f"v{k}", frame)
    damage(tmp_path / "v0" / "image_00003.jpg", "cut", 0.8)
    path = describe(tmp_path, [f"v{k} 11 1" for k in range(30)], ["v30 11 1"])
    check(path, "read")
    printed = capsys.readouterr().out
    assert "not decoded: frames that evaluation doesn't read (--decode all" in printed
    assert "test: 1 videos, 4 frames decoded" in printed
    with pytest.raises(SystemExit, match=r"v0/image_00003\.jpg can't be decoded[^\n]*\n1 problems"):
        check(path, "all")
    printed = capsys.readouterr().out
    assert "not decoded" not in printed
    assert re.search(r"test: 1 videos, 11 frames decoded in .* s: .* videos/s, .* frames/s", printed)
