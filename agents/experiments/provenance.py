"""Where published figures come from: the sources that an experiment runs, its machine, and whether they have changed.

A results folder holds ``record.json``. A change matters if it is in a file that the experiment's script imports, at any
depth, and is more than comments and docstrings; or if it is in a data file that the experiment names. A reasoned
override says of a file's present state that its results are the same.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adafocus_env.files import write_atomically

RECORD = "record.json"
PACKAGES = ("adafocus_env", "agents")
LIBRARIES = ("torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib")
AFTERWARDS = frozenset(
    {
        "adafocus_env/command_line.py",
        "adafocus_env/environments/render.py",
        "adafocus_env/hub.py",
        "adafocus_env/progress.py",
        "adafocus_env/recognition/exported.py",
        "adafocus_env/recognition/exporting.py",
        "adafocus_env/recognition/official_checkpoint.py",
        "adafocus_env/recognition/official_policy.py",
        "adafocus_env/recognition/official_tsm.py",
        "adafocus_env/run_folder.py",
        "agents/experiments/compute.py",
        "agents/experiments/provenance.py",
        "agents/experiments/report.py",
        "agents/experiments/statistics.py",
        "agents/figures.py",
        "agents/intervals.py",
        "agents/report.py",
    }
)
"""Files that change nothing about what is kept of a run, such as policies and evaluations: they show, share or convert
it, or make tables of it, which is done anew in every run."""
_MODULE = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+(:\w+)?")


@dataclass(frozen=True)
class Provenance:
    """What ``record.json`` says of the results beside it.

    Attributes:
        command: The script and those of its arguments that its results depend on.
        commit: Commit of the sources.
        date: UTC, ISO 8601.
        machine: Processor, number of cores, memory, system.
        versions: Versions of Python and of the libraries that matter.
        seconds: Wall time, summed over all runs that a killed one went on in; without that of trials that other
            experiments had run already.
        sources: Fingerprint of every file that matters, by its path in the repository.
    """

    command: Sequence[str]
    commit: str
    date: str
    machine: str
    versions: Mapping[str, str]
    seconds: float
    sources: Mapping[str, str]

    def save(self, folder: Path) -> None:
        """Write ``record.json``, atomically."""
        write_atomically(folder / RECORD, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Provenance | None:
        """Read ``record.json``; ``None`` if there is none.

        Raises:
            ValueError: The file is not what :meth:`save` writes.
        """
        path = folder / RECORD
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a record of scripts/record.py: {error}") from None


# --------------------------------------------------------------------------------------------------------- sources


def sources_of(root: Path, script: str, data: Iterable[str] = ()) -> dict[str, str]:
    """Fingerprints of the files that determine what a script finds, by their paths in the repository.

    Args:
        root: The repository.
        script: Path of the script in it.
        data: Paths of data files in it, such as weights.

    Raises:
        FileNotFoundError: A file is missing.
    """
    known: set[str] = set()
    new = {script}
    while new:
        known |= new
        texts = [(root / path).read_text(encoding="utf-8") for path in new]
        new = {found for text in texts for found in _imported(root, text)} - known
    return {path: fingerprint(root / path) for path in sorted({*known, *data})}


def digest(facts: Mapping[str, Any]) -> str:
    """One fingerprint of fingerprints, arguments and the like."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def training_code(sources: Mapping[str, str]) -> dict[str, str]:
    """Those of :func:`sources_of` on which what a run keeps depends."""
    return {path: found for path, found in sources.items() if path not in AFTERWARDS}


@functools.cache
def code_of(file: str) -> str:
    """Fingerprint of all that a module or a script of the repository may run, given its ``__file__``, without what only
    comes :data:`AFTERWARDS`."""
    path = Path(file).resolve()
    root = next(folder for folder in path.parents if all((folder / package).is_dir() for package in PACKAGES))
    return digest(training_code(sources_of(root, path.relative_to(root).as_posix())))


def fingerprint(path: Path) -> str:
    """Hash of a file; of a Python file, without comments, docstrings and blank lines."""
    data = path.read_bytes()
    if path.suffix == ".py":
        data = _bare(data.decode()).encode()
    return hashlib.sha256(data).hexdigest()[:12]


@functools.lru_cache(maxsize=1024)  # experiments share most of their sources
def _bare(text: str) -> str:
    """Python source without comments, docstrings on lines of their own, blank lines and trailing spaces."""
    lines = text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, start = token.start
            lines[row - 1] = lines[row - 1][:start] + "\n"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            if lines[node.lineno - 1].lstrip().startswith(("'", '"', "r'", 'r"')):  # else code stands before it
                lines[node.lineno - 1 : node.end_lineno] = ["\n"] * (node.end_lineno - node.lineno + 1)
    return "\n".join(kept for line in lines if (kept := line.rstrip()))


