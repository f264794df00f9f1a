"""Run every experiment whose figures are published, or check that the published figures are of this code.

Run it in a checkout without changes. The plan is printed first. Each experiment keeps what it has done in its folder
under --out, so a killed record goes on; when it is complete, its tables and figures are copied to its folder under
docs/ with a record.json: commit, machine, versions, wall time, and fingerprints of all sources that matter. What is
there already for this code is not run again. python docs/generate.py then writes the figures into the documents.

    python scripts/record.py                     # everything, about a day on two cores
    python scripts/record.py --only benchmark    # one experiment
    python scripts/record.py --check             # is what is published of this code?
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_known, run_script

if TYPE_CHECKING:
    from agents.experiments.provenance import Provenance

ROOT = Path(__file__).resolve().parent.parent
POOL = "adafocus_env/videos/data/fashion_mnist.npz"
OVERRIDES = "docs/record_overrides.toml"
PUBLISHED = (".csv", ".md", ".png", ".json")
"""Kinds of files that are copied to the documents."""
PRIVATE = ("evaluations", "tensorboard", "settings.json", "metrics.csv", "config.json")
"""Folders and files of a run that are not."""
TRAINING = "scripts/train_recognizer.py"
TRAINED = "recognizer"
"""Folder of a recogniser that an experiment trains; its metrics are published."""


def weights(name: str) -> str:
    """Path of a shipped recogniser."""
    return f"adafocus_env/recognition/checkpoints/{name}.safetensors"


def policy(name: str) -> str:
    """Path of a shipped policy."""
    return f"agents/checkpoints/{name}.safetensors"


def shipped_policies(recognizer: str) -> list[str]:
    """Names of the policies that ship with a recogniser, which begin with its name."""
    return sorted(path.stem for path in (ROOT / "agents/checkpoints").glob(f"{recognizer}*.safetensors"))


@dataclass(frozen=True)
class Experiment:
    """A script, its arguments besides --out, and what else determines its results.

    Attributes:
        script: Its name.
        minutes: What it takes on two slow cores, roughly.
        arguments: Those that its results depend on.
        data: Paths of data files that matter.
        shared: Options for folders that several experiments share: ``"banks"``, ``"trials"``.
        training: Arguments of train_recognizer.py for a recogniser that is trained first, for this experiment alone.
        trained: Option by which the script is given that recogniser.
        folder: Folder of the results under docs/; by default the experiment's name. The script makes all but its first
            part.
        ships: Results that the package ships, by their names: their paths in it.
    """

    script: str
    minutes: float
    arguments: tuple[str, ...] = ()
    data: tuple[str, ...] = (POOL, weights("roaming-fashion"))
    shared: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    trained: str = "--recognizer"
    folder: str | None = None
    ships: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the script in the repository."""
        return f"scripts/{self.script}.py"

    @property
    def command(self) -> list[str]:
        """The script and the arguments that matter, after those of the training."""
        if not self.training:
            return [self.path, *self.arguments]
        return [TRAINING, *self.training, "&&", self.path, *self.arguments, self.trained, TRAINED]

    def sources(self) -> dict[str, str]:
        """Fingerprints of all files that its results depend on, by their paths in the repository."""
        from agents.experiments.provenance import sources_of

        found = sources_of(ROOT, self.path, self.data)
        return {**sources_of(ROOT, TRAINING), **found} if self.training else found

    def folder_of(self, name: str) -> str:
        """The folder of its results, given its name."""
        return self.folder or name

    @property
    def on_gpu(self) -> bool:
        """Whether it needs a GPU."""
        return "cuda" in self.arguments


