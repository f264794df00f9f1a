"""The bench that trials run on: a recogniser, the videos of every split, and their feature banks."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus_env import FeatureBank, Recognizer, RoamingFashion, VideoDataset
from adafocus_env.videos.registry import DEFAULT_VIDEOS, get_videos
from agents.experiments.algorithms import NEED_LOCATIONS
from agents.experiments.provenance import digest


@dataclass(frozen=True)
class Bench:
    """What trials run on: a recogniser, videos and their feature banks.

    Attributes:
        recognizer: Name of a shipped recogniser, or a path.
        folder: Folder of the banks' files, which all processes share; ``None`` keeps a bank in the memory of each
            process, for rehearsals.
        videos: A registered data set, or a TOML file that describes one on disk.
        num_videos: Videos per split of the embedded benchmark, or ``None`` for all. Other data sets are taken whole.
        changes: Further arguments of :class:`RoamingFashion`.
        grid: g, rows and columns of the grid of candidates.
    """

    recognizer: str = "roaming-fashion"
    folder: str | None = None
    videos: str = DEFAULT_VIDEOS
    num_videos: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    grid: int = 7

    def dataset(self, split: str) -> VideoDataset:
        """The videos of a split.

        Raises:
            ValueError: There are ``changes``, but the data set is not the embedded benchmark.
        """
        if self.videos == DEFAULT_VIDEOS:
            return RoamingFashion(split, num_videos=self.num_videos, **self.changes)
        if self.changes:
            raise ValueError(f"{self.videos} can't be made with {self.changes}: only {DEFAULT_VIDEOS} can")
        return get_videos(self.videos, split)

    @property
    def unknown(self) -> frozenset[str]:
        """The algorithms and references that can't run, because these videos don't know where the item is."""
        return frozenset() if hasattr(self.dataset("val"), "locations") else NEED_LOCATIONS

    def features(self, split: str) -> FeatureBank:
        """The feature bank of a split; a file that is full is only read."""
        return _features(_as_json(self), split)

    def build(self, splits: Iterable[str]) -> None:
        """Fill the banks' files ahead of time; entries that they already hold stay."""
        if self.folder is None:
            return
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        for split in splits:
            bank = self.features(split)
            bank.build(progress_bar=True)
            bank.close()
        _features.cache_clear()

    def facts(self, splits: Iterable[str]) -> dict[str, Any]:
        """Everything about the bench that determines the results of trials on these splits, for the trials' keys."""
        return {
            "recognizer": _recognizer_fingerprint(self.recognizer),
            "videos": [_video_fingerprint(_as_json(self), split) for split in splits],
            "grid": self.grid,
        }


def _as_json(bench: Bench) -> str:
    return json.dumps(dataclasses.asdict(bench), sort_keys=True)


@functools.lru_cache(maxsize=4)
def _recognizer_fingerprint(recognizer: str) -> str:
    return Recognizer.from_pretrained(recognizer).fingerprint()


@functools.lru_cache(maxsize=16)
def _video_fingerprint(bench: str, split: str) -> str:
    return Bench(**json.loads(bench)).dataset(split).fingerprint


@functools.lru_cache(maxsize=3)  # the splits of one bench
def _features(bench: str, split: str) -> FeatureBank:
    settings = Bench(**json.loads(bench))
    videos = settings.dataset(split)
    recognizer = Recognizer.from_pretrained(settings.recognizer)
    facts = {"recognizer": recognizer.fingerprint(), "videos": videos.fingerprint, "grid": settings.grid}
    path = None if settings.folder is None else Path(settings.folder) / f"{split}-{digest(facts)}.bank"
    return FeatureBank(recognizer, videos, settings.grid, path=path)
