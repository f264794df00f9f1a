"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from adafocus_env.videos.dataset import SPLITS, VideoDataset
from adafocus_env.videos.description import open_description
from adafocus_env.videos.roaming_fashion import RoamingFashion
from adafocus_env.videos.roaming_motion import RoamingMotion

DEFAULT_VIDEOS = "roaming-fashion"
_makers: dict[str, Callable[[str], VideoDataset]] = {DEFAULT_VIDEOS: RoamingFashion, "roaming-motion": RoamingMotion}


def register_videos(name: str, make: Callable[[str], VideoDataset]) -> None:
    """Make a data set known by name, as in ``gym.make("AdaFocus-v0", videos=name)``.

    Args:
        name: Replaces a data set of the same name.
        make: Takes a split out of :data:`SPLITS` and returns its videos.
    """
    _makers[name] = make


def get_videos(videos: VideoDataset | str | None, split: str) -> VideoDataset:
    """The videos of a split of a named data set, or of one that a TOML file describes, or a data set object as it is.

    Raises:
        FileNotFoundError: The TOML file, or what it names, is not there.
        ValueError: An unknown name or split, or an object that is no data set.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    if videos is None:
        videos = DEFAULT_VIDEOS
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
