"""What stands beside the code speaks of the code that is there: how to contribute, how to cite."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_contributors_are_sent_to_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = [ROOT / name for name in ("adafocus_env", "agents", "scripts")]
    source = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    paths = set(re.findall(r"`((?:[\w.]+/)*[\w]+\.(?:py|md))`", text))
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists() or any(any(folder.rglob(path)) for folder in folders), path
    named = (
        "Reward", "REWARDS", "VideoDataset", "register_videos", "Rollout", "info_keys", "hyperparameters_class",
        "_make_policy", "own", "ALGORITHMS", "SB3_ALGORITHMS", "EnvironmentArguments", "ABLATIONS", "PIPELINES",
    )  # fmt: skip
    for name in named:
        assert name in text, name
        assert re.search(rf"\b{name}\b", source), name
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"dev", "clients"} <= set(re.findall(r"\w+", " ".join(re.findall(r"\.\[([\w,]+)\]", text)))) <= set(extras)


def test_the_citation_is_that_of_the_licence_and_of_the_paper() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["authors"][0]["name"] in (ROOT / "LICENSE").read_text()
    (paper,) = cited["references"]
    assert paper["title"] == "Adaptive Focus for Efficient Video Recognition"
    assert [author["family-names"] for author in paper["authors"]] == ["Wang", "Chen", "Jiang", "Song", "Han", "Huang"]
    assert all(cited[key] for key in ("cff-version", "message", "title"))
