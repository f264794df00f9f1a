"""Packages that import their names when they are asked for."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_scripts import ROOT

PACKAGES = [
    "adafocus_env", "adafocus_env.environments", "adafocus_env.features", "adafocus_env.recognition",
    "adafocus_env.videos", "agents",
]  # fmt: skip


def exported(package: str) -> dict[str, str]:
    """The names in a package's stub, and the modules that they are from."""
    stub = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    lines = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert lines == stub.body
    assert all(alias.asname == alias.name for line in lines for alias in line.names)  # type checkers export only those
    return {alias.name: str(line.module) for line in lines for alias in line.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_exactly_what_its_stub_lists(package: str) -> None:
    module, names = importlib.import_module(package), exported(package)
    assert sorted(names) == module.__all__
    assert set(names) <= set(dir(module))
    for name, home in names.items():
        at_home = importlib.import_module(f"{home}.{name}" if home == package else home)
        assert getattr(module, name) is (at_home if home == package else getattr(at_home, name))
    everything: dict[str, object] = {}
    exec(f"from {package} import *", everything)
    assert everything.keys() - {"__builtins__"} == set(names)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_importing_the_packages_registers_the_environments_without_torch() -> None:
    code = """
import json, sys
import adafocus_env, agents
from adafocus_env.recognition.recipes import Stage1Config
import gymnasium
print(json.dumps(["torch" in sys.modules, [name for name in gymnasium.registry if "Focus" in name]]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, ["AdaFocus-v0", "AdaFocusTSM-v0", "GlanceFocus-v0"]]


@pytest.mark.slow
def test_a_policy_finds_its_class_that_was_not_imported() -> None:
    code = """
import sys
from agents.policy_file import with_network_of
from agents.reinforce import Reinforce
assert "agents.soft_choices" not in sys.modules
print(with_network_of("SoftChoices", Reinforce, Reinforce).__name__)
import adafocus_env
print(adafocus_env.videos.checking.__name__)  # modules are attributes, too
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SoftChoices", "adafocus_env.videos.checking"]


def test_stubs_are_only_where_packages_are_lazy() -> None:
    stubs = {path.parent for top in ("adafocus_env", "agents") for path in (ROOT / top).rglob("*.pyi")}
    assert stubs == {Path(ROOT, *package.split(".")) for package in PACKAGES}
