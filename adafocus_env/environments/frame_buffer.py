"""The frames of the lanes' videos, loaded only where a feature is missing or a picture is drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adafocus_env.features.frozen_features import FrozenFeatures

_LANE_LOAD = 64  # videos loaded at once: larger batches spend their time on fresh memory pages


class FrameBuffer:
    """One video per lane. What is not asked for is neither loaded nor allocated.

    Args:
        features: Loads the videos.
        num_envs: Lanes.
    """

    def __init__(self, features: FrozenFeatures, num_envs: int) -> None:
        self._features, self._num_envs = features, num_envs
        self._frames: Tensor | None = None
        self._video = torch.zeros(num_envs, dtype=torch.int64, device=features.device)
        self._loaded = torch.zeros(num_envs, dtype=torch.bool, device=features.device)

    def __getstate__(self) -> dict[str, Any]:
        """Without frames of videos that are remembered: they are loaded again when they are missed."""
        state = dict(vars(self))
        if self._features.remembers:
            state |= {"_frames": None, "_loaded": torch.zeros_like(self._loaded)}
        return state

    def start(self, video: Tensor, restarted: Tensor) -> None:
        """Set every lane's video, and drop the frames that no longer apply.

        Args:
            video: (num_envs,) int64, the video in every lane from now on.
            restarted: (num_envs,) bool, the lanes in which an episode starts.
        """
        if self._frames is not None:
            # Videos that are remembered are the same whenever they are loaded; others may be augmented afresh.
            self._loaded = self._loaded & ((video == self._video) if self._features.remembers else ~restarted)
        self._video = video

    @torch.inference_mode(False)  # inference tensors can't be written again, and data sets may keep what they load
    def _ensure(self, lanes: Tensor) -> Tensor:
        """(num_envs, T, 3, H, W) uint8, with the videos of the given lanes in it; each is loaded once."""
        videos = self._features.videos
        if self._frames is None:
            shape = (self._num_envs, videos.num_frames, *videos.frame_size, 3)
            # Stored with the channels last, the layout in which crops and convolutions are fastest.
            self._frames = torch.empty(shape, dtype=torch.uint8, device=self._loaded.device).permute(0, 1, 4, 2, 3)
        absent = lanes[~self._loaded[lanes]].unique()
        for chunk in absent.split(_LANE_LOAD):
            self._frames[chunk] = self._features.load(self._video[chunk])
        self._loaded = self._loaded.index_fill(0, absent, True)
        return self._frames

    def videos(self, lanes: Tensor) -> Tensor:
        """(n, T, 3, H, W) uint8: the videos in (n,) lanes."""
        return self._ensure(lanes)[lanes]

    def units(self, lanes: Tensor, time: Tensor) -> Tensor:
        """(n, …) uint8: one unit each (a frame, or a whole clip) of the videos in (n,) lanes."""
        return self._features.recognizer.units(self._ensure(lanes))[lanes * self._features.num_steps + time]

    def cut(self, lanes: Tensor, time: Tensor, corners: Tensor) -> Tensor:
        """(n, …, 3, P, P) uint8: patches at (n, 2) corners of one unit each of the videos in (n,) lanes."""
        units = self._features.recognizer.units(self._ensure(lanes))
        return self._features.recognizer.cut(units, corners, lanes * self._features.num_steps + time)
