"""Compare AdaFocus with other ways to save compute, on the same videos with the same networks.

The other ways are fewer frames, a lower resolution, and, as in AR-Net, a policy that chooses a resolution or a skip for
every frame. All are compared by their accuracy against multiply-adds.

The local CNN and the classifier of the shipped recogniser are first trained further, on whole frames and on patches of
each size, with the same number of videos. What a killed run has trained or evaluated is not done again.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, replace
from typing import Any

import joblib
from rich import print

from adafocus_env import Recognizer
from adafocus_env.command_line import SAME_COMMAND, run_script
from adafocus_env.run_folder import RunFolder, check_settings
from agents.experiments.compute import compute_ratios, mean_curves, merged
from agents.experiments.savings import ADAPTIVE, POLICY_TRAINING, SHIPPED, Savings
from agents.figures import accuracy_against_compute

MAY_CHANGE = ("seeds", "accuracies", "jobs", "out", "patch_sizes", "skip_costs", "resolution_costs", "frames")
"""Arguments that may change when a killed run goes on."""
IN_QUICK = ("patch_sizes", "skip_costs", "resolution_costs", "frames", "seeds")
"""Arguments of which a rehearsal takes the first two values."""


@dataclass
class Config(Savings):
    accuracies: tuple[float, ...] = (66.0, 68.0, 70.0, 72.0, 74.0, 75.0, 76.0, 77.0, 78.0, 79.0)
    """Accuracies at which compute is compared, percent."""
    jobs: int = -1
    """Number of processes that run at once; -1 takes all cores."""


def determining_settings(config: Config) -> dict[str, Any]:
    """Everything that determines the results in a folder, except the arguments that may change."""
    return {
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name not in MAY_CHANGE},
        **POLICY_TRAINING,
        "recognizer": Recognizer.from_pretrained(SHIPPED).fingerprint(),
        "videos": config.videos(config.split).fingerprint,
    }


def main(config: Config) -> None:
    started = time.perf_counter()
    if config.quick:
        config.whole_frames, config.patches = (replace(c, steps=2) for c in (config.whole_frames, config.patches))
        for name in IN_QUICK:
            setattr(config, name, getattr(config, name)[:2])
    check_settings(config.out / "settings.json", determining_settings(config))
    with RunFolder(config.out, config, append=True) as run:
        work = [joblib.delayed(config.on_whole_frames)()]
        work += [joblib.delayed(config.on_patches)(size) for size in config.patch_sizes]
        points = [point for found in joblib.Parallel(n_jobs=config.jobs)(work) for point in found]
        rounded = (replace(point, gflops=round(point.gflops, 5), accuracy=round(point.accuracy, 3)) for point in points)
        run.write_table("compute", [dataclasses.asdict(point) for point in rounded])
        curves = mean_curves(points)
        ours = [method for method in curves if method.startswith("AdaFocus+")]
        whole = [method for method in curves if method.startswith("whole frames")]
        points += merged(points, ours, "AdaFocus+, any P") + merged(points, whole, "whole frames, any size")
        others = [ADAPTIVE, "whole frames, any size"]
        run.write_table("ratios", compute_ratios(points, ["AdaFocus+, any P", *ours], others, config.accuracies))
        accuracy_against_compute(
            config.out / "compute.png",
            {method: curve[0] for method, curve in curves.items() if len(curve) == 1},
            {method: curve for method, curve in curves.items() if len(curve) > 1},
            logarithmic=True,
        )
    print(f"Everything is in {config.out}, after {(time.perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
