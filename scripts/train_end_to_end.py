"""Train a recogniser and its policy in one stage: the pipeline of AdaFocusV2, beside stages 1, 2 and 3.

Stage 0 warms both CNNs up. Then all networks and the policy learn together, from the recogniser's loss alone; the
policy's gradients flow through its patches. To start from a trained recogniser instead:

    python scripts/train_end_to_end.py --start-from roaming-fashion --stage0.epochs 0

The script also runs under torchrun. It leaves a checkpoint every minute, and after every pass over the videos. With
`--resume` it goes on from there, and ends with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import print

from adafocus_env.command_line import WITH_RESUME, check_known, run_script
from adafocus_env.recognition.recipes import EndToEndConfig, Stage0Config

if TYPE_CHECKING:
    import torch

    from adafocus_env import Recognizer
    from adafocus_env.videos import VideoDataset


@dataclass
class Config:
    preset: str = "roaming-fashion"
    """Sizes of the networks, by a name from adafocus_env.recognition.presets.PRESETS."""
    start_from: str | None = None
    """A shipped recogniser's name or a file to start from, instead of a new recogniser of the preset's sizes."""
    videos: str = "roaming-fashion"
    """A registered data set, or a TOML file that describes one on disk."""
    backbone_weights: str | None = None
    """Name of the torchvision weights that both CNNs start from, such as DEFAULT; they are downloaded once."""
    device: str = "cpu"
    """torch device; under torchrun, "cuda" gives each process a GPU of its own."""
    resume: bool = False
    """Go on from the checkpoints in --out."""
    seed: int = 0
    """Seed of the weights, the batches and the random patches."""
    out: Path = Path("runs/train_end_to_end")
    """Folder for the recogniser, the policy, checkpoints, metrics, their figure and the TensorBoard log."""
    stage0: Stage0Config = field(default_factory=Stage0Config)
    end_to_end: EndToEndConfig = field(default_factory=EndToEndConfig)


def make_recognizer(config: Config, videos: VideoDataset, device: torch.device) -> Recognizer:
    """The recogniser to start from."""
    from adafocus_env import Recognizer
    from adafocus_env.recognition.presets import PRESETS

    if config.start_from is not None:
        return Recognizer.from_pretrained(config.start_from, device)
    sizes = replace(PRESETS[config.preset], num_classes=videos.num_classes)
    return Recognizer(sizes, backbone_weights=config.backbone_weights).to(device)


def main(config: Config) -> None:
    import torch

    from adafocus_env.processes import process_group, process_number
    from adafocus_env.recognition.optimization import Progress, clear_checkpoints
    from adafocus_env.recognition.presets import PRESETS
    from adafocus_env.recognition.trained_on import TrainedOn
    from adafocus_env.recognition.training import train_stage0
    from adafocus_env.run_folder import RunFolder
    from adafocus_env.videos import get_videos
    from agents import evaluate, train_end_to_end
    from agents.figures import metric_curves
    from agents.pretrained import save_policy

    check_known("--preset", [config.preset], PRESETS)
    with process_group(config.device) as device:
        torch.manual_seed(config.seed)
        videos = get_videos(config.videos, "recognizer")
        recognizer = make_recognizer(config, videos, device)
        with RunFolder(config.out, config, append=config.resume, may_change=("resume", "device")) as run:
            if not config.resume:
                clear_checkpoints(config.out)
            progress = Progress(run.log, bar=True, folder=config.out)
            train_stage0(recognizer, videos, config.stage0, seed=config.seed, progress=progress)
            recognizer, policy = train_end_to_end(
                recognizer, videos, config.end_to_end, seed=config.seed, progress=progress, score_map=True
            )
            if process_number() > 0:
                return
            command = f"scripts/train_end_to_end.py --seed {config.seed}"
            recognizer.metadata = {"training": command, **TrainedOn.of(videos).metadata()}
            recognizer.save(config.out / "recognizer.safetensors")
            path = save_policy(policy, config.out / "policy", training_state=False)
            metric_curves(config.out)
            found = evaluate(policy, "val", recognizer=recognizer, videos=config.videos, device=device).summary()
            run.log("val", 0, found)
        print(f"{path} and recognizer.safetensors beside it. On the validation videos:", found)


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=WITH_RESUME)
