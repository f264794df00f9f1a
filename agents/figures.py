"""Plots of results, and film strips and animations of what policies look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image, ImageOps

from adafocus_env import AdaFocusTSMVectorEnv
from adafocus_env.environments.render import GREEN
from adafocus_env.files import unfinished, write_figure
from adafocus_env.recognition.deployment import as_thresholds, refuse_exit
from adafocus_env.run_folder import read_metrics
from agents.environments import check_fit, fitting_arguments, is_policy, vector_env_class
from agents.evaluation import one_episode


def learning_curves(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], ylabel: str) -> None:
    """Write a PNG with one line per agent: (episodes, value) points, smoothed over a twentieth of the run."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="episodes", ylabel=ylabel)
    for name, points in curves.items():
        episodes, values = np.array(points).T
        window = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(episodes[window - 1 :], smooth, label=name)
    axes.legend()
    axes.grid(alpha=0.3)
    write_figure(path, figure, 150)


def metric_curves(folder: Path) -> None:
    """Write ``training.png`` from the ``metrics.csv`` of a run's folder: a panel per metric, a line per stage."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for stage, step, metric, value in read_metrics(folder):
        curves.setdefault(metric, {}).setdefault(stage, []).append((float(step), float(value)))
    curves = {
        metric: lines
        for metric, stages in curves.items()
        if (lines := {stage: points for stage, points in stages.items() if len(points) > 1})
    }
    if not curves:
        return
    figure = Figure(figsize=(4.5 * len(curves), 3.5), layout="constrained")
    for place, (metric, lines) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), place, xlabel="step", ylabel=metric)
        for stage, points in lines.items():
            axes.plot(*np.array(points).T, label=stage)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    write_figure(folder / "training.png", figure, 150)


def accuracy_against_compute(
    path: Path,
    points: Mapping[str, tuple[float, float]],
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    *,
    logarithmic: bool = False,
) -> None:
    """Write a PNG of accuracy (percent) against GFLOPs per video: single points, and curves over some setting.

    Args:
        path: File to write.
        points: (GFLOPs, accuracy) by name.
        curves: Sequences of such points by name.
        logarithmic: Whether the axis of GFLOPs is logarithmic.
    """
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="GFLOPs per video (multiply-adds)", ylabel="accuracy, %")
    for name, line in (curves or {}).items():
        axes.plot(*np.array(sorted(line)).T, "o-", label=name)
    for marker, (name, (gflops, accuracy)) in zip("sDv^P*X<>hd", points.items(), strict=False):
        axes.plot(gflops, accuracy, marker, markersize=9, label=name)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    write_figure(path, figure, 150)


def play(
    policy: Any,
    indices: Sequence[int],
    split: str = "test",
    *,
    exit_threshold: float | Sequence[float] | None = None,
    **env_kwargs: Any,
) -> list[list[npt.NDArray[np.uint8]]]:
    """Pictures of every step of a deterministic policy on some videos.

    Args:
        policy: As in :func:`agents.evaluate`.
        indices: Of videos in the split.
        split: The split, for videos given by name.
        exit_threshold: As in :func:`agents.evaluate`; the picture after which a video is left has a green border.
        env_kwargs: As in :func:`agents.evaluate`.

    Returns:
        A list of (height, width, 3) uint8 per video, which ends where the policy stops or the video is left.

    Raises:
        ValueError: As in :func:`agents.evaluate`; or there is no video of an index.
    """
    kind = vector_env_class(None, env_kwargs, policy)
    env_kwargs = fitting_arguments(policy, kind, env_kwargs)
    given = {"split": split, "autoreset_mode": "DISABLED", "output": "torch", "render_mode": "rgb_array"}
    env = kind(len(indices), **given, **env_kwargs)
    if outside := [index for index in indices if not 0 <= index < len(env.videos)]:
        raise ValueError(f"indices must be those of videos, 0 to {len(env.videos) - 1} here, not {outside[0]}")
    if not is_policy(policy):
        policy = policy(env)
    check_fit(policy, env)
    if issubclass(kind, AdaFocusTSMVectorEnv):
        refuse_exit(exit_threshold)
    pictures: list[list[npt.NDArray[np.uint8]]] = [[] for _ in indices]
    running = np.ones(len(indices), dtype=bool)
    steps = one_episode(env, policy, np.asarray(indices))
    for threshold, (_, _, over) in zip(as_thresholds(exit_threshold, env.num_steps), steps, strict=False):
        ended = over.cpu().numpy()
        left = (env.probabilities.amax(dim=1).cpu().numpy() >= threshold) & ~ended
        for strip, picture, shown, last in zip(pictures, env.render() or (), running, left, strict=True):
            if shown:
                strip.append(_bordered(picture) if last else picture)
        running &= ~(ended | left)
        if not running.any():
            break
    env.close()
    return pictures


def _bordered(picture: npt.NDArray[np.uint8], width: int = 6) -> npt.NDArray[np.uint8]:
    """A picture of the same size, with a green border."""
    return np.asarray(ImageOps.expand(ImageOps.crop(Image.fromarray(picture), width), width, GREEN))


def film_strip(path: Path, pictures: Sequence[Sequence[npt.NDArray[np.uint8]]], scale: float = 0.5) -> None:
    """Write a PNG with one row per video and one column per frame, blank after the end of shorter rows."""
    longest, blank = max(map(len, pictures)), np.full_like(pictures[0][0], 255)
    rows = [[*row, *[blank] * (longest - len(row))] for row in pictures]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    image = Image.fromarray(sheet)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    with unfinished(path) as temporary:
        small.save(temporary, format="PNG")


def animation(path: Path, pictures: Sequence[Sequence[npt.NDArray[np.uint8]]], seconds_per_frame: float = 0.4) -> None:
    """Write a GIF of the videos one after the other, with a pause after each."""
    frames = [Image.fromarray(picture) for row in pictures for picture in row]
    pause = [seconds_per_frame * (3 if i + 1 == len(row) else 1) for row in pictures for i in range(len(row))]
    durations = [round(1000 * wait) for wait in pause]
    with unfinished(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
