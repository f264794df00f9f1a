from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.experiments.provenance import Provenance, changes, commit_of, fingerprint, read_overrides, sources_of
from scripts import record

ROOT = Path(__file__).parent.parent


def files(root: Path, **texts: str) -> Path:
    """Write files, whose names have __ for / and no suffix, into a repository."""
    for name, text in texts.items():
        path = root / (name.replace("__", "/") + (".pyi" if name.endswith("stub") else ".py"))
        path = path.with_name(path.name.replace("stub", "__init__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("adafocus_env", "agents"):
        (root / package).mkdir(exist_ok=True)
        if not (root / package / "__init__.py").exists():
            (root / package / "__init__.py").write_text("")
    return root


def test_all_that_a_script_imports_matters_and_nothing_else(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        scripts__run="from agents import Learner\ndef main():\n    import adafocus_env.rules\n",
        agents__stub="from agents.learner import Learner as Learner\nfrom agents.other import Other as Other\n",
        agents__learner="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import agents.types_only\n"
        "from agents import deep\n",
        agents__deep="NAME = 'adafocus_env.made:ByName'\nimport numpy, agents_of_others\n",
        agents__other="",
        agents__types_only="",
        adafocus_env__rules="",
        adafocus_env__made="",
    )
    (root / "weights").write_bytes(b"1")
    found = sources_of(root, "scripts/run.py", ["weights"])
    packages = {"agents/__init__.py", "adafocus_env/__init__.py"}
    modules = {"agents/learner.py", "agents/deep.py", "adafocus_env/rules.py", "adafocus_env/made.py"}
    assert found.keys() == {"scripts/run.py", "weights"} | packages | modules
    with pytest.raises(FileNotFoundError):
        sources_of(root, "scripts/run.py", ["nothing"])


def test_the_comparison_depends_on_the_rules_of_the_environment() -> None:
    """Which its script reaches through lazy packages and Gymnasium's registry alone."""
    found = sources_of(ROOT, "scripts/compare_algorithms.py")
    assert found.keys() > {"adafocus_env/environments/dynamics.py", "agents/soft_targets.py", "agents/agent.py"}
    assert "scripts/watch.py" not in found


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other words."""\nx = 1\n\n\ndef f():\n    return x\n', True),
        ("x = 1  # why\ndef f():\n    # a comment\n    return x\n", True),
        ("x = 1\ndef f():\n    '''A docstring.\n\n    Of more lines.'''\n    return x\n", True),
        ("x = 2\ndef f():\n    return x\n", False),
        ("x = 1\ndef f(y=2): 'A docstring.'\n", False),
        ("x = 1\ndef f():\n    return '# x'\n", False),
        ("x = 1\ndef f():\n    pass\nreturn_ = x\n", False),
    ],
)
def test_comments_and_docstrings_do_not_matter(text: str, same: bool, tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("x = 1\ndef f():\n    return x\n")
    other.write_text(text)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_changes_and_overrides(tmp_path: Path) -> None:
    recorded, now = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    assert changes(recorded, now, {}) == {"b": "2", "c": "gone", "d": "1"}
    path = tmp_path / "overrides.toml"
    assert read_overrides(path) == {}
    path.write_text('[[same]]\nfile = "b"\nfingerprint = "2"\nreason = "a message\'s wording"\n')
    assert changes(recorded, now, read_overrides(path)) == {"c": "gone", "d": "1"}
    assert changes(recorded, {**recorded, "b": "3"}, read_overrides(path)) == {"b": "3"}  # changed again since
    path.write_text('[[same]]\nfile = "b"\nfingerprint = "2"\nreason = " "\n')
    with pytest.raises(ValueError, match="needs file, fingerprint and reason"):
        read_overrides(path)


def test_results_are_of_a_commit(tmp_path: Path) -> None:
    paths = ["scripts/run.py"]
    with pytest.raises(ValueError, match="no git checkout"):
        commit_of(tmp_path, paths)
    files(tmp_path, scripts__run="x = 1\n", scripts__other="x = 1\n")

    commit(tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert commit_of(tmp_path, paths) == head.stdout.strip()
    (tmp_path / "scripts" / "other.py").write_text("x = 2\n")  # such as results of another experiment
    assert commit_of(tmp_path, paths)
    (tmp_path / "scripts" / "run.py").write_text("x = 2\n")
    with pytest.raises(ValueError, match=r"commit scripts/run\.py first"):
        commit_of(tmp_path, paths)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Provenance.load(tmp_path) is None
    written = Provenance(["scripts/run.py"], "c0", "2020-01-01", "a machine", {"torch": "2"}, 1.5, {"a": "1"})
    written.save(tmp_path)
    assert Provenance.load(tmp_path) == written
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a record"):
        Provenance.load(tmp_path)


# ------------------------------------------------------------------------------------------------------- scripts/record


COUNT = """import sys
from pathlib import Path
from typing import Any
_, _, wanted, _, banks, _, out = sys.argv
folder = Path(out) / "three"
(folder / "evaluations").mkdir(parents=True, exist_ok=True)
(folder / "evaluations" / "private.csv").write_text("")
done = len(list(folder.glob("*.csv")))
(folder / f"{done}.csv").write_text("counted")
(folder / "nothing.json").write_text("")
sys.exit(done + 1 < int(wanted))
"""
"""Does one of several things at each call, and fails until it has done all."""


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small repository that scripts/record.py knows as its own, with one experiment."""
    root = files(tmp_path / "checkout", scripts__count=COUNT)
    commit(root)
    monkeypatch.setattr(record, "ROOT", root)
    experiment = record.Experiment(
        "count", 1, ("--wanted", "3"), data=(), shared=("banks",), folder="counts/three", ships={"2.csv": "shipped.csv"}
    )
    (root / "shipped.csv").write_text("from before")
    monkeypatch.setattr(record, "EXPERIMENTS", {"count": experiment})
    return root


def commit(root: Path) -> None:
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=N", "-c", "user.email=e@e", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)


def test_code_that_changes_meanwhile_is_noticed(checkout: Path, tmp_path: Path) -> None:
    source = checkout / "scripts" / "count.py"
    source.write_text(COUNT.replace("sys.exit", "open(__file__, 'a').write('x = 1')\nsys.exit"))
    commit(checkout)
    experiment = dataclasses.replace(record.EXPERIMENTS["count"], arguments=("--wanted", "1"), ships={})
    record.EXPERIMENTS["count"] = experiment
    with pytest.raises(ValueError, match="the sources of count have changed while it ran"):
        record.main(record.Config(docs=tmp_path / "docs", out=tmp_path / "out"))
    assert not (tmp_path / "docs").exists()


def test_an_experiment_that_fails_keeps_no_other_from_running(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    good = dataclasses.replace(record.EXPERIMENTS["count"], arguments=("--wanted", "1"), ships={}, folder=None)
    record.EXPERIMENTS["bad"] = dataclasses.replace(good, arguments=("--wanted", "9"))
    record.EXPERIMENTS["after"] = good
    del record.EXPERIMENTS["count"]
    with pytest.raises(ValueError, match="bad: bad ended with status 1"):
        record.main(record.Config(docs=tmp_path / "docs", out=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["after"]


def test_whatever_ends_the_record_ends_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    def interrupted(process: subprocess.Popen[bytes], **_: Any) -> int:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record.run_to_the_end([sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid.read_text()}").exists():
        state = Path(f"/proc/{pid.read_text()}/stat")
        if state.exists() and state.read_text().split()[2] == "Z":
            break
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_a_record_goes_on_is_published_once_and_knows_when_it_is_stale(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = record.Config(docs=tmp_path / "docs", out=tmp_path / "out")
    check = dataclasses.replace(config, check=True)
    with pytest.raises(ValueError, match="1 of 1 are not of this code"):
        record.main(check)
    for _ in range(2):
        with pytest.raises(ValueError, match="count: count ended with status 1; the same command goes on"):
            record.main(config)
    record.main(config)
    record.main(config)  # runs nothing: there would be a fourth file
    place = tmp_path / "docs" / "counts" / "three"
    assert sorted(path.name for path in place.rglob("*")) == ["0.csv", "1.csv", "2.csv", "record.json"]
    found = Provenance.load(place)
    assert found is not None
    assert found.command == ["scripts/count.py", "--wanted", "3"]
    assert found.seconds > 0
    assert found.sources.keys() == {"scripts/count.py"}
    record.main(check)
    assert (checkout / "shipped.csv").read_text() == "counted"
    (checkout / "shipped.csv").write_text("changed by hand")
    with pytest.raises(ValueError, match="not of this code"):
        record.main(check)
    (checkout / "shipped.csv").write_text("counted")
    (experiment,) = record.EXPERIMENTS.values()
    with monkeypatch.context() as patch:
        patch.setattr(record, "EXPERIMENTS", {"count": dataclasses.replace(experiment, arguments=("--wanted", "4"))})
        with pytest.raises(ValueError, match="not of this code"):
            record.main(check)

    source = checkout / "scripts" / "count.py"
    source.write_text(f"# a comment\n{COUNT}")
    record.main(check)
    source.write_text(f"{COUNT}sys.exit(0)\n")
    with pytest.raises(ValueError, match="not of this code"):
        record.main(check)
    with pytest.raises(ValueError, match=r"commit scripts/count\.py first"):
        record.main(config)
    (checkout / "docs").mkdir()
    entry = f'file = "scripts/count.py"\nfingerprint = "{fingerprint(source)}"\nreason = "never reached"\n'
    (checkout / record.OVERRIDES).write_text(f"[[same]]\n{entry}")
    record.main(check)


TRAIN = """import sys
from pathlib import Path
_, _, size, _, _, out = sys.argv
folder = Path(out)
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "metrics.csv", "a") as file:
    file.write(f"trained with {size}")
(folder / "made.safetensors").write_text(size)
"""
EVALUATE = """import sys
from pathlib import Path
_, _, out, option, path = sys.argv
tried = Path(out, "tried.json")
if not tried.exists():
    tried.write_text(option)
    sys.exit(1)
Path(out, "found.csv").write_text(Path(path).read_text())
"""


def test_a_recogniser_is_trained_once_for_an_experiment(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(checkout, scripts__train_recognizer=TRAIN, scripts__evaluate=EVALUATE)
    commit(checkout)
    experiment = record.Experiment("evaluate", 1, data=(), training=("--size", "40"), trained="--blind")
    monkeypatch.setattr(record, "EXPERIMENTS", {"smaller": experiment})
    config = record.Config(docs=tmp_path / "docs", out=tmp_path / "out")
    with pytest.raises(ValueError, match="smaller ended with status 1"):
        record.main(config)
    record.main(config)  # doesn't train again
    published = {
        path.relative_to(config.docs).as_posix(): path.read_text()
        for path in config.docs.rglob("*")
        if path.is_file() and path.name != "record.json"
    }
    assert published == {
        "smaller/found.csv": "40",
        "smaller/recognizer/metrics.csv": "trained with 40",
        "smaller/tried.json": "--blind",
    }
    found = Provenance.load(config.docs / "smaller")
    assert found is not None
    assert " ".join(found.command) == (
        "scripts/train_recognizer.py --size 40 && scripts/evaluate.py --blind recognizer"
    )
    assert found.sources.keys() == {"scripts/evaluate.py", "scripts/train_recognizer.py"}
    check = dataclasses.replace(config, check=True)
    record.main(check)
    files(checkout, scripts__train_recognizer=f"{TRAIN}sys.exit(0)\n")
    with pytest.raises(ValueError, match="not of this code"):
        record.main(check)


def test_results_without_a_record_are_accepted_where_it_is_said_why(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = record.Config(docs=tmp_path / "docs", check=True)
    overrides = checkout / record.OVERRIDES
    overrides.parent.mkdir()
    overrides.write_text('[[unrecorded]]\nfolder = "counts/three"\nreason = "counted by hand"\n')
    record.main(check)
    printed = capsys.readouterr().out
    assert "counts/three has no record: counted by hand" in printed
    assert "0 of 1 experiments are of this code" in printed
    overrides.write_text('[[unrecorded]]\nfolder = "counts/three"\nreason = " "\n')
    with pytest.raises(ValueError, match="needs folder and reason"):
        record.main(check)
    overrides.write_text('[[unrecorded]]\nfolder = "counts/four"\nreason = "counted by hand"\n')
    with pytest.raises(ValueError, match="1 of 1 are not of this code"):
        record.main(check)
    (tmp_path / "docs" / "counts" / "four").mkdir(parents=True)
    (tmp_path / "docs" / "counts" / "four" / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="counts/four has a record: remove the entry"):
        record.main(check)


def test_every_experiment_has_its_script_and_its_data() -> None:
    assert all(experiment.sources() for experiment in record.EXPERIMENTS.values())


def test_what_is_published_with_a_record_is_of_this_code() -> None:
    """Where it is not, the experiment has to run again, or docs/record_overrides.toml says why it need not."""
    states = {
        name: record.state_of(experiment, ROOT / "docs" / experiment.folder_of(name))
        for name, experiment in record.EXPERIMENTS.items()
    }
    recorded = {name: state for name, state in states.items() if state.published is not None}
    assert recorded
    assert not {name: state.changed for name, state in recorded.items() if not state.current}


def test_all_results_of_the_documents_have_a_record_or_it_is_said_why_not() -> None:
    recorded = {path.parent for path in (ROOT / "docs").rglob("record.json")}
    stated = {ROOT / "docs" / folder for folder in record.without_record(ROOT / "docs")}
    holders = {path.parent for path in (ROOT / "docs").rglob("*.csv")}
    assert all(any(folder.glob("*.csv")) for folder in stated)
    assert not {folder for folder in holders if not {folder, *folder.parents} & (recorded | stated)}
