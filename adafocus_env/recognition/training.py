"""The stages that train a recogniser of either kind (paper, Sec. 3.3).

Stage 0 trains f_G and f_L to tell classes apart, each alone. Stage 1 trains f_L and the classifier on random patches.
Stage 3 fine-tunes the classifier, and f_L if asked, on the patches that a policy picks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env.patches import random_corners
from adafocus_env.processes import gather, share
from adafocus_env.progress import tqdm
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.optimization import Objective, Progress, optimize
from adafocus_env.recognition.recipes import Stage0Config, Stage1Config, Stage3Config, num_steps
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer
from adafocus_env.recognition.warm_up import Objectives, objectives_for
from adafocus_env.videos.dataset import VideoDataset


def train_stage0(
    recognizer: ImageNetworks[Any],
    videos: VideoDataset,
    config: Stage0Config,
    *,
    objectives: Objectives | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Warm both CNNs up as classifiers, each with a linear head, in place.

    Args:
        recognizer: The recogniser to change.
        videos: The data set.
        config: How long and how fast.
        objectives: Function of :mod:`adafocus_env.recognition.warm_up` that defines what they learn; ``None`` takes
            the one that fits the recogniser and the videos.
        seed: Seed of the batches, the patches and dropout.
        progress: Logs and checkpoints.
    """
    generator = torch.Generator()
    of_both = (objectives or objectives_for(recognizer, videos))(recognizer, videos, config, generator)
    steps_of_both = config.global_steps, config.local_steps
    for name, objective, steps in zip(("stage0/global", "stage0/local"), of_both, steps_of_both, strict=True):
        objective.networks.train()
        generator.manual_seed(seed)
        rates, length = [config.learning_rate] * 2, num_steps(len(videos), config, steps)
        optimize(
            name, objective, rates, config, num_rows=len(videos), steps=length, generator=generator, progress=progress
        )
        objective.networks.eval()


