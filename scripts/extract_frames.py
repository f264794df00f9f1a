"""Turn encoded videos into folders of JPEG frames, or check a data set before using it.

    # LIST has lines of a path and one or several labels
    python scripts/extract_frames.py VIDEOS LIST --num-classes 200
    # a data set that a TOML file describes; and every frame of it
    python scripts/extract_frames.py --check data.toml
    python scripts/extract_frames.py --check data.toml --decode all

Videos are decoded in parallel. Each appears whole or not at all, and a killed run goes on with what is missing. Frames
that exist are kept if they are of the same file with the same settings, and are made anew otherwise. At the end the
folder holds frames/, list.txt (path, frames, labels) for FrameFolders, and failed.csv, which says what failed and
why. The exit status is 0 if there are frames of any video, and 1 if all videos failed.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich import print

from adafocus_env.command_line import SAME_COMMAND, run_script

if TYPE_CHECKING:
    from adafocus_env.videos.lists import Entry


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Config:
    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the videos."""
    list_file: Annotated[Path | None, tyro.conf.Positional] = None
    """List of the videos: lines of a path and one or several labels, separated by commas or spaces."""
    num_classes: int | None = None
    """Number of classes; labels are below it."""
    multi_label: bool | None = None
    """Whether lines have several labels, if these are separated by spaces."""
    short_side: int = 360
    """Shorter side of the frames, pixels; smaller videos keep their size."""
    quality: int = 90
    """Quality of the JPEGs."""
    check: Path | None = None
    """Only check the data set that this TOML file describes: for missing, truncated or miscounted files, frames of
    several sizes, videos in both lists, and classes that are never trained. The exit status is 1 if there are any."""
    decode: Literal["read", "all"] = "read"
    """Frames that --check decodes: those that evaluation reads, or all."""
    jobs: int = -1
    """Number of processes that run at once; -1 takes all cores."""
    seed: int = 0
    """Not used, as nothing here is random."""
    out: Path = Path("runs/extract_frames")
    """Folder for frames/, list.txt and failed.csv."""


def check(description: Path, decode: Literal["read", "all"]) -> None:
    """Print what is worth knowing about a data set, and exit with its problems if it has any."""
    from adafocus_env.progress import tqdm
    from adafocus_env.videos.checking import check_description

    report = check_description(description, every_frame=decode == "all", progress_bar=True)
    for note in report.notes:
        tqdm.write(note)
    if decode == "read":
        tqdm.write("not decoded: frames that evaluation doesn't read (--decode all checks them, too)")
    if report.problems:
        raise SystemExit("\n".join([*report.problems, f"{len(report.problems)} problems"]))
    print("No problems found.")


def attempt(root: Path, entry: Entry, folder: Path, config: Config) -> tuple[int, str]:
    """Extract a video; return its number of frames and an empty string, or 0 and what went wrong."""
    from adafocus_env.videos.extraction import extract_frames

    try:
        return extract_frames(root / entry.path, folder, config.short_side, config.quality), ""
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in DISK_FULL:  # that is not the video's fault
            raise
        return 0, str(error)


def main(config: Config) -> None:
    import joblib

    from adafocus_env.files import write_atomically
    from adafocus_env.progress import tqdm
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos.extraction import folder_names
    from adafocus_env.videos.lists import list_line, read_list, summary

    if config.check is not None:
        check(config.check, config.decode)
        return
    if config.root is None or config.list_file is None or config.num_classes is None:
        raise ValueError("give the folder of the videos, the list file and --num-classes; or --check data.toml")
    if not config.root.is_dir():
        raise ValueError(f"{config.root} is no folder of videos")
    entries = read_list(config.list_file, config.num_classes, counted=False, multi_label=config.multi_label).entries
    names, problems = folder_names(entries)
    if problems:
        raise ValueError(f"{config.list_file}: {summary(problems)}")
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
                lines.append(list_line(name, frames, entry.labels))
        write_atomically(config.out / "list.txt", "".join(f"{line}\n" for line in lines).encode())
        run.write_table("failed", failed)
    if not lines:
        raise SystemExit(f"all {len(failed)} videos failed, such as {failed[0]['path']}: {failed[0]['reason']}")
    print(f"{len(lines)} videos are in {config.out / 'frames'}; {len(failed)} failed ({config.out / 'failed.csv'}).")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
