"""Encoded videos, written here by PyAV: every container, key frames far apart, odd times, rotation, damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from adafocus_env import AdaFocusVectorEnv, FrameFolders, VideoFiles
from adafocus_env.videos import decoding, get_videos
from adafocus_env.videos.decoding import read_frames
from tests.conftest import make_tiny_recognizer

HEIGHT, WIDTH = 64, 96
CODECS = {"mp4": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "mkv": "libx264"}


def shade(number: int) -> int:
    """A frame's mean tells its number, after compression too."""
    return 20 + 6 * number


def write_video(path: Path, count: int, *, times: list[int] | None = None, key_every: int = 12) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size, stream.bit_rate = key_every, 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000 if times else 25)
        for number in range(count):
            pixels = np.full((HEIGHT, WIDTH, 3), shade(number), dtype=np.uint8)
            pixels[: HEIGHT // 2, : WIDTH // 2] += 60  # top left is brighter
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames these are, by the shade of the lower half."""
    return [round((float(frame[HEIGHT // 2 + 8 :].mean()) - 20) / 6) for frame in frames]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("wanted", [[0, 5, 11, 12, 13, 29], [29], [3, 3, 3], list(range(30))])
def test_frames_are_the_ones_asked_for(suffix: str, wanted: list[int], tmp_path: Path) -> None:
    path = tmp_path / f"video.{suffix}"
    write_video(path, 30)
    counted = []

    def choose(available: int) -> np.ndarray:
        counted.append(available)
        return np.array(wanted)

    found = read_frames(path, choose)
    assert counted == [30]
    assert found.shape == (len(wanted), HEIGHT, WIDTH, 3)
    assert numbers(found) == wanted


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, 36, key_every=12)
    decoded = []
    real = decoding._decoded

    def counting(*args: Any, **kwargs: Any) -> Iterator[av.VideoFrame]:
        for frame in real(*args, **kwargs):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decoding, "_decoded", counting)
    assert numbers(read_frames(path, lambda _: np.array([25, 27]))) == [25, 27]
    assert len(decoded) <= 4  # from the key frame 24 on


def test_times_may_be_uneven(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    times = [0, 40, 45, 300, 310, 900, 2000, 2001, 2100, 5000]
    write_video(path, 10, times=times, key_every=4)
    assert numbers(read_frames(path, lambda n: np.arange(n))) == list(range(10))


def test_one_frame(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("one.mp4,3\n")
    write_video(tmp_path / "one.mp4", 1)
    videos = VideoFiles(tmp_path, tmp_path / "list.csv", num_classes=10, num_frames=4, frame_size=48, resized=48)
    frames = videos.frames(torch.tensor([0]))
    assert frames.shape == (1, 4, 3, 48, 48)
    assert (frames == frames[:, :1]).all()


def test_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, 2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track header, version 0
    assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
    (frame,) = read_frames(path, lambda _: np.array([0]))
    assert frame.shape == (WIDTH, HEIGHT, 3)
    quarters = [frame[:40, :28], frame[:40, 36:], frame[56:, :28], frame[56:, 36:]]
    assert np.argmax([quarter.mean() for quarter in quarters]) == 1  # a quarter turn clockwise: top left to top right


@pytest.mark.parametrize("what", ["missing", "empty", "text", "truncated", "audio only"])
def test_bad_files_are_named(what: str, tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", 12)
    bad = tmp_path / "bad.mp4"
    write_video(bad, 30)
    match what:
        case "missing":
            bad.unlink()
        case "empty":
            bad.write_bytes(b"")
        case "text":
            bad.write_text("not a video")
        case "truncated":
            bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
        case "audio only":
            with av.open(str(bad), "w") as container:
                stream = container.add_stream("aac", rate=8000)
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
                frame.sample_rate = 8000
                container.mux(stream.encode(frame))
                container.mux(stream.encode())
    (tmp_path / "list.csv").write_text("good.mp4,1\nbad.mp4,2\n")
    settings = {"num_classes": 3, "num_frames": 4, "frame_size": 48, "resized": 48}
    videos = VideoFiles(tmp_path, tmp_path / "list.csv", **settings)
    with pytest.raises((ValueError, FileNotFoundError), match=r"list\.csv, line 2") as raised:
        videos.frames(torch.tensor([0, 1]))
    assert str(bad) in str(raised.value)
    assert len(videos.problems()) == 1
    left = VideoFiles(tmp_path, tmp_path / "list.csv", on_error="skip", **settings)
    assert [entry.path for entry in left.entries] == ["good.mp4"]
    assert len(left.skipped) == 1


def test_the_environment_takes_a_description_of_files(tmp_path: Path) -> None:
    for row in range(3):
        write_video(tmp_path / f"{row}.mp4", 8 + row)
    (tmp_path / "list.txt").write_text("0.mp4 1\n1.mp4 2\n2.mp4 0\n")
    (tmp_path / "data.toml").write_text(
        'kind = "files"\nroot = "."\ntrain_list = "list.txt"\ntest_list = "list.txt"\n'
        "num_classes = 10\nnum_frames = 4\nframe_size = 48\nresized = 56\n"
    )
    videos = get_videos(str(tmp_path / "data.toml"), "test")
    assert videos.labels.tolist() == [1, 2, 0]
    env = AdaFocusVectorEnv(2, videos=videos, recognizer=make_tiny_recognizer(), grid=4, skip=False)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.array([3, 7]))
    assert np.isfinite(reward).all()


def test_extraction_reports_what_failed_and_goes_on_where_it_stopped(extract: Any, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    write_video(tmp_path / "a b" / "good.mp4", 9)
    write_video(tmp_path / "other.webm", 5)
    (tmp_path / "bad.avi").write_bytes(b"RIFF")
    (tmp_path / "list.csv").write_text("a b/good.mp4,1,4\nbad.avi,2\nother.webm,0\nabsent.mp4,0\n")
    out = tmp_path / "out"
    arguments = (tmp_path, tmp_path / "list.csv", "--num-classes", 5, "--short-side", 32, "--jobs", 1, "--out", out)
    first = extract(*arguments)
    assert first.status == 0, first.errors
    assert (out / "list.txt").read_text() == "a b/good, 9, 1, 4\nother, 5, 0\n"
    failed = (out / "failed.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in failed[1:]] == [["bad.avi", "2"], ["absent.mp4", "4"]]
    assert sorted(path.name for path in (out / "frames").iterdir()) == ["a b", "other"]  # nothing half-written
    videos = FrameFolders(out / "frames", out / "list.txt", num_classes=5, num_frames=9, frame_size=32, resized=32)
    lower = videos.frames(torch.tensor([0]))[0, :, :, 22:].float().mean(dim=(1, 2, 3))
    assert ((lower - 20) / 6).round().tolist() == list(range(9))
    # A second run writes nothing again.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert extract(*arguments).status == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == before


def test_the_check_finds_problems(extract: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 6)
    write_video(tmp_path / "b.mp4", 6)
    (tmp_path / "train.csv").write_text("".join(f"{k}.mp4,1\n" for k in range(20)))
    (tmp_path / "test.csv").write_text("b.mp4,1\n")
    for k in range(20):
        (tmp_path / f"{k}.mp4").write_bytes((tmp_path / "a.mp4").read_bytes() if k != 7 else b"")
    (tmp_path / "data.toml").write_text(
        'kind = "files"\nroot = "."\ntrain_list = "train.csv"\ntest_list = "test.csv"\nnum_classes = 10\n'
    )
    found = extract("--check", tmp_path / "data.toml")
    assert found.status == 1
    assert "7.mp4" in found.errors
    assert "train.csv, line 8" in found.errors
    assert "1 problems" in found.errors
    (tmp_path / "7.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    assert extract("--check", tmp_path / "data.toml", "--jobs", 1).status == 0
    (tmp_path / "test.csv").write_text("b.mp4,one\n")
    assert "test.csv, line 1" in extract("--check", tmp_path / "data.toml", "--jobs", 1).errors
