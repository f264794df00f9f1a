"""Writes what the documentation has from elsewhere: drawings, learning curves, the environments' pages, figures.

``python docs/generate.py`` writes ``docs/pictures`` and ``docs/environment/*_v0.md`` anew: the drawings from this file,
the curves from ``docs/compare_algorithms/curves.csv``, the pages from the environments' spaces and docstrings; and all
tables and values that README and the documents have from results files (``docs/tables.py``).
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import tables
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

import adafocus_env  # registers the environments

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
INK, FRAME, GLANCE, AGENT, FOCUS, BELIEF = "#222222", "#eeeeee", "#cfe3f5", "#fde2c4", "#d3efd3", "#e6dcf3"
GREEN, GREY = "#2a9d3a", "#c8c8c8"
CURVES = {
    "soft_targets": "soft targets (ours)",
    "differentiable": "gradients through the vectors (ours)",
    "advantage_weighted": "advantage-weighted regression (ours)",
    "reinforce": "REINFORCE (ours)",
    "all_action": "all-action (ours)",
    "localizer": "supervised localiser",
    "paper": "paper's PPO, as published",
    "ppo": "SB3 PPO",
    "recurrent_ppo": "sb3-contrib RecurrentPPO",
    "dqn": "SB3 DQN",
    "a2c": "SB3 A2C",
}
"""Names of pictures, and the learners that they show."""
PAGES = {"adafocus_v0": "AdaFocus-v0", "adafocus_tsm_v0": "AdaFocusTSM-v0", "glance_focus_v0": "GlanceFocus-v0"}
"""Names of pages, and the environments that they describe."""


# ------------------------------------------------------------------------------------------------------------- drawings


def canvas(width: float, height: float) -> Axes:
    """Axes without a frame, in units of a tenth of an inch."""
    figure = plt.figure(figsize=(width / 10, height / 10), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str, **style: Any) -> None:
    """A box with rounded corners and a text in its middle."""
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=1", facecolor=color, edgecolor=INK, **style)
    )
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, fontsize=9, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", **style: Any) -> None:
    """An arrow; its text is beside the middle, above a level one and to the right of others."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=INK, shrinkA=0, shrinkB=0, **style)
    )
    level = start[1] == end[1]
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(
        x if level else x + 1.6, y + 0.7 if level else y, text,
        ha="center" if level else "left", va="bottom" if level else "center", fontsize=8, color=INK,
    )  # fmt: skip


def save(axes: Axes, name: str) -> None:
    """Write a picture, without what would differ from one run to the next."""
    with mpl.rc_context({"svg.hashsalt": name}):
        axes.figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    plt.close(axes.figure)


def draw_step() -> None:
    """The data flow of one step."""
    axes = canvas(114, 44)
    box(axes, 2, 16, 12, 12, "frame t", FRAME)
    box(axes, 22, 31, 18, 10, "global network f$_G$\na cheap glance", GLANCE)
    box(axes, 22, 3, 18, 10, "local network f$_L$\ncostly, one patch", FOCUS)
    box(axes, 46, 16, 16, 12, "agent\nwhere to look,\nor skip", AGENT, linewidth=2)
    box(axes, 74, 3, 14, 38, "classifier f$_C$\n(GRU)\n\nits hidden state\nis the belief", BELIEF)
    box(axes, 98, 14, 14, 16, "reward\ngain in\nconfidence on\nthe label,\nminus λ", FRAME)
    arrow(axes, (14, 26), (22, 35))
    arrow(axes, (14, 18), (22, 9))
    arrow(axes, (40, 37), (74, 37), "vector of the whole frame")
    arrow(axes, (40, 33), (50, 28), "map")
    arrow(axes, (74, 22), (62, 22), "belief,\ntime")
    arrow(axes, (50, 16), (40, 10), "patch of P×P pixels")
    arrow(axes, (40, 6), (74, 6), "vector of the patch; none on skipped frames")
    arrow(axes, (88, 22), (98, 22), "")
    save(axes, "step")


def draw_stages() -> None:
    """The stages of training, and what each trains."""
    axes = canvas(96, 38)
    stages = [
        ("stages 0 and 1", "recognise\nrandom patches", "f$_G$, f$_L$, f$_C$", "cross-entropy", "random"),
        ("stage 2", "learn where to look", "agent π", "reinforcement", "π explores"),
        ("AdaFocus+", "learn when not to", "agent π′", "reinforcement", "π, arg-max"),
        ("stage 3", "recognise the\nchosen patches", "f$_C$ (and f$_L$)", "cross-entropy", "π and π′, arg-max"),
    ]
    for number, (title, aim, trained, means, patches) in enumerate(stages):
        x = 2 + 24 * number
        color = AGENT if "agent" in trained else BELIEF
        axes.text(x + 10, 33.5, title, ha="center", fontsize=10, weight="bold", color=INK)
        box(axes, x, 22, 20, 9, aim, FRAME)
        box(axes, x, 12, 20, 8, f"trains {trained}\nby {means}", color)
        box(axes, x, 3, 20, 7, f"patches: {patches}", FOCUS)
        if number:
            arrow(axes, (x - 4, 26.5), (x, 26.5))
    save(axes, "stages")


