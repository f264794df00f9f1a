"""Train a recogniser: stages 0 and 1 of AdaFocus.

Without arguments it reproduces the shipped recogniser, with `--preset roaming-motion` that of AdaFocus-TSM, and with
`--preset still-fashion` that of still pictures (each in under 30 minutes on two cores). Other presets follow the
paper's recipe, on videos that a TOML file describes. Under torchrun several processes share the work.

    python scripts/train_recognizer.py --preset activitynet-128 --videos activitynet.toml \\
        --backbone-weights DEFAULT --device cuda --stage1.precision float16

A checkpoint is left every minute, and after every pass over the videos. With `--resume` a killed run ends with the same
weights as one that was never killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import print

from adafocus_env.command_line import WITH_RESUME, check_known, check_positive, option_in_advance, run_script
from adafocus_env.recognition.recipes import (
    EMBEDDED_TSM_STAGE0,
    EMBEDDED_TSM_STAGE1,
    PAPER_STAGE0,
    PAPER_STAGE1,
    PAPER_TSM_STAGE1,
    STILL_STAGE0,
    STILL_STAGE1,
    Stage0Config,
    Stage1Config,
)

if TYPE_CHECKING:
    from adafocus_env import Recognizer
    from adafocus_env.recognition.recognizer import RecognizerConfig
    from adafocus_env.recognition.tsm_recognizer import TSMConfig, TSMRecognizer


EMBEDDED = "roaming-fashion"
EMBEDDED_TSM = "roaming-motion"
EMBEDDED_STILL = "still-fashion"


@dataclass
class Config:
    preset: str = EMBEDDED
    """Sizes of the networks, by a name from adafocus_env.recognition.presets, and the recipe that goes with them."""
    videos: str = EMBEDDED
    """A registered data set, or a TOML file that describes one on disk."""
    global_backbone: str | None = None
    """Name of a torchvision model for the global CNN, instead of the preset's."""
    local_backbone: str | None = None
    """Name of a torchvision model for the local CNN, instead of the preset's."""
    backbone_weights: str | None = None
    """Name of the torchvision weights that both CNNs start from, such as DEFAULT; they are downloaded once."""
    glance_size: int | None = None
    """Height and width that frames are resized to for the global CNN, pixels, instead of the preset's."""
    patch_size: int | None = None
    """Height and width of a patch, pixels, instead of the preset's."""
    hidden_size: int | None = None
    """Size of the recurrent classifier's hidden state, instead of the preset's."""
    shift: bool = True
    """AdaFocus-TSM only: shift channels in time. Without the shift, networks are blind to the order of frames."""
    start_from: str | None = None
    """A shipped name or a file of the recogniser of AdaFocus-v0 whose CNNs to start from."""
    looks: int = 1
    """Random patches of each frame in stage 1; the looks of GlanceFocus-v0."""
    device: str = "cpu"
    """torch device; under torchrun, "cuda" gives each process a GPU of its own."""
    resume: bool = False
    """Go on from the checkpoints in --out."""
    seed: int = 0
    """Seed of the weights, the batches and the random patches."""
    out: Path = Path("runs/train_recognizer")
    """Folder for the recogniser, its checkpoints, its metrics, their figure and its TensorBoard log."""
    stage0: Stage0Config = field(default_factory=Stage0Config)
    stage1: Stage1Config = field(default_factory=Stage1Config)


def every_preset() -> dict[str, RecognizerConfig | TSMConfig]:
    """The presets of AdaFocus and of AdaFocus-TSM by name."""
    from adafocus_env.recognition.presets import PRESETS, TSM_PRESETS

    return {**PRESETS, **TSM_PRESETS}


def network_sizes(config: Config, num_classes: int) -> RecognizerConfig | TSMConfig:
    """The preset, with the changes that the command line makes."""
    from adafocus_env.recognition.backbones import BackboneConfig
    from adafocus_env.recognition.tsm_recognizer import TSMConfig

    chosen = {
        name: BackboneConfig(backbone)
        for name in ("global_backbone", "local_backbone")
        if (backbone := getattr(config, name)) is not None
    }
    sizes = {
        name: size
        for name in ("glance_size", "patch_size", "hidden_size")
        if (size := getattr(config, name)) is not None
    }
    preset = every_preset()[config.preset]
    if isinstance(preset, TSMConfig):
        if config.hidden_size is not None or config.looks > 1:
            raise ValueError(
                f"--preset {config.preset} is of AdaFocus-TSM, which has no recurrent classifier and looks once: leave "
                "out --hidden-size and --looks"
            )
        sizes["shift"] = config.shift
    elif not config.shift:
        raise ValueError(f"--no-shift: --preset {config.preset} is not of AdaFocus-TSM: leave it out")
    return replace(preset, num_classes=num_classes, **chosen, **sizes)


