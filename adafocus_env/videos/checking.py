"""Checks of a data set on disk, to find its problems before anything is trained on it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from adafocus_env.progress import tqdm
from adafocus_env.videos.description import open_description
from adafocus_env.videos.listed_videos import ListedVideos


@dataclass(frozen=True)
class Report:
    """What :func:`check_description` found.

    Attributes:
        problems: Sentences about files that can't be read or contradict the lists, videos in both lists, and classes
            that are never trained.
        notes: Sentences about what may be intended: videos that are too short, and classes without any video. Also
            how many videos and frames were checked, and how fast.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_description(path: str | os.PathLike[str], *, every_frame: bool = False, progress_bar: bool = False) -> Report:
    """Check all videos in both lists of a data set.

    Args:
        path: The TOML file that describes it; see :mod:`adafocus_env.videos.description`.
        every_frame: Decode all frames, not only those that evaluation reads.
        progress_bar: Show a progress bar for each split.

    Raises:
        FileNotFoundError: The file, or a list or folder that it names, is missing.
        ValueError: The file is not such a description, or a line of a list can't be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report says which videos are left out
        splits = {split: open_description(path, split) for split in ("train", "val", "test")}
    problems: list[str] = []
    notes: list[str] = []
    for split, videos in splits.items():
        started, decoded = time.perf_counter(), 0
        problems += videos.skipped
        found = videos.examine(every_frame=every_frame)
        for problem, frames in tqdm(found, split, len(videos), unit="video", disable=not progress_bar):
            problems += [problem] if problem else []
            decoded += frames
        seconds = time.perf_counter() - started
        notes.append(
            f"{split}: {len(videos)} videos, {decoded} frames decoded in {seconds:.1f} s: "
            f"{len(videos) / seconds:.1f} videos/s, {decoded / seconds:.1f} frames/s"
        )
        if videos.too_short:
            notes.append("\n".join([f"{split}: {len(videos.too_short)} more are too short:", *videos.too_short]))
    problems += [*_in_both_lists(splits), *_never_trained(splits)]
    first = splits["train"]
    used = torch.cat([videos.label_sets for videos in splits.values()]).any(dim=0)
    if empty := [name for name, is_used in zip(first.class_names, used, strict=True) if not is_used]:
        more = ", …" if len(empty) > 10 else ""
        notes.append(f"{len(empty)} of {first.num_classes} classes have no video: {', '.join(empty[:10])}{more}")
    return Report(tuple(dict.fromkeys(problems)), tuple(notes))  # train and val both report bad lines


def _in_both_lists(splits: dict[str, ListedVideos]) -> Iterator[str]:
    listed = {entry.path: splits[split].where(entry) for split in ("train", "val") for entry in splits[split].entries}
    test = splits["test"]
    for entry in test.entries:
        if entry.path in listed:
            yield f"{entry.path!r} is to be tested ({test.where(entry)}), but trains too ({listed[entry.path]})"


def _never_trained(splits: dict[str, ListedVideos]) -> Iterator[str]:
    trained = splits["train"].label_sets.any(dim=0)
    for split in ("val", "test"):
        videos = splits[split]
        for label in (videos.label_sets.any(dim=0) & ~trained).nonzero()[:, 0].tolist():
            count = int(videos.label_sets[:, label].sum())
            yield f"class {videos.class_names[label]} has no video to train on, but {count} in {split}"