def train_stage1(
    recognizer: ImageNetworks[Any],
    videos: VideoDataset,
    config: Stage1Config,
    *,
    looks: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train f_L and the classifier on uniformly random patches of every unit, with f_G frozen; in place.

    The arguments are those of :func:`train_stage0`, and:

    Args:
        looks: Patches of a unit, which the classifier reads one after the other, as in ``GlanceFocus-v0``.

    Raises:
        ValueError: ``looks`` is above 1, and the recogniser is a TSM recogniser, which reads one patch of a clip.
    """
    if looks > 1 and isinstance(recognizer, TSMRecognizer):
        raise ValueError("a TSM recogniser reads one patch of a clip: looks must be 1")
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> tuple[Tensor]:
        return (torch.rand(rows, recognizer.num_steps(videos.num_frames) * looks, 2, generator=generator),)

    def read(frames: Tensor, places: Tensor) -> Tensor:
        return recognizer.read(frames, random_corners(videos.frame_size, recognizer.config.patch_size, places))

    train_local_and_classifier("stage1", recognizer, videos, config, generator, read, draw, progress)


def train_local_and_classifier(
    name: str,
    recognizer: ImageNetworks[Any],
    videos: VideoDataset,
    config: Stage1Config,
    generator: torch.Generator,
    read: Callable[..., Tensor],
    draw: Callable[[int], tuple[Tensor, ...]],
    progress: Progress | None,
) -> None:
    """Train f_L and the classifier, with f_G frozen, by cross-entropy after every unit; in place.

    The arguments are those of :func:`train_stage0`, and:

    Args:
        name: Name of the stage, for logs and files.
        generator: Draws the order of the videos.
        read: Takes frames, (B, T, 3, H, W) uint8, and what was drawn for them; returns logits, (B, units, classes).
        draw: Takes the number of rows of a batch, and returns the random tensors for it.
    """
    recognizer.train().global_cnn.eval()
    trained = recognizer.local_cnn, recognizer.classifying
    recognizer.requires_grad_(False)

    def loss_of(rows: Tensor, frames: Tensor, *drawn: Tensor) -> tuple[Tensor, Tensor]:
        return loss_after_every_unit(read(frames, *drawn), videos.labels[rows])

    objective = Objective(trained, videos, loss_of, draw=draw).requires_grad_(True)
    rates = config.local_learning_rate, config.classifier_learning_rate
    steps = num_steps(len(videos), config, config.steps)
    optimize(name, objective, rates, config, num_rows=len(videos), steps=steps, generator=generator, progress=progress)
    recognizer.requires_grad_(True).eval()


def train_stage3(
    recognizer: ImageNetworks[Any],
    videos: VideoDataset,
    indices: Tensor,
    corners: Tensor,
    skipped: Tensor,
    config: Stage3Config,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Fine-tune the classifier, and f_L if its learning rate is above 0, on given patches; in place.

    The arguments are those of :func:`train_stage0`, and:

    Args:
        indices: (n,) int64, which videos; a video may occur several times.
        corners: (n, looks, 2) int64, the patches that the policy picked, top and left in pixels: one of each unit, or
            an equal number of each.
        skipped: (n, looks) bool, the looks that it skipped.

    Raises:
        ValueError: ``config`` sets a learning rate for the f_L of a TSM recogniser.
    """
    train_local = config.local_learning_rate > 0
    if train_local and isinstance(recognizer, TSMRecognizer):
        raise ValueError("stage 3 of AdaFocus-TSM trains the head alone: local_learning_rate must be 0")
    progress = progress or Progress()
    recognizer.requires_grad_(False).eval()
    trained: dict[nn.Module, float] = {recognizer.classifying: config.classifier_learning_rate}
    if train_local:
        trained[recognizer.local_cnn] = config.local_learning_rate
    # If f_L is frozen, its vectors are computed once; else the patches are kept, and f_L reads them in every epoch.
    evidence = _Evidence(recognizer, videos, indices, corners, skipped, look=not train_local, progress_bar=progress.bar)

    def loss_of(rows: Tensor, _: None) -> tuple[Tensor, Tensor]:
        logits = recognizer.classify(*evidence.vectors(rows), skipped[rows].to(recognizer.device))
        return loss_after_every_unit(logits, videos.labels[indices[rows]])

    objective = Objective(tuple(trained), videos, loss_of, read=lambda rows: None)
    objective.networks.train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        generator, rates, rows = torch.Generator().manual_seed(seed), tuple(trained.values()), len(indices)
        steps = config.epochs * -(-rows // config.videos_per_step)
        optimize("stage3", objective, rates, config, num_rows=rows, steps=steps, generator=generator, progress=progress)
    recognizer.requires_grad_(True).eval()


def patch_accuracy(
    recognizer: ImageNetworks[Any], videos: VideoDataset, corners: Tensor, *, blank: bool = False
) -> float:
    """Accuracy after the last unit, in [0, 1], on given patches of every video of a data set.

    Args:
        recognizer: In evaluation mode.
        videos: The data set.
        corners: (V, looks, 2) int64, top and left of the patches, pixels, as many of each unit.
        blank: Replace the local vectors by zeros, so that only the glances count.
    """
    indices, skipped = torch.arange(len(videos)), torch.zeros(corners.shape[:2], dtype=torch.bool)
    evidence = _Evidence(recognizer, videos, indices, corners, skipped, look=True)
    with torch.no_grad():
        global_vectors, local_vectors = evidence.vectors(indices)
        logits = recognizer.classify(global_vectors, local_vectors * (not blank), None)
    return float((logits[:, -1].argmax(dim=-1).cpu() == videos.labels).float().mean())


class _Evidence:
    """f_G's vectors of some videos, and for every look either f_L's vector or the patch, to be read later.

    Several processes share the work of the CNNs.
    """

    @torch.no_grad()
    def __init__(
        self,
        recognizer: ImageNetworks[Any],
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
        global_vectors: list[Tensor] = []
        local = [torch.zeros(0, recognizer.local_size) if look else torch.zeros(0, 3, size, size, dtype=torch.uint8)]
        looks = skipped.shape[1] // recognizer.num_steps(videos.num_frames)  # at each unit
        own = share(torch.arange(len(indices)))
        for rows in tqdm(own.split(32), desc="patches", disable=not progress_bar, leave=False):
            units = recognizer.units(videos.frames(indices[rows]))
            said = recognizer.glance(recognizer.glanced(units))[1]
            global_vectors.append(said.repeat_interleave(looks, dim=0).unflatten(0, self._focused[rows].shape).cpu())
            focused = self._focused[rows].flatten().nonzero()[:, 0]
            patches = recognizer.cut(units, corners[rows].flatten(0, 1)[focused], focused // looks)
            local.append((self._look(patches) if look else patches).cpu())
        found = gather((torch.cat(global_vectors), torch.cat(local)) if len(own) else None)
        parts = [part for part in found if part is not None]  # processes without videos give None
        self._global, self._local = (torch.cat(each) for each in zip(*parts, strict=True))
        self._where = torch.full(skipped.shape, -1)  # each focused look's place in ``local``
        self._where[self._focused] = torch.arange(int(self._focused.sum()))

    def _look(self, patches: Tensor) -> Tensor:
        """(m, local_size) local vectors of (m, …, 3, P, P) uint8 patches."""
        model = self._recognizer
        if not len(patches):
            return torch.zeros(0, model.local_size)
        return torch.cat([model.patch_vectors(part) for part in model.batches(patches, model.config.patch_size)])

    def vectors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """f_G's vectors (B, looks, …) and f_L's (B, looks, local_size), zero where the look was skipped."""
        device, focused = self._recognizer.device, self._focused[rows]
        found = self._local[self._where[rows][focused]]
        found = found.to(device) if self._looked else self._recognizer.patch_vectors(found)
        local = found.new_zeros(*focused.shape, self._recognizer.local_size)
        local[focused.to(device)] = found
        return self._global[rows].to(device), local


def loss_after_every_unit(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the video's label, averaged over units, and whether the last prediction is right."""
    labels = labels.to(logits.device)
    target = labels[:, None].expand(logits.shape[:2])
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()), logits[:, -1].argmax(-1) == labels
