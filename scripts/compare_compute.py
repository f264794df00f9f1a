"""Compare AdaFocus with other ways to save compute, on the same videos with the same networks.

The other ways are fewer frames, a lower resolution, and, as in AR-Net, a policy that chooses a resolution or a skip for
every frame. All are compared by their accuracy against multiply-adds, also with conditional exit; AdaFocus+ with
learned stopping besides, and with one policy for every price beside one for each. Policies and thresholds are chosen on
validation videos.

The local CNN and the classifier of a recogniser are first trained further, on whole frames and on patches of each size,
with the same number of videos; those of AdaFocus's stage 3 count. What a killed run has trained or evaluated is not
done again.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, replace
from typing import Any

from rich import print

from adafocus_env.command_line import SAME_COMMAND, run_script
from agents.experiments.savings_arguments import SavingsArguments

MAY_CHANGE = (
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
    from agents.experiments.compute import compute_ratios, frontier, mean_points
    from agents.experiments.savings import OTHERS, OURS, all_points, price_differences, savings_of
    from agents.figures import accuracy_against_compute

    started = time.perf_counter()
    if config.quick:
        config.network_videos, config.stage3 = 64, replace(config.stage3, epochs=1)
        for name in IN_QUICK:
            setattr(config, name, getattr(config, name)[:2])
    savings = savings_of(config)
    check_settings(config.out / "settings.json", determining_settings(config))
    with RunFolder(config.out, config, append=True) as run:
        work = [joblib.delayed(savings.on_whole_frames)()]
        work += [joblib.delayed(savings.on_patches)(size) for size in sorted(config.patch_sizes, reverse=True)]
        tried = [each for found in joblib.Parallel(n_jobs=config.jobs)(work) for each in found]
        points = all_points(tried, config.budgets)
        rows = [dataclasses.asdict(point) for point in points]
        places = {"gflops": 5, "accuracy": 3, "val_gflops": 5, "val_accuracy": 3}
        run.write_table("compute", [row | {name: round(row[name], n) for name, n in places.items()} for row in rows])
        run.write_table("ratios", compute_ratios(points, OURS, OTHERS, config.accuracies))
        run.write_table("prices", price_differences(points, config.patch_sizes))
        means = mean_points(point for point in points if point.method in (*OURS, *OTHERS))
        curves = {method: frontier(own) for method, own in means.items()}
        accuracy_against_compute(config.out / "compute.png", {}, curves, logarithmic=True)
    print(f"Everything is in {config.out}, after {(time.perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
