"""The long comparisons of ways to save compute and of pipelines, from beginning to end in a rehearsal."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agents.experiments.algorithms import ALGORITHMS, starting_settings
from agents.experiments.report import read_csv
from agents.experiments.savings import OTHERS, OURS
from scripts import compare_compute, compare_pipelines
from scripts.tune import draw_settings


def files_in(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".npz")
    }


@pytest.mark.slow
def test_ways_to_save_compute_are_compared_and_go_on(tmp_path: Path) -> None:
    config = compare_compute.Config(quick=True, split="val", jobs=1, patch_sizes=(24, 32), out=tmp_path)
    compare_compute.main(config)
    compute, ratios = read_csv(tmp_path / "compute.csv"), read_csv(tmp_path / "ratios.csv")
    methods = {row["method"] for row in compute}
    assert methods >= {"AdaFocus+, 24²", "AdaFocus+, 32², with exit", "adaptive resolution, with exit"}
    assert methods >= {"AdaFocus+ with learned stopping, 24²", "AdaFocus+ with learned stopping for every price, 32²"}
    assert {row["seed"] for row in compute if row["method"] == "AdaFocus+, 24²"} == {"0", "1"}
    assert {row["method"] for row in ratios} | {row["other"] for row in ratios} == {*OURS, *OTHERS}
    assert len(ratios) == len(OURS) * len(OTHERS) * len(config.accuracies)
    assert all(bool(row["ratio"]) != bool(row["note"]) for row in ratios)  # a figure, or why there is none
    assert (tmp_path / "prices.csv").exists()
    made, found = files_in(tmp_path), (tmp_path / "compute.csv").read_bytes()
    (lost,) = (name for name in made if name.startswith("evaluations") and "no_skip,_0,_val" in name and "24" in name)
    (tmp_path / lost).unlink()
    compare_compute.main(config)
    again = files_in(tmp_path)
    assert {name for name in made if made[name] != again[name]} == {lost}
    assert (tmp_path / "compute.csv").read_bytes() == found


@pytest.mark.slow
def test_parts_of_a_comparison_are_joined_from_their_tables(tmp_path: Path) -> None:
    config = compare_compute.Config(
        quick=True, split="val", jobs=1, patch_sizes=(32,), seeds=(0,), out=tmp_path / "whole"
    )
    compare_compute.main(dataclasses.replace(config, parts=("whole_frames",)))
    compare_compute.main(dataclasses.replace(config, parts=("patches",), out=tmp_path / "patches"))
    tables = tuple(tmp_path / part / "compute.csv" for part in ("whole", "patches"))
    compare_compute.main(dataclasses.replace(config, parts=(), points=tables, out=tmp_path / "joined"))
    joined, parts = read_csv(tmp_path / "joined/compute.csv"), [row for table in tables for row in read_csv(table)]
    assert joined == parts
    ratios = read_csv(tmp_path / "joined/ratios.csv")
    assert {(row["method"], row["other"]) for row in ratios} == {(ours, other) for ours in OURS for other in OTHERS}


@pytest.mark.slow
def test_learning_rates_that_diverge_do_not_count(tmp_path: Path) -> None:
    config = compare_pipelines.Config(quick=True, split="val", factors=(0.5, 0.25, 1e30), out=tmp_path)
    compare_pipelines.main(config)
    rows = read_csv(tmp_path / "pipelines.csv")
    assert [row["pipeline"] for row in rows[:2]] == ["three stages", "one stage, equal visits"]
    assert (tmp_path / "one_stage_rates_x1e+30-0.diverged").read_text().startswith("end_to_end, step")
    made = files_in(tmp_path)
    assert made["one_stage_rates_x0.5-0.safetensors"] != made["one_stage_rates_x0.25-0.safetensors"]
    compare_pipelines.main(config)  # which tries nothing again
    assert files_in(tmp_path) == made
    with pytest.raises(ValueError, match="diverges with all of \\[1e"):
        compare_pipelines.main(compare_pipelines.Config(quick=True, split="val", factors=(1e30,), out=tmp_path))


@pytest.mark.parametrize("name", [name for name, algorithm in ALGORITHMS.items() if algorithm.search])
def test_tuning_tries_different_settings(name: str) -> None:
    algorithm = ALGORITHMS[name]
    start = starting_settings(algorithm)
    drawn = draw_settings(algorithm.search, start, 6, seed=0)
    tried = [{**start, **settings} for settings in drawn]
    assert len(drawn) == 6
    assert drawn[0] == {}
    assert all(one != other for place, one in enumerate(tried) for other in tried[:place])