FINAL = ("--split", "final")
TRIALS = ("banks", "trials")
SHORT = (
    "--factors", "1", "2", "3", "--stage0.global-steps", "1500", "--stage0.local-steps", "1500",
    "--stage1.steps", "1200",
)  # fmt: skip
"""Training of recognisers that takes minutes, to compare ways to train them."""
TUNED = "agents/experiments/tuned.json"
ABLATIONS = (
    "ingredients", "reward", "baseline", "policy", "gamma", "observation", "skipping", "stopping", "candidates",
    "frames", "stages", "recipe",
)  # fmt: skip
COMPUTE = tuple(f"docs/compute_{part}/compute.csv" for part in ("whole_frames", "patch32"))
"""Points of the parts of the comparison of compute, which take hours each."""
SPEED = (POOL, weights("roaming-fashion"), policy("roaming-fashion"))
EXPERIMENTS: dict[str, Experiment] = {
    "cost_table": Experiment("cost_table", 2, data=()),
    "quickstart": Experiment("quickstart", 8),
    **{
        f"shipped_{name}": Experiment(
            "evaluate",
            5,
            ("--recognizer", name, *FINAL),
            (POOL, weights(name), *map(policy, shipped_policies(name))),
        )
        for name in ("roaming-fashion", "roaming-motion", "still-fashion")
    },
    "tune": Experiment("tune", 60, shared=TRIALS, ships={"tuned.json": TUNED}),
    "compare_algorithms": Experiment(
        "compare_algorithms",
        120,
        FINAL,
        (
            POOL,
            weights("roaming-fashion"),
            TUNED,
            policy("roaming-fashion"),
        ),
        shared=TRIALS,
    ),
    "reproduce_results": Experiment("reproduce_results", 60, FINAL, shared=("banks",)),
    **{
        f"ablate_{name}": Experiment(
            "ablate", 40, ("--ablations", name, *FINAL), shared=TRIALS, folder=f"ablate/{name}"
        )
        for name in ABLATIONS
    },
    "reproduce_stills": Experiment("reproduce_stills", 20, FINAL, (POOL, weights("still-fashion"))),
    "reproduce_motion": Experiment("reproduce_motion", 45, FINAL, (POOL, weights("roaming-motion"))),
    "order_blind": Experiment(
        "reproduce_motion",
        25,
        ("--seeds", "--no-soft-targets", *FINAL),
        (POOL, weights("roaming-motion"), weights("roaming-fashion")),
        training=("--preset", "roaming-motion", "--no-shift"),
        trained="--order-blind",
    ),
    "compare_pipelines": Experiment(
        "compare_pipelines",
        120,
        (*FINAL, *SHORT),
        (POOL,),
    ),
    "compute_whole_frames": Experiment("compare_compute", 140, ("--parts", "whole_frames", *FINAL)),
    "compute_patch32": Experiment("compare_compute", 100, ("--parts", "patches", "--patch-sizes", "32", *FINAL)),
    "compute_glance40": Experiment(
        "compare_compute",
        130,
        ("--parts", "patches", "--patch-sizes", "32", "--seeds", "0", *FINAL),
        (POOL,),
        training=("--glance-size", "40"),
    ),
    "compare_compute": Experiment("compare_compute", 1, ("--parts", *FINAL, "--points", *COMPUTE), (POOL, *COMPUTE)),
    "benchmark": Experiment("benchmark", 60, ("--resume",), SPEED),
    "benchmark_gpu": Experiment("benchmark", 7, ("--resume", "--device", "cuda", "--seconds", "1"), SPEED),
}
"""Everything that is published, in the order in which it runs."""


@dataclass
class Config:
    only: tuple[str, ...] = ()
    """Experiments to run or to check; by default all."""
    check: bool = False
    """Run nothing; fail if something published is missing or of other code."""
    seed: int = 0
    """Not used: the experiments' seeds are their own."""
    docs: Path = ROOT / "docs"
    """Folder of the published results."""
    out: Path = Path("runs/record")
    """Folder of the experiments' own folders, one for each state of their sources, and of feature banks and trials."""


