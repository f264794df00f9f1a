"""Settings of the documentation site, which ``python -m sphinx -W docs runs/site`` builds."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

from adafocus_env import __version__

project = "adafocus-env"
release = __version__
html_title = f"adafocus-env {release}"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_last_updated_fmt = None

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
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


def write_formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers show without a script or the network."""
    formula = convert(node.astext(), display="block" if isinstance(node, nodes.math_block) else "inline")
    if "\\" in formula:
        logging.getLogger(__name__).warning("a command is unknown to latex2mathml: %s", node.astext(), location=node)
    writer.body.append(formula)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register what is here; :func:`without_page` runs before napoleon, which has the default priority of 500."""
    app.connect("autodoc-process-docstring", without_page, priority=400)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
