"""Figures of record: what a killed run has finished is not done again, and the tables are right."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adafocus_env import Recognizer, RoamingFashion
from adafocus_env.run_folder import RunFolder
from agents import Reinforce
from agents.experiments import record
from agents.experiments.record import Record


@dataclass
class Config:
    pass


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def make_record(folder: Path, recognizer: Recognizer, videos: RoamingFashion) -> Record:
    with RunFolder(folder, Config(), append=True) as run:
        made = Record(run, recognizer, "val", 0, videos=videos)
        made.add_references(skip=False)
        for seed in (0, 1):

            def learned(seed: int = seed) -> tuple[Reinforce, Recognizer]:
                return made.learn("patch", seed, 64, {}, videos=videos, skip=False), recognizer

            made.add("learned", seed, learned)
        made.write_results(("map", "focused"))
        made.write_claims(("learned", "not there"), (("learned", "random"), ("not there", "random")),
                          (("random", "learned"), ("learned", "not there")))  # fmt: skip
        made.write_steps(("learned", "random"))
    return made


def test_a_record_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, videos = (
        Recognizer.from_pretrained("roaming-fashion"),
        RoamingFashion("val", num_videos=16, num_frames=4),
    )
    made = make_record(tmp_path, recognizer, videos)
    rows, claims = read(tmp_path / "results.csv"), read(tmp_path / "claims.csv")
    assert [row["name"] for row in rows] == ["random", "centre", "Gaussian", "true location", "learned"]
    accuracies = [100 * result.accuracy for result in made.found["learned"]]
    assert rows[-1]["accuracy_per_seed"] == " ".join(f"{each:.2f}" for each in accuracies)
    assert float(rows[-1]["accuracy"]) == pytest.approx(sum(accuracies) / 2, abs=0.01)
    assert list(rows[0]) == ["name", "accuracy", "accuracy_per_seed", "map", "focused"]
    saved = "GFLOPs that random saves of learned, %"
    assert [claim["claim"] for claim in claims] == ["gap of learned", "learned - random, points", saved]
    share = 100 * (1 - made.mean("random", "gflops_per_video") / made.mean("learned", "gflops_per_video"))
    assert [float(claims[2][name]) for name in ("value", "low", "high")] == pytest.approx([share] * 3, abs=0.06)
    difference = 100 * (made.mean("learned") - made.mean("random"))
    assert float(claims[1]["value"]) == pytest.approx(difference, abs=0.01)
    assert float(claims[1]["low"]) <= difference <= float(claims[1]["high"])

    steps = {(row["name"], int(row["step"])): float(row["accuracy"]) for row in read(tmp_path / "steps.csv")}
    for name in ("learned", "random"):
        for step in range(4):
            each = [100 * result.accuracy_per_frame[step] for result in made.found[name]]
            assert steps[name, step + 1] == pytest.approx(sum(each) / len(each), abs=0.01)
    for step in range(1, 5):
        difference = steps["learned", step] - steps["random", step]
        assert steps["learned - random", step] == pytest.approx(difference, abs=0.02)

    def not_again(*arguments: Any, **kwargs: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(record, "evaluate", not_again)
    monkeypatch.setattr(Reinforce, "learn", not_again)
    make_record(tmp_path, recognizer, videos)
    assert (read(tmp_path / "results.csv"), read(tmp_path / "claims.csv")) == (rows, claims)
    (tmp_path / "evaluations" / "learned-1.npz").unlink()
    monkeypatch.undo()
    monkeypatch.setattr(Reinforce, "learn", not_again)  # the policy is still there
    make_record(tmp_path, recognizer, videos)
    assert read(tmp_path / "results.csv") == rows