def draw_skip_and_stop() -> None:
    """What looking, skipping and stopping do to an episode."""
    axes = canvas(96, 36)
    rows = [
        ("look at every frame", "LLLLLLLL"),
        ("skip bit: some frames are glanced at alone", "LSLSSLSL"),
        ("stop: the rest is never read", "LSLX----"),
    ]
    for row, (text, course) in enumerate(rows):
        y = 25 - 11 * row
        axes.text(2, y + 3, text, va="center", fontsize=9, color=INK)
        for number, choice in enumerate(course):
            x = 46 + 6 * number
            read, looked = choice in "LSX", choice == "L"
            face = GLANCE if looked else FRAME if read else "white"
            axes.add_patch(Rectangle((x, y), 5, 6, facecolor=face, edgecolor=INK if read else GREY, linewidth=0.8))
            if looked:
                place = (1.6, 2.4, 0.6, 2.9, 1.2, 2.2, 0.5, 2.7)[number]
                axes.add_patch(Rectangle((x + place, y + place), 2, 2, facecolor="none", edgecolor=GREEN, linewidth=2))
            if choice == "X":
                axes.text(x + 2.5, y + 3, "stop", ha="center", va="center", fontsize=7, color=INK)
    axes.text(46, 1, "blue: glance and patch (green)    grey: glance alone    white: nothing", fontsize=8, color=INK)
    save(axes, "skip_and_stop")


# --------------------------------------------------------------------------------------------------------------- curves


def draw_curves() -> None:
    """For each learner, its mean validation accuracy over seeds, before those of all others."""
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in tables.read("compare_algorithms/curves.csv"):
        points[row["name"]][int(row["episodes"])].append(float(row["accuracy"]))
    if missing := CURVES.values() - points.keys():
        raise ValueError(f"docs/compare_algorithms/curves.csv has no curves of {sorted(missing)}")
    for picture, shown in CURVES.items():
        _, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        for name in sorted(points, key=lambda name: name == shown):
            episodes = sorted(points[name])
            means = [sum(points[name][each]) / len(points[name][each]) for each in episodes]
            color = "C0" if name == shown else GREY
            axes.plot(episodes, means, color=color, linewidth=2 if name == shown else 1)
            if name == shown:
                low, high = ([limit(points[name][each]) for each in episodes] for limit in (min, max))
                axes.fill_between(episodes, low, high, color=color, alpha=0.2, linewidth=0)
        axes.set(xlabel="training episodes", ylabel="validation accuracy, %", title=shown)
        axes.spines[["top", "right"]].set_visible(False)
        save(axes, f"curve_{picture}")


# ---------------------------------------------------------------------------------------------------------------- pages


def page_of(env_id: str) -> str:
    """The Markdown page of an environment: its spaces, and the text of its docstring."""
    env = gym.make(env_id)
    text = inspect.getdoc(type(env.unwrapped)) or ""
    text = re.split(r"\n(?:Attributes:|The attributes are)", text)[0].rstrip()
    text = re.sub(r":\w+:`adafocus_env\.(\w+)`", r"[`\1`](../api/adafocus_env.md)", text)
    text = re.sub(r"(?<!`)``(?!`)", "`", text).replace("` es", "`es")
    text = re.sub(
        r"```python\n(.*?)\n\n```", lambda code: f"```python\n{without_prompts(code[1])}\n```", text, flags=re.S
    )
    spaces = [("Action space", env.action_space), ("Observation space", env.observation_space)]
    rows = "\n".join(f"| {name} | {described(space)} |" for name, space in spaces)
    return f"""# {env_id}

<!-- python docs/generate.py writes this page from the environment's spaces and docstring. -->

| | |
|---|---|
{rows}
| Made by | `gym.make("adafocus_env:{env_id}")`, many at once by `gym.make_vec("adafocus_env:{env_id}", num_envs=64)` |
| Class | [`{type(env.unwrapped).__name__}`](../api/adafocus_env.md) |

{text}
"""


def without_prompts(code: str) -> str:
    """A session at Python's prompt as plain code, with what was printed as comments."""
    prompts = (">>> ", "... ")
    plain = "\n".join(line[4:] if line.startswith(prompts) else f"# {line}" for line in code.split("\n"))
    return plain.replace("import gymnasium as gym\n", "import gymnasium as gym\n\n")


def described(space: gym.Space[Any]) -> str:
    """A space in a line."""
    if isinstance(space, gym.spaces.Dict):
        return "`Dict` of " + ", ".join(f"`{key}` {part.shape}" for key, part in space.items()) + ", float32"
    return f"`{space}`"


def write_pages() -> None:
    """Write the environments' pages."""
    for name, env_id in PAGES.items():
        (DOCS / "environment" / f"{name}.md").write_text(page_of(env_id), encoding="utf-8")


def main() -> None:
    """Write everything anew."""
    PICTURES.mkdir(exist_ok=True)
    plt.rcParams.update({"svg.fonttype": "path", "font.family": "DejaVu Sans"})
    draw_step()
    draw_stages()
    draw_skip_and_stop()
    draw_curves()
    write_pages()
    for path in tables.documents():
        path.write_text(tables.filled_in(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    assert adafocus_env.__version__
    main()
