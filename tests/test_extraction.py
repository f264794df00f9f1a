"""Frames that are there already are used only if they are what is asked for; nothing is written elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adafocus_env.videos.extraction import RECORD, extract_frames, folder_names
from adafocus_env.videos.lists import Entry
from tests.test_containers import write


def video(path: Path, numbers: range = range(6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, "mpeg4", numbers)


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path, folder = video(tmp_path / "a.avi"), tmp_path / "frames" / "a"
    assert extract_frames(path, folder) == 6
    before = times(folder)
    assert len(before) == 7
    assert extract_frames(path, folder) == 6
    assert times(folder) == before


@pytest.mark.parametrize(
    "what",
    [
        *("short side", "quality", "other source", "same size", "other name"),
        *("frame lost", "frame too many", "emptied", "empty folder"),
        *("no record", "broken record", "record of a list"),
    ],
)
def test_what_is_stale_is_made_anew(what: str, tmp_path: Path) -> None:
    path, folder, settings = video(tmp_path / "a.avi"), tmp_path / "frames" / "a", {}
    extract_frames(path, folder)
    status = path.stat()
    match what:
        case "short side":
            settings = {"short_side": 24}
        case "quality":
            settings = {"quality": 20}
        case "other source":
            video(path, range(40, 50))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "same size":
            path.write_bytes(path.read_bytes())
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        case "other name":
            path = path.rename(tmp_path / "a.mkv")
        case "frame lost":
            (folder / "image_00006.jpg").unlink()
        case "frame too many":
            (folder / "image_00007.jpg").write_bytes((folder / "image_00006.jpg").read_bytes())
        case "emptied":
            for image in folder.glob("*.jpg"):
                image.unlink()
        case "no record":
            (folder / RECORD).unlink()
            (folder / "image_00003.jpg").write_bytes(b"stale")
        case "broken record":
            (folder / RECORD).write_text("{")
            (folder / "image_00003.jpg").write_bytes(b"stale")
        case "record of a list":
            (folder / RECORD).write_text("[1]")
        case "empty folder":
            for file in folder.iterdir():
                file.unlink()
    inode = folder.stat().st_ino
    count = extract_frames(path, folder, **settings)
    assert folder.stat().st_ino != inode  # replaced as a whole
    fresh = tmp_path / "fresh"
    assert extract_frames(path, fresh, **settings) == count
    assert state(folder) == state(fresh)
    assert [entry.name for entry in (tmp_path / "frames").iterdir()] == ["a"]


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    path, folder = video(tmp_path / "a.avi"), tmp_path / "frames" / "a"
    extract_frames(path, folder)
    before = state(folder)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"\w"):
        extract_frames(path, folder)
    assert state(folder) == before
    assert [entry.name for entry in (tmp_path / "frames").iterdir()] == ["a"]


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_leaves_the_old_folder_the_new_one_or_none(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more happens after one of the steps, as after a kill."""
    path, folder = video(tmp_path / "a.avi"), tmp_path / "frames" / "a"
    extract_frames(path, folder)
    old = state(folder)
    extract_frames(path, tmp_path / "fresh", quality=50)
    steps = 0

    class Killed(BaseException):
        pass

    def stopping(real: object) -> object:
        def step(*args: object, **kwargs: object) -> object:
            nonlocal steps
            steps += 1
            if steps > moment:
                raise Killed
            return real(*args, **kwargs)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", stopping(Image.Image.save))
        patch.setattr(os, "replace", stopping(os.replace))
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            extract_frames(path, folder, quality=50)
    assert not folder.exists() or state(folder) == old
    assert extract_frames(path, folder, quality=50) == 6
    assert state(folder) == state(tmp_path / "fresh")


def test_other_things_are_not_overwritten(tmp_path: Path) -> None:
    path, folder = video(tmp_path / "a.avi"), tmp_path / "frames" / "a"
    extract_frames(path, folder / "part2")
    with pytest.raises(ValueError, match="something else than frames of this video, 'part2'"):
        extract_frames(path, folder)
    assert [entry.name for entry in folder.iterdir()] == ["part2"]


