"""Data sets on disk that a TOML file describes: the folder, the two lists, and how frames are named.

::

    root = "frames"                        # the folders of frames; relative to this file
    train_list = "actnet_train_split.txt"
    test_list = "actnet_val_split.txt"
    num_classes = 200
    template = "image_{:05d}.jpg"          # and any other argument of FrameFolders, such as
    multi_label = true                     # if lines have several labels, separated by spaces

With ``kind = "files"`` the root holds encoded videos, and the other arguments are those of VideoFiles. With
``kind = "pictures"`` it holds still pictures in a folder per class, for GlanceFocus-v0, and there are no lists::

    kind = "pictures"
    root = "imagenet"
    train_folder = "train"                 # imagenet/train/<class>/<file>; its folders name the classes
    test_folder = "val"

For released checkpoints, ``resize = "pillow"`` gives the frames of the released code, bit for bit.

Two things differ from the released code. It trains on random views in all stages. Here only stages 0 and 1 do: π and
stage 3 see the evaluation views of ``"train"``, which a feature bank can store. It also crops each sampling of a
Something-Something clip separately, as ``separate_crops = true`` does here.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import tomllib
from pathlib import Path
from typing import Any

from adafocus_env.checks import check_choice
from adafocus_env.videos.frame_folders import FrameFolders
from adafocus_env.videos.listed_videos import ListedVideos
from adafocus_env.videos.lists import Entry
from adafocus_env.videos.picture_folders import ARGUMENTS as PICTURE_ARGUMENTS
from adafocus_env.videos.picture_folders import PictureFolders, class_folders
from adafocus_env.videos.video_files import VideoFiles

_KINDS: dict[str, type[ListedVideos]] = {"frames": FrameFolders, "files": VideoFiles, "pictures": PictureFolders}
_SET_HERE = {"root", "list_file", "training", "keep"}
_LISTED = set(inspect.signature(ListedVideos).parameters) - _SET_HERE
_ARGUMENTS = {
    "frames": _LISTED | {"template"},
    "files": _LISTED,
    "pictures": PICTURE_ARGUMENTS - _SET_HERE | {"class_names"},
}


def held_out(entry: Entry) -> bool:
    """Whether a video of the training list is for validation; a hash of the path chooses a fixed tenth."""
    return hashlib.sha256(entry.path.encode()).digest()[0] < 26


def open_description(path: str | os.PathLike[str], split: str) -> ListedVideos:
    """The videos of a split.

    Args:
        path: The TOML file.
        split: ``"test"`` is the test list, or its folder. A fixed tenth of the training list or folder is ``"val"``,
            the rest is ``"train"`` and, with random training views, ``"recognizer"``.

    Raises:
        FileNotFoundError: The file, or something that it names, is missing.
        ValueError: The file is not such a description, or something that it names can't be used.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no description of a data set at {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    try:
        return _open(path.parent, values, split)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _open(folder: Path, values: dict[str, Any], split: str) -> ListedVideos:
    """Open a split, given the values in the file."""
    kind = values.pop("kind", "frames")
    check_choice("kind", kind, tuple(_KINDS))
    of_pictures = kind == "pictures"
    places = ("root", *(("train_folder", "test_folder") if of_pictures else ("train_list", "test_list")))
    required = {*places} if of_pictures else {*places, "num_classes"}
    known = {"kind", *places} | _ARGUMENTS[kind]
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"unknown {unknown}; known are {sorted(known)}")
    if missing := sorted(required - values.keys()):
        raise ValueError(f"{missing} must be given")
    if wrong := {key: values[key] for key in sorted(places) if not isinstance(values[key], str)}:
        raise ValueError(f"these must be strings: {wrong}")
    root, train, test = (values.pop(place) for place in places)
    root = folder / root
    if of_pictures:
        values.setdefault("class_names", class_folders(root / train))  # another split may lack a class
    else:
        train, test = folder / train, folder / test
    videos = _KINDS[kind]
    if split == "test":
        return videos(root, test, **values)
    keep = held_out if split == "val" else lambda entry: not held_out(entry)
    return videos(root, train, training=split == "recognizer", keep=keep, **values)
