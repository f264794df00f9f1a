"""Stages 0, 1 and 3: everything that trains the recogniser (paper, Sec. 3.3).

Stage 0 teaches f_G and f_L to tell classes apart, one frame or patch at a time. Stage 1 trains f_L and f_C on random
patches. Stage 3 fine-tunes f_C, and if asked f_L, on the patches that a policy picks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize
from tqdm.auto import tqdm

from adafocus_env.patches import crop, overlap, random_corners, scaled_size
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset

Log = Callable[[str, int, dict[str, float]], None]
"""Receives what a stage measured: the stage's name, its step, and metrics by name."""


class LocatedVideos(VideoDataset, Protocol):
    """A data set that knows where the item is; stage 0 on the embedded benchmark asks for it."""

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, T, 4) and visibility (B, T), as of :meth:`adafocus_env.RoamingFashion.locations`."""
        ...


@dataclass(frozen=True)
class Stage0Config:
    """Stage 0 on the embedded benchmark: both CNNs learn to tell the classes, and "nothing", apart.

    Attributes:
        global_steps: Optimiser steps of f_G, on whole frames.
        local_steps: Optimiser steps of f_L, on patches.
        videos_per_step: Videos in a batch; all their frames are used.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        weight_decay: Of AdamW.
        covered: Share of the item that a patch must show to count as that class.
    """

    global_steps: int = 4000
    local_steps: int = 4000
    videos_per_step: int = 16
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    covered: float = 0.5


@dataclass(frozen=True)
class Stage1Config:
    """Stage 1: one uniformly random patch per frame, cross-entropy after every frame, f_G frozen.

    Attributes:
        steps: Optimiser steps.
        videos_per_step: Videos in a batch.
        local_learning_rate: Peak learning rate of f_L.
        classifier_learning_rate: Peak learning rate of f_C.
        weight_decay: Of AdamW.
    """

    steps: int = 3000
    videos_per_step: int = 32
    local_learning_rate: float = 3e-4
    classifier_learning_rate: float = 3e-3
    weight_decay: float = 0.02


@dataclass(frozen=True)
class Stage3Config:
    """Stage 3: fine-tune on the patches that a policy picked.

    Attributes:
        epochs: Passes over the videos.
        videos_per_step: Videos in a batch.
        classifier_learning_rate: Peak learning rate of f_C.
        local_learning_rate: Peak learning rate of f_L; 0 keeps f_L as it is (the reference code's choice).
        weight_decay: Of AdamW.
    """

    epochs: int = 10
    videos_per_step: int = 64
    classifier_learning_rate: float = 3e-3
    local_learning_rate: float = 0.0
    weight_decay: float = 0.02


def train_stage0(
    recognizer: Recognizer,
    videos: LocatedVideos,
    config: Stage0Config,
    *,
    seed: int = 0,
    log: Log | None = None,
    progress_bar: bool = False,
) -> None:
    """Warm both CNNs up as classifiers of single frames and of single patches, in place.

    f_G's logits are pooled over places by log-sum-exp, so that one place suffices to see the item: the map then shows
    where it is, though nobody told where.
    """
    num_classes, nothing = videos.num_classes, videos.num_classes
    global_head = nn.Linear(recognizer.glance_shape[0], num_classes + 1)
    local_head = nn.Linear(recognizer.local_size, num_classes + 1)
    patch_size = recognizer.config.patch_size
    generator = torch.Generator()

    def frame_loss(batch: Tensor) -> tuple[Tensor, Tensor]:
        _, visible = videos.locations(batch)
        target = torch.where(visible, videos.labels[batch, None], nothing).flatten()
        maps, _ = recognizer.glance(videos.frames(batch).flatten(0, 1))
        places = global_head(maps.permute(0, 2, 3, 1)).flatten(1, 2)
        logits = torch.cat((places[..., :-1].logsumexp(dim=1), places[..., -1:].mean(dim=1)), dim=1)
        return nn.functional.cross_entropy(logits, target), (logits.argmax(dim=1) == target)[visible.flatten()]

    def patch_loss(batch: Tensor) -> tuple[Tensor, Tensor]:
        frames = videos.frames(batch).flatten(0, 1)
        boxes, visible = (part.flatten(0, 1) for part in videos.locations(batch))
        # Every other patch is near the item, the rest anywhere.
        corners = random_corners(videos.frame_size, patch_size, torch.rand(len(frames), 2, generator=generator))
        centred = boxes[:, :2] + (boxes[:, 2:] - patch_size) // 2
        near = centred + torch.randint(-patch_size // 4, patch_size // 4 + 1, centred.shape, generator=generator)
        near = torch.minimum(near.clamp(min=0), torch.tensor(videos.frame_size) - patch_size)
        corners[::2] = near[::2]
        shown = overlap(corners[:, None], patch_size, boxes)[:, 0]
        target = videos.labels[batch].repeat_interleave(videos.num_frames)
        target = torch.where(visible & (shown >= config.covered), target, nothing)
        logits = local_head(recognizer.look(crop(frames, corners, patch_size)))
        return nn.functional.cross_entropy(logits, target), (logits.argmax(dim=1) == target)[target != nothing]

    for name, loss_of, modules, steps in (
        ("stage0/global", frame_loss, (recognizer.global_cnn, global_head), config.global_steps),
        ("stage0/local", patch_loss, (recognizer.local_cnn, local_head), config.local_steps),
    ):
        generator.manual_seed(seed)
        network = nn.ModuleList(modules).train()
        optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        _optimise(
            name, loss_of, network, optimizer, _batches(len(videos), config.videos_per_step, steps, generator), steps,
            log, progress_bar,
        )  # fmt: skip
        network.eval()


def train_stage1(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    *,
    seed: int = 0,
    log: Log | None = None,
    progress_bar: bool = False,
) -> None:
    """Train f_L and f_C on uniformly random patches, one per frame, with f_G frozen; in place."""
    generator = torch.Generator().manual_seed(seed)

    def logits_of(frames: Tensor) -> Tensor:
        draws = torch.rand(*frames.shape[:2], 2, generator=generator)
        return recognizer(frames, random_corners(videos.frame_size, recognizer.config.patch_size, draws))

    _train_stage1("stage1", recognizer, videos, config, generator, logits_of, log, progress_bar)


def _train_stage1(
    name: str,
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    generator: torch.Generator,
    logits_of: Callable[[Tensor], Tensor],
    log: Log | None,
    progress_bar: bool,
) -> None:
    """Train f_L and f_C, with f_G frozen, on whatever ``logits_of`` reads of (B, T, 3, H, W) frames."""
    recognizer.eval()
    recognizer.local_cnn.train()
    recognizer.classifier.train()

    def loss_of(batch: Tensor) -> tuple[Tensor, Tensor]:
        return _loss_at_every_frame(logits_of(videos.frames(batch)), videos.labels[batch])

    network = nn.ModuleList((recognizer.local_cnn, recognizer.classifier))
    recognizer.global_cnn.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [
            {"params": recognizer.local_cnn.parameters(), "lr": config.local_learning_rate},
            {"params": recognizer.classifier.parameters(), "lr": config.classifier_learning_rate},
        ],
        weight_decay=config.weight_decay,
    )
    batches = _batches(len(videos), config.videos_per_step, config.steps, generator)
    _optimise(name, loss_of, network, optimizer, batches, config.steps, log, progress_bar)
    recognizer.requires_grad_(True).eval()


def train_whole_frames(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    scales: Sequence[float],
    *,
    skipped: float = 0.3,
    seed: int = 0,
    log: Log | None = None,
    progress_bar: bool = False,
) -> None:
    """Stage 1 for :class:`adafocus_env.ResolutionBank`: f_L and f_C on whole frames, with f_G frozen; in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        scales: Shares of the frame's size; every batch is read at one of them, drawn at random.
        skipped: Share of the frames that are skipped, drawn at random, as policies will skip some.
        seed: Seed of all draws.
        log: Receives the metrics.
        progress_bar: Show one.
    """
    generator = torch.Generator().manual_seed(seed)

    def logits_of(frames: Tensor) -> Tensor:
        flat, shape = frames.flatten(0, 1), frames.shape[:2]
        scale = scales[int(torch.randint(len(scales), (), generator=generator))]
        skips = torch.rand(shape, generator=generator) < skipped
        with torch.no_grad():
            global_vectors = recognizer.glance(flat)[1]
        focused = ~skips.flatten()
        local_vectors = global_vectors.new_zeros(len(flat), recognizer.local_size)
        size = scaled_size((frames.shape[-2], frames.shape[-1]), scale)
        local_vectors[focused] = recognizer.look(resize(flat[focused], list(size)))
        return recognizer.classifier(
            global_vectors.unflatten(0, shape), local_vectors.unflatten(0, shape), skips.to(recognizer.device)
        )

    _train_stage1("whole frames", recognizer, videos, config, generator, logits_of, log, progress_bar)


def train_stage3(
    recognizer: Recognizer,
    videos: VideoDataset,
    indices: Tensor,
    corners: Tensor,
    skipped: Tensor,
    config: Stage3Config,
    *,
    seed: int = 0,
    log: Log | None = None,
    progress_bar: bool = False,
) -> None:
    """Fine-tune f_C, and f_L if its learning rate is above 0, on given patches; in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        indices: (n,) int64, which videos; a video may occur several times.
        corners: (n, T, 2) int64, the patches that the policy picked.
        skipped: (n, T) bool, the frames that it skipped.
        config: How long and how fast.
        seed: Seed of the order of the videos and of dropout.
        log: Receives the metrics.
        progress_bar: Show one.
    """
    generator = torch.Generator().manual_seed(seed)
    recognizer.requires_grad_(False).eval()
    train_local = config.local_learning_rate > 0
    trained: dict[nn.Module, float] = {recognizer.classifier: config.classifier_learning_rate}
    if train_local:
        trained[recognizer.local_cnn] = config.local_learning_rate
    global_vectors, patches, where = _stage3_inputs(recognizer, videos, indices, corners, skipped, progress_bar)
    focused = ~skipped
    # With f_L frozen its vectors are found once; else its patches are kept, and f_L runs on them in every epoch.
    local_vectors = None if train_local else _look_in_batches(recognizer, patches)
    network = nn.ModuleList(trained).train().requires_grad_(True)

    def loss_of(batch: Tensor) -> tuple[Tensor, Tensor]:
        rows = where[batch][focused[batch]]
        found = recognizer.look(patches[rows]) if local_vectors is None else local_vectors[rows]
        local = found.new_zeros(*focused[batch].shape, recognizer.local_size)
        local[focused[batch]] = found
        logits = recognizer.classifier(global_vectors[batch], local, skipped[batch])
        return _loss_at_every_frame(logits, videos.labels[indices[batch]])

    steps = config.epochs * -(-len(indices) // config.videos_per_step)
    groups = [{"params": list(part.parameters()), "lr": rate} for part, rate in trained.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    batches = _batches(len(indices), config.videos_per_step, steps, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        _optimise("stage3", loss_of, network, optimizer, batches, steps, log, progress_bar)
    recognizer.requires_grad_(True).eval()


@torch.no_grad()
def _stage3_inputs(
    recognizer: Recognizer, videos: VideoDataset, indices: Tensor, corners: Tensor, skipped: Tensor, progress_bar: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What stays the same in every epoch of stage 3.

    Returns:
        Global vectors (n, T, C), the focused patches (m, 3, P, P) uint8, and where each frame's patch is among them,
        (n, T) int64, -1 where skipped.
    """
    global_vectors, patches = [], []
    for rows in tqdm(torch.arange(len(indices)).split(32), desc="patches", disable=not progress_bar, leave=False):
        frames = videos.frames(indices[rows]).flatten(0, 1)
        focused = ~skipped[rows].flatten()
        patches.append(crop(frames[focused], corners[rows].flatten(0, 1)[focused], recognizer.config.patch_size))
        global_vectors.append(recognizer.glance(frames)[1].unflatten(0, (len(rows), videos.num_frames)))
    where = torch.full(skipped.shape, -1)
    where[~skipped] = torch.arange(int((~skipped).sum()))
    return torch.cat(global_vectors), torch.cat(patches), where


@torch.no_grad()
def _look_in_batches(recognizer: Recognizer, patches: Tensor) -> Tensor:
    """(m, local_size) local vectors of (m, 3, P, P) uint8 patches."""
    if not len(patches):
        return torch.zeros(0, recognizer.local_size)
    return torch.cat([recognizer.look(batch) for batch in recognizer.batches(patches, recognizer.config.patch_size)])


def patch_accuracy(recognizer: Recognizer, videos: VideoDataset, corners: Tensor, *, blank: bool = False) -> float:
    """Accuracy after the last frame, in [0, 1], on given patches of every video of a data set.

    Args:
        recognizer: In evaluation mode.
        videos: The data set.
        corners: (V, T, 2) int64, top and left of the patches, pixels.
        blank: Replace the local vectors by zeros: what the glances alone say.
    """
    indices, skipped = torch.arange(len(videos)), torch.zeros(corners.shape[:2], dtype=torch.bool)
    global_vectors, patches, _ = _stage3_inputs(recognizer, videos, indices, corners, skipped, progress_bar=False)
    local_vectors = _look_in_batches(recognizer, patches).unflatten(0, skipped.shape)
    with torch.no_grad():
        logits = recognizer.classifier(global_vectors, local_vectors * (not blank))
    return float((logits[:, -1].argmax(dim=-1) == videos.labels).float().mean())


def _loss_at_every_frame(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the video's label, averaged over frames, and whether the last prediction is right."""
    target = labels[:, None].expand(logits.shape[:2])
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()), logits[:, -1].argmax(-1) == labels


def _batches(num_videos: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """``steps`` batches of positions, reshuffled after every pass."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(batch_size, num_videos):
            order = torch.randperm(num_videos, generator=generator)
        yield order[:batch_size]
        order = order[batch_size:]


def _optimise(
    name: str,
    loss_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Tensor],
    steps: int,
    log: Log | None,
    progress_bar: bool,
) -> None:
    """Minimise a loss over batches under a one-cycle schedule, with gradient clipping."""
    if steps == 0:
        return
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=0.15)
    progress = tqdm(batches, desc=name, total=steps, disable=not progress_bar)
    losses, right, counted = 0.0, 0, 0
    every = max(1, min(100, steps // 10))
    for step, batch in enumerate(progress, start=1):
        loss, correct = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses, right, counted = losses + float(loss.detach()), right + int(correct.sum()), counted + correct.numel()
        if step % every == 0:
            metrics = {"loss": losses / every, "accuracy": right / max(counted, 1)}
            if log is not None:
                log(name, step, metrics)
            progress.set_postfix(metrics)
            losses, right, counted = 0.0, 0, 0