class State(NamedTuple):
    """How an experiment's published results relate to this code."""

    published: Provenance | None
    changed: Mapping[str, str]
    """What differs from today: files with their present fingerprints, and the command."""
    unrecorded: str = ""
    """Why there is no record, where :data:`OVERRIDES` says so."""

    @property
    def current(self) -> bool:
        return self.published is not None and not self.changed

    def __str__(self) -> str:
        if self.unrecorded:
            return "without a record, as stated"
        if self.published is None:
            return "missing"
        if not self.changed:
            return f"of this code ({self.published.date[:10]})"
        return f"of other code: {len(self.changed)} of {len(self.published.sources)} sources and arguments changed"


def without_record(docs: Path) -> dict[str, str]:
    """Folders of results that are shown although no record says what code they are of, with the reasons.

    :data:`OVERRIDES` has a table for each: ``[[unrecorded]]`` with ``folder``, relative to the documents, and
    ``reason``. The documents say so where they show these figures.

    Args:
        docs: Folder of the published results.

    Raises:
        ValueError: An entry lacks one of the two, or is of a folder that has a record.
    """
    from agents.experiments.provenance import reasoned_entries

    found = {}
    for entry in reasoned_entries(ROOT / OVERRIDES, "unrecorded", ("folder",)):
        if (docs / entry["folder"] / "record.json").exists():
            raise ValueError(f"{OVERRIDES}: [[unrecorded]] folder {entry['folder']} has a record: remove the entry")
        found[entry["folder"]] = entry["reason"]
    return found


def state_of(experiment: Experiment, folder: Path, unrecorded: str = "") -> State:
    """Compare the results in a folder with the sources of today.

    Args:
        experiment: The experiment.
        folder: The folder.
        unrecorded: Why there is no record of them, where that is stated.
    """
    from agents.experiments.provenance import Provenance, changes, read_overrides

    published = Provenance.load(folder)
    if published is None:
        return State(None, {}, unrecorded)
    changed = changes(published.sources, experiment.sources(), read_overrides(ROOT / OVERRIDES))
    if [*published.command] != experiment.command:
        changed["the command"] = " ".join(experiment.command)
    for name, place in experiment.ships.items():
        if (folder / name).read_bytes() != (ROOT / place).read_bytes():
            changed[place] = f"not {name}"
    return State(published, changed)


def print_plan(states: Mapping[str, State]) -> None:
    """Print the experiments with their states and expected times."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The record")
    for heading in ("experiment", "published figures", "minutes"):
        table.add_column(heading, justify="right" if heading == "minutes" else "left")
    for name, state in states.items():
        minutes = state.published.seconds / 60 if state.published else EXPERIMENTS[name].minutes
        table.add_row(name, str(state), "" if state.current else f"{minutes:.0f}")
    Console(width=110).print(table)


def run(name: str, config: Config) -> None:
    """Run an experiment, or what is missing of it, and publish it.

    Raises:
        ChildProcessError: The script failed.
        ValueError: Its sources aren't of a commit, or have changed meanwhile.
    """
    import torch

    from adafocus_env.files import write_atomically
    from agents.experiments.provenance import Provenance, commit_of, digest, machine, training_code, versions

    experiment = EXPERIMENTS[name]
    results = Path(experiment.folder_of(name))
    sources = experiment.sources()
    commit = commit_of(ROOT, sources)
    # A folder for each state of the code and of the arguments, so that what others have done is left alone.
    folder = config.out / f"{name}-{digest({**training_code(sources), 'command': experiment.command})}"
    places = [word for option in experiment.shared for word in (f"--{option}", config.out / option)]
    command = [experiment.path, *experiment.arguments, *places, "--out", folder]
    folder.mkdir(parents=True, exist_ok=True)
    clock = folder.with_suffix(".seconds")  # of the runs before this one
    before, started = float(clock.read_text()) if clock.exists() else 0.0, time.perf_counter()
    try:
        if experiment.training:
            command += [experiment.trained, train(name, folder / TRAINED)]
        run_script_of(name, command)
    finally:
        write_atomically(clock, f"{before + time.perf_counter() - started:.3f}".encode())
    if experiment.sources() != sources:
        raise ValueError(
            f"the sources of {name} have changed while it ran, so its results are of no commit: run it again"
        )
    record = Provenance(
        command=experiment.command,
        commit=commit,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=f"{torch.cuda.get_device_name()}, {machine()}" if experiment.on_gpu else machine(),
        versions=versions(),
        seconds=float(clock.read_text()),
        sources=sources,
    )
    publish(folder.joinpath(*results.parts[1:]), config.docs / results, record)
    for name, place in experiment.ships.items():
        shutil.copyfile(config.docs / results / name, ROOT / place)


def train(name: str, folder: Path) -> Path:
    """Train the recogniser of an experiment, where its folder lacks it, and return its file.

    Raises:
        ChildProcessError: The script failed.
    """
    if not any(folder.glob("*.safetensors")):
        run_script_of(name, [TRAINING, *EXPERIMENTS[name].training, "--resume", "--out", folder])
    (path,) = folder.glob("*.safetensors")
    return path


def run_script_of(name: str, command: Sequence[str | Path]) -> None:
    """Run a script of an experiment, given by its path in the repository and its arguments.

    Raises:
        ChildProcessError: It failed.
    """
    print(f"[bold]{name}[/bold]: python {' '.join(map(str, command))}")
    if status := run_to_the_end([sys.executable, ROOT / command[0], *command[1:]]):
        raise ChildProcessError(f"{name} ended with status {status}; the same command goes on")


def run_to_the_end(command: Sequence[str | Path]) -> int:
    """Run a command and return its status. Whatever ends this program ends the command too, with all its processes."""
    with subprocess.Popen([str(word) for word in command], start_new_session=True) as process:
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def publish(folder: Path, place: Path, record: Provenance) -> None:
    """Copy the tables and figures of a finished run to the documents, with their record; what was there goes."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    for path in results_in(folder):
        copy = place / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    record.save(place)


