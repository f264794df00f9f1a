"""Watch a video: what it shows, where policies look at it, and what that costs, as text, as a film and as JSON.

    # clips of the embedded benchmark
    python scripts/watch.py --demo
    # a video of one's own, with one policy, or with two side by side
    python scripts/watch.py VIDEO --recognizer recognizer.safetensors --policy policy.safetensors --classes classes.txt
    python scripts/watch.py VIDEO … --policy policy.safetensors random

VIDEO is a video file, a folder of pictures, or the number of a webcam. Videos of any length are read in windows, each
of them a video of its own to the recogniser; no more than two windows are in memory. OUT/watch.mp4 shows the frames
that were read, with the patch in green, and frames that were skipped or came after the end dimmed; OUT/watch.json has
all figures. Ctrl-C ends both where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from adafocus_env.command_line import check_positive, run_script

if TYPE_CHECKING:
    from adafocus_env import Recognizer, TSMRecognizer
    from adafocus_env.videos import VideoDataset
    from adafocus_env.videos.sources import Source
    from agents.watching.watcher import Watcher

DEMO_CLIPS = range(6)


@dataclass
class Config:
    video: Annotated[str | None, tyro.conf.Positional] = None
    """A video file, a folder of pictures, or the number of a webcam, such as 0."""
    demo: bool = False
    """Watch six validation clips of the embedded benchmark."""
    policy: tuple[str, ...] = ()
    """One policy, or several to see side by side: names of baselines or shipped policies, or files such as
    reinforce.safetensors or ppo.zip; by default that in the recogniser's folder, or the one shipped with a
    shipped recogniser."""
    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file or folder, for AdaFocus or AdaFocus-TSM."""
    classes: Path | None = None
    """A text file with the name of a class in each line; by default the names that the recogniser was trained with, or
    numbers if its file doesn't say."""
    exit_threshold: float | None = None
    """Leave a window after the first frame at which a class is this probable (conditional exit)."""
    skip_cost: float | None = None
    """Price of a focused frame, for policies that act by it."""
    glance_cost: float | None = None
    """Price of going on to the next frame, for policies that act by it."""
    frames: int | None = None
    """Frames in a window; by default as many as in the videos that the recogniser was trained on, or 16."""
    rate: float | None = None
    """Pictures a second, if VIDEO is a folder of pictures; by default 25."""
    stride: int | None = None
    """Frames from one window's beginning to the next one's; by default windows don't overlap."""
    every: int | None = None
    """Read every so many-th frame; by default about four a second, but a window's worth of a short video."""
    looks: int | None = None
    """Looks at each frame, for still pictures; by default 5 with --recognizer still-fashion, else 1."""
    frame_size: int | None = None
    """Height and width of the recogniser's view of a frame, pixels; by default as it was trained, or 224."""
    resized: int | None = None
    """Shorter side of a frame before that view is cropped from its centre, pixels; by default as the recogniser was
    trained, or 8/7 of the view, as 256 is of 224."""
    resize: Literal["torch", "pillow"] | None = None
    """Library that resizes; by default as the recogniser was trained, or "torch". "pillow" is what released checkpoints
    were trained with."""
    top: int = 5
    """Classes whose probabilities are in the JSON."""
    device: str = "cpu"
    """torch device."""
    seed: int = 0
    """Seed of a baseline's random choices."""
    out: Path = Path("runs/watch")
    """Folder for watch.mp4 and watch.json."""


def open_videos(config: Config, videos: VideoDataset) -> Source:
    """What is watched."""
    from adafocus_env.videos.sources import Clips, open_source

    if (config.video is None) != config.demo:
        raise ValueError("give either a video file, a folder of pictures or the number of a webcam, or --demo")
    if config.demo and (
        given := [name for name in ("frames", "rate", "stride", "every") if getattr(config, name) is not None]
    ):
        raise ValueError(
            f"--{given[0]}: with --demo a window is a clip, from its first frame to its last: leave it out"
        )
    return open_source(config.video, config.rate) if config.video is not None else Clips(videos, DEMO_CLIPS)


