"""Another way to save compute, on the same videos: read whole frames, each at a resolution of the agent's choice."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from adafocus_env.frozen_features import FrameLoader, FrozenFeatures, PatchCutter
from adafocus_env.patches import scaled_size
from adafocus_env.recognition.compute_cost import multiply_adds
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset

AR_NET_SCALES = (1.0, 0.75, 0.5)
"""The resolutions of AR-Net (ECCV 2020) as shares of the frame's height and width; its fourth choice is to skip."""


class ResolutionBank(FrozenFeatures):
    """What a frozen recogniser says about whole frames at several resolutions, computed once per video.

    Pass it as ``features``: a patch index then chooses the resolution at which the local CNN reads the whole frame, and
    the skip bit whether it reads it at all. A focused frame costs λ at the largest choice, and less in proportion to
    the multiply-adds at the others.

    Args:
        recognizer: Its patch is the whole frame, and its local CNN was trained on such
            (:func:`adafocus_env.recognition.training.train_whole_frames`).
        videos: Any data set whose videos never change.
        scales: Height and width that the local CNN sees, as shares of the frame's.
        device: Where the networks run and the table is.

    Raises:
        ValueError: As :class:`FrozenFeatures`; or the patch is not the whole frame; or a scale is not in (0, 1].
    """

    remembers: ClassVar[bool] = True

    def __init__(
        self,
        recognizer: Recognizer,
        videos: VideoDataset,
        scales: tuple[float, ...] = AR_NET_SCALES,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(recognizer, videos, device=device)
        if tuple(videos.frame_size) != (recognizer.config.patch_size,) * 2:
            raise ValueError(
                f"the recogniser's patches of {recognizer.config.patch_size} pixels are not whole frames of "
                f"{tuple(videos.frame_size)}: ResolutionBank needs a recogniser of whole frames"
            )
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales must be in (0, 1], not {scales}")
        self.scales = tuple(scales)
        self.corners = torch.zeros(len(scales), 2, dtype=torch.int64)  # every choice shows the whole frame
        self._sizes = [scaled_size(videos.frame_size, scale) for scale in scales]
        model = self.recognizer
        costs = [
            multiply_adds(lambda s=size: model.look(torch.zeros(1, 3, *s, dtype=torch.uint8)))  # type: ignore[misc]
            for size in self._sizes
        ]
        self.local_gflops = torch.tensor(costs, dtype=torch.float64) / 1e9
        shape, gates = (len(videos), videos.num_frames), 3 * recognizer.config.hidden_size
        self._maps = torch.empty(*shape, *recognizer.glance_shape, device=self.device)
        self._global_gates = torch.empty(*shape, gates, device=self.device)
        self._local_gates = torch.empty(*shape, len(scales), gates, device=self.device)
        self._known = torch.zeros(len(videos), dtype=torch.bool, device=self.device)

    def ensure_videos(self, video: Tensor, load: FrameLoader) -> None:
        """Run both CNNs on all frames of the videos that they have not seen.

        Args:
            video: (B,) int64.
            load: Gives the (n, T, 3, H, W) frames of rows of ``video``.
        """
        rows = (~self._known[video]).nonzero()[:, 0]
        missing = {int(video[row]): row for row in rows}  # one row of each
        for chosen in torch.tensor(list(missing.values()), dtype=torch.int64, device=self.device).split(32):
            new, frames = video[chosen], load(chosen)
            flat, each = frames.flatten(0, 1), new.repeat_interleave(frames.shape[1])
            maps, gates = self.compute_glance(flat, each)
            self._maps[new], self._global_gates[new] = (v.unflatten(0, frames.shape[:2]) for v in (maps, gates))
            for choice, size in enumerate(self._sizes):
                looked = self.compute_look(resize(flat, list(size)), each)
                self._local_gates[new, :, choice] = looked.unflatten(0, frames.shape[:2])
            self._known[new] = True

    def glance(self, video: Tensor, time: Tensor, load: FrameLoader) -> tuple[Tensor, Tensor]:
        """See :meth:`FrozenFeatures.glance`."""
        return self._maps[video, time], self._global_gates[video, time]

    def look(
        self,
        video: Tensor,
        time: Tensor,
        candidates: Tensor,
        focused: Tensor | None,
        cut: PatchCutter,
        anywhere: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`FrozenFeatures.look`; ``anywhere`` makes no sense here.

        Raises:
            ValueError: ``anywhere`` was given.
        """
        if anywhere is not None:
            raise ValueError("whole frames have no other places to look at: take another baseline than 'pixel'")
        gates = self._local_gates[video[:, None], time[:, None], candidates]
        return gates if focused is None else gates * focused[:, None, None]
