"""Evaluate policies on every video of a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafocus_env.command_line import check_positive, run_script

POLICIES = {
    "roaming-fashion": ("roaming-fashion", "roaming-fashion-skip"),
    "roaming-motion": ("roaming-motion",),
    "still-fashion": ("still-fashion",),
}
"""Shipped policies by recogniser, whose name is also that of its videos."""


@dataclass
class Config:
    policies: tuple[str, ...] = ()
    """Names of baselines or shipped policies, files such as reinforce.safetensors or ppo.zip, and released checkpoints
    (.pth.tar). By default the baselines, and with a shipped recogniser its shipped policies."""
    split: str = "val"
    """Split of the figures; make choices on "val", and look at "test" once."""
    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file or folder, for AdaFocus or AdaFocus-TSM."""
    videos: str | None = None
    """A registered data set, or a TOML file that describes one on disk; by default the shipped videos for the
    recogniser's kind."""
    looks: int | None = None
    """Looks at each frame, for still pictures; by default 5 with --recognizer still-fashion, else 1."""
    bank: Path | None = None
    """A file that build_feature_bank.py made for these videos and this recogniser; by default several policies share a
    table in memory, and a single one needs none."""
    skip_cost: float | None = None
    """Price of a focused frame: what a policy trained for many prices acts by, and what counts in returns."""
    glance_cost: float | None = None
    """The same of going on to the next frame, for policies that can stop."""
    exit_threshold: float | None = None
    """Leave a video after the first frame at which a class is this probable (conditional exit)."""
    exit_gflops: float | None = None
    """Choose that threshold for each policy on "val": GFLOPs that a video may take on average."""
    exit_loss: float | None = None
    """Choose it so: accuracy, from 0 to 1, that may be lost there."""
    seed: int = 0
    """Seed of the random patches in the reward, and of the baselines' draws."""
    out: Path = Path("runs/evaluate")
    """Folder for the table and its figure."""


def threshold_for(config: Config, name: str, policy: Any, **env_kwargs: Any) -> float | None:
    """The threshold of conditional exit, chosen on validation videos if a budget or a loss is given."""
    from agents import calibrate_exit, evaluate

    if config.exit_gflops is None and config.exit_loss is None:
        return config.exit_threshold
    found = evaluate(policy, "val", seed=config.seed, progress_bar=True, **env_kwargs)
    option = "--exit-gflops" if config.exit_loss is None else "--exit-loss"
    try:
        threshold = calibrate_exit(found, gflops=config.exit_gflops, loss=config.exit_loss)
    except ValueError as error:
        raise ValueError(f"{option}, policy {name}: {error}") from None
    print(f"{name}: exit threshold {threshold!r}, chosen on the val split")
    if config.split == "val":
        print("The table is of the same videos as that choice, so it flatters: --split test looks at others.")
    return threshold


def prices_for(config: Config, *, stops: bool) -> dict[str, float]:
    """The prices that were given, as far as they concern a policy: only one that stops pays for a glance."""
    prices = {"skip_cost": config.skip_cost, "glance_cost": config.glance_cost if stops else None}
    return {name: price for name, price in prices.items() if price is not None}


def main(config: Config) -> None:
    from adafocus_env import FeatureBank, load_recognizer
    from adafocus_env.patches import can_stop
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos
    from agents import evaluate, load_policy
    from agents.environments import look_arguments, shipped_pair, vector_env_class
    from agents.figures import accuracy_against_compute
    from agents.report import print_table, table_row

    if sum(given is not None for given in (config.exit_threshold, config.exit_gflops, config.exit_loss)) > 1:
        raise ValueError("pass at most one of --exit-threshold, --exit-gflops and --exit-loss")
    check_positive(looks=config.looks)
    recognizer = load_recognizer(config.recognizer)
    env_class = vector_env_class(None, {"recognizer": recognizer})
    default_videos, default_looks = shipped_pair(config.recognizer, env_class)
    data = config.videos or default_videos
    located = ("oracle",) if data in POLICIES else ()
    policies = config.policies or ("random", "center", "gaussian", *POLICIES.get(config.recognizer, ()), *located)
    videos = get_videos(data, config.split)
    arguments: dict[str, Any] = {"recognizer": recognizer, "videos": videos}
    if config.bank is not None:
        arguments = {"features": FeatureBank.open(config.bank, recognizer, videos)}
    elif len(policies) > 1:
        arguments = {"features": FeatureBank.shared(recognizer, videos)}  # one table for all
    looks = look_arguments(env_class, config.looks or default_looks)
    loaded = {name: load_policy(name, config.seed) for name in policies}
    stops = {name: can_stop(getattr(policy, "action_space", None)) for name, policy in loaded.items()}
    if config.glance_cost is not None and not any(stops.values()):
        raise ValueError("--glance-cost: none of these policies can stop, so none pays it: leave it out")
    exits = any(given is not None for given in (config.exit_threshold, config.exit_gflops, config.exit_loss))
    rows = []
    points: dict[str, tuple[float, float]] = {}
    with RunFolder(config.out, config) as run:
        for name, policy in loaded.items():
            shared = looks | prices_for(config, stops=stops[name])
            threshold = threshold_for(config, name, policy, recognizer=recognizer, videos=data, **shared)
            common: dict[str, Any] = {"seed": config.seed, "progress_bar": True, **arguments, **shared}
            found = evaluate(policy, config.split, exit_threshold=threshold, **common)
            run.log(f"{config.split}/{name}", 0, found.summary())
            rows.append(table_row(name, found, threshold) if exits else table_row(name, found))
            points[name] = (found.gflops_per_video, 100 * found.accuracy)
        path = run.write_table(config.split, rows)
        accuracy_against_compute(config.out / f"{config.split}.png", points)
    print_table(rows, title=f"{data}, {config.split} split")
    print(path)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
