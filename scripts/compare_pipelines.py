"""Compare AdaFocus's three stages with the one stage of AdaFocusV2, from the same warmed-up networks.

Stage 0 warms both CNNs up. From there on, one pipeline trains the recogniser on random patches (stage 1), a policy over
it by soft targets (stage 2), and the classifier on the policy's patches (stage 3). The other trains all networks
together, with gradients through the patches: once with as many visits to videos as the three stages, and once for as
many seconds. What a killed run has finished is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_positive, run_script
from adafocus_env.recognition.recipes import EndToEndConfig, Stage0Config, Stage1Config, Stage3Config, num_steps
from agents.presets import QUICK_EPISODES, QUICK_VIDEOS, STAGE3

if TYPE_CHECKING:
    from adafocus_env import Recognizer, RoamingFashion
    from adafocus_env.recognition.optimization import Progress
    from adafocus_env.run_folder import RunFolder
    from agents import Reinforce

MAY_CHANGE = ("seeds", "seed", "factors", "split", "out")
"""Arguments that may change when a killed run goes on."""
PRESET = "roaming-fashion"
LEARNER = "soft_targets"


@dataclass
class Config:
    seeds: int = 1
    """Number of training seeds."""
    seed: int = 0
    """The first training seed."""
    factors: tuple[float, ...] = (1.0,)
    """Factors of the one stage's learning rates. The best on the validation split counts; those that diverge don't."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    quick: bool = False
    """Rehearse with hardly any training; the figures mean nothing."""
    out: Path = Path("runs/compare_pipelines")
    """Folder for the table, the recognisers and the policies."""
    stage0: Stage0Config = field(default_factory=Stage0Config)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage3: Stage3Config = STAGE3
    end_to_end: EndToEndConfig = field(default_factory=EndToEndConfig)

    def videos(self, split: str, number: int | None = None) -> RoamingFashion:
        """The videos of a split, or a number of them."""
        from adafocus_env import RoamingFashion

        return RoamingFashion(split, num_videos=32 if self.quick else number)

    @property
    def visits(self) -> int:
        """Visits to videos in stages 1, 2 and 3. Stages 2 and 3 read a video once and remember what the CNNs say."""
        steps = num_steps(len(self.videos("recognizer")), self.stage1, self.stage1.steps)
        of_stage1 = steps * self.stage1.videos_per_step
        return of_stage1 + len(self.videos("train", QUICK_VIDEOS)) + len(self.videos("train"))


class Trained(NamedTuple):
    """What a training has left in its folder."""

    recognizer: Recognizer
    policy: Any
    seconds: float


def kept(path: Path, make: Callable[[], tuple[Recognizer, Reinforce | None]]) -> Trained:
    """Load what a training left in files whose names begin as a path; if there is nothing, train first."""
    from adafocus_env import Recognizer
    from agents import load_policy
    from agents.baselines import RandomPolicy

    file, policy_file = (path.with_name(f"{path.name}{end}.safetensors") for end in ("", "-policy"))
    if not file.exists():
        started = time.perf_counter()
        recognizer, policy = make()
        recognizer.metadata = {"seconds": f"{time.perf_counter() - started:.1f}"}
        if policy is not None:
            policy.save(policy_file, training_state=False)
        recognizer.save(file)
    recognizer = Recognizer.from_pretrained(file)
    policy = load_policy(policy_file) if policy_file.exists() else RandomPolicy
    return Trained(recognizer, policy, float(recognizer.metadata["seconds"]))


def warm_up(config: Config, seed: int, progress: Progress) -> Recognizer:
    """Stage 0."""
    import torch

    from adafocus_env import Recognizer
    from adafocus_env.recognition.presets import PRESETS
    from adafocus_env.recognition.training import train_stage0

    torch.manual_seed(seed)
    recognizer = Recognizer(PRESETS[PRESET])
    train_stage0(recognizer, config.videos("recognizer"), config.stage0, seed=seed, progress=progress)
    return recognizer


def three_stages(warm: Recognizer, config: Config, seed: int, progress: Progress) -> tuple[Recognizer, Reinforce]:
    """Stages 1, 2 and 3."""
    from adafocus_env import FeatureBank
    from adafocus_env.recognition.training import train_stage1
    from agents import finetune
    from agents.experiments.algorithms import ALGORITHMS

    train_stage1(warm, config.videos("recognizer"), config.stage1, seed=seed, progress=progress)
    learner, videos = ALGORITHMS[LEARNER], config.videos("train", QUICK_VIDEOS)
    policy: Reinforce = learner.make(FeatureBank(warm, videos), seed, learner.env, learner.settings)
    policy.learn((64 if config.quick else QUICK_EPISODES) * videos.num_frames, progress_bar=True)
    policy.set_env(None)
    return finetune(warm, policy, config.stage3, videos=config.videos("train"), seed=seed, progress=progress), policy


