"""The console command: its overview, its programs, and that none of them imports what is heavy before it is used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agents.experiments.ablations import ABLATIONS
from agents.experiments.algorithms import ALGORITHMS
from scripts import __main__ as command
from tests.forked_scripts import ROOT, SCRIPTS

COMMANDS = {name: path for paths in command.scripts().values() for name, path in paths.items()}
HELP = """
import contextlib, io, json, sys
from pathlib import Path
from scripts import __main__ as command

light = [name for name in ("torch", "numpy", "gymnasium", "tyro") if name in sys.modules]
overview = command.overview()
light += [name for name in ("torch", "numpy", "gymnasium", "tyro") if name in sys.modules]
helps = {}

def run(name, path, *arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        command.run(Path(path), name, list(arguments))
    return said.getvalue()

for name in sys.argv[1:]:
    path = f"scripts/{name.replace('-', '_')}.py"
    by_command = run(name, path, "--help")
    command.NAME = "python"  # its first argument becomes the path of the script
    helps[name] = by_command, run(path, path, "--help")
    command.NAME = "adafocus"
heavy = ("torch", "torchvision", "matplotlib", "sklearn", "scipy", "stable_baselines3", "joblib", "av", "PIL", "tqdm")
print(json.dumps([light, overview, helps, [name for name in heavy if name in sys.modules]]))
"""


def ask_for_help(*names: str) -> Any:
    asked = [sys.executable, "-c", HELP, *names]
    return json.loads(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def said() -> Any:
    return ask_for_help(*sorted(COMMANDS))


def check_help(name: str, by_command: str, by_script: str) -> None:
    assert by_command.startswith(f"usage: adafocus {name} [-h]")
    assert "--seed" in by_command
    assert "--out" in by_command
    of_script = by_script.replace(f"python scripts/{name.replace('-', '_')}.py", f"adafocus {name}")
    assert [line.rstrip() for line in of_script.splitlines()] == [line.rstrip() for line in by_command.splitlines()]


def test_every_script_is_a_command_of_one_group() -> None:
    grouped = [name for names in command.GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(SCRIPTS) <= set(grouped), "add the script to GROUPS in scripts/__main__.py"
    assert {path.stem for path in COMMANDS.values()} == set(SCRIPTS)


def test_the_overview_says_what_each_command_does_and_imports_nothing(said: Any) -> None:
    light, overview, *_ = said
    assert not light
    words = " ".join(overview.split())
    for name, path in COMMANDS.items():
        summary = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        assert f"{name} {summary}" in words
    assert all(f"\n{group}:\n" in overview for group in command.GROUPS)


def test_no_help_imports_what_is_heavy(said: Any) -> None:
    assert not said[3]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_and_script_give_the_same_help(name: str, said: Any) -> None:
    check_help(name, *said[2][name])


def test_examples_are_lines_of_their_own(said: Any) -> None:
    lines = [line.strip() for line in said[2]["train-policy"][0].splitlines()]
    assert "adafocus train-policy --algo ppo" in lines
    assert "adafocus train-policy --train both" in lines
    assert "adafocus compare-algorithms --algorithms my_module:MyAgent reinforce ppo" in [
        line.strip() for line in said[2]["compare-algorithms"][0].splitlines()
    ]


@pytest.mark.parametrize(
    ("name", "known"), [("compare-algorithms", ALGORITHMS), ("train-policy", ALGORITHMS), ("ablate", ABLATIONS)]
)
def test_help_names_what_can_be_chosen(name: str, known: dict[str, Any], said: Any) -> None:
    words = said[2][name][0].replace(",", " ").replace(";", " ").split()
    assert set(known) <= set(words)


def test_an_unknown_command_is_answered_by_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adafocus", "trian-polcy"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "did you mean train-policy?" in said
    assert said.count("\n") == 1


def test_a_command_ends_as_its_script_does(tmp_path: Path) -> None:
    ends = []
    for start in ([sys.executable, "scripts", "make-image-pool"], [sys.executable, "scripts/make_image_pool.py"]):
        asked = [*start, "--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
        ends.append(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False))
    by_command, by_script = ends
    assert by_command.returncode == by_script.returncode == 1
    assert by_command.stderr.replace("adafocus make-image-pool:", "make_image_pool.py:") == by_script.stderr
    assert "nowhere" in by_script.stderr


@pytest.mark.slow
def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    asked = [sys.executable, "scripts", "--tyro-write-completion", "bash", str(script)]
    subprocess.run(asked, cwd=ROOT, check=True)
    words = "COMP_WORDS=(adafocus {}); COMP_CWORD={}; _tyro_adafocus; echo ${{COMPREPLY[@]}}"
    cases = {
        "train-po": "train-policy",
        "train-policy --tr": "--train",
        "train-policy --train sk": "skip",
        "ablate --abl": "--ablations",
    }
    lines = [f"source {script}", *(words.format(typed, len(typed.split())) for typed in cases)]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    assert found.splitlines() == list(cases.values())


def test_the_wheel_has_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent.relative_to(ROOT) for top in ("adafocus_env", "agents") for path in (ROOT / top).rglob("*.py")]
    assert set(listed) == {"adafocus", *(".".join(folder.parts) for folder in found)}
