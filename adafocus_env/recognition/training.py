"""Stages 0, 1 and 3: everything that trains the recogniser (paper, Sec. 3.3).

Stage 0 teaches f_G and f_L to tell classes apart, one frame or patch at a time. Stage 1 trains f_L and f_C on random
patches. Stage 3 fine-tunes f_C, and if asked f_L, on the patches that a policy picks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.transforms.v2.functional import resize
from tqdm.auto import tqdm

from adafocus_env.checks import Bounds
from adafocus_env.patches import crop, overlap, random_corners, scaled_size
from adafocus_env.processes import gather, share
from adafocus_env.recognition.optimization import Objective, Optimization, Progress, optimize
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset


@runtime_checkable
class LocatedVideos(VideoDataset, Protocol):
    """A data set that knows where the item is; stage 0 on the embedded benchmark asks for it."""

    def locations(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, T, 4) and visibility (B, T), as of :meth:`adafocus_env.RoamingFashion.locations`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage0Config(Optimization):
    """Stage 0: both CNNs learn to tell classes apart.

    Attributes:
        global_steps: Optimiser steps of f_G, on whole frames.
        local_steps: Optimiser steps of f_L, on patches.
        epochs: Passes of each over the videos, in place of both.
        learning_rate: Peak.
        covered: On the embedded benchmark, the share of the item that a patch must show to count as that class.
    """

    global_steps: Annotated[int, Bounds(at_least=0)] = 4000
    local_steps: Annotated[int, Bounds(at_least=0)] = 4000
    epochs: int | None = None
    videos_per_step: Annotated[int, Bounds(at_least=1)] = 16
    learning_rate: Annotated[float, Bounds(at_least=0)] = 4e-3
    covered: Annotated[float, Bounds(above=0, at_most=1)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Stage1Config(Optimization):
    """Stage 1: one uniformly random patch per frame, cross-entropy after every frame, f_G frozen.

    Attributes:
        steps: Optimiser steps.
        epochs: Passes over the videos, in place of ``steps``.
        local_learning_rate: Peak learning rate of f_L.
        classifier_learning_rate: Peak learning rate of f_C.
    """

    steps: Annotated[int, Bounds(at_least=0)] = 3000
    epochs: int | None = None
    local_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-4
    classifier_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-3


@dataclass(frozen=True, kw_only=True)
class Stage3Config(Optimization):
    """Stage 3: fine-tune on the patches that a policy picked.

    Attributes:
        epochs: Passes over the videos.
        classifier_learning_rate: Peak learning rate of f_C.
        local_learning_rate: Peak learning rate of f_L; 0 keeps f_L as it is (the reference code's choice).
    """

    epochs: Annotated[int, Bounds(at_least=0)] = 10
    videos_per_step: Annotated[int, Bounds(at_least=1)] = 64
    classifier_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-3
    local_learning_rate: Annotated[float, Bounds(at_least=0)] = 0.0


def _paper(**values: Any) -> dict[str, Any]:
    return {"videos_per_step": 64, "optimizer": "sgd", "schedule": "cosine", "weight_decay": 1e-4, **values}


PAPER_STAGE0 = Stage0Config(**_paper(epochs=15, learning_rate=0.01))
PAPER_STAGE1 = Stage1Config(**_paper(epochs=50, local_learning_rate=5e-4, classifier_learning_rate=0.05))
"""The recipes of the released code for ActivityNet, FCVID and Mini-Kinetics."""


def train_stage0(
    recognizer: Recognizer,
    videos: LocatedVideos,
    config: Stage0Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Warm both CNNs up as classifiers of single frames and of single patches, in place.

    f_G's logits are pooled over places by log-sum-exp, so that one place suffices to see the item: the map then shows
    where it is, though nobody told where.

    Args:
        recognizer: The recogniser to change.
        videos: A data set that knows where the item is.
        config: How long and how fast.
        seed: Seed of the batches and the patches.
        progress: Logs and checkpoints.
    """
    num_classes, nothing = videos.num_classes, videos.num_classes
    patch_size, times, device = recognizer.config.patch_size, videos.num_frames, recognizer.device
    global_head = nn.Linear(recognizer.glance_shape[0], num_classes + 1, device=device)
    local_head = nn.Linear(recognizer.local_size, num_classes + 1, device=device)
    generator = torch.Generator()

    def frame_loss(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        visible = videos.locations(rows)[1].flatten()
        target = torch.where(visible, videos.labels[rows].repeat_interleave(times), nothing).to(device)
        maps, _ = recognizer.glance(frames.flatten(0, 1))
        places = global_head(maps.permute(0, 2, 3, 1)).flatten(1, 2)
        logits = torch.cat((places[..., :-1].logsumexp(dim=1), places[..., -1:].mean(dim=1)), dim=1)
        return nn.functional.cross_entropy(logits, target), (logits.argmax(dim=1) == target)[visible.to(device)]

    def draw_patches(rows: int) -> tuple[Tensor, Tensor]:
        anywhere = torch.rand(rows, times, 2, generator=generator)
        near = torch.randint(-patch_size // 4, patch_size // 4 + 1, (rows, times, 2), generator=generator)
        return anywhere, near

    def patch_loss(rows: Tensor, frames: Tensor, anywhere: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        boxes, visible = (part.flatten(0, 1) for part in videos.locations(rows))
        # Every other patch is near the item, the rest anywhere.
        corners = random_corners(videos.frame_size, patch_size, anywhere.flatten(0, 1))
        near = boxes[:, :2] + (boxes[:, 2:] - patch_size) // 2 + near.flatten(0, 1)
        near = torch.minimum(near.clamp(min=0), torch.tensor(videos.frame_size) - patch_size)
        corners[::2] = near[::2]
        shown = overlap(corners[:, None], patch_size, boxes)[:, 0]
        target = torch.where(
            visible & (shown >= config.covered), videos.labels[rows].repeat_interleave(times), nothing
        ).to(device)
        logits = local_head(recognizer.look(crop(frames.flatten(0, 1), corners, patch_size)))
        return nn.functional.cross_entropy(logits, target), (logits.argmax(dim=1) == target)[target != nothing]

    for name, objective, steps in (
        ("stage0/global", Objective((recognizer.global_cnn, global_head), videos, frame_loss), config.global_steps),
        (
            "stage0/local",
            Objective((recognizer.local_cnn, local_head), videos, patch_loss, draw=draw_patches),
            config.local_steps,
        ),
    ):
        warm_up(name, objective, steps, config, generator.manual_seed(seed), progress)


def train_frame_classifiers(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage0Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Stage 0 of the paper's recipe: f_G and f_L, each as a classifier of whole frames, in place.

    The logits of a video are the mean of its frames'. f_G sees frames as it glances at them, f_L at their full size.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        seed: Seed of the batches.
        progress: Logs and checkpoints.
    """
    device, times = recognizer.device, videos.num_frames
    for name, network, vectors_of, steps in (
        ("stage0/global", recognizer.global_cnn, lambda flat: recognizer.glance(flat)[1], config.global_steps),
        ("stage0/local", recognizer.local_cnn, recognizer.look, config.local_steps),
    ):
        size = recognizer.glance_shape[0] if network is recognizer.global_cnn else recognizer.local_size
        head = nn.Linear(size, videos.num_classes, device=device)

        def loss_of(
            rows: Tensor,
            frames: Tensor,
            vectors_of: Callable[[Tensor], Tensor] = vectors_of,
            head: nn.Linear = head,
        ) -> tuple[Tensor, Tensor]:
            logits = head(vectors_of(frames.flatten(0, 1))).unflatten(0, (len(rows), times)).mean(dim=1)
            target = videos.labels[rows].to(device)
            return nn.functional.cross_entropy(logits, target), logits.argmax(dim=1) == target

        objective = Objective((network, head), videos, loss_of)
        warm_up(name, objective, steps, config, torch.Generator().manual_seed(seed), progress)


def warm_up(
    name: str,
    objective: Objective,
    steps: int,
    config: Stage0Config,
    generator: torch.Generator,
    progress: Progress | None,
) -> None:
    """Train a CNN and its linear head, both at the same rate."""
    num_videos = len(objective.videos)
    objective.networks.train()
    optimize(
        name, objective, [config.learning_rate] * 2, config,
        num_rows=num_videos, steps=num_steps(num_videos, config, steps), generator=generator,
        progress=progress or Progress(),
    )  # fmt: skip
    objective.networks.eval()


def train_stage1(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train f_L and f_C on uniformly random patches, one per frame, with f_G frozen; in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        seed: Seed of the batches and the patches.
        progress: Logs and checkpoints.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> tuple[Tensor]:
        return (torch.rand(rows, videos.num_frames, 2, generator=generator),)

    def logits_of(frames: Tensor, places: Tensor) -> Tensor:
        return recognizer(frames, random_corners(videos.frame_size, recognizer.config.patch_size, places))

    _train_stage1("stage1", recognizer, videos, config, generator, logits_of, draw, progress)


def _train_stage1(
    name: str,
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    generator: torch.Generator,
    logits_of: Callable[..., Tensor],
    draw: Callable[[int], tuple[Tensor, ...]],
    progress: Progress | None,
) -> None:
    """Train f_L and f_C, with f_G frozen, on what ``logits_of`` reads of (B, T, 3, H, W) frames and of draws."""
    recognizer.eval()
    recognizer.local_cnn.train()
    recognizer.classifier.train()
    recognizer.global_cnn.requires_grad_(False)

    def loss_of(rows: Tensor, frames: Tensor, *drawn: Tensor) -> tuple[Tensor, Tensor]:
        return _loss_at_every_frame(logits_of(frames, *drawn), videos.labels[rows])

    optimize(
        name,
        Objective((recognizer.local_cnn, recognizer.classifier), videos, loss_of, draw=draw),
        (config.local_learning_rate, config.classifier_learning_rate),
        config,
        num_rows=len(videos),
        steps=num_steps(len(videos), config, config.steps),
        generator=generator,
        progress=progress or Progress(),
    )
    recognizer.requires_grad_(True).eval()


def train_whole_frames(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: Stage1Config,
    scales: Sequence[float],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Stage 1 on whole frames at several resolutions: f_L and f_C, with f_G frozen; in place.

    Every frame is read at a random scale or skipped, as policies will have it; the share that is skipped is drawn for
    each video. Frames of one scale go through f_L together, so that its batch norms see one resolution at a time: their
    running statistics are of no use afterwards, :func:`read_at` finds those of each scale.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        scales: Shares of the frame's height and width.
        seed: Seed of all draws.
        progress: Logs and checkpoints.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        shape = (rows, videos.num_frames)
        choice = torch.randint(len(scales), shape, generator=generator)
        return choice, torch.rand(shape, generator=generator) < torch.rand(rows, 1, generator=generator)

    def logits_of(frames: Tensor, choice: Tensor, skips: Tensor) -> Tensor:
        flat, shape = frames.flatten(0, 1), frames.shape[:2]
        with torch.no_grad():
            global_vectors = recognizer.glance(flat)[1]
        local_vectors = global_vectors.new_zeros(len(flat), recognizer.local_size)
        for number, scale in enumerate(scales):
            read = ((choice == number) & ~skips).flatten().nonzero()[:, 0]
            if len(read):
                images = resize(flat[read], list(scaled_size(videos.frame_size, scale)))
                local_vectors[read.to(recognizer.device)] = recognizer.look(images)
        return recognizer.classifier(
            global_vectors.unflatten(0, shape), local_vectors.unflatten(0, shape), skips.to(recognizer.device)
        )

    _train_stage1("whole frames", recognizer, videos, config, generator, logits_of, draw, progress)


def read_at(recognizer: Recognizer, videos: VideoDataset, scale: float, *, num_videos: int = 256) -> Recognizer:
    """A copy of a recogniser of whole frames whose f_L has the batch-norm statistics of frames at one scale.

    What f_L sees at another resolution is differently distributed, while its weights serve all of them (Wang et al.,
    "Resolution Switchable Networks for Runtime Efficient Image Recognition", ECCV 2020).

    Args:
        recognizer: Trained by :func:`train_whole_frames`; it stays as it is.
        videos: The data set that it was trained on.
        scale: Share of the frame's height and width.
        num_videos: Videos behind the statistics, the first ones.
    """
    copy = recognizer.frozen()
    size = list(scaled_size(videos.frame_size, scale))
    batches = torch.arange(min(num_videos, len(videos))).split(16)
    images = (copy.normalize(resize(videos.frames(batch).flatten(0, 1), size)) for batch in batches)
    update_bn(images, copy.local_cnn)
    return copy


def train_stage3(
    recognizer: Recognizer,
    videos: VideoDataset,
    indices: Tensor,
    corners: Tensor,
    skipped: Tensor,
    config: Stage3Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
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
        progress: Logs and checkpoints.
    """
    progress = progress or Progress()
    recognizer.requires_grad_(False).eval()
    train_local = config.local_learning_rate > 0
    trained: dict[nn.Module, float] = {recognizer.classifier: config.classifier_learning_rate}
    if train_local:
        trained[recognizer.local_cnn] = config.local_learning_rate
    # With f_L frozen its vectors are found once; else its patches are kept, and f_L runs on them in every epoch.
    inputs = _Stage3Inputs(
        recognizer, videos, indices, corners, skipped, look=not train_local, progress_bar=progress.bar
    )

    def loss_of(rows: Tensor, _: None) -> tuple[Tensor, Tensor]:
        logits = recognizer.classifier(*inputs.vectors(rows), skipped[rows].to(recognizer.device))
        return _loss_at_every_frame(logits, videos.labels[indices[rows]])

    objective = Objective(tuple(trained), videos, loss_of, read=lambda rows: None)
    objective.networks.train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        optimize(
            "stage3", objective, tuple(trained.values()), config,
            num_rows=len(indices), steps=config.epochs * -(-len(indices) // config.videos_per_step),
            generator=torch.Generator().manual_seed(seed), progress=progress,
        )  # fmt: skip
    recognizer.requires_grad_(True).eval()


class _Stage3Inputs:
    """What stays the same in every epoch of stage 3: global vectors, and local vectors or the focused patches.

    Several processes share the work of the CNNs.
    """

    @torch.no_grad()
    def __init__(
        self,
        recognizer: Recognizer,
        videos: VideoDataset,
        indices: Tensor,
        corners: Tensor,
        skipped: Tensor,
        *,
        look: bool,
        progress_bar: bool = False,
    ) -> None:
        self._recognizer, self._looked = recognizer, look
        self._focused = ~skipped
        size = recognizer.config.patch_size
        nothing = torch.zeros(0, recognizer.local_size) if look else torch.zeros(0, 3, size, size, dtype=torch.uint8)
        global_vectors, local = [torch.zeros(0, videos.num_frames, recognizer.glance_shape[0])], [nothing]
        own = share(torch.arange(len(indices)))
        for rows in tqdm(own.split(32), desc="patches", disable=not progress_bar, leave=False):
            frames = videos.frames(indices[rows]).flatten(0, 1)
            focused = self._focused[rows].flatten()
            patches = crop(frames[focused], corners[rows].flatten(0, 1)[focused], size)
            local.append((_look_in_batches(recognizer, patches) if look else patches).cpu())
            global_vectors.append(recognizer.glance(frames)[1].unflatten(0, (len(rows), videos.num_frames)).cpu())
        together = gather((torch.cat(global_vectors), torch.cat(local)))
        self._global, self._local = (torch.cat(parts) for parts in zip(*together, strict=True))
        self._where = torch.full(skipped.shape, -1)  # each focused frame's place in ``local``
        self._where[self._focused] = torch.arange(int(self._focused.sum()))

    def vectors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Global vectors (B, T, C) and local ones (B, T, local_size), zero where the frame was skipped."""
        device, focused = self._recognizer.device, self._focused[rows]
        found = self._local[self._where[rows][focused]]
        found = found.to(device) if self._looked else self._recognizer.look(found)
        local = found.new_zeros(*focused.shape, self._recognizer.local_size)
        local[focused.to(device)] = found
        return self._global[rows].to(device), local


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
    inputs = _Stage3Inputs(recognizer, videos, indices, corners, skipped, look=True)
    with torch.no_grad():
        global_vectors, local_vectors = inputs.vectors(indices)
        logits = recognizer.classifier(global_vectors, local_vectors * (not blank))
    return float((logits[:, -1].argmax(dim=-1).cpu() == videos.labels).float().mean())


def _loss_at_every_frame(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the video's label, averaged over frames, and whether the last prediction is right."""
    labels = labels.to(logits.device)
    target = labels[:, None].expand(logits.shape[:2])
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()), logits[:, -1].argmax(-1) == labels


def num_steps(num_videos: int, config: Stage0Config | Stage1Config, steps: int) -> int:
    """Optimiser steps of a stage, whose length is given in steps or in epochs."""
    return steps if config.epochs is None else config.epochs * max(1, num_videos // config.videos_per_step)
