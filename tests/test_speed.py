"""The benchmark's runner, and what it times."""

from __future__ import annotations

import csv
import functools
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.run_folder import RunFolder
from agents.experiments.speed.deployment import staggered_thresholds
from agents.experiments.speed.growth import Size, draw_growth, measure_growth
from agents.experiments.speed.measuring import STEPS, Ratio, Results, Timing
from agents.experiments.speed.scales import scales_for
from agents.experiments.speed.stepping import never_known_to_be_full
from agents.experiments.speed.yardsticks import Floor, ReferenceProcedure


@dataclass
class Config:
    pass


def test_speeds_ratios_and_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("agents.experiments.speed.measuring.time.perf_counter", lambda: now)
    results = Results(seconds=30, repeats=3)
    timings = {name: Timing(functools.partial(take, s), 64, 64) for name, s in (("a", 2.0), ("b", 4.0), ("c", 8.0))}
    ratios = [
        Ratio("a / the others", "a", ("b", "c"), {"small": "at least 3"}),
        Ratio("c / a", "c", "a"),
        Ratio("a / what is not there", "a", "d", "at least 3"),
    ]
    assert results.compare("small", STEPS, timings, ratios) == {"a": 32, "b": 16, "c": 8}
    assert [(row["what"], row["value"]) for row in results.rows] == [("a", 32), ("b", 16), ("c", 8)]
    assert results.ratios == [
        {"ratio": "small: a / the others", "measured": 2, "asked": "at least 3"},
        {"ratio": "small: c / a", "measured": 0.25, "asked": ""},
    ]
    assert now == 2 * (2 + 4 + 8) + 3 * (5 * 2 + 2 * 4 + 8)  # two calls to warm up, three repeats
    with RunFolder(tmp_path, Config()) as run:
        results.write(run)
    with open(tmp_path / "benchmark.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["scale", "what", "num_envs", "value", "unit"]
    assert (tmp_path / "benchmark.png").exists()
    resumed = Results(seconds=30, repeats=3)
    with RunFolder(tmp_path, Config()) as run:
        resumed.read(run)
    assert (resumed.rows, resumed.ratios) == (results.rows, results.ratios)


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_with_the_parts_that_are_missing(tmp_path: Path) -> None:
    def measured(*arguments: str) -> str:
        command = [sys.executable, "scripts/benchmark.py", "--quick", "--out", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def written() -> list[list[str]]:
        with open(tmp_path / "benchmark.csv", newline="") as file:
            return list(csv.reader(file))

    measured("--parts", "tsm")
    tsm = written()
    assert "tsm is measured already" in measured("--resume", "--parts", "tsm", "training")
    both = written()
    assert both[: len(tsm)] == tsm
    assert {row[0] for row in both[len(tsm) :]} == {"training"}
    measured("--resume", "--parts", "tsm", "training")
    assert written() == both


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    bank = FeatureBank(Recognizer.from_pretrained("roaming-fashion"), RoamingFashion("train", num_videos=2))
    bank.build()
    return bank


def test_a_table_that_is_searched_leaves_the_full_one_as_it_is(bank: FeatureBank) -> None:
    lazy = never_known_to_be_full(bank)
    assert (lazy._full, bank._full) == (False, True)
    assert lazy._local_gates is bank._local_gates


@pytest.mark.parametrize("patches", [2, 49])
def test_the_floor_takes_the_steps_of_the_reference_procedure(bank: FeatureBank, patches: int) -> None:
    """Both end in the same hidden states."""
    floor = Floor(bank, 3, patches)
    steps = bank.videos.num_frames
    rows = [next(floor._rows) for _ in range(steps)]  # of the first videos of every lane
    index = (rows[0][0] - 1) // steps
    reference = ReferenceProcedure(bank.recognizer, bank.videos.frames(index), bank.videos.labels[index], bank.corners)
    for _ in range(3 * steps):
        next(floor._rows)  # the rows come again after four episodes
    for frame, patch in rows:
        floor.step(glance=True)
        chosen = (patch[:, 0] - 1) % len(bank.corners)
        reference.step(chosen, chosen)
        assert torch.equal(floor._maps, bank._maps[frame])
    # The reference procedure resizes to fractions of grey levels.
    torch.testing.assert_close(floor._hidden, reference._hidden[0], rtol=0, atol=0.03)


@pytest.mark.parametrize(("videos", "frames"), [(16, 16), (16, 8), (6, 4)])
def test_staggered_thresholds_let_equally_many_videos_go_after_every_frame(videos: int, frames: int) -> None:
    confidences = np.random.default_rng(videos + frames).random((videos, frames))
    thresholds = staggered_thresholds(confidences)
    last = (confidences >= thresholds).argmax(axis=1)
    left = np.bincount(last, minlength=frames).cumsum()
    np.testing.assert_allclose(left, np.arange(1, frames + 1) * videos / frames, atol=0.5)
    assert ((confidences >= thresholds).any(axis=1)).all()


def test_the_cost_of_a_step_is_measured_along_every_axis(tmp_path: Path) -> None:
    small = Size(2, 2, 2, 4)
    axes = {"lanes": (small, replace(small, lanes=3)), "frames T": (small, replace(small, frames=3))}
    rows = measure_growth(Results(seconds=0.02, repeats=1), axes)
    found = [(row["axis"], row["size"], row["baseline"]) for row in rows]
    wanted = [("lanes", 2), ("lanes", 3), ("frames T", 2), ("frames T", 3)]
    assert found == [(*place, baseline) for place in wanted for baseline in ("sample", "exact")]
    assert all(row["microseconds"] > 0 for row in rows)
    draw_growth(tmp_path / "growth.png", rows)
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize(("capability", "measured"), [("AVX2", False), ("AVX512", True)])
def test_bfloat16_is_measured_where_the_hardware_has_it(
    capability: str, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert scales_for("cpu")["paper"].bfloat16 == measured
    assert scales_for("cuda", quick=True)["paper"].bfloat16
