"""README and the documentation: code blocks run, commands have such options, links lead somewhere.

A comment before a block says how it is tested: ``<!-- test: slow -->``, run with the slow tests alone;
``<!-- test: parse -->``, not run, as it needs data, a machine or a program of one's own, but compiled, or its options
read by the script; ``<!-- test: A -> B -->``, run with B in the place of A; ``<!-- test: slow; A -> B -->``, both;
``<!-- test: file NAME -->``, written to a file of that name, which later blocks may use. The blocks of a page run one
after the other, in one folder, on embedded data sets of a few videos.
"""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tyro

from adafocus_env import Recognizer, command_line
from adafocus_env.videos.scenery import DEFAULT_NUM_VIDEOS
from scripts import __main__ as programs

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "docs" / "tables.py"
README = ROOT / "README.md"
REHEARSAL = ROOT / "docs" / "your_videos" / "rehearsal.md"
PAGES = [README, *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "report.md")]
MARK = r"^(?:<!-- test: (?:file (?P<file>\S+)|(?P<when>slow|parse)?(?:; )?(?P<replaced>[^\n]+ -> [^\n]+)?) -->\n)?"
FENCE = re.compile(MARK + r"```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
LANGUAGES = {"python", "bash", "toml", "text", "bibtex", "{toctree}", "{eval-rst}"}
COMMANDS = {name: path for paths in programs.scripts().values() for name, path in paths.items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    code: str
    file: str
    when: str
    replaced: str

    @property
    def to_run(self) -> str:
        """The code, with the mark's replacement made."""
        if not self.replaced:
            return self.code
        before, after = self.replaced.split(" -> ")
        assert before in self.code, f"{self}: nothing to replace"
        return self.code.replace(before, after)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = [(text[: each.start("code")].count("\n") + 1, each.groupdict(default="")) for each in FENCE.finditer(text)]
    return [Block(page, line, **parts) for line, parts in found]


def commands(code: str) -> list[list[str]]:
    """The words of every command of a shell block, without its comments."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            assert not set(word) & set("|;$<>*"), f"only plain commands can be tested, not {line}"
            if word != "&&":
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]
CODE = [block for block in BLOCKS if block.language in ("python", "bash")]


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working folder and embedded data sets of few videos."""
    for split in DEFAULT_NUM_VIDEOS:
        monkeypatch.setitem(DEFAULT_NUM_VIDEOS, split, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python does for code that is typed in this folder
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script with arguments; installers and test runners are not run, only their options are read."""
    match words:
        case ["pip", "install", *rest] | ["python", "-m", "pip", "install", *rest]:
            extras = {extra for word in rest for found in re.findall(r"\[(.+)\]", word) for extra in found.split(",")}
            assert extras <= PROJECT["project"]["optional-dependencies"].keys(), words
        case ["pytest", *rest]:
            names = [marker.split(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
            assert not rest or (rest[0] == "-m" and rest[1] in names), words
        case ["python", "-m", _, *_]:
            pass
        case ["adafocus", command, *arguments] if command in COMMANDS:
            run_command(["python", str(COMMANDS[command].relative_to(ROOT)), *arguments], monkeypatch)
        case ["adafocus", "--help" | "--tyro-write-completion", *_]:
            pass
        case ["python", script, *arguments] | ["torchrun", "--nproc-per-node", _, script, *arguments]:
            monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
            runpy.run_path(str(ROOT / script), run_name="__main__")  # which exits if anything is wrong
        case _:
            pytest.fail(f"no test knows what {words} does")


def read_arguments(main: Any, config: type[Any], description: str | None, **options: Any) -> None:
    """Stands for ``run_script``: reads the command line, and goes no further."""
    tyro.cli(config, **{key: value for key, value in options.items() if key == "default"})


# --------------------------------------------------------------------------------------------------------------- README


def test_readme_is_short_and_begins_with_the_two_commands() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    install, test = commands(next(block.code for block in blocks(README) if block.language == "bash"))[::2]
    assert install == ["pip", "install", "-e", "."]
    assert test == ["pip", "install", "-e", ".[test]"]


# --------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_names_a_language_and_a_known_mark(page: Path) -> None:
    text, found = page.read_text(), blocks(page)
    assert text.count("\n```") == 2 * len(found), "a fence that is not closed, or not at the line's start"
    for block in found:
        assert block.language in LANGUAGES, block
    marks = sum(bool(block.file or block.when or block.replaced) for block in found)
    assert text.count("<!-- test:") == marks, "a mark is misspelt"


@pytest.mark.parametrize("block", CODE, ids=str)
def test_blocks_parse(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        compile(block.code, str(block), "exec", dont_inherit=True)
        return
    monkeypatch.setattr(command_line, "run_script", read_arguments)
    for words in commands(block.code):
        run_command(words, monkeypatch)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_toml_blocks_parse(block: Block) -> None:
    tomllib.loads(block.code)


def run_blocks(page: Path, monkeypatch: pytest.MonkeyPatch, *, slow: bool) -> None:
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look for names
    for block in blocks(page):
        if block not in CODE or block.when == "parse" or (block.when == "slow" and not slow):
            continue
        if block.file:
            Path(block.file).write_text(block.code)
        elif block.language == "python":
            lines = "\n" * (block.line - 1)  # so that a traceback shows the page's lines
            exec(compile(lines + block.to_run, str(page), "exec", dont_inherit=True), vars(module))
        else:
            for words in commands(block.to_run):
                run_command(words, monkeypatch)


def pages_with(when: str) -> list[Path]:
    """Pages that have code to be run then."""
    return [page for page in PAGES if any(block.page == page and block.when == when for block in CODE)]


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("page", pages_with(""), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_blocks(page, monkeypatch, slow=False)


SLOW_PAGES = [page for page in pages_with("slow") if page != REHEARSAL]  # which has a test of its own


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("page", SLOW_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_slow_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_blocks(page, monkeypatch, slow=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_the_rehearsal_leads_from_clips_to_a_film(monkeypatch: pytest.MonkeyPatch) -> None:
    run_blocks(REHEARSAL, monkeypatch, slow=True)
    with open("runs/evaluate/test.csv", newline="") as file:
        accuracies = [float(row["accuracy"]) for row in csv.DictReader(file)]
    assert len(accuracies) == 4
    assert min(accuracies) > 50, "one class in four by chance"
    watched = json.loads(Path("runs/watch/watch.json").read_text())
    assert watched["finished"]
    for window in watched["windows"]:  # of a clip that is in no list, and red
        assert {name: seen["prediction"] for name, seen in window["policies"].items()} == dict.fromkeys(
            ("squares", "random"), "red"
        )
    for written in ("runs/watch/watch.mp4", "runs/render/film_strip.png", "squares/README.md", "exported/exported.py"):
        assert Path(written).stat().st_size > 0


def test_pages_of_environments_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")  # as Python does for a script
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"), run_name="imported")
    for name, env_id in made["PAGES"].items():
        written = (ROOT / "docs" / "environment" / f"{name}.md").read_text()
        assert written == made["page_of"](env_id), "python docs/generate.py writes it anew"


# ---------------------------------------------------------------------------------------------------------------- links


def tracked(pattern: str) -> list[Path]:
    """Files of the repository, new ones included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.splitlines()]


def anchors(page: Path) -> set[str]:
    """The names that a code host gives to a page's headings."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{target} leads nowhere"
        assert place.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor:
            assert anchor in anchors(place), f"{target}: no such heading"


# -------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """What docs/tables.py defines."""
    return runpy.run_path(str(TABLES))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_the_results_files(page: Path, tables: dict[str, Any]) -> None:
    text = page.read_text()
    assert tables["filled_in"](text) == text, "python docs/generate.py writes them anew"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_begins_with_the_marker_of_a_value(page: Path) -> None:
    begun = [line for line in page.read_text().splitlines() if re.match(r"\s*<!-- value:", line)]
    assert not begun, "Markdown would begin a new block there"


def test_what_is_between_markers_is_replaced(tables: dict[str, Any]) -> None:
    old = "Learned: <!-- value: quickstart/table.csv policy=learned accuracy .0f -->1<!-- end --> %"
    new = tables["filled_in"](old)
    assert new != old
    assert re.fullmatch(r"Learned: <!-- [^>]+ -->\d\d<!-- end --> %", new)
    table = tables["filled_in"]("<!-- table: quickstart -->\n| old |\n<!-- end -->\n")
    assert "old" not in table
    assert table.count("\n| ") == len((ROOT / "docs/quickstart/table.csv").read_text().splitlines()) + 1


def test_values_are_divided_and_taken_from_several_rows(tables: dict[str, Any]) -> None:
    seconds = json.loads((ROOT / "docs/quickstart/record.json").read_text())["seconds"]
    assert tables["value"]("quickstart/record.json seconds/60 .2f") == f"{seconds / 60:.2f}"
    with open(ROOT / "docs/quickstart/table.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if 60 <= float(row["accuracy"]) <= 80]
    for extreme, wanted in (("min", min), ("max", max)):
        found = tables["value"](f"quickstart/table.csv accuracy=60..80 {extreme}:gflops .4f")
        assert found == f"{wanted(float(row['gflops']) for row in rows):.4f}"


def test_values_are_taken_from_what_weights_note(tables: dict[str, Any]) -> None:
    noted = Recognizer.from_pretrained("roaming-fashion").metadata["val_accuracy_random"]
    file = "../adafocus_env/recognition/checkpoints/roaming-fashion.safetensors"
    assert tables["value"](f"{file} val_accuracy_random .1f") == noted


@pytest.mark.parametrize(
    ("mark", "match"),
    [
        ("table: nothing", "there is no table 'nothing'"),
        ("value: quickstart/table.csv policy=nobody accuracy .1f", "0 rows of quickstart/table.csv"),
        ("value: quickstart/table.csv accuracy .1f", "7 rows of quickstart/table.csv"),
    ],
)
def test_a_wrong_marker_is_an_error(mark: str, match: str, tables: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=match):
        tables["filled_in"](f"<!-- {mark} --><!-- end -->")
