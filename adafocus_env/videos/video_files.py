"""``VideoFiles``: encoded videos (MP4, WebM, AVI, …) with a list of path and label."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adafocus_env.videos.decoding import missing_end, pictures, read_frames
from adafocus_env.videos.listed_videos import Choice, ListedVideos, every
from adafocus_env.videos.lists import Entry


class VideoFiles(ListedVideos):
    """A list file's videos, each a file that FFmpeg decodes.

    :func:`read_frames` defines the numbers of frames, also for variable frame rates and for containers with a wrong
    index. Of H.264, HEVC, VP8, VP9, AV1, MPEG-4 and codecs without prediction, only what is needed is decoded. Videos
    of other codecs, interlaced H.264, and files with odd times or packets are decoded twice, the first time to count.
    Pictures are turned and mirrored as the file's metadata say. A picture that the decoder calls damaged is an error.

    :meth:`problems` decodes the frames that evaluation reads and those that they depend on, and compares the packets
    with what the file's header promises.

    Args:
        root: Folder of the files.
        list_file: Lines of path and label or labels, separated by commas (CSV) or spaces.
        kwargs: See :class:`adafocus_env.videos.listed_videos.ListedVideos`.

    Raises:
        FileNotFoundError: The folder or the list file is missing; later, a video is missing.
        ValueError: An argument or a line can't be used; later, a video can't be decoded.
    """

    counted: ClassVar[bool] = False

    def _file(self, entry: Entry) -> Path:
        return self.root / entry.path

    def _read(self, entry: Entry, choose: Choice) -> Tensor:
        path = self._file(entry)
        return torch.from_numpy(self._found(entry, path, lambda: read_frames(path, choose))).permute(0, 3, 1, 2)

    def _decode(self, entry: Entry, share: Callable[[int], int] = every) -> int:
        available = 0

        def count(found: int) -> npt.NDArray[np.int64]:
            nonlocal available
            available = found
            return np.zeros(1, dtype=np.int64)

        self._read(entry, count)
        path, frames = self._file(entry), share(available)
        decoded = self._found(entry, path, lambda: sum(1 for _ in islice(pictures(path), frames)))
        if decoded < frames:
            raise ValueError(f"{path} has {decoded} of {frames} frames ({self.where(entry)}): it is damaged")
        return frames

    def _contradiction(self, entry: Entry) -> str | None:
        missing = missing_end(self._file(entry))
        return missing and f"{self._file(entry)} is not whole ({self.where(entry)}): {missing}"
