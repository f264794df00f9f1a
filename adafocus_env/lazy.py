"""Packages whose names are imported when they are first asked for (PEP 562), as their stub files list them.

``import adafocus_env`` need not load torch, and a program's ``--help`` need not wait for it. The stub beside a
package's ``__init__.py`` is the one list of what it exports, for type checkers and at run time (as in Scientific
Python's SPEC 1).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package from its stub.

    Args:
        package: The package's ``__name__``.
        file: The package's ``__file__``. The stub beside it holds one ``from … import name as name`` for every name
            that the package exports; a module of the package itself is imported from the package.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module or package
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def __getattr__(name: str) -> Any:
        if homes.get(name, package) != package:
            value = getattr(importlib.import_module(homes[name]), name)
            setattr(sys.modules[package], name, value)  # the next access doesn't come here
            return value
        if not name.startswith("_") and importlib.util.find_spec(module := f"{package}.{name}"):
            return importlib.import_module(module)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return __getattr__, __dir__, sorted(homes)