@pytest.mark.parametrize("count", [1, 2])
def test_videos_too_short_for_a_list_are_refused(count: int, tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", range(count))
    with pytest.raises(ValueError, match=f"{count} frames, fewer than the 3"):
        extract_frames(path, tmp_path / "frames" / "a")
    assert list((tmp_path / "frames").iterdir()) == []


@pytest.mark.parametrize("settings", [{"short_side": 0}, {"quality": 0}, {"quality": 101}])
def test_settings_are_checked(settings: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="short_side must be at least 1"):
        extract_frames(video(tmp_path / "a.avi"), tmp_path / "a", **settings)


def names(*paths: str) -> tuple[list[str], list[str]]:
    return folder_names([Entry(path, 0, (0,), line) for line, path in enumerate(paths, start=1)])


@pytest.mark.parametrize(
    "path",
    ["/a.mp4", "//a.mp4", "../a.mp4", "a/../../b.mp4", "a/..", "..", "a\\..\\..\\b.mp4", "..\\a.mp4", ".", "./", ""],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    _, problems = names("good.mp4", path)
    assert len(problems) == 1
    assert problems[0].startswith(f"line 2: {path!r} ")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("a/part2.mp4", "b.mp4", "a.mp4"), "lines 3 and 1: 'a/part2' would be inside 'a'"),
        (("a.mp4", "a/b/c.mp4"), "lines 1 and 2: 'a/b/c' would be inside 'a'"),
        (("a.mp4", "a.avi"), "lines 1 and 2: 'a' would be the folder of both"),
        (("x/a.mp4", "./x/a.mp4"), "lines 1 and 2: 'x/a' would be the folder of both"),
        (("x/a.mp4", "x//a.webm"), "lines 1 and 2: 'x/a' would be the folder of both"),
        (("a .mp4",), "line 1: 'a ' can't be written into a list"),
    ],
)
def test_folders_that_collide(paths: tuple[str, ...], message: str) -> None:
    _, problems = names(*paths)
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_names_that_only_look_odd() -> None:
    paths = ["12:30:05.mp4", "a..b.mp4", ".hidden.mp4", "ä ö/ü.v2.mp4", "a/b.mp4", "ab.mp4", "c:d.mp4", "no_suffix"]
    paths += ["a, b.mp4", '"q".mp4']
    found, problems = names(*paths)
    assert problems == []
    assert found == ["12:30:05", "a..b", ".hidden", "ä ö/ü.v2", "a/b", "ab", "c:d", "no_suffix", "a, b", '"q"']


def test_the_script_refuses_before_it_decodes(extract: Any, tmp_path: Path) -> None:
    video(tmp_path / "videos" / "a.mp4")
    video(tmp_path / "b.mp4")
    (tmp_path / "list.csv").write_text("a.mp4,0\n../b.mp4,1\n")
    out = tmp_path / "out"
    result = extract(tmp_path / "videos", tmp_path / "list.csv", "--num-classes", 2, "--jobs", 1, "--out", out)
    assert result.status == 1
    assert "list.csv: line 2: '../b.mp4' leads out of the folder" in result.errors
    assert "Traceback" not in result.errors
    assert not out.exists()


def test_a_missing_folder_of_videos_is_named(extract: Any, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.mp4,0\nb.mp4,1\n")
    result = extract(tmp_path / "absent", tmp_path / "list.csv", "--num-classes", 2, "--out", tmp_path / "out")
    assert result.status == 1
    assert f"{tmp_path / 'absent'} is no folder" in result.errors.replace("\n", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "avi"])
def test_a_video_that_was_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    """Also where its container lets what is left be decoded without an error."""
    codec = {"mkv": "libx264", "webm": "libvpx-vp9", "mp4": "libx264", "avi": "mpeg4"}[suffix]
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = write(tmp_path / f"a.{suffix}", codec, range(40), container_options=options)
    assert extract_frames(path, tmp_path / "whole") == 40
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(ValueError):  # noqa: PT011 (each container says it in its own words)
        extract_frames(path, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_the_script_fails_where_all_videos_fail(extract: Any, tmp_path: Path) -> None:
    video(tmp_path / "short.mp4", range(2))
    (tmp_path / "bad.mp4").write_bytes(b"")
    (tmp_path / "list.csv").write_text("short.mp4,0\nbad.mp4,1\nabsent.mp4,1\n")
    out = tmp_path / "out"
    result = extract(tmp_path, tmp_path / "list.csv", "--num-classes", 2, "--jobs", 1, "--out", out)
    assert result.status == 1
    assert "all 3 videos failed, such as short.mp4: 2 frames, fewer" in result.errors
    assert "Traceback" not in result.errors
    assert len((out / "failed.csv").read_text().splitlines()) == 4
    assert (out / "list.txt").read_text() == ""


def test_the_record_says_what_the_frames_are_of(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi")
    extract_frames(path, tmp_path / "a", 24, 80)
    record = json.loads((tmp_path / "a" / RECORD).read_text())
    status = path.stat()
    assert record == {
        "source": "a.avi", "bytes": status.st_size, "changed_ns": status.st_mtime_ns,
        "short_side": 24, "quality": 80, "frames": 6,
    }  # fmt: skip
    with Image.open(tmp_path / "a" / "image_00006.jpg") as image:
        assert np.asarray(image).shape == (24, 32, 3)
