"""What a kill may cost, piece by piece: a bank's counters, a run's metrics, a folder's lock."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from adafocus_env import FeatureBank, Recognizer, RoamingFashion
from adafocus_env.features import bank_file
from adafocus_env.files import UNFINISHED
from adafocus_env.run_folder import RunFolder, read_metrics


def counters(path: Path) -> list[int]:
    return torch.frombuffer(bytearray(path.read_bytes()[4096:4112]), dtype=torch.int64).tolist()


def test_the_counters_on_the_disk_are_never_five_seconds_old(
    recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    bank.patches_per_cut = 16
    now, counted = 0.0, []
    monkeypatch.setattr(bank_file.time, "monotonic", lambda: now)
    bank._file._synced_at = now  # type: ignore[union-attr]
    fill = bank._insert_patches

    def insert(keys: torch.Tensor, gates: torch.Tensor) -> None:
        nonlocal now
        now += 0.9
        fill(keys, gates)
        counted.append((now, bank._filled[1].item(), counters(tmp_path / "bank")[1]))

    monkeypatch.setattr(bank, "_insert_patches", insert)
    bank.build()
    assert len(counted) > 20
    for time, _, on_disk in counted:
        earlier = [filled for before, filled, _ in counted if before <= time - 5]
        assert on_disk >= max(earlier, default=0)


def test_a_build_that_goes_on_starts_where_the_work_stands_and_ends_alike(
    recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    whole = FeatureBank(recognizer, videos, 4, path=tmp_path / "whole")
    whole.build()
    whole.close()
    bank = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    assert bank.bar(bank.unfinished(4), False).n == 0
    frames = bank.load(torch.arange(4))
    bank.ensure_videos(torch.arange(4), frames.__getitem__)
    keys = torch.arange(4 * bank.num_steps * 16)
    bank._ensure_patches(keys, lambda at, corners: bank._cut(recognizer.units(frames), at, corners))
    assert bank.bar(bank.unfinished(4), False).n == 4
    bank.build()
    bank.close()
    assert (tmp_path / "bank").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_what_is_remembered_does_not_depend_on_what_else_was_asked_for(count: int) -> None:
    recognizer = Recognizer.from_pretrained("roaming-fashion")
    videos = RoamingFashion("val", num_videos=4)
    whole, parts = FeatureBank(recognizer, videos), FeatureBank(recognizer, videos)
    whole.build()
    frames = parts.load(torch.tensor([2]))
    units = recognizer.units(frames)
    parts.ensure_videos(torch.tensor([2]), frames.__getitem__)
    first = 2 * parts.num_steps * 49
    for keys in torch.arange(first, first + 15).split(count):
        unit = (keys - first) // 49
        parts._ensure_patches(keys, lambda at, corners, unit=unit: recognizer.cut(units, corners, unit[at]))
    of = [bank._local_gates[bank._patch_row[first : first + 15].long()] for bank in (whole, parts)]
    assert torch.equal(*of)


@dataclass
class Config:
    seed: int = 0


def rows(path: Path) -> list[list[str]]:
    with open(path / "metrics.csv", newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_run_without_metrics_leaves_no_logs(tmp_path: Path) -> None:
    for append in (False, True):
        with RunFolder(tmp_path, Config(), append=append):
            pass
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["config.json"]
    assert read_metrics(tmp_path) == []
    with RunFolder(tmp_path, Config(), append=True) as run:
        run.log("val", 0, {"accuracy": 1.0})
    assert rows(tmp_path) == [["val", "0", "accuracy", "1.0"]]
    assert list((tmp_path / "tensorboard").iterdir())


def test_what_a_resumed_run_measures_again_replaces_what_came_after(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config()) as run:
        for step in range(4):
            run.log("train", step, {"loss": step + 0.5, "accuracy": 0.25})
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("train,4,lo")  # half a line, as a full disk leaves it
    (tmp_path / f".policy.pt.x{UNFINISHED}").write_text("half a policy")
    with RunFolder(tmp_path, Config(), append=True) as run:
        assert len(rows(tmp_path)) == 8
        run.log("train", 2, {"loss": 2.5, "accuracy": 0.25})
        run.log("val", 0, {"accuracy": 1.0})
    kept = [["train", str(step), *pair] for step in range(3) for pair in (("loss", f"{step}.5"), ("accuracy", "0.25"))]
    assert rows(tmp_path) == [*kept, ["val", "0", "accuracy", "1.0"]]
    assert not list(tmp_path.glob(f".*{UNFINISHED}"))
    with RunFolder(tmp_path, Config()):
        assert rows(tmp_path) == []


def test_a_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config(1)):
        pass
    with RunFolder(tmp_path, Config(1), append=True, may_change=()):
        pass
    with pytest.raises(ValueError, match=r"--resume: .*config\.json has another seed"):
        RunFolder(tmp_path, Config(2), append=True, may_change=("out",))
    with RunFolder(tmp_path, Config(2), append=True, may_change=("seed",)):
        pass
    (tmp_path / "config.json").write_text('{"of": "another script"}')
    with RunFolder(tmp_path, Config(3), may_change=()):  # a new run
        pass


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config()) as run:
        run.log("train", 0, {"loss": 1.0})
        with pytest.raises(BlockingIOError, match=f"another run is writing to {tmp_path}"):
            RunFolder(tmp_path, Config(1))
    assert len(rows(tmp_path)) == 1
    with RunFolder(tmp_path, Config(1)):
        pass
