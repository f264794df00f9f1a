"""Stages 0, 1 and 3 for AdaFocus-TSM: one patch position per clip, a linear classifier on each network.

Stage 0 teaches f_G and f_L to tell classes apart, each alone. Stage 1 trains f_L and its classifier on random patches,
stage 3 on the patches that a policy picked, both on the sum of the two networks' logits with f_G frozen.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from adafocus_env.patches import centered_corners, random_corners
from adafocus_env.processes import gather, share
from adafocus_env.recognition.optimization import Objective, Progress, optimize
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.training import (
    PAPER_STAGE1,
    LocatedVideos,
    Stage0Config,
    Stage1Config,
    Stage3Config,
    num_steps,
    warm_up,
)
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer
from adafocus_env.videos.dataset import VideoDataset

EMBEDDED_TSM_STAGE0 = Stage0Config(global_steps=900, local_steps=800, videos_per_step=32, learning_rate=2e-3)
EMBEDDED_TSM_STAGE1 = Stage1Config(
    steps=400, videos_per_step=32, local_learning_rate=5e-4, classifier_learning_rate=1e-3
)
"""The recipes of the embedded benchmark."""

PAPER_TSM_STAGE1 = replace(PAPER_STAGE1, epochs=10, local_learning_rate=1e-5, classifier_learning_rate=0.01)
PAPER_TSM_STAGE3 = Stage3Config(
    epochs=10, optimizer="sgd", schedule="cosine", weight_decay=1e-4, classifier_learning_rate=5e-4
)
"""The recipes of the released code for Something-Something."""


def start_from(recognizer: TSMRecognizer, other: Recognizer) -> None:
    """Copy another recogniser's CNNs as far as names and shapes agree, shifted or not, in place.

    The embedded benchmark's stage 0 starts like this where the paper's starts from ImageNet's weights: from networks
    that know things, but no motion.
    """
    for name in ("global_cnn", "local_cnn"):
        own, known = (getattr(model, name).state_dict() for model in (recognizer, other))
        unshifted = {key: key.replace(".conv1.net.", ".conv1.") for key in own}
        for key, tensor in own.items():
            source = known.get(unshifted[key])
            if source is not None and source.shape == tensor.shape:
                tensor.copy_(source)


def train_tsm_stage0(
    recognizer: TSMRecognizer,
    videos: VideoDataset,
    config: Stage0Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Warm both networks up as classifiers of clips, with their heads, in place.

    f_G sees whole frames as it glances at them. A second head says what happens at each place: pooled over places, by
    log-sum-exp, it learns the class, so one place suffices to tell; on videos that know where the item is, pooled over
    classes, it learns the place. f_L sees whole frames at their full size, or, on such videos, patches near the item.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        seed: Seed of the batches and the patches.
        progress: Logs and checkpoints.
    """
    device, num_classes = recognizer.device, videos.num_classes
    patch_size = recognizer.config.patch_size
    places_head = nn.Linear(recognizer.global_head.in_features, num_classes, device=device)
    generator = torch.Generator()

    def classify(logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return _loss(logits, videos.labels[rows])

    def glance_loss(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps, logits = recognizer.glance(recognizer.glanced(frames))
        of_frames = maps.unflatten(1, (recognizer.config.global_frames, -1)).mean(dim=1)
        places = places_head(of_frames.permute(0, 2, 3, 1)).flatten(1, 2)  # (B, h·w, classes)
        loss, right = classify(logits, rows)
        loss = loss + classify(places.logsumexp(dim=1), rows)[0]
        if isinstance(videos, LocatedVideos):
            boxes = videos.locations(rows)[0][:, 0]
            cell = (boxes[:, :2] + boxes[:, 2:] / 2) / torch.tensor(videos.frame_size) * torch.tensor(maps.shape[2:])
            row, column = cell.long().unbind(dim=1)
            place = (row * maps.shape[3] + column).to(device)
            loss = loss + nn.functional.cross_entropy(places.logsumexp(dim=2), place)
        return loss, right

    def frame_loss(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        return classify(recognizer.look(recognizer.samplings(frames)[1]), rows)

    def draw_offsets(rows: int) -> tuple[Tensor]:
        return (torch.randint(-patch_size // 5, patch_size // 5 + 1, (rows, 2), generator=generator),)

    def patch_loss(rows: Tensor, frames: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(videos, LocatedVideos)
        boxes = videos.locations(rows)[0][:, 0]
        boxes = torch.cat((boxes[:, :2] + offset, boxes[:, 2:]), dim=1)
        corners = centered_corners(boxes, videos.frame_size, patch_size)
        return classify(recognizer.look(recognizer.cut(frames, corners)), rows)

    global_networks = nn.ModuleList((recognizer.global_head, places_head))
    local_networks = (recognizer.local_cnn, recognizer.local_head)
    local = (
        Objective(local_networks, videos, patch_loss, draw=draw_offsets)
        if isinstance(videos, LocatedVideos)
        else Objective(local_networks, videos, frame_loss)
    )
    for name, objective, steps in (
        (
            "stage0/global",
            Objective((recognizer.global_cnn, global_networks), videos, glance_loss),
            config.global_steps,
        ),
        ("stage0/local", local, config.local_steps),
    ):
        warm_up(name, objective, steps, config, generator.manual_seed(seed), progress)


def train_tsm_stage1(
    recognizer: TSMRecognizer,
    videos: VideoDataset,
    config: Stage1Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train f_L and its head on one uniformly random patch position per clip, with f_G frozen; in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        seed: Seed of the batches and the positions.
        progress: Logs and checkpoints.
    """
    generator = torch.Generator().manual_seed(seed)
    recognizer.eval()
    recognizer.local_cnn.train()
    recognizer.dropout.train()

    def draw(rows: int) -> tuple[Tensor]:
        return (torch.rand(rows, 2, generator=generator),)

    def loss_of(rows: Tensor, frames: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            global_logits = recognizer.glance(recognizer.glanced(frames))[1]
        corners = random_corners(videos.frame_size, recognizer.config.patch_size, places)
        return _loss(global_logits + recognizer.look(recognizer.cut(frames, corners)), videos.labels[rows])

    optimize(
        "stage1",
        Objective((recognizer.local_cnn, recognizer.local_head), videos, loss_of, draw=draw),
        (config.local_learning_rate, config.classifier_learning_rate),
        config,
        num_rows=len(videos),
        steps=num_steps(len(videos), config, config.steps),
        generator=generator,
        progress=progress or Progress(),
    )
    recognizer.eval()


def _loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and whether predictions are right."""
    labels = labels.to(logits.device)
    return nn.functional.cross_entropy(logits, labels), logits.argmax(dim=1) == labels


def train_tsm_stage3(
    recognizer: TSMRecognizer,
    videos: VideoDataset,
    indices: Tensor,
    corners: Tensor,
    config: Stage3Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Fine-tune f_L's head, without dropout, on given patches; in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        indices: (n,) int64, which clips; one may occur several times.
        corners: (n, 2) int64, the patches that the policy picked.
        config: How long and how fast; ``classifier_learning_rate`` is the head's.
        seed: Seed of the order of the clips.
        progress: Logs and checkpoints.

    Raises:
        ValueError: ``config`` asks for a learning rate of f_L itself.
    """
    if config.local_learning_rate > 0:
        raise ValueError("stage 3 of AdaFocus-TSM trains the head alone: local_learning_rate must be 0")
    progress = progress or Progress()
    recognizer.eval()
    global_logits, vectors = _logits(recognizer, videos, indices, corners, progress_bar=progress.bar)

    def loss_of(rows: Tensor, _: None) -> tuple[Tensor, Tensor]:
        logits = recognizer.local_head(vectors[rows].to(recognizer.device))
        return _loss(logits + global_logits[rows].to(recognizer.device), videos.labels[indices[rows]])

    optimize(
        "stage3", Objective((recognizer.local_head,), videos, loss_of, read=lambda rows: None),
        (config.classifier_learning_rate,), config, num_rows=len(indices),
        steps=config.epochs * -(-len(indices) // config.videos_per_step),
        generator=torch.Generator().manual_seed(seed), progress=progress,
    )  # fmt: skip


@torch.no_grad()
def _logits(
    recognizer: TSMRecognizer,
    videos: VideoDataset,
    indices: Tensor,
    corners: Tensor,
    *,
    progress_bar: bool = False,
) -> tuple[Tensor, Tensor]:
    """What stays the same in every epoch of stage 3, in evaluation mode; several processes share the work.

    Returns:
        f_G's logits, (n, classes), and f_L's vectors, averaged over frames, (n, local_size).
    """
    global_logits = [torch.zeros(0, recognizer.config.num_classes)]
    local_vectors = [torch.zeros(0, recognizer.local_size)]
    own = share(torch.arange(len(indices)))
    for rows in tqdm(own.split(32), desc="patches", disable=not progress_bar, leave=False):
        frames = videos.frames(indices[rows])
        global_logits.append(recognizer.glance(recognizer.glanced(frames))[1].cpu())
        patches = recognizer.cut(frames, corners[rows])
        local_vectors.append(recognizer.local_vectors(patches).mean(dim=1).cpu())
    together = gather((torch.cat(global_logits), torch.cat(local_vectors)))
    first, second = (torch.cat(parts) for parts in zip(*together, strict=True))
    return first, second


def clip_patch_accuracy(
    recognizer: TSMRecognizer, videos: VideoDataset, corners: Tensor, *, blank: bool = False
) -> float:
    """Accuracy, in [0, 1], on one given patch position per clip of a data set.

    Args:
        recognizer: In evaluation mode.
        videos: The data set.
        corners: (V, 2) int64, top and left of the patches, pixels.
        blank: Take f_L's vectors for zero: what the glances alone say.
    """
    global_logits, vectors = _logits(recognizer, videos, torch.arange(len(videos)), corners)
    with torch.no_grad():
        local_logits = recognizer.local_head((vectors * (not blank)).to(recognizer.device)).cpu()
    return float(((global_logits + local_logits).argmax(dim=1) == videos.labels).float().mean())