@functools.lru_cache(maxsize=1024)
def _imported(root: Path, text: str) -> frozenset[str]:
    """Paths of the repository's modules that a source imports or names, wherever in it, except for type checkers."""
    found: set[str] = set()
    for node in _run(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _module_files(root, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found |= _files_of_name(root, node.module, alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            found |= _module_files(root, node.value.partition(":")[0])  # as Gymnasium's entry points
    return frozenset(found)


def _run(tree: ast.AST) -> Iterable[ast.AST]:
    """All nodes that can be run, without those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)


def _files_of_name(root: Path, module: str, name: str) -> set[str]:
    """Files that ``from module import name`` runs. Of a package whose stub lists its names, only the name's own."""
    if module.split(".")[0] not in PACKAGES:
        return set()
    if files := _module_files(root, f"{module}.{name}"):
        return files
    stub = root.joinpath(*module.split("."), "__init__.pyi")
    home = _homes(stub).get(name, module) if stub.exists() else module
    return _module_files(root, module) | _module_files(root, home)


@functools.cache
def _homes(stub: Path) -> dict[str, str]:
    """The module that each name in a package's stub comes from."""
    nodes = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{node.module}" for node in nodes for alias in node.names}


def _module_files(root: Path, module: str) -> set[str]:
    """Paths of a module and of the packages that it is in; empty if it is not of the repository's packages."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return set()
    file = root.joinpath(*parts).with_suffix(".py")
    if not file.exists() and not (file := root.joinpath(*parts, "__init__.py")).exists():
        return set()
    above = [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts))]
    return {str(path.relative_to(root).as_posix()) for path in (file, *above)}


# -------------------------------------------------------------------------------------------------------- overrides


def read_overrides(path: Path) -> dict[str, set[str]]:
    """States of files, as fingerprints, in which results of earlier states still hold, by path.

    The TOML file has a table for each: ``[[same]]`` with ``file``, ``fingerprint`` and ``reason``.

    Raises:
        ValueError: An entry lacks one of the three.
    """
    accepted: dict[str, set[str]] = {}
    for entry in reasoned_entries(path, "same", ("file", "fingerprint")):
        accepted.setdefault(entry["file"], set()).add(entry["fingerprint"])
    return accepted


def reasoned_entries(path: Path, kind: str, keys: Sequence[str]) -> list[dict[str, str]]:
    """The tables of one kind, ``[[kind]]``, of a TOML file, each with some keys and a ``reason``; none without a file.

    Raises:
        ValueError: An entry lacks a key or a reason, or has another key.
    """
    if not path.exists():
        return []
    entries: list[dict[str, str]] = tomllib.loads(path.read_text(encoding="utf-8")).get(kind, [])
    for entry in entries:
        if entry.keys() != {*keys, "reason"} or not entry["reason"].strip():
            raise ValueError(f"{path}: each [[{kind}]] needs {', '.join(keys)} and reason, not {entry}")
    return entries


def changes(recorded: Mapping[str, str], now: Mapping[str, str], accepted: Mapping[str, set[str]]) -> dict[str, str]:
    """Files whose change since the record may matter, each with its present fingerprint (``"gone"`` if it is)."""
    return {
        path: now.get(path, "gone")
        for path in sorted({*recorded, *now})
        if recorded.get(path) != now.get(path) and now.get(path, "gone") not in accepted.get(path, ())
    }


# ------------------------------------------------------------------------------------------------ machine and commit


def commit_of(root: Path, paths: Iterable[str]) -> str:
    """The commit that is checked out.

    Args:
        root: The repository.
        paths: Files that matter, relative to it.

    Raises:
        ValueError: Some of them aren't of that commit, so results would be of none; or there is no repository.
    """
    try:
        commit, changed = (
            subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *paths))
        )
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(f"{root.resolve()} is no git checkout, so results there would be of no commit") from None
    if changed:
        names = ", ".join(line.split()[-1] for line in changed.splitlines()[:5])
        raise ValueError(f"commit {names} first, so that results are of a commit")
    return commit


def machine() -> str:
    """Processor, number of cores, memory and system, in words."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    processor = model[1] if model else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    """Versions of Python and of the :data:`LIBRARIES` that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
