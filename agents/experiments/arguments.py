"""Arguments that scripts which run trials have in common, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adafocus_env.command_line import check_positive
from adafocus_env.run_folder import RunFolder
from adafocus_env.videos.registry import DEFAULT_VIDEOS
from agents.experiments.bench import Bench
from agents.experiments.report import log_results, write_results
from agents.experiments.runner import Result


@dataclass
class BenchArguments:
    """What trials are run on, and by how many processes."""

    recognizer: str = DEFAULT_VIDEOS
    """A shipped name or a file."""
    videos: str = DEFAULT_VIDEOS
    """A registered data set, or a TOML file that describes one on disk."""
    jobs: int = -1
    """Processes at once; -1 takes all cores."""
    quick: bool = False
    """Rehearse with few videos and little training; the figures mean little."""
    banks: Path = Path("runs/banks")
    """Folder of the feature banks, which are filled once for all experiments."""

    def bench(self, splits: Iterable[str], num_videos: int | None = None) -> Bench:
        """The bench, with the banks of some splits filled; ``num_videos`` of each, or all."""
        bench = Bench(self.recognizer, str(self.banks), self.videos, num_videos=100 if self.quick else num_videos)
        bench.build(splits)
        return bench


@dataclass
class ComparisonArguments(BenchArguments):
    """The budget of every learner in a comparison, and where it is evaluated."""

    seeds: int = 5
    """Number of training seeds."""
    seed: int = 0
    """The first of them."""
    episodes: int = 19_200
    """Training episodes of every run."""
    split: str = "test"
    """Split of the final figures; rehearse on "val"."""

    def budget(self) -> tuple[range, int]:
        """Training seeds, and episodes for each.

        Raises:
            ValueError: Either number is below 1.
        """
        check_positive(seeds=self.seeds, episodes=self.episodes)
        seeds, episodes = (2, 512) if self.quick else (self.seeds, self.episodes)
        return range(self.seed, self.seed + seeds), episodes

    def write(self, folder: Path, results: Sequence[Result]) -> None:
        """Write results, configuration and logs to a folder."""
        write_results(folder, results)
        with RunFolder(folder, self) as run:
            log_results(run.log, results)
