"""What scripts do with wrong arguments, errors and signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from adafocus_env.command_line import EXPECTED_ERRORS, run_script
from tests.forked_scripts import SCRIPTS, ForkedScripts


@dataclass
class Config:
    out: Path = Path("somewhere")
    count: int = 1


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs a script's main function; gives the exit status."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def run(main: Callable[[Config], None], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["folder/script.py", *arguments])
        try:
            run_script(main, Config, "A script.", resume="--resume goes on in {out}")
        except SystemExit as end:
            return int(str(end.code))
        return 0

    yield run
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


def raising(error: BaseException) -> Callable[[Config], None]:
    def main(config: Config) -> None:
        raise error

    return main


def test_arguments_arrive(run: Callable[..., int]) -> None:
    seen = []
    assert run(seen.append, "--count", "3") == 0
    assert seen == [Config(count=3)]


@pytest.mark.parametrize("kind", [*EXPECTED_ERRORS, torch.OutOfMemoryError])
def test_an_expected_error_is_one_line(kind: type[Exception], run: Callable[..., int], capsys: object) -> None:
    assert run(raising(kind("the file\nis not there"))) == 1
    assert capsys.readouterr().err == "script.py: the file is not there\n"  # type: ignore[attr-defined]


def test_an_error_of_the_system_names_the_file(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda config: open("/not/there").close()) == 1
    assert capsys.readouterr().err == "script.py: [Errno 2] No such file or directory: '/not/there'\n"


def test_an_error_without_words_says_its_name(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(MemoryError())) == 1
    assert capsys.readouterr().err == "script.py: MemoryError\n"


@pytest.mark.parametrize("kind", [TypeError, AttributeError, AssertionError, KeyError, RuntimeError, ZeroDivisionError])
def test_a_fault_of_the_code_keeps_its_traceback(kind: type[Exception], run: Callable[..., int]) -> None:
    with pytest.raises(kind):
        run(raising(kind("a fault")))


def test_developers_see_the_traceback(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFOCUS_TRACEBACK", "1")
    assert run(raising(ValueError("a wrong value"))) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "in main" in said
    assert said.endswith("script.py: a wrong value\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("consequence", [None, RuntimeError("Connection closed by peer")])
def test_a_signal_ends_with_how_to_go_on(
    number: signal.Signals, consequence: Exception | None, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_order = []

    def main(config: Config) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)  # a second one doesn't get in the way
            put_in_order.append(True)
            if consequence is not None:
                raise consequence

    assert run(main, "--out", "runs/{x}") == 128 + number
    assert put_in_order
    assert capsys.readouterr().err == f"script.py: stopped by {number.name}: --resume goes on in runs/{{x}}\n"


def test_of_several_processes_one_speaks_of_a_signal(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run(lambda config: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ every script's own

WRONG: dict[str, tuple[tuple[str, ...], ...]] = {
    "ablate": (("--ablations", "nothing"), ("--videos", "nowhere.toml"), ("--recognizer", "nowhere.safetensors")),
    "benchmark": (("--device", "nothing"),),
    "build_feature_bank": (
        ("--videos", "nowhere.toml"), ("--recognizer", "nowhere"), ("--grid", "0"), ("--split", "nothing"),
        ("--out", "{file}"), ("--device", "nothing"),
    ),
    "compare_algorithms": (
        ("--algorithms", "nothing"), ("--tuned", "{file}"), ("--videos", "nothing"), ("--scheduler", "localhost:1"),
    ),
    "compare_compute": (("--out", "{file}"), ("--split", "nothing")),
    "compare_pipelines": (("--out", "{file}"), ("--split", "nothing"), ("--seeds", "0")),
    "cost_table": (("--frames", "0"),),
    "evaluate": (
        ("--policies", "nowhere.pt"), ("--policies", "{file}"), ("--bank", "nowhere"), ("--bank", "{file}"),
        ("--split", "nothing"), ("--out", "{file}"), ("--looks", "0"), ("--glance-cost", "0.1"),
        ("--recognizer", "roaming-motion", "--looks", "2"),
    ),
    "extract_frames": ((), ("{file}", "nowhere.txt", "--num-classes", "3"), ("--check", "nowhere.toml")),
    "finetune": (
        ("--policy", "nowhere.pt"), ("--recognizer", "{file}"), ("--device", "nothing"), ("--looks", "0"),
        ("--recognizer", "roaming-motion", "--looks", "2"), ("--skip-cost", "0.1"), ("--recipe", "nothing"),
    ),
    "import_checkpoint": (("nowhere.pth.tar",), ("{file}",)),
    "make_image_pool": (("--source", "nowhere"),),
    "quickstart": (("--out", "{file}"), ("--quick", "--out", "{file}/folder")),
    "render": (("--policy", "nowhere.pt"), ("--indices", "100000"), ("--out", "{file}"), ("--recognizer", "{file}"),
               ("--glance-cost", "0.1")),
    "record": (("--only", "nothing"), ("--check", "--docs", "nowhere")),
    "reproduce_motion": (("--recognizer", "nowhere"), ("--split", "nothing")),
    "reproduce_results": (("--split", "nothing"),),
    "reproduce_stills": (("--pictures", "0"), ("--looks", "0"), ("--split", "nothing")),
    "train_end_to_end": (
        ("--preset", "nothing"), ("--videos", "nowhere.toml"), ("--start-from", "{file}"), ("--device", "nothing"),
    ),
    "train_policy": (
        ("--algo", "nothing"), ("--videos", "nowhere.toml"), ("--num-envs", "0"), ("--reward", "nothing"),
        ("--bank", "nowhere"), ("--bank", "{file}"), ("--train", "skip", "--algo", "ppo"), ("--skip-cost", "-1"),
        ("--train", "skip", "--patch-policy", "center"), ("--train", "skip", "--glance-cost", "0.01"),
        ("--recognizer", "roaming-motion", "--train", "both"),
        ("--algo", "ppo", "--resume", "--out", "{folder}"), ("--episodes", "0"), ("--out", "{file}"),
        ("--train", "both", "--patch-policy", "roaming-fashion"),
        ("--looks", "0"), ("--recognizer", "roaming-motion", "--looks", "2"), ("--skip-cost", "0.003", "0.06"),
        ("--action", "continuous"), ("--recognizer", "roaming-motion", "--algo", "dqn", "--action", "continuous"),
    ),
    "train_recognizer": (
        ("--preset", "nothing"), ("--videos", "nowhere.toml"), ("--patch-size", "0"), ("--device", "cuda:99"),
        ("--preset", "roaming-motion", "--hidden-size", "64"), ("--preset", "roaming-motion", "--looks", "2"),
        ("--no-shift",),
        ("--global-backbone", "nothing"), ("--hidden-size", "-1"), ("--glance-size", "0"),
        ("--looks", "0"),
    ),
    "watch": (
        (), ("nowhere.mp4",), ("{file}",), ("{folder}",), ("87",), ("nowhere.mp4", "--demo"),
        ("--demo", "--policy", "nowhere.pt"), ("--demo", "--policy", "center", "center"), ("--demo", "--frames", "0"),
        ("--demo", "--policy", "oracle"), ("--demo", "--recognizer", "nowhere"), ("--demo", "--classes", "{file}"),
        ("--demo", "--exit-threshold", "0"), ("--demo", "--recognizer", "roaming-motion", "--exit-threshold", "0.9"),
        ("--demo", "--device", "nothing"), ("--demo", "--out", "{file}"), ("--demo", "--every", "2"),
        ("--demo", "--stride", "4"), ("--demo", "--skip-cost", "0.1"),
    ),
    "tune": (("--algorithms", "nothing"), ("--videos", "nothing"), ("--settings", "0")),
}  # fmt: skip
"""Values that a script refuses by a sentence of its own."""


REFUSED_EARLY = [
    ("finetune", "--stage3.optimizer", "adam"), ("finetune", "--stage3.epochs", "-1"),
    ("train_recognizer", "--stage0.videos-per-step", "0"), ("train_recognizer", "--stage0.global-steps", "-1"),
    ("train_recognizer", "--stage0.learning-rate", "nan"), ("train_recognizer", "--stage0.covered", "1.5"),
    ("train_recognizer", "--stage1.epochs", "-2"), ("train_recognizer", "--stage1.precision", "float8"),
    ("train_recognizer", "--stage1.weight-decay", "inf"), ("train_policy", "--train", "everything"),
    ("train_end_to_end", "--end-to-end.random-share", "2"), ("compare_compute", "--patches.steps", "5"),
    ("compare_compute", "--whole-frames.precision", "bfloat16"),
    ("build_feature_bank", "--dtype", "int8"), ("extract_frames", "--decode", "some"), ("evaluate", "--no-such", "3"),
]  # fmt: skip
"""What is wrong with a command line before anything is looked at."""


@pytest.mark.parametrize(("name", "option", "value"), [*((name, "--seed", "x") for name in SCRIPTS), *REFUSED_EARLY])
def test_a_wrong_type_ends_with_status_2(
    name: str, option: str, value: str, scripts: ForkedScripts, tmp_path: Path
) -> None:
    found = scripts.run(name, option, value, log=tmp_path / "log")
    assert found.status == 2
    assert "Traceback" not in found.errors


@pytest.mark.parametrize(
    ("name", "arguments"),
    [pytest.param(name, case, id=f"{name} {' '.join(case)}") for name in SCRIPTS for case in WRONG[name]],
)
def test_a_wrong_value_is_one_line_and_status_1(
    name: str, arguments: tuple[str, ...], scripts: ForkedScripts, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("nothing of interest")
    (tmp_path / "folder").mkdir()
    places = {"file": tmp_path / "file", "folder": tmp_path / "folder"}
    out = () if "--out" in arguments else ("--out", tmp_path / "out")
    banks = ("--banks", tmp_path / "banks") if name in ("ablate", "compare_algorithms", "tune") else ()
    found = scripts.run(name, *(each.format(**places) for each in arguments), *out, *banks, log=tmp_path / "log")
    assert "Traceback" not in found.errors
    assert found.status == 1, found.errors
    assert found.message.startswith(f"{name}.py: ")
    assert (tmp_path / "file").read_text() == "nothing of interest"