def results_in(folder: Path) -> list[Path]:
    """The files of a run that are published; not those that are empty."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in PUBLISHED and path.stat().st_size and not private(path.relative_to(folder))
    ]


def private(path: Path) -> bool:
    """Whether a file of a run, by its path in the run's folder, is not published."""
    return bool({*path.parts} & {*PRIVATE}) and path != Path(TRAINED, "metrics.csv")


def main(config: Config) -> None:
    import torch

    if not (ROOT / ".git").exists():
        raise ValueError("the record is of a git checkout: clone the repository, and run it there")
    check_known("--only", config.only, EXPERIMENTS)
    names = [name for name in EXPERIMENTS if not config.only or name in config.only]
    folders = {name: EXPERIMENTS[name].folder_of(name) for name in names}
    unrecorded = without_record(config.docs)
    states = {
        name: state_of(EXPERIMENTS[name], config.docs / folder, unrecorded.get(folder, ""))
        for name, folder in folders.items()
    }
    print_plan(states)
    left = [name for name, state in states.items() if not state.current]
    if config.check:
        for folder, reason in unrecorded.items():
            print(f"{folder} has no record: {reason}")
        left = [name for name in left if not states[name].unrecorded]
        for name in left:
            for path, now in states[name].changed.items():
                print(f"{name}: {path} changed (now {now})")
        if left:
            raise ValueError(
                f"{len(left)} of {len(names)} are not of this code: run them, or say in {OVERRIDES} why a change of a "
                "file doesn't matter"
            )
        print(f"{sum(state.current for state in states.values())} of {len(names)} experiments are of this code.")
        return
    failed: dict[str, Exception] = {}
    for name in left:  # one that fails keeps no other from running
        if EXPERIMENTS[name].on_gpu and not torch.cuda.is_available():
            print(f"[bold]{name}[/bold] is left out: it needs a GPU")
            continue
        try:
            run(name, config)
        except (ChildProcessError, ValueError) as error:
            print(f"[bold red]{name}[/bold red]: {error}")
            failed[name] = error
    print("python docs/generate.py writes the figures into the documents.")
    if failed:
        raise ValueError("; ".join(f"{name}: {error}" for name, error in failed.items()))


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
