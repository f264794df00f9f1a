"""Watching a video: figures are those of ``recognize``, patches are where the JSON says, memory stays small."""

from __future__ import annotations

import copy
import io
import json
import os
import resource
import runpy
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console

from adafocus_env import FrameFolders, Recognizer, RoamingFashion
from adafocus_env.recognition.trained_on import TrainedOn
from adafocus_env.videos.decoding import read_frames
from adafocus_env.videos.sources import Source, TimedPicture, VideoFile, open_source
from adafocus_env.videos.views import evaluation_view
from agents import Reinforce, from_pretrained
from agents.baselines import CenterPolicy, RandomPolicy
from agents.environments import given_prices
from agents.watching import watcher as watching
from agents.watching.film import Film
from agents.watching.record import Record
from agents.watching.settings import read_class_names, usual_every, usual_videos
from agents.watching.terminal import Terminal
from agents.watching.watcher import Frame, Reading, Watched, Watcher
from tests.test_frame_folders import write_video
from tests.test_sources import write_clip

READING = Reading(num_frames=4, stride=4, every=3, frame_size=48, resized=52)
NAMES = [f"class {number}" for number in range(10)]
SCRIPT = Path(__file__).parent.parent / "scripts" / "watch.py"


class Scripted:
    """Looks at the candidates of a list one after the other, and does what another list says: look, skip or stop."""

    observation_space = None

    def __init__(self, patches: list[int], choices: list[int]) -> None:
        self.action_space = spaces.MultiDiscrete([16, 3 if 2 in choices else 2])
        self._actions = list(zip(patches, choices, strict=True))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        time = 0 if state is None else state
        return np.array([self._actions[time]]), time + 1


SKIPPING = Scripted([5, 9, 2, 15], [0, 1, 0, 0])


def make_watcher(recognizer: Recognizer, reading: Reading = READING, **policies: Any) -> Watcher:
    return Watcher(recognizer, policies or {"scripted": SKIPPING}, NAMES, reading)


def watch(watcher: Watcher, source: Source, folder: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON, and the film's pictures."""
    with Record(folder / "w.json", watcher, {}, 3) as record, Film(folder / "w.mp4", watcher, 8) as film:
        for window in watcher.watch(source):
            record.add(window)
            film.add(window)
    return kept(folder)


def kept(folder: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "w."))) == ["w.json", "w.mp4"]
    with av.open(str(folder / "w.mp4")) as container:
        assert container.streams.video[0].average_rate == 8
        pictures = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    return json.loads((folder / "w.json").read_text()), pictures


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 38, size=(67, 91), audio=True)  # 13 frames are read: 4 windows


