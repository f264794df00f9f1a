"""Lines of list files: the formats that are documented, what is ambiguous, what names one video, what is left out."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from adafocus_env import FrameFolders, VideoFiles
from adafocus_env.videos import get_videos
from adafocus_env.videos.description import held_out
from adafocus_env.videos.lists import Entry, list_line, read_list

CLASSES = 400


def read(folder: Path, text: str, **kwargs: object) -> list[tuple[str, int, tuple[int, ...]]]:
    path = folder / "list.txt"
    path.write_bytes(text.encode())
    found = read_list(path, CLASSES, **kwargs)  # type: ignore[arg-type]
    return [(entry.path, entry.num_frames, entry.labels) for entry in found.entries]


@pytest.mark.parametrize(
    ("text", "kwargs", "wanted"),
    [
        # mmaction2's, single and multi-label, frames and videos
        ("some/directory-1 163 1\nsome/directory-2 122 1\n", {}, ("some/directory-1", 163, (1,))),
        ("some/directory-1 163 1 3 5\n", {"multi_label": True}, ("some/directory-1", 163, (1, 3, 5))),
        ("some/directory-1 163 1 3 5 7 9 11\n", {"multi_label": True}, ("some/directory-1", 163, (1, 3, 5, 7, 9, 11))),
        ("some/path/000.mp4 1\n", {"counted": False}, ("some/path/000.mp4", 0, (1,))),
        ("some/path/000.mp4 1 3 5\n", {"counted": False, "multi_label": True}, ("some/path/000.mp4", 0, (1, 3, 5))),
        # the released code's
        ("v_1,30,7,8,9", {}, ("v_1", 30, (7, 8, 9))),
        ("riding a bike/x y 30 7", {}, ("riding a bike/x y", 30, (7,))),
        ("78687 30 7", {}, ("78687", 30, (7,))),
        # paths that end in numbers
        ("day 3 30 7", {"multi_label": False}, ("day 3", 30, (7,))),
        ("day 3, 30, 7", {}, ("day 3", 30, (7,))),
        ("day 3\t30\t7", {}, ("day 3", 30, (7,))),
        ("day 3.mp4 7", {"counted": False}, ("day 3.mp4", 0, (7,))),
        # quotes, more than three labels, line ends, white space
        ('"riding, a bike", 30, 7', {}, ("riding, a bike", 30, (7,))),
        ('"riding, a bike","30","7"', {}, ("riding, a bike", 30, (7,))),
        ('"say ""a""",30,7', {}, ('say "a"', 30, (7,))),
        ('"a\tb"\t30\t7\t8', {}, ("a\tb", 30, (7, 8))),
        ("v,30,7,8,9,10", {"multi_label": True}, ("v", 30, (7, 8, 9, 10))),
        ("\r\na  b  30\t7\r\nc 4 1\r\n", {}, ("a  b", 30, (7,))),
        ("./#1 dad 30 7", {}, ("#1 dad", 30, (7,))),
    ],
)  # fmt: skip
def test_documented_lines(text: str, kwargs: dict[str, object], wanted: object, tmp_path: Path) -> None:
    assert read(tmp_path, text, **kwargs)[0] == wanted


@pytest.mark.parametrize(
    ("line", "kwargs", "match"),
    [
        ("some/directory-1 163 1 3 5", {}, r"'some/directory-1' with 163 frames and labels 1, 3, 5, or "
         r"'some/directory-1 163 1' with 3 frames and label 5\? multi_label=True .* multi_label=False"),
        ("day 3 30 7", {}, "'day' with 3 frames and labels 30, 7, or 'day 3' with 30 frames and label 7"),
        ("a.mp4 1 3", {"counted": False}, "'a.mp4' with labels 1, 3, or 'a.mp4 1' with label 3"),
        ("v -1 30 7", {}, "or 'v -1' with 30 frames"),
        ("v 30 -1", {}, "label -1"),
        ("v 30", {}, "a number of frames and a label, between spaces"),
        ("30 7", {}, "a number of frames and a label, between spaces"),
        ("v ٣٠ 7", {}, "a number of frames and a label, between spaces"),
        ("# by hand 30 7", {}, "no comments .* write ./#"),
        ("v\0 30 7", {}, "needs a path"),
    ],
)  # fmt: skip
def test_ambiguous_and_impossible_lines_are_named(
    line: str, kwargs: dict[str, object], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"list.txt, line 2: .*{match}"):
        read(tmp_path, f"good{'' if kwargs else ' 30'} 1\n{line}\n", **kwargs)


@pytest.mark.parametrize(
    ("line", "kwargs", "match"),
    [
        ('"v, 30, 7', {}, "unexpected end of data"),
        ('"v" w, 30, 7', {}, "expected after"),
        ("v, 30, 7, 8", {"multi_label": False}, "and one label, between commas,.* any number"),
        ("v, 1, 2, 3, 4", {"counted": False}, "one to three labels, between commas,.* any number"),
        ("v 30 7", {}, "between commas"),
    ],
)
def test_bad_lines_between_commas_are_named(line: str, kwargs: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"list.txt, line 2: .*{match}"):
        read(tmp_path, f"good,{'' if kwargs.get('counted') is False else ' 30,'} 1\n{line}\n", **kwargs)
    with pytest.raises(ValueError, match="multi_label must be"):
        read(tmp_path, "v 30 1", multi_label="yes")


