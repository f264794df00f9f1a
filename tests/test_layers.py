"""Packages are layered: each knows only those below it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {
    "adafocus_env/videos": ("adafocus_env.recognition", "adafocus_env.features", "adafocus_env.environments", "agents"),
    "adafocus_env/recognition": ("adafocus_env.features", "adafocus_env.environments", "agents"),
    "adafocus_env/features": ("adafocus_env.environments", "agents"),
    "adafocus_env": ("agents", "scripts"),
    "agents": ("scripts",),
}
"""A package, and what it must not import."""


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path} imports relatively"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def circle_in(known: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one also last; empty if there are none."""
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", ABOVE)
def test_packages_know_only_what_is_below(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            above = [other for other in ABOVE[package] if name == other or name.startswith(f"{other}.")]
            assert not above, f"{path} imports {name}"


def test_no_modules_import_each_other() -> None:
    """Not in longer circles either, nor for type checkers alone, nor inside functions."""
    paths = [path for package in ("adafocus_env", "agents") for path in (ROOT / package).rglob("*.py")]
    imports = {".".join(path.relative_to(ROOT).with_suffix("").parts): imported(path) for path in paths}
    imports = {name.removesuffix(".__init__"): names for name, names in imports.items()}
    known = {name: (names & imports.keys()) - {name} for name, names in imports.items()}  # packages name their modules
    assert not (circles := circle_in(known)), circles


def test_the_rules_know_tensors_alone() -> None:
    modules = {name.split(".")[0] for name in imported(ROOT / "adafocus_env" / "environments" / "dynamics.py")}
    assert modules == {"__future__", "adafocus_env", "torch", "typing"}