def test_the_record_equals_recognition_of_the_same_frames(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    watcher = make_watcher(recognizer)
    record, _ = watch(watcher, open_source(str(clip)), tmp_path)
    assert [[step["frame"] for step in steps_of(window)] for window in record["windows"]] == [
        [0, 3, 6, 9], [12, 15, 18, 21], [24, 27, 30, 33], [27, 30, 33, 36],
    ]  # fmt: skip
    assert [window["new_frames"] for window in record["windows"]] == [4, 4, 4, 1]
    assert record["finished"]
    assert record["original_size"] == [67, 91]
    for window in record["windows"]:
        seen = window["policies"]["scripted"]
        chosen = np.array([step["frame"] for step in seen["steps"]])
        pixels = torch.from_numpy(read_frames(clip, lambda _, chosen=chosen: chosen)).permute(0, 3, 1, 2)
        frames = evaluation_view(pixels, 52, 48)[None]
        found = recognizer.recognize(frames, SKIPPING)
        probabilities = found.logits[0].softmax(dim=1)
        assert seen["gflops"] == pytest.approx(found.gflops.item(), rel=1e-4)
        assert (window["start"], window["end"]) == pytest.approx((chosen[0] / 25, chosen[-1] / 25))
        for step, all_of_it, corner, skipped in zip(
            seen["steps"], probabilities, found.corners[0].tolist(), found.skipped[0].tolist(), strict=True
        ):
            assert step["choice"] == ("skip" if skipped else "look")
            patch = {"top": corner[0], "left": corner[1], "height": 24, "width": 24}
            assert step["patch"] == (None if skipped else patch)
            assert [int(name.split()[1]) for name, _ in step["top"]] == all_of_it.topk(3).indices.tolist()
            assert [share for _, share in step["top"]] == pytest.approx(all_of_it.topk(3).values.tolist(), abs=1e-4)
        assert (seen["prediction"], seen["confidence"]) == tuple(seen["top"][0])
        assert seen["top"] == seen["steps"][-1]["top"]


def steps_of(window: dict[str, Any], policy: str = "scripted") -> list[dict[str, Any]]:
    return window["policies"][policy]["steps"]


def is_green(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[..., channel].astype(int) for channel in range(3))
    return (green > 150) & (green - red > 90) & (green - blue > 60)


def test_the_patch_is_drawn_where_the_record_says(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    record, pictures = watch(make_watcher(recognizer), open_source(str(clip)), tmp_path)
    assert len(pictures) == 13
    factor = 5  # 91 pixels become at least 384
    steps = [step for window in record["windows"] for step in steps_of(window)[-window["new_frames"] :]]
    brightness = {"look": [], "skip": []}  # type: ignore[var-annotated]
    for picture, step in zip(pictures, steps, strict=True):
        assert picture.shape[1] == 456
        shown = picture[: 67 * factor, : 91 * factor]
        brightness[step["choice"]].append(float(shown[40:60].mean()))
        if step["choice"] == "skip":
            assert not is_green(shown).any()
            continue
        box = {name: round(factor * value) for name, value in step["original_patch"].items()}
        bottom, right = box["top"] + box["height"], box["left"] + box["width"]
        rows, columns = is_green(shown).nonzero()
        found = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert found == pytest.approx((box["top"], bottom, box["left"], right), abs=1)
        border = is_green(shown)[box["top"] : bottom, box["left"] : right]
        assert border[1].mean() > 0.9  # of three lines the encoder keeps the colour of the middle one
        assert border[:, -2].mean() > 0.9
        assert not border[4:-4, 4:-4].any()
    assert max(brightness["skip"]) < 0.7 * min(brightness["look"])


def test_policies_are_side_by_side_and_see_what_each_sees_alone(
    recognizer: Recognizer, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    alone, one = watch(make_watcher(recognizer), open_source(str(clip)), tmp_path / "alone")
    both, two = watch(make_watcher(recognizer, other=CenterPolicy, scripted=SKIPPING), open_source(str(clip)), tmp_path)
    for window, joint in zip(alone["windows"], both["windows"], strict=True):
        assert list(joint["policies"]) == ["other", "scripted"]
        assert joint["policies"]["scripted"] == window["policies"]["scripted"]
        assert all(step["choice"] == "look" for step in joint["policies"]["other"]["steps"])
    assert len(one) == len(two) == 13
    assert two[0].shape[1] == 455 * 2 + 8
    assert is_green(two[1][:335, :455]).any()
    assert not is_green(two[1][:335, 463:]).any()  # skipped
    assert np.abs(two[0][:335, 463:].astype(int) - one[0][:335, :455]).mean() < 4


def test_windows_are_left_when_certain(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    whole, _ = watch(make_watcher(recognizer), open_source(str(clip)), tmp_path)
    # Between the windows' highest confidences before their last frames, so that some are left early and others aren't.
    highest = sorted(max(step["top"][0][1] for step in steps_of(window)[:3]) for window in whole["windows"])
    threshold = sum(highest[len(highest) // 2 - 1 :][:2]) / 2
    assert highest[0] < threshold < highest[-1]
    watcher = make_watcher(recognizer, Reading(4, 4, 3, 48, 52, exit_threshold=threshold))
    found, pictures = watch(watcher, open_source(str(clip)), tmp_path)
    assert len(pictures) == 13
    ended = []
    for before, after in zip(whole["windows"], found["windows"], strict=True):
        before, after = before["policies"]["scripted"], after["policies"]["scripted"]
        certain = [step["top"][0][1] >= threshold for step in before["steps"]]
        first = certain.index(True) if any(certain) else 3
        assert after["ended"] == ("exit" if first < 3 else None)
        for number, (one, two) in enumerate(zip(before["steps"], after["steps"], strict=True)):
            if number <= first:  # fewer videos in a batch are rounded differently in the last digit
                assert {**two, "top": None} == {**one, "top": None}
                assert [name for name, _ in two["top"]] == [name for name, _ in one["top"]]
                assert [share for _, share in two["top"]] == pytest.approx([share for _, share in one["top"]], abs=5e-6)
            else:
                assert (two["choice"], two["gflops"], two["patch"]) == ("left", 0, None)
                assert two["top"] == after["steps"][first]["top"]
        ended.append(after["ended"])
    assert {"exit", None} == {*ended}


def test_where_a_policy_stops_is_told_from_where_it_is_certain(
    recognizer: Recognizer, clip: Path, tmp_path: Path
) -> None:
    watcher = make_watcher(recognizer, scripted=Scripted([0, 0, 0], [0, 1, 2]))
    found, _ = watch(watcher, open_source(str(clip)), tmp_path)
    for window in found["windows"]:
        seen = window["policies"]["scripted"]
        assert [step["choice"] for step in seen["steps"]] == ["look", "skip", "stop", "left"]
        assert seen["ended"] == "stop"


@pytest.mark.parametrize("count", [3, 5])
def test_a_short_video_repeats_its_last_frame(count: int, recognizer: Recognizer, tmp_path: Path) -> None:
    watcher = make_watcher(recognizer, Reading(8, 8, 1, 48, 48), center=CenterPolicy)
    found, pictures = watch(watcher, open_source(str(write_clip(tmp_path / "clip.mp4", count))), tmp_path)
    steps = found["windows"][0]["policies"]["center"]["steps"]
    assert [step["frame"] for step in steps] == [*range(count), *[count - 1] * (8 - count)]
    assert len(pictures) == 8


def test_too_few_frames_are_refused_and_leave_nothing(recognizer: Recognizer, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 1)
    with pytest.raises(ValueError, match=r"clip\.mp4 has too few frames: 1, where a window of 4 needs at least 3"):
        watch(make_watcher(recognizer), open_source(str(path)), tmp_path)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_still_picture_is_looked_at_several_times(recognizer: Recognizer, tmp_path: Path) -> None:
    reading = Reading(1, 1, 1, 48, 48, looks=3)
    watcher = make_watcher(recognizer, reading, scripted=Scripted([1, 2, 3], [0, 0, 0]))
    found, pictures = watch(watcher, open_source(str(write_clip(tmp_path / "clip.mp4", 1))), tmp_path)
    assert len(pictures) == 3
    steps = found["windows"][0]["policies"]["scripted"]["steps"]
    assert [step["patch"]["left"] for step in steps] == [8, 16, 24]
    assert steps[0]["gflops"] > steps[1]["gflops"] == steps[2]["gflops"]


class Counted:
    """A source of many pictures that counts how many are alive."""

    name, rate, expected = "counted", 25.0, None

    def __init__(self, count: int, interrupted: BaseException | None = None) -> None:
        self._count, self._interrupted = count, interrupted
        self.alive = self.most = 0

    def read(self, every: int = 1) -> Iterator[TimedPicture]:
        for number in range(0, self._count, every):
            pixels = np.full((60, 80, 3), number % 256, dtype=np.uint8)
            self.count(pixels)
            yield TimedPicture(number, number / self.rate, pixels)
        if self._interrupted is not None:
            raise self._interrupted

    def count(self, thing: Any) -> None:
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(thing, self.forget)

    def forget(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("stride", [1, 4])
def test_memory_does_not_grow_with_the_video(
    stride: int, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, source = Counted(0), Counted(400)
    real = Frame.of

    def of(picture: TimedPicture, reading: Reading) -> Frame:
        frame = real(picture, reading)
        frames.count(frame.view)
        frames.count(frame.shown)
        return frame

    monkeypatch.setattr(watching.Frame, "of", of)
    watch(make_watcher(recognizer, Reading(4, stride, 5, 48, 52)), source, tmp_path)
    assert source.most <= 2
    assert frames.most <= 2 * 2 * 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("damaged at packet 7")])
def test_what_was_watched_until_an_interruption_can_be_played(
    error: BaseException, recognizer: Recognizer, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        watch(make_watcher(recognizer), Counted(30, error), tmp_path)  # two windows, and two frames of a third
    found, pictures = kept(tmp_path)
    assert len(pictures) == 8
    assert len(found["windows"]) == 2
    assert not found["finished"]


def write_film(path: Path, watcher: Watcher, windows: list[Watched]) -> None:
    with Film(path, watcher, 8) as film:
        for window in windows:
            film.add(window)


def test_a_full_disk_is_named_and_the_film_of_before_stays(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "w.mp4").write_text("of before")
    watcher = make_watcher(recognizer)
    windows = list(watcher.watch(Counted(36)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*w\.mp4"):
            write_film(tmp_path / "w.mp4", watcher, windows * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["w.mp4"]
    assert (tmp_path / "w.mp4").read_text() == "of before"


def test_the_terminal_shows_windows_and_sums_up(recognizer: Recognizer, clip: Path) -> None:
    watcher = make_watcher(recognizer, scripted=SKIPPING, center=CenterPolicy)
    console = Console(width=120, record=True, file=io.StringIO())
    with Terminal(watcher, 13, console) as terminal:
        for window in watcher.watch(VideoFile(clip)):
            terminal.show(window)
    text = console.export_text()
    lines = [line for line in text.splitlines() if "│  class" in line]
    assert [line.split()[0] for line in lines] == ["0.0–0.4", "0.5–0.8", "1.0–1.3", "1.1–1.4"]
    assert all(" 3 looks" in line and " 4 looks" in line for line in lines)
    assert "4 windows" in text
    assert "13 frames" in text
    assert [line.split()[3] for line in text.splitlines() if line.startswith(("│ scripted", "│ center"))] == [
        "75%",
        "100%",
    ]


def test_the_terminal_fits_eighty_characters(recognizer: Recognizer, clip: Path) -> None:
    watcher = make_watcher(recognizer, **{"roaming-fashion-skip": Scripted([5, 9, 2, 15], [1, 0, 1, 1])})
    console = Console(width=80, record=True, file=io.StringIO())
    with Terminal(watcher, 4, console) as terminal:
        terminal.show(next(iter(watcher.watch(VideoFile(clip)))))
    lines = console.export_text().splitlines()
    assert [line.split("%")[1][:9] for line in lines if "0.0–0.4" in line] == ["   1 look"]
    assert any("roaming-fashion-skip" in line and "25%" in line for line in lines), "the row is folded"
    assert max(map(len, lines)) <= 80


def test_policies_that_cannot_act_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="policy shipped: the policy sees"):
        make_watcher(recognizer, shipped=from_pretrained("roaming-fashion"))
    with pytest.raises(ValueError, match="patch_size must be between 1 and the frame's shorter side 20, not 24"):
        make_watcher(recognizer, Reading(4, 4, 1, 20, 24))
    for wrong in ({"stride": 5}, {"stride": 0}, {"every": 0}, {"resized": 40}, {"looks": 0}, {"num_frames": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            Reading(**{"num_frames": 4, "stride": 4, "every": 3, "frame_size": 48, "resized": 52, **wrong})


def test_a_policy_acts_by_the_price_that_is_given(
    recognizer: Recognizer, env_kwargs: dict[str, Any], clip: Path
) -> None:
    policy = Reinforce(gym.make_vec("AdaFocus-v0", 1, skip_cost=(0.0, 0.1), **env_kwargs))
    asked = []
    actual = policy.predict
    policy.predict = lambda seen, *rest, **more: asked.append(seen["price"].item()) or actual(seen, *rest, **more)  # type: ignore
    prices = given_prices([policy, SKIPPING], skip_cost=0.045, glance_cost=None)
    watcher = make_watcher(recognizer, Reading(4, 4, 3, 48, 52, prices=prices), policy=policy, scripted=SKIPPING)
    next(watcher.watch(open_source(str(clip))))
    seen = [price for price in asked if price]  # at 0 its own cost is measured
    assert seen == pytest.approx([0.5] * 4)  # (0.045 - 0.015) / (0.045 + 0.015)
    with pytest.raises(ValueError, match=r"policy policy: .*skip_cost is missing"):
        make_watcher(recognizer, policy=policy)
    with pytest.raises(ValueError, match="glance_cost: no policy here acts by it"):
        given_prices([policy], skip_cost=0.1, glance_cost=0.1)


@pytest.mark.parametrize(
    ("rate", "expected", "frames", "every"),
    [(25.0, 1000, 16, 6), (25.0, 40, 16, 2), (25.0, 9, 16, 1), (30.0, None, 8, 8), (2.0, 100, 8, 1), (25.0, 90, 1, 1)],
)
def test_about_four_frames_a_second_are_read(rate: float, expected: int | None, frames: int, every: int) -> None:
    assert usual_every(SimpleNamespace(rate=rate, expected=expected), frames) == every  # type: ignore[arg-type]


def test_videos_are_shown_as_those_of_training_were(recognizer: Recognizer, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(recognizer.config.num_classes)]
    assert usual_videos(recognizer) == TrainedOn(tuple(names), 16, 224, 256, "torch")
    write_video(tmp_path / "videos" / "one", 3, 0)
    (tmp_path / "list.txt").write_text("one, 3, 0\n")
    size: dict[str, Any] = {"num_frames": 3, "frame_size": 48, "resized": 60, "resize": "pillow"}
    classes = [*"abcdefghi", "9"]
    videos = FrameFolders(tmp_path / "videos", tmp_path / "list.txt", num_classes=10, class_names=classes, **size)
    trained = copy.deepcopy(recognizer)
    trained.metadata = {"training": "somehow", **TrainedOn.of(videos).metadata()}
    trained.save(tmp_path / "trained.safetensors")
    found = run(tmp_path / "out", video=str(write_clip(tmp_path / "clip.mp4", 30)), policy=("center",),
                recognizer=str(tmp_path / "trained.safetensors"))  # fmt: skip
    assert [found[name] for name in ("num_frames", "frame_size", "resized", "resize")] == [3, 48, 60, "pillow"]
    assert found["windows"][0]["policies"]["center"]["prediction"] in {*"abcdefghi", "class 9"}
    shipped = RoamingFashion("val")
    assert usual_videos(trained, shipped) == TrainedOn(tuple(shipped.class_names), 8, 112, 112, "torch")


@pytest.mark.parametrize("wrong", ['"', "{}", "[1]", {"resize": "no"}, {"frame_size": 61}, {"num_frames": 2.5}])
def test_impossible_metadata_is_refused(wrong: Any, recognizer: Recognizer) -> None:
    right = {"class_names": ["a"] * 10, "num_frames": 3, "frame_size": 48, "resized": 60, "resize": "torch"}
    recognizer = copy.deepcopy(recognizer)
    recognizer.metadata = {"trained_on": wrong if isinstance(wrong, str) else json.dumps({**right, **wrong})}
    with pytest.raises(ValueError, match="metadata 'trained_on' can't be understood"):
        usual_videos(recognizer)
    recognizer.metadata = {"trained_on": json.dumps({**right, "class_names": ["a"]})}
    with pytest.raises(ValueError, match="has 10 classes, but its file names 1"):
        usual_videos(recognizer)


def test_names_of_classes_may_have_numbers(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for text, names in {
        "a b\n\nc\n": ["a b", "c"], "0 a b\n1 c\n": ["a b", "c"], "1 a\n2 c": ["a", "c"], "1 a\n3 c": ["1 a", "3 c"],
        "0\n1\n": ["0", "1"],
    }.items():  # fmt: skip
        path.write_text(text)
        assert read_class_names(path, 2) == names
    with pytest.raises(ValueError, match=r"classes\.txt names 2 classes, in a line each, but the recogniser has 3"):
        read_class_names(path, 3)


def run(folder: Path, **options: Any) -> dict[str, Any]:
    script = runpy.run_path(str(SCRIPT), run_name="imported")
    script["main"](script["Config"](out=folder, **options))
    return json.loads((folder / "watch.json").read_text())


def test_the_demo_is_the_shipped_pair_on_validation_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, demo=True)
    videos = RoamingFashion("val")
    recognizer, policy = Recognizer.from_pretrained("roaming-fashion"), from_pretrained("roaming-fashion-skip")
    wanted = recognizer.deployed().recognize(videos.frames(torch.arange(6)), policy)
    for window, logits, skipped in zip(found["windows"], wanted.logits, wanted.skipped, strict=True):
        seen = window["policies"]["roaming-fashion-skip"]
        assert seen["prediction"] == videos.class_names[int(logits[-1].argmax())]
        assert [step["choice"] == "skip" for step in seen["steps"]] == skipped.tolist()
    assert "note" not in found
    with av.open(str(tmp_path / "watch.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 48
    assert f"true classes of the clips: {videos.class_names[int(videos.labels[0])]}, " in capsys.readouterr().out


def test_shipped_classes_cannot_fit_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 30, size=(120, 161))
    found = run(tmp_path / "out", video=str(clip), policy=("center", "roaming-fashion"))
    assert "knows nothing but the 10 classes of the embedded benchmark" in found["note"]
    assert found["note"] in capsys.readouterr().out
    assert (found["every"], found["frame_size"], found["resized"]) == (3, 112, 112)
    assert list(found["windows"][0]["policies"]) == ["center", "roaming-fashion"]


def test_a_clip_that_is_decided_about_at_once(tmp_path: Path) -> None:
    found = run(tmp_path, demo=True, recognizer="roaming-motion")
    for window in found["windows"]:
        steps = window["policies"]["roaming-motion"]["steps"]
        assert len(steps) == 6
        assert len({json.dumps([step["patch"], step["top"], step["choice"]]) for step in steps}) == 1
        assert sum(step["gflops"] for step in steps) == pytest.approx(
            window["policies"]["roaming-motion"]["gflops"], rel=1e-4
        )
    with pytest.raises(ValueError, match="exit_threshold: a clip is decided about at once"):
        run(tmp_path, demo=True, recognizer="roaming-motion", exit_threshold=0.5)


def test_a_random_policy_is_made_for_the_video(recognizer: Recognizer) -> None:
    first, second = (
        [window.seen["random"].steps for window in make_watcher(recognizer, random=made).watch(Counted(36))]
        for made in (partial(RandomPolicy, seed=1), partial(RandomPolicy, seed=1))
    )
    corners = [[step.corner for step in steps] for steps in first]
    assert corners == [[step.corner for step in steps] for steps in second]
    assert len({corner for row in corners for corner in row}) > 4


def test_frames_that_were_drawn_before_are_not_drawn_again(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    found, pictures = watch(make_watcher(recognizer, Reading(4, 2, 3, 48, 52)), open_source(str(clip)), tmp_path)
    assert [window["new_frames"] for window in found["windows"]] == [4, 2, 2, 2, 2, 1]
    assert len(pictures) == 13


def test_one_picture_of_a_window(recognizer: Recognizer) -> None:
    watcher = make_watcher(recognizer)
    window: Watched = next(watcher.watch(Counted(36)))
    film = Film(Path("unused"), watcher, 8)
    picture = film.draw(window, 0)
    assert picture.dtype == np.uint8
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    assert is_green(picture[:300]).any()
    assert not is_green(film.draw(window, 1)[:300]).any()