def make_watcher(
    config: Config, recognizer: Recognizer | TSMRecognizer, source: Source, videos: VideoDataset
) -> Watcher:
    """The watcher that the options ask for."""
    from agents.environments import given_prices, shipped_pair, vector_env_class
    from agents.pairs import load_policy_for
    from agents.pretrained import SHOWN_POLICIES
    from agents.watching.settings import read_class_names, usual_every, usual_videos
    from agents.watching.watcher import Reading, Watcher

    usual = usual_videos(recognizer, videos if config.demo or config.recognizer in SHOWN_POLICIES else None)
    size, frames = config.frame_size or usual.frame_size, config.frames or usual.num_frames
    if len({*config.policy}) < len(config.policy):
        raise ValueError(f"--policy: each policy once, not {', '.join(config.policy)}")
    chosen: tuple[str | None, ...] = config.policy or (None,)
    policies = dict(load_policy_for(recognizer, config.recognizer, name, config.seed) for name in chosen)
    reading = Reading(
        num_frames=frames,
        stride=config.stride or frames,
        every=config.every or usual_every(source, frames),
        frame_size=size,
        resized=config.resized or size * usual.resized // usual.frame_size,
        resize=config.resize or usual.resize,
        looks=config.looks or shipped_pair(config.recognizer, vector_env_class(None, {"recognizer": recognizer}))[1],
        exit_threshold=config.exit_threshold,
        prices=given_prices(policies.values(), skip_cost=config.skip_cost, glance_cost=config.glance_cost),
    )
    names: Sequence[str] = usual.class_names
    if config.classes is not None:
        names = read_class_names(config.classes, recognizer.config.num_classes)
    return Watcher(recognizer, policies, names, reading)


def main(config: Config) -> None:
    from adafocus_env import load_recognizer
    from adafocus_env.checks import as_device
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos
    from adafocus_env.videos.sources import Clips
    from agents.environments import shipped_pair, vector_env_class
    from agents.pretrained import SHOWN_POLICIES
    from agents.watching.film import Film
    from agents.watching.record import Record
    from agents.watching.terminal import Terminal

    check_positive(
        frames=config.frames, stride=config.stride, every=config.every, looks=config.looks, top=config.top,
        frame_size=config.frame_size, resized=config.resized,
    )  # fmt: skip
    recognizer = load_recognizer(config.recognizer, as_device(config.device))
    default, _ = shipped_pair(config.recognizer, vector_env_class(None, {"recognizer": recognizer}))
    videos = get_videos(default, "val")
    source = open_videos(config, videos)
    watcher = make_watcher(config, recognizer, source, videos)
    reading, about = watcher.reading, {"video": source.name, "recognizer": config.recognizer}
    if not config.demo and config.recognizer in SHOWN_POLICIES:
        about["note"] = (
            f"{config.recognizer} knows nothing but the {len(videos.class_names)} classes of the embedded benchmark, "
            f"{videos.class_names[0]} to {videos.class_names[-1]}: its predictions can't fit this video, and show only "
            "how it works. For real ones, give --recognizer and --policy that were trained on such videos."
        )
        print(about["note"])
    film_path, record_path = config.out / "watch.mp4", config.out / "watch.json"
    expected = source.expected and -(-source.expected // reading.every)
    with (
        RunFolder(config.out, config),
        Record(record_path, watcher, about, config.top) as record,
        Film(film_path, watcher, source.rate / reading.every * reading.looks) as film,
        Terminal(watcher, expected) as terminal,
    ):
        for window in watcher.watch(source):
            record.add(window)
            film.add(window)
            terminal.show(window)
    if isinstance(source, Clips):
        print("true classes of the clips:", ", ".join(videos.class_names[label] for label in source.labels))
    print(film_path, record_path, sep="\n")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume="what was watched until then is in {out}, if it was a window or more")
