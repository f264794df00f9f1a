"""The objectives of stage 0, in which f_G and f_L learn separately, before they work together.

For each kind of recogniser a function returns two objectives, one of f_G with its head and one of f_L with its head.
:func:`train_stage0` minimises them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env.patches import centered_corners, crop, overlap, random_corners
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.recognition.optimization import Objective
from adafocus_env.recognition.recipes import Stage0Config
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer
from adafocus_env.videos.dataset import LocatedVideos, VideoDataset

Objectives = Callable[[Any, Any, Stage0Config, torch.Generator], tuple[Objective, Objective]]
"""Takes recogniser, videos, settings and generator, and returns the objectives of f_G and f_L."""


def objectives_for(recognizer: ImageNetworks[Any], videos: VideoDataset) -> Objectives:
    """The function that fits a recogniser and its videos."""
    if isinstance(recognizer, TSMRecognizer):
        return clips
    return located_items if isinstance(videos, LocatedVideos) else whole_frames


def located_items(
    recognizer: Recognizer, videos: LocatedVideos, config: Stage0Config, generator: torch.Generator
) -> tuple[Objective, Objective]:
    """Classifiers of single frames and of single patches, on videos that know where the item is.

    f_G's logits are pooled over places by log-sum-exp, so that one place suffices to see the item. The map then shows
    where it is, although no label says where. f_L sees patches near the item and anywhere; patches that don't show it
    form a class of their own.
    """
    num_classes, nothing = videos.num_classes, videos.num_classes
    patch_size, times, device = recognizer.config.patch_size, videos.num_frames, recognizer.device
    global_head = nn.Linear(recognizer.glance_shape[0], num_classes + 1, device=device)
    local_head = nn.Linear(recognizer.local_size, num_classes + 1, device=device)

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

    return (
        Objective((recognizer.global_cnn, global_head), videos, frame_loss),
        Objective((recognizer.local_cnn, local_head), videos, patch_loss, draw=draw_patches),
    )


def whole_frames(
    recognizer: Recognizer, videos: VideoDataset, config: Stage0Config, generator: torch.Generator
) -> tuple[Objective, Objective]:
    """The paper's warm-up: both CNNs as classifiers of whole frames.

    The logits of a video are the mean of its frames'. f_G sees frames at the size of a glance, f_L at full size.
    """

    def objective(cnn: nn.Module, size: int, vectors_of: Callable[[Tensor], Tensor]) -> Objective:
        head = nn.Linear(size, videos.num_classes, device=recognizer.device)

        def loss_of(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
            logits = head(vectors_of(frames.flatten(0, 1))).unflatten(0, frames.shape[:2]).mean(dim=1)
            return _classify(logits, videos.labels[rows])

        return Objective((cnn, head), videos, loss_of)

    return (
        objective(recognizer.global_cnn, recognizer.glance_shape[0], lambda frames: recognizer.glance(frames)[1]),
        objective(recognizer.local_cnn, recognizer.local_size, recognizer.look),
    )


def clips(
    recognizer: TSMRecognizer, videos: VideoDataset, config: Stage0Config, generator: torch.Generator
) -> tuple[Objective, Objective]:
    """AdaFocus-TSM: both networks, with their heads, as classifiers of clips.

    f_G sees whole frames at the size of a glance. A second head has logits at each place. Pooled over places by
    log-sum-exp, they learn the class, so one place suffices to tell; on videos that know where the item is, pooled over
    classes, they learn the place. f_L sees whole frames at full size or, on such videos, patches near the item.
    """
    device, num_classes = recognizer.device, videos.num_classes
    patch_size = recognizer.config.patch_size
    places_head = nn.Linear(recognizer.global_head.in_features, num_classes, device=device)

    def glance_loss(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps, logits = recognizer.glance(recognizer.glanced(frames))
        of_frames = maps.unflatten(1, (recognizer.config.global_frames, -1)).mean(dim=1)
        places = places_head(of_frames.permute(0, 2, 3, 1)).flatten(1, 2)  # (B, h·w, classes)
        loss, right = _classify(logits, videos.labels[rows])
        loss = loss + _classify(places.logsumexp(dim=1), videos.labels[rows])[0]
        if isinstance(videos, LocatedVideos):
            boxes = videos.locations(rows)[0][:, 0]
            cell = (boxes[:, :2] + boxes[:, 2:] / 2) / torch.tensor(videos.frame_size) * torch.tensor(maps.shape[2:])
            row, column = cell.long().unbind(dim=1)
            place = (row * maps.shape[3] + column).to(device)
            loss = loss + nn.functional.cross_entropy(places.logsumexp(dim=2), place)
        return loss, right

    def frame_loss(rows: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        return _classify(recognizer.look(recognizer.samplings(frames)[1]), videos.labels[rows])

    def draw_offsets(rows: int) -> tuple[Tensor]:
        return (torch.randint(-patch_size // 5, patch_size // 5 + 1, (rows, 2), generator=generator),)

    def patch_loss(rows: Tensor, frames: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(videos, LocatedVideos)
        boxes = videos.locations(rows)[0][:, 0]
        boxes = torch.cat((boxes[:, :2] + offset, boxes[:, 2:]), dim=1)
        corners = centered_corners(boxes, videos.frame_size, patch_size)
        return _classify(recognizer.look(recognizer.cut(frames, corners)), videos.labels[rows])

    global_networks = nn.ModuleList((recognizer.global_head, places_head))
    local_networks = (recognizer.local_cnn, recognizer.local_head)
    local = (
        Objective(local_networks, videos, patch_loss, draw=draw_offsets)
        if isinstance(videos, LocatedVideos)
        else Objective(local_networks, videos, frame_loss)
    )
    return Objective((recognizer.global_cnn, global_networks), videos, glance_loss), local


def start_from(recognizer: ImageNetworks[Any], other: Recognizer) -> None:
    """Copy another recogniser's CNNs as far as names and shapes agree, with or without temporal shift, in place.

    The embedded benchmarks of clips and of still pictures start like this, as the paper starts from ImageNet's weights:
    from networks that know the objects of ``RoamingFashion``.
    """
    for name in ("global_cnn", "local_cnn"):
        own, known = (getattr(model, name).state_dict() for model in (recognizer, other))
        unshifted = {key: key.replace(".conv1.net.", ".conv1.") for key in own}
        for key, tensor in own.items():
            source = known.get(unshifted[key])
            if source is not None and source.shape == tensor.shape:
                tensor.copy_(source)


def _classify(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and whether predictions are right."""
    labels = labels.to(logits.device)
    return nn.functional.cross_entropy(logits, labels), logits.argmax(dim=1) == labels
