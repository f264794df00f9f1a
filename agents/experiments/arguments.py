"""The command-line arguments that scripts which run trials share, and the bench and budget made from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adafocus_env.command_line import check_positive

if TYPE_CHECKING:
    from agents.experiments.bench import Bench
    from agents.experiments.runner import Result


@dataclass
class BenchArguments:
    """The data that trials run on, and the number of processes."""

    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file."""
    videos: str = "roaming-fashion"
    """A registered data set, or a TOML file that describes one on disk."""
    jobs: int = -1
    """Number of processes that run at once; -1 takes all cores."""
    quick: bool = False
    """Rehearse with few videos and little training; the figures mean little."""
    banks: Path = Path("runs/banks")
    """Folder of the feature banks, which are filled once for all experiments."""
    trials: Path = Path("runs/trials")
    """Folder of the trials' results and policies. Experiments share the trials that they have in common; changed code
    runs all anew."""

    def bench(self, splits: Iterable[str], num_videos: int | None = None) -> Bench:
        """The bench, with the feature banks of some splits filled for ``num_videos`` videos each, or for all."""
        from agents.experiments.bench import Bench

        bench = Bench(self.recognizer, str(self.banks), self.videos, num_videos=48 if self.quick else num_videos)
        bench.build(splits)
        return bench


@dataclass
class ComparisonArguments(BenchArguments):
    """The budget of every learner in a comparison, and the split that it is evaluated on."""

    seeds: int = 5
    """Number of training seeds."""
    seed: int = 0
    """The first training seed."""
    episodes: int = 19_200
    """Training episodes of every run."""
    split: str = "test"
    """Split of the final figures; rehearse on "val"."""

    def budget(self) -> tuple[range, int]:
        """The training seeds, and the number of episodes for each.

        Raises:
            ValueError: The number of seeds or of episodes is below 1.
        """
        check_positive(seeds=self.seeds, episodes=self.episodes)
        seeds, episodes = (2, 512) if self.quick else (self.seeds, self.episodes)
        return range(self.seed, self.seed + seeds), episodes

    def write(self, folder: Path, results: Sequence[Result], benches: Sequence[Bench]) -> None:
        """Write the results of trials on some benches, the configuration and the logs to a folder."""
        from adafocus_env.run_folder import RunFolder
        from agents.experiments.report import log_results, write_results

        write_results(folder, results, benches)
        with RunFolder(folder, self) as run:
            log_results(run.log, results)
