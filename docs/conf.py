"""Settings of the documentation site, which ``python -m sphinx -W docs runs/site`` builds."""

from __future__ import annotations

from typing import Any

from adafocus_env import __version__

project = "adafocus-env"
release = __version__
html_title = f"adafocus-env {release}"
html_theme = "furo"
html_show_copyright = False
html_last_updated_fmt = None

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures of docstrings' arguments say shapes and units, types are in the source
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # as in Markdown


def without_page(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Leave the text of an environment's page, which is Markdown, to that page, and keep what docstrings add to it."""
    if next((line for line in lines if line), "") == "## Description":
        kept = [number for number, line in enumerate(lines) if line in ("Attributes:", "Raises:")]
        lines[:] = ["The page of the environment describes it.", "", *lines[kept[0] :]]


def setup(app: Any) -> None:
    """Register :func:`without_page` to run before napoleon, which has the default priority of 500."""
    app.connect("autodoc-process-docstring", without_page, priority=400)
