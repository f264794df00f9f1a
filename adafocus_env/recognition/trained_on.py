"""What a recogniser's file says of the videos that it was trained on, so that others are shown to it likewise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from adafocus_env.checks import Bounds, check_choice, check_integer
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.videos.listed_videos import ListedVideos, check_names
from adafocus_env.videos.views import Resize

KEY = "trained_on"
"""The entry of a recogniser's ``metadata``, JSON."""


@dataclass(frozen=True)
class TrainedOn:
    """How the videos looked.

    Attributes:
        class_names: One name per class.
        num_frames: T, frames per video.
        frame_size: Height and width of the views, pixels.
        resized: Shorter side before the centre crop, pixels.
        resize: Library that resized.
    """

    class_names: tuple[str, ...]
    num_frames: int
    frame_size: int
    resized: int
    resize: Resize

    @classmethod
    def of(cls, videos: VideoDataset) -> TrainedOn:
        """Describe a data set. Frames of one that isn't read from files are neither resized nor cropped."""
        names, frames, size = tuple(videos.class_names), videos.num_frames, videos.frame_size[0]
        if isinstance(videos, ListedVideos):
            return cls(names, frames, size, videos.resized, videos.resize)
        return cls(names, frames, size, size, "torch")

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> TrainedOn | None:
        """Read it from a recogniser's metadata; ``None`` if these don't say.

        Raises:
            ValueError: They say something impossible.
        """
        if KEY not in metadata:
            return None
        try:
            found = cls(**json.loads(metadata[KEY]))
            resized = check_integer("resized", found.resized, Bounds(at_least=1))
            check_integer("frame_size", found.frame_size, Bounds(at_least=1, at_most=resized))
            check_integer("num_frames", found.num_frames, Bounds(at_least=1))
            check_choice("resize", found.resize, get_args(Resize))
            return dataclasses.replace(found, class_names=tuple(check_names(found.class_names)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recogniser's metadata {KEY!r} can't be understood: {error}") from error

    def metadata(self) -> dict[str, str]:
        """As an entry of a recogniser's metadata."""
        return {KEY: json.dumps(dataclasses.asdict(self))}