def make_recognizer(config: Config, num_classes: int) -> Recognizer | TSMRecognizer:
    """The untrained recogniser, with the weights that it starts from."""
    from adafocus_env import Recognizer
    from adafocus_env.recognition.tsm_recognizer import TSMConfig, TSMRecognizer
    from adafocus_env.recognition.warm_up import start_from

    sizes, weights = network_sizes(config, num_classes), config.backbone_weights
    recognizer: Recognizer | TSMRecognizer = (
        TSMRecognizer(sizes, backbone_weights=weights)
        if isinstance(sizes, TSMConfig)
        else Recognizer(sizes, backbone_weights=weights)
    ).to(config.device)
    if config.start_from is not None:
        start_from(recognizer, Recognizer.from_pretrained(config.start_from))
    return recognizer


def main(config: Config) -> None:
    import torch

    from adafocus_env.processes import process_group, process_number
    from adafocus_env.recognition.assessment import reference_accuracies
    from adafocus_env.recognition.optimization import Progress, clear_checkpoints
    from adafocus_env.recognition.trained_on import TrainedOn
    from adafocus_env.recognition.training import train_stage0, train_stage1
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos
    from agents.figures import metric_curves

    check_known("--preset", [config.preset], every_preset())
    check_positive(looks=config.looks)
    started = time.perf_counter()
    with process_group(config.device) as device:
        torch.manual_seed(config.seed)
        videos = get_videos(config.videos, "recognizer")
        config = replace(config, device=str(device))
        with RunFolder(config.out, config, append=config.resume, may_change=("resume", "device")) as run:
            if not config.resume:
                clear_checkpoints(config.out)
            progress = Progress(run.log, bar=True, folder=config.out)
            recognizer = make_recognizer(config, videos.num_classes)
            train_stage0(recognizer, videos, config.stage0, seed=config.seed, progress=progress)
            train_stage1(recognizer, videos, config.stage1, looks=config.looks, seed=config.seed, progress=progress)
            found = reference_accuracies(recognizer, get_videos(config.videos, "val"), looks=config.looks)
            run.log("val", 0, found)
        recognizer.metadata = {
            "training": f"scripts/train_recognizer.py --preset {config.preset} --seed {config.seed}",
            **{f"val_accuracy_{name}": f"{value:.1f}" for name, value in found.items()},
            **TrainedOn.of(videos).metadata(),
        }
        path = config.out / f"{config.preset}.safetensors"
        if process_number() == 0:
            recognizer.save(path)
            metric_curves(config.out)
            minutes = (time.perf_counter() - started) / 60
            print({name: f"{value:.1f} %" for name, value in found.items()})
            print(f"{path} has {path.stat().st_size / 1e6:.1f} MB, after {minutes:.1f} minutes of training.")


def preset_config() -> Config:
    """Defaults of the command line: the recipe of the preset that it names."""
    preset = option_in_advance("--preset", EMBEDDED)
    if preset == EMBEDDED:
        return Config()
    if preset == EMBEDDED_TSM:
        recipe = {"stage0": EMBEDDED_TSM_STAGE0, "stage1": EMBEDDED_TSM_STAGE1}
        return Config(preset=preset, videos=EMBEDDED_TSM, start_from=EMBEDDED, **recipe)
    if preset == EMBEDDED_STILL:
        from adafocus_env.environments.glance_env import DEFAULT_LOOKS

        recipe = {"stage0": STILL_STAGE0, "stage1": STILL_STAGE1}
        return Config(preset=preset, videos=EMBEDDED_STILL, start_from=EMBEDDED, looks=DEFAULT_LOOKS, **recipe)
    from adafocus_env.recognition.presets import TSM_PRESETS

    if preset in TSM_PRESETS:
        return Config(preset=preset, stage0=PAPER_STAGE0, stage1=PAPER_TSM_STAGE1)
    return Config(preset=preset, stage0=PAPER_STAGE0, stage1=PAPER_STAGE1)


if __name__ == "__main__":
    run_script(main, Config, __doc__, default=preset_config(), resume=WITH_RESUME)
