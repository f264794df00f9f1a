"""Compare AdaFocus with other ways to save compute, on the same videos with the same networks.

The other ways are fewer frames, a lower resolution, and, as in AR-Net, a policy that chooses a resolution or a skip for
every frame. All are compared by their accuracy against multiply-adds, also with conditional exit; AdaFocus+ with
learned stopping besides, and with one policy for every price beside one for each. Policies and thresholds are chosen on
validation videos.

The local CNN and the classifier of a recogniser are first trained further, on whole frames and on patches of each size,
with the same number of videos; those of AdaFocus's stage 3 count. What a killed run has trained or evaluated is not
done again. The parts can also be run one by one, in folders of their own, and be compared from their tables:

    python scripts/compare_compute.py --parts whole_frames --out runs/whole_frames
    python scripts/compare_compute.py --parts patches --patch-sizes 32 --out runs/patch32
    python scripts/compare_compute.py --parts --points runs/whole_frames/compute.csv runs/patch32/compute.csv
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich import print

from adafocus_env.command_line import SAME_COMMAND, run_script
from agents.experiments.savings_arguments import SavingsArguments

MAY_CHANGE = (
    "parts",
    "points",
    "seeds",
    "accuracies",
    "budgets",
    "jobs",
    "out",
    "recognizer",
    "patch_sizes",
    "skip_costs",
    "every_price",
    "resolution_costs",
    "soft_resolution_costs",
    "frames",
)
"""Arguments that may change when a killed run goes on."""
IN_QUICK = ("patch_sizes", "skip_costs", "every_price", "resolution_costs", "soft_resolution_costs", "frames", "seeds")
"""Arguments of which a rehearsal takes the first two values."""


@dataclass
class Config(SavingsArguments):
    parts: tuple[Literal["whole_frames", "patches"], ...] = ("whole_frames", "patches")
    """What is trained and evaluated."""
    points: tuple[Path, ...] = ()
    """Tables compute.csv of other parts, which are compared with these."""
    accuracies: tuple[float, ...] = (66.0, 68.0, 70.0, 72.0, 74.0, 75.0, 76.0, 77.0, 78.0, 79.0)
    """Accuracies at which compute is compared, percent."""
    budgets: tuple[float, ...] = tuple(round(0.04 * 1.08**step, 4) for step in range(37))
    """GFLOPs per video for which thresholds of conditional exit are chosen."""
    jobs: int = -1
    """Number of processes that run at once; -1 takes all cores."""


def determining_settings(config: Config) -> dict[str, Any]:
    """Everything that determines the results in a folder, except the arguments that may change."""
    from adafocus_env import Recognizer
    from agents.experiments.provenance import code_of
    from agents.experiments.savings import POLICY_TRAINING, savings_of

    videos = savings_of(config).videos
    return {
        "code": code_of(__file__),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name not in MAY_CHANGE},
        **POLICY_TRAINING,
        "recognizer": Recognizer.from_pretrained(config.recognizer).fingerprint(),
        "videos": [videos(split).fingerprint for split in ("recognizer", "train", "val", config.split)],
    }


def main(config: Config) -> None:
    import joblib

    from adafocus_env.run_folder import RunFolder, check_settings
    from agents.experiments.compute import compute_ratios, frontier, mean_points, read_points
    from agents.experiments.savings import (
        OTHERS,
        OURS,
        WHOLE,
        points_of,
        points_of_families,
        price_differences,
        savings_of,
    )
    from agents.figures import accuracy_against_compute

    started = time.perf_counter()
    if config.quick:
        config.network_videos, config.stage3 = 64, replace(config.stage3, epochs=1)
        for name in IN_QUICK:
            setattr(config, name, getattr(config, name)[:2])
    points = [point for path in config.points for point in read_points(path)]
    savings = savings_of(config)
    check_settings(config.out / "settings.json", determining_settings(config))
    whole, sizes = "whole_frames" in config.parts, sorted(config.patch_sizes if "patches" in config.parts else ())[::-1]
    with RunFolder(config.out, config, append=True) as run, joblib.Parallel(n_jobs=config.jobs) as parallel:
        parallel(joblib.delayed(savings.prepare)(part) for part in ([WHOLE] * whole + sizes))
        work = [joblib.delayed(savings.on_fewer_frames)()] if whole else []
        for seed in config.seeds:
            work += [joblib.delayed(savings.on_whole_frames)(seed)] if whole else []
            work += [joblib.delayed(savings.on_patches)(size, seed) for size in sizes]
        points += points_of([each for found in parallel(work) for each in found], config.budgets)
        rows = [dataclasses.asdict(point) for point in points]
        places = {"gflops": 5, "accuracy": 3, "val_gflops": 5, "val_accuracy": 3}
        run.write_table("compute", [row | {name: round(row[name], n) for name, n in places.items()} for row in rows])
        run.write_table("prices", price_differences(points))
        points += points_of_families(points)
        run.write_table("ratios", compute_ratios(points, OURS, OTHERS, config.accuracies))
        means = mean_points(point for point in points if point.method in (*OURS, *OTHERS))
        curves = {method: frontier(own) for method, own in means.items()}
        accuracy_against_compute(config.out / "compute.png", {}, curves, logarithmic=True)
    print(f"Everything is in {config.out}, after {(time.perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
