"""The registry of data sets by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from adafocus_env.videos.dataset import SPLITS, VideoDataset
from adafocus_env.videos.description import open_description
from adafocus_env.videos.roaming_fashion import RoamingFashion
from adafocus_env.videos.roaming_motion import RoamingMotion
from adafocus_env.videos.scenery import EMBEDDED_SPLITS, FINAL

DEFAULT_VIDEOS = "roaming-fashion"
still_fashion = functools.partial(RoamingFashion, num_frames=1, visible_fraction=1.0)
"""Makes a split of still pictures: single scenes of ``RoamingFashion``, each with its item in it."""
_makers: dict[str, Callable[[str], VideoDataset]] = {
    DEFAULT_VIDEOS: RoamingFashion,
    "roaming-motion": RoamingMotion,
    "still-fashion": still_fashion,
}
_with_final = set(_makers)


def register_videos(name: str, make: Callable[[str], VideoDataset]) -> None:
    """Register a data set under a name, for ``gym.make("AdaFocus-v0", videos=name)``.

    Args:
        name: Name of the data set; it replaces a data set of the same name.
        make: Takes a split, one of :data:`SPLITS`, and returns its videos.
    """
    _makers[name] = make
    _with_final.discard(name)


def get_videos(videos: VideoDataset | str | None, split: str) -> VideoDataset:
    """Get a split of a data set that is given by name or by TOML file; an object is returned as it is.

    The embedded benchmarks have one split more than :data:`SPLITS`, ``"final"``.

    Raises:
        FileNotFoundError: The TOML file, or something that it names, is missing.
        ValueError: The name or the split is unknown, or the object is not a data set.
    """
    if split not in EMBEDDED_SPLITS:
        raise ValueError(f"split must be one of {EMBEDDED_SPLITS}, not {split!r}")
    if videos is None:
        videos = DEFAULT_VIDEOS
    if split == FINAL and isinstance(videos, str) and videos not in _with_final:
        raise ValueError(f"the embedded benchmarks alone have a split 'final': take one of {SPLITS} of {videos}")
    if isinstance(videos, str):
        if videos.endswith(".toml"):
            return open_description(videos, split)
        if videos not in _makers:
            raise ValueError(
                f"videos must be one of {sorted(_makers)}, a .toml file that describes a data set, or a data set "
                f"object, not {videos!r}"
            )
        return _makers[videos](split)
    if not isinstance(videos, VideoDataset):
        raise ValueError(f"videos must be a name or an object with the members of VideoDataset, not {videos!r}")
    return videos
