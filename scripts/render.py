"""Draw what a policy looks at: a film strip (PNG) and an animation (GIF)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafocus_env.command_line import run_script


@dataclass
class Config:
    policy: str | None = None
    """The name of a baseline or a shipped policy, or a file such as reinforce.safetensors or ppo.zip; by default that
    in the recogniser's folder, or the one shipped with a shipped recogniser."""
    indices: tuple[int, ...] | None = None
    """Indices of videos in the split; by default those of the first four."""
    split: str = "val"
    """Split of the videos."""
    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file or folder, for AdaFocus or AdaFocus-TSM."""
    videos: str | None = None
    """A registered data set, or a TOML file that describes one on disk; by default the shipped videos for the
    recogniser's kind."""
    looks: int | None = None
    """Looks at each frame, for still pictures; by default 5 with --recognizer still-fashion, else 1."""
    exit_threshold: float | None = None
    """Leave a video after the first frame at which a class is this probable (conditional exit); its picture has a green
    border."""
    skip_cost: float | None = None
    """Price of a focused frame, for a policy that acts by it."""
    glance_cost: float | None = None
    """Price of going on to the next frame, for a policy that acts by it."""
    seed: int = 0
    """Seed of a baseline's random choices."""
    out: Path = Path("runs/render")
    """Folder for the pictures."""


def main(config: Config) -> None:
    from adafocus_env import load_recognizer
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos.registry import get_videos
    from agents.environments import given_prices, look_arguments, shipped_pair, vector_env_class
    from agents.figures import animation, film_strip, play
    from agents.pairs import load_policy_for

    recognizer = load_recognizer(config.recognizer)
    env_class = vector_env_class(None, {"recognizer": recognizer})
    default, default_looks = shipped_pair(config.recognizer, env_class)
    _, policy = load_policy_for(recognizer, config.recognizer, config.policy, config.seed)
    arguments: dict[str, Any] = {
        **look_arguments(env_class, config.looks or default_looks),
        **given_prices([policy], skip_cost=config.skip_cost, glance_cost=config.glance_cost),
    }
    videos = get_videos(config.videos or default, config.split)
    arguments |= {"videos": videos, "recognizer": recognizer}
    indices = config.indices or range(min(4, len(videos)))
    with RunFolder(config.out, config):
        pictures = play(policy, indices, exit_threshold=config.exit_threshold, **arguments)
        film_strip(config.out / "film_strip.png", pictures)
        animation(config.out / "animation.gif", pictures)
    print(config.out / "film_strip.png", config.out / "animation.gif", sep="\n")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
