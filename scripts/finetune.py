"""Fine-tune a recogniser on the patches that a policy picks: stage 3 of AdaFocus.

The script also runs under torchrun. It leaves a checkpoint every minute, and after every pass over the videos. With
`--resume` it goes on from there, and ends with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich import print

from adafocus_env.command_line import WITH_RESUME, check_known, check_positive, option_in_advance, run_script
from adafocus_env.recognition.recipes import PAPER_STAGE3, PAPER_TSM_STAGE3, Stage3Config
from agents.presets import CLIP_STAGE3, STAGE3

EMBEDDED = "embedded"
RECIPES = {
    EMBEDDED: STAGE3,
    "embedded-tsm": CLIP_STAGE3,
    "paper": PAPER_STAGE3,
    "paper-tsm": PAPER_TSM_STAGE3,
}
"""Settings of stage 3 for the embedded benchmarks, and those of the paper, by name."""


@dataclass
class Config:
    policy: str | None = None
    """Any policy: the name of a baseline or a shipped policy, or a file such as reinforce.safetensors or ppo.zip; by
    default that in the recogniser's folder, or the patch policy shipped with a shipped recogniser."""
    recognizer: str = "roaming-fashion"
    """Name of a shipped recogniser, or a file or folder, for AdaFocus or AdaFocus-TSM."""
    videos: str | None = None
    """A registered data set, or a TOML file that describes one on disk; by default the shipped videos for the
    recogniser's kind."""
    recipe: str = EMBEDDED
    """Defaults of stage 3's settings: embedded or embedded-tsm, for small networks; or, for AdaFocus and for
    AdaFocus-TSM, those of the paper, paper or paper-tsm."""
    looks: int | None = None
    """Looks at each frame, for still pictures; by default 5 with --recognizer still-fashion, else 1."""
    skip_cost: float | None = None
    """Price of a focused frame, for a policy that acts by it."""
    glance_cost: float | None = None
    """Price of going on to the next frame, for a policy that acts by it."""
    rollouts: int = 1
    """Number of times that each video is rolled out; more than one makes sense for policies that draw at random."""
    device: str = "cpu"
    """torch device; under torchrun, "cuda" gives each process a GPU of its own."""
    resume: bool = False
    """Go on from the checkpoint in --out."""
    seed: int = 0
    """Seed of the rollouts and of the training."""
    out: Path = Path("runs/finetune")
    """Folder for the recogniser, its checkpoint, its metrics, their figure and its TensorBoard log."""
    stage3: Stage3Config = STAGE3


def main(config: Config) -> None:
    from adafocus_env import load_recognizer
    from adafocus_env.processes import process_group, process_number
    from adafocus_env.recognition.optimization import Progress, clear_checkpoints
    from adafocus_env.run_folder import RunFolder
    from agents import evaluate, finetune
    from agents.environments import given_prices, look_arguments, shipped_pair, vector_env_class
    from agents.figures import metric_curves
    from agents.pairs import load_policy_for

    check_known("--recipe", [config.recipe], RECIPES)
    check_positive(looks=config.looks)
    with process_group(config.device) as device:
        recognizer = load_recognizer(config.recognizer, device=device)
        env_class = vector_env_class(None, {"recognizer": recognizer})
        default, default_looks = shipped_pair(config.recognizer, env_class)
        videos = config.videos or default
        policy_name, policy = load_policy_for(recognizer, config.recognizer, config.policy, skip=False)
        prices = given_prices([policy], skip_cost=config.skip_cost, glance_cost=config.glance_cost)
        shared = {**look_arguments(env_class, config.looks or default_looks), **prices}
        with RunFolder(config.out, config, append=config.resume, may_change=("resume", "device")) as run:
            if not config.resume:
                clear_checkpoints(config.out)
            progress = Progress(run.log, bar=True, folder=config.out)
            drawn = {"videos": videos, "rollouts": config.rollouts, "seed": config.seed}
            tuned = finetune(recognizer, policy, config.stage3, progress=progress, **drawn, **shared)
            tuned.metadata = {**recognizer.metadata, "stage3": f"policy {policy_name}, seed {config.seed}"}
            if process_number() > 0:
                return
            tuned.save(config.out / "recognizer.safetensors")
            metric_curves(config.out)
            for name, model in (("before", recognizer), ("after", tuned)):
                found = evaluate(policy, "val", recognizer=model, videos=videos, device=device, **shared).summary()
                run.log(f"val/{name}", 0, found)
                print(f"On the validation videos {name} stage 3:", found)
            print(config.out / "recognizer.safetensors")


def recipe_config() -> Config:
    """Defaults of the command line, with those of the recipe that it names."""
    recipe = option_in_advance("--recipe", EMBEDDED)
    return Config(recipe=recipe, stage3=RECIPES.get(recipe, STAGE3))


if __name__ == "__main__":
    run_script(main, Config, __doc__, default=recipe_config(), resume=WITH_RESUME)
