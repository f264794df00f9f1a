"""Training of recognisers that read whole frames at several resolutions, another way to save compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn
from torchvision.transforms.v2.functional import resize

from adafocus_env.patches import scaled_size
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage1Config
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.training import train_local_and_classifier
from adafocus_env.videos.dataset import VideoDataset


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

    Every frame is read at a random scale or skipped, as policies will choose later; the share that is skipped is drawn
    for each video. Frames of one scale go through f_L together, so that its batch norms see one resolution at a time.
    Their running statistics are useless afterwards; :func:`read_at` finds those of each scale.

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

    train_local_and_classifier("whole frames", recognizer, videos, config, generator, logits_of, draw, progress)


def read_at(recognizer: Recognizer, videos: VideoDataset, scale: float, *, num_videos: int = 256) -> Recognizer:
    """A copy of a recogniser of whole frames whose f_L has the batch-norm statistics of frames at one scale.

    What f_L sees is distributed differently at each resolution, while its weights serve all of them (Wang et al.,
    "Resolution Switchable Networks for Runtime Efficient Image Recognition", ECCV 2020).

    Args:
        recognizer: Trained by :func:`train_whole_frames`; it stays as it is.
        videos: The data set that it was trained on.
        scale: Share of the frame's height and width.
        num_videos: Number of videos, from the first on, that the statistics are taken from.
    """
    copy = recognizer.frozen()
    size = list(scaled_size(videos.frame_size, scale))
    batches = torch.arange(min(num_videos, len(videos))).split(16)
    images = (copy.normalize(resize(videos.frames(batch).flatten(0, 1), size)) for batch in batches)
    update_bn(images, copy.local_cnn)
    return copy
