"""``ResolutionBank``: features of whole frames, for agents that choose a resolution for each frame."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from adafocus_env.features.bank_file import BankFile
from adafocus_env.features.frozen_features import FrameLoader, FrozenFeatures, PatchQuery
from adafocus_env.patches import scaled_size
from adafocus_env.recognition.compute_cost import multiply_adds
from adafocus_env.recognition.image_networks import Precision
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.videos.dataset import VideoDataset

AR_NET_SCALES = (1.0, 0.75, 0.5)
"""The resolutions of AR-Net (ECCV 2020) as shares of the frame's height and width; its fourth choice is to skip."""
_VIDEOS_PER_BATCH = 32


class ResolutionBank(FrozenFeatures):
    """Outputs of frozen recognisers on whole frames at several resolutions, computed once per video.

    Pass it as ``features``: a patch index then chooses the resolution at which a local CNN reads the whole frame, and
    the skip bit chooses whether any does. A frame that is read costs λ at the most expensive resolution, and in
    proportion to the multiply-adds at the others.

    Args:
        recognizers: Maps every scale (a share of the frame's height and width) to the recogniser whose local CNN reads
            frames at it (:func:`adafocus_env.recognition.whole_frames.read_at`). They differ only in their local CNNs.
        videos: Any data set whose videos never change.
        device: Device of the networks, and of the table if it has no ``path``.
        path: File of the table, as for :class:`adafocus_env.FeatureBank`; ``None`` keeps it in memory.
        precision: Precision of the local CNNs, ``"float32"`` or ``"bfloat16"``.
        private: As for :class:`adafocus_env.FeatureBank`, whose rules for copies hold too.

    Attributes:
        scales: The keys of ``recognizers``, in their order.

    Raises:
        ValueError: As for :class:`FrozenFeatures`; or the patch is not the whole frame, a scale is not in (0, 1], the
            recognisers differ in more than their local CNNs, or the file at ``path`` was filled for something else.
        BlockingIOError: Another process is filling the file.
        OSError: The disk can't hold the table.
    """

    remembers: ClassVar[bool] = True

    def __init__(
        self,
        recognizers: Mapping[float, Recognizer],
        videos: VideoDataset,
        device: str | torch.device = "cpu",
        *,
        path: str | os.PathLike[str] | None = None,
        precision: Precision = "float32",
        private: bool = False,
    ) -> None:
        if not recognizers or not all(0 < scale <= 1 for scale in recognizers):
            raise ValueError(f"recognizers must be given for scales in (0, 1], not {list(recognizers)}")
        self.scales = tuple(recognizers)
        first = recognizers[self.scales[0]]
        super().__init__(first, videos, device=device, precision=precision)
        if tuple(videos.frame_size) != (first.config.patch_size,) * 2:
            raise ValueError(
                f"the recogniser's patches of {first.config.patch_size} pixels are not whole frames of "
                f"{tuple(videos.frame_size)}: ResolutionBank needs recognisers of whole frames"
            )
        if not all(_same_but_local(first, other) for other in recognizers.values()):
            raise ValueError("recognizers must be the same but for their local CNNs: make them by `read_at`")
        self.corners = torch.zeros(len(self.scales), 2, dtype=torch.int64)  # every choice shows the whole frame
        self._recognizers = {scale: reader.frozen() for scale, reader in recognizers.items()}
        self._sizes = [scaled_size(videos.frame_size, scale) for scale in self.scales]
        self._readers = [reader.deployed(precision).to(self.device) for reader in recognizers.values()]
        self.local_gflops = torch.tensor(
            [
                multiply_adds(lambda s=size: first.look(torch.zeros(1, 3, *s, dtype=torch.uint8))) / 1e9  # type: ignore[misc]
                for size in self._sizes
            ],
            dtype=torch.float64,
        )
        shape, gates = (len(videos), videos.num_frames), 3 * first.config.hidden_size
        arrays = {
            "filled": ((2,), torch.int64),
            "row": ((len(videos),), torch.int64),  # of a video in the tables below, from 1; 0 means "not filled"
            "maps": ((*shape, *first.glance_shape), torch.float32),
            "global_gates": ((*shape, gates), torch.float32),
            "local_gates": ((*shape, len(self.scales), gates), torch.float32),
        }
        self._file: BankFile | None = None
        if path is None:
            tables = {name: torch.zeros(size, dtype=kind, device=self.device) for name, (size, kind) in arrays.items()}
        else:
            identity: dict[str, Any] = {
                "recognizers": {str(scale): reader.fingerprint() for scale, reader in recognizers.items()},
                "videos": videos.fingerprint,
                "precision": precision,
            }
            self._file = BankFile(path, identity, arrays, total=(len(videos), 0), private=private)
            tables = self._file.arrays
        self._filled, self._row, self._maps, self._global_gates, self._local_gates = tables.values()
        if self._file is not None and self._file.writable:
            self._row[self._row > self._filled[0]] = 0  # rows that a killed process didn't write to disk

    def _maker(self) -> Callable[[], ResolutionBank]:
        path = None
        if self._file is not None:
            self._file.sync()  # a copy reads the file as it is now
            path = self._file.path
        arguments = self._recognizers, self.videos, self.device
        return functools.partial(type(self), *arguments, path=path, precision=self.precision, private=True)

    def ensure_videos(self, video: Tensor, load: FrameLoader) -> None:
        """See :meth:`FrozenFeatures.ensure_videos`: runs all CNNs on the videos that the table lacks."""
        rows = (self._row[video.to(self._row.device)] == 0).nonzero()[:, 0]
        if not len(rows):
            return
        missing = {int(video[row]): row for row in rows}  # one row of each video
        chosen = torch.tensor(list(missing.values()), dtype=torch.int64, device=self.device)
        for batch in chosen.split(_VIDEOS_PER_BATCH):
            self._fill(video[batch], load(batch))

    def _fill(self, video: Tensor, frames: Tensor) -> None:
        if self._file is not None:
            self._file.check_writable()
        flat, each = frames.flatten(0, 1), video.repeat_interleave(frames.shape[1])
        start = int(self._filled[0])
        where = slice(start, start + len(video))
        maps, gates = self.compute_glance(flat, each)
        self._maps[where], self._global_gates[where] = (part.unflatten(0, frames.shape[:2]) for part in (maps, gates))
        for choice, (reader, size) in enumerate(zip(self._readers, self._sizes, strict=True)):
            looked = self.compute_look(resize(flat, list(size)), each, reader)
            self._local_gates[where, :, choice] = looked.unflatten(0, frames.shape[:2])
        self._row[video.to(self._row.device)] = torch.arange(1, 1 + len(video), device=self._row.device) + start
        self._filled[0] += len(video)
        if self._file is not None:
            self._file.wrote(full=int(self._filled[0]) == len(self.videos))

    def glance(self, video: Tensor, time: Tensor, load: FrameLoader) -> tuple[Tensor, Tensor]:
        """See :meth:`FrozenFeatures.glance`."""
        row, time = self._where(video, time)
        return self._maps[row, time].to(self.device), self._global_gates[row, time].to(self.device)

    def _look(self, query: PatchQuery) -> Tensor:
        """Look the vectors up in the table.

        Raises:
            ValueError: The query has patches besides candidates, which whole frames don't have.
        """
        if query.anywhere is not None:
            raise ValueError(
                "whole frames have no patches besides the candidates: take action='grid', and another baseline than "
                "'pixel'"
            )
        row, time = self._where(query.video, query.time)
        gates = self._local_gates[row[:, None], time[:, None], query.candidates.to(row.device)].to(self.device)
        return gates if query.focused is None else gates * query.focused[:, None, None]

    def close(self) -> None:
        """Write the file to disk and let others fill it; this bank can still be read, but no longer be filled."""
        if self._file is not None:
            self._file.close()

    def _where(self, video: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and times in the tables, on their device."""
        return self._row[video.to(self._row.device)] - 1, time.to(self._row.device)


def _same_but_local(one: Recognizer, other: Recognizer) -> bool:
    weights, others = one.state_dict(), other.state_dict()
    return one.config == other.config and all(
        torch.equal(weights[name].cpu(), others[name].cpu()) for name in weights if not name.startswith("local_cnn.")
    )