def one_stage(
    warm: Recognizer, config: Config, seed: int, progress: Progress, factor: float, steps: int
) -> tuple[Recognizer, Reinforce]:
    """Everything at once, with learning rates multiplied by a factor."""
    from agents import train_end_to_end

    rates = {name: factor * rate for name, rate in asdict(config.end_to_end).items() if name.endswith("learning_rate")}
    settings = replace(config.end_to_end, steps=steps, epochs=None, **rates)
    return train_end_to_end(warm, config.videos("recognizer"), settings, seed=seed, progress=progress, score_map=True)


def row_of(name: str, seed: int, visits: int, trained: Trained, config: Config) -> dict[str, Any]:
    """A row of the table."""
    from agents import evaluate
    from agents.baselines import RandomPolicy

    arguments: dict[str, Any] = {"recognizer": trained.recognizer, "reward": "confidence"}
    found = evaluate(trained.policy, videos=config.videos(config.split), **arguments)
    random = evaluate(RandomPolicy, videos=config.videos(config.split), skip=False, **arguments)
    return {
        "pipeline": name,
        "seed": seed,
        "visits": visits,
        "seconds": round(trained.seconds),
        "accuracy": round(100 * found.accuracy, 2),
        "accuracy on random patches": round(100 * random.accuracy, 2),
        "gflops": round(found.gflops_per_video, 4),
    }


def compare(config: Config, run: RunFolder, seed: int) -> list[dict[str, Any]]:
    """The rows of one seed."""
    from adafocus_env.files import write_atomically
    from adafocus_env.recognition.optimization import Progress
    from agents import evaluate

    stage0 = run.path / f"stage0-{seed}"

    def progress(name: str) -> Progress:
        """Of a training whose metrics are to be told from those of the others."""
        return Progress(lambda stage, step, metrics: run.log(f"{name}-{seed}/{stage}", step, metrics), bar=True)

    def warm() -> Recognizer:
        return kept(stage0, lambda: (warm_up(config, seed, progress("stage0")), None)).recognizer

    def single(name: str, factor: float, steps: int) -> Trained | None:
        """The one stage; ``None`` if it diverges, which a file remembers."""
        name = f"one_stage_{name}"
        diverged = run.path / f"{name}-{seed}.diverged"
        if diverged.exists():
            return None
        try:
            return kept(
                run.path / f"{name}-{seed}", lambda: one_stage(warm(), config, seed, progress(name), factor, steps)
            )
        except FloatingPointError as error:
            print(f"{name}, seed {seed}: {error}")
            write_atomically(diverged, f"{error}\n".encode())
            return None

    warm()  # its seconds count for neither
    staged = kept(
        run.path / f"three_stages-{seed}",
        lambda: three_stages(warm(), config, seed, progress("three_stages")),
    )
    steps = config.visits // config.end_to_end.videos_per_step
    found = {factor: single(f"rates_x{factor:g}", factor, steps) for factor in config.factors}
    at_once = {factor: trained for factor, trained in found.items() if trained is not None}
    if not at_once:
        raise ValueError(f"--factors: the one stage diverges with all of {list(found)}: add lower ones")

    def on_validation(factor: float) -> float:
        trained = at_once[factor]
        return evaluate(trained.policy, videos=config.videos("val"), recognizer=trained.recognizer).accuracy

    best = max(at_once, key=on_validation) if len(at_once) > 1 else next(iter(at_once))
    longer = max(1, round(steps * staged.seconds / at_once[best].seconds))
    as_long = single(f"as_long_x{best:g}", best, longer)
    per_step = config.end_to_end.videos_per_step
    rows = [
        row_of("three stages", seed, config.visits, staged, config),
        row_of("one stage, equal visits", seed, steps * per_step, at_once[best], config),
    ]
    if as_long is not None:
        rows.append(row_of("one stage, equal seconds", seed, longer * per_step, as_long, config))
    return rows


def main(config: Config) -> None:
    check_positive(seeds=config.seeds)
    config.videos(config.split)  # a split that there isn't is to fail before the training
    from adafocus_env.run_folder import RunFolder, check_settings
    from agents.experiments.algorithms import ALGORITHMS
    from agents.experiments.provenance import code_of

    if config.quick:
        config.stage0 = replace(config.stage0, global_steps=2, local_steps=2)
        config.stage1, config.stage3 = replace(config.stage1, steps=2), replace(config.stage3, epochs=1)
    settings = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
    settings["code"] = code_of(__file__)
    settings["learner"] = [dict(ALGORITHMS[LEARNER].settings), QUICK_EPISODES, QUICK_VIDEOS]
    settings["videos"] = [config.videos(split).fingerprint for split in ("recognizer", "train")]
    check_settings(config.out / "settings.json", settings)
    with RunFolder(config.out, config, append=True) as run:
        rows = [row for seed in range(config.seed, config.seed + config.seeds) for row in compare(config, run, seed)]
        run.write_table("pipelines", rows)
    print(f"On {config.split}, from the same stage 0:", *rows, sep="\n")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
