"""Turn encoded videos into folders of JPEG frames, or check a data set before using it.

python scripts/extract_frames.py VIDEOS LIST --num-classes 200     # LIST: lines of path and label(s)
python scripts/extract_frames.py --check data.toml                 # a data set that a TOML file describes

Videos are decoded in parallel, each appears whole or not at all, and a killed run goes on with what is missing. At the
end there are frames/, list.txt (path, frames, labels) for FrameFolders, and failed.csv with what failed and why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import joblib
import tyro
from rich import print
from tqdm.auto import tqdm

from adafocus_env.command_line import SAME_COMMAND, run_script
from adafocus_env.files import write_atomically
from adafocus_env.run_folder import RunFolder
from adafocus_env.videos.description import open_description
from adafocus_env.videos.extraction import extract_frames
from adafocus_env.videos.listed_videos import ListedVideos
from adafocus_env.videos.lists import Entry, read_list


@dataclass
class Config:
    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the videos."""
    list_file: Annotated[Path | None, tyro.conf.Positional] = None
    """Lines of path and label or labels, separated by commas or spaces."""
    num_classes: int | None = None
    """Labels are below this."""
    short_side: int = 360
    """Shorter side of the frames, pixels; smaller videos stay as they are."""
    quality: int = 90
    """Of the JPEGs."""
    check: Path | None = None
    """Look for missing, truncated or miscounted files in the data set that this TOML file describes, and do nothing
    else; the exit status is 1 if there are any."""
    jobs: int = -1
    """Processes at once; -1 takes all cores."""
    seed: int = 0
    """Not used: nothing here is random."""
    out: Path = Path("runs/extract_frames")
    """Folder for frames/, list.txt and failed.csv."""


def check(description: Path) -> list[str]:
    """Problems of all videos of both lists."""
    problems: list[str] = []
    for split in ("train", "val", "test"):
        videos = open_description(description, split)
        assert isinstance(videos, ListedVideos)
        problems += [*videos.skipped, *videos.problems()]
        print(f"{split}: {len(videos)} videos")
    return problems


def attempt(root: Path, entry: Entry, folder: Path, config: Config) -> tuple[int, str]:
    """Number of frames and an empty string, or 0 and what went wrong."""
    try:
        return extract_frames(root / entry.path, folder, config.short_side, config.quality), ""
    except (OSError, ValueError) as error:
        return 0, str(error)


def main(config: Config) -> None:
    if config.check is not None:
        if problems := check(config.check):
            raise SystemExit("\n".join([*problems, f"{len(problems)} problems"]))
        print("no problems")
        return
    if config.root is None or config.list_file is None or config.num_classes is None:
        raise ValueError("give the folder of the videos, the list file and --num-classes; or --check data.toml")
    entries = read_list(config.list_file, config.num_classes, counted=False).entries
    names = [str(Path(entry.path).with_suffix("")) for entry in entries]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{config.list_file}: {twice[0]!r} would be the folder of several videos")
    with RunFolder(config.out, config) as run:
        work = (
            joblib.delayed(attempt)(config.root, entry, config.out / "frames" / name, config)
            for entry, name in zip(entries, names, strict=True)
        )
        parallel = joblib.Parallel(n_jobs=config.jobs, return_as="generator")
        found = list(tqdm(parallel(work), total=len(entries), desc="videos"))
        lines, failed = [], []
        for entry, name, (frames, error) in zip(entries, names, found, strict=True):
            if error:
                failed.append({"path": entry.path, "line": entry.line, "reason": error})
            else:
                lines.append(", ".join([name, str(frames), *map(str, entry.labels)]))
        write_atomically(config.out / "list.txt", ("\n".join(lines) + "\n").encode())
        run.write_table("failed", failed)
    print(f"{len(lines)} videos in {config.out / 'frames'}, {len(failed)} failed ({config.out / 'failed.csv'})")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