words = st.lists(st.from_regex(r"[a-zé#(),.\"-]{1,6}|[0-9]{1,3}", fullmatch=True), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    name=words,
    frames=st.integers(3, 500),
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=5),
    counted=st.booleans(),
)
def test_lines_are_read_right_or_refused(
    name: list[str], frames: int, labels: list[int], counted: bool, tmp_path: Path
) -> None:
    path, numbers = " ".join(name), [str(number) for number in ([frames] if counted else []) + labels]
    wanted = [(path, frames if counted else 0, tuple(labels))]
    assume(path not in (".", "..") and "\n" not in path)
    if counted:
        assert read(tmp_path, list_line(path, frames, labels), multi_label=True) == wanted
    for separator in (",", "\t"):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerow([path, *numbers])
        assert read(tmp_path, text.getvalue(), counted=counted, multi_label=True) == wanted
    line = "./" + " ".join([path, *numbers])  # it may start with a #
    if len(labels) == 1:
        assert read(tmp_path, line, counted=counted, multi_label=False, separator=" ") == wanted
    if not name[-1].isdecimal() or len(name) == 1:
        assert read(tmp_path, line, counted=counted, multi_label=True, separator=" ") == wanted
    try:
        assert read(tmp_path, line, counted=counted, separator=" ") == wanted
    except ValueError as error:
        assert "is it" in str(error)  # refused  # noqa: PT017
        assert name[-1].isdecimal() or len(labels) > 1


# ------------------------------------------------------------------------------------------------ one path per video


@pytest.mark.parametrize(
    "other", ["./a b/c", "a b/c/", "a b//c", "a b/./c", "a b/x/../c", "{root}/a b/c", "/{root}/a b/c"]
)
def test_every_spelling_is_one_video(other: str, tmp_path: Path) -> None:
    other = other.format(root=tmp_path)
    for lines in (f"a b/c 30 7\n{other} 30 8\n", f"{other} 30 7\na b/c 30 8\n"):
        (tmp_path / "list.txt").write_text(lines)
        with pytest.raises(ValueError, match="line 2: 'a b/c' is in line 1 already"):
            FrameFolders(tmp_path, tmp_path / "list.txt", num_classes=CLASSES)
    (tmp_path / "list.txt").write_text(f"{other} 30 7\n")
    (entry,) = FrameFolders(tmp_path, tmp_path / "list.txt", num_classes=CLASSES).entries
    assert entry.path == "a b/c"
    assert held_out(entry) == held_out(Entry("a b/c", 30, (7,), 1))


def test_paths_may_lead_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    elsewhere = tmp_path / "elsewhere"
    for number in range(1, 4):
        elsewhere.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (0, 98, 0)).save(elsewhere / f"image_{number:05d}.jpg")
    for line in (f"{elsewhere}/ 3 1", "./../elsewhere 3 1"):
        (tmp_path / "list.txt").write_text(line)
        videos = FrameFolders(root, tmp_path / "list.txt", num_classes=2, frame_size=32, resized=32)
        assert abs(videos.frames(videos.labels * 0)[0, 0, 1].float().mean() - 98) <= 2


# ------------------------------------------------------------------------------------------------------- left out


def test_what_is_left_out_is_named_once_for_the_split_that_it_would_be_in(tmp_path: Path) -> None:
    lines = [f"v{k} {2 if k % 10 == 0 else 30} 1" for k in range(100)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "data.toml").write_text(
        'root = "."\ntrain_list = "list.txt"\ntest_list = "list.txt"\nnum_classes = 2\nmulti_label = false\n'
    )
    named = {}
    for split in ("train", "val", "test"):
        with pytest.warns(
            UserWarning, match=r"list\.txt: \d+ videos, \d+ left out:\n'v\d+' has 2 frames, fewer than 3 \("
        ):
            videos = get_videos(str(tmp_path / "data.toml"), split)
        named[split] = videos.too_short  # type: ignore[attr-defined]
        assert videos.skipped == []  # type: ignore[attr-defined]
    assert len(named["test"]) == 10
    assert named["val"]
    assert sorted(named["train"] + named["val"]) == sorted(named["test"])
    assert "line 11)" in next(text for text in named["test"] if "'v10'" in text)
    with pytest.warns(UserWarning, match=r"90 videos, 10 left out"):
        FrameFolders(tmp_path, tmp_path / "list.txt", num_classes=2)
    (tmp_path / "files.csv").write_text("a.mp4, 1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoFiles(tmp_path, tmp_path / "files.csv", num_classes=2)  # all is kept: no word
