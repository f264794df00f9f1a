"""Filling a bank's file with several processes at once."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from adafocus_env.features.feature_bank import VIDEOS_PER_CHUNK, FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.processes import gather, gather_first, num_processes, share


def compute_videos(features: FrozenFeatures, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute all that a bank stores about some videos.

    Args:
        features: The features that compute it.
        video: (B,) int64.

    Returns:
        Maps (B·T, C, h, w), projected global vectors (B·T, G) and local ones (B·T·N, G), float32, of T units per video.
    """
    units = features.recognizer.units(features.load_to_cut(video))
    maps, global_gates = features.compute_glance(units, video.repeat_interleave(features.num_steps))
    candidates, corners = len(features.corners), features.corners.to(units.device)
    local_gates = [
        features.compute_look(
            features.recognizer.cut(units, corners[rows % candidates], rows // candidates),
            video[rows.cpu() // (candidates * features.num_steps)],
        )
        for rows in torch.arange(len(units) * candidates, device=units.device).split(features.patches_per_cut)
    ]
    return maps, global_gates, torch.cat(local_gates)


def build_together(features: FrozenFeatures, progress_bar: bool = False) -> None:
    """Fill a bank's file with several processes (``torchrun``), which divide the videos; the first process writes.

    Args:
        features: In process 0 the :class:`FeatureBank`, in the others :class:`FrozenFeatures` with the same arguments.
        progress_bar: Show a progress bar.
    """
    bank = features if isinstance(features, FeatureBank) else None
    size = VIDEOS_PER_CHUNK * num_processes()
    chunks: list[Tensor] = gather(None if bank is None else bank.unfinished(size))[0]
    with contextlib.nullcontext() if bank is None else bank.bar(chunks, progress_bar) as bar:
        for chunk in chunks:
            own = share(chunk)
            computed = tuple(part.cpu() for part in compute_videos(features, own)) if len(own) else None
            for video, parts in zip(chunk.tensor_split(num_processes()), gather_first(computed), strict=False):
                if bank is not None and parts is not None:
                    bank.insert(video, *parts)
            if bar is not None:
                bar.update(len(chunk))
