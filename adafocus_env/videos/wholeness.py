"""Whether a video file is whole: its pictures one after the other, and what its header promises."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av

MISSING_SHARE = 0.05
"""Of the frames or the time that a header promises: less is put down to rounding."""


def decode_in_order(path: Path, frames: int, *, strict: bool = False) -> None:
    """Decode the first frames of a video file, and keep none.

    Args:
        path: The file.
        frames: How many.
        strict: Fail at frames, too, that FFmpeg patched up.

    Raises:
        av.error.FFmpegError: FFmpeg can't read the file.
        ValueError: There are fewer frames, or they differ in size; or, if strict, one is damaged.
    """
    number, first = 0, None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # videos are decoded side by side
        for number, frame in enumerate(islice(container.decode(stream), frames), start=1):
            size = frame.width, frame.height
            first = first or size
            if size != first:
                raise ValueError(f"frame {number} has {size[0]}×{size[1]} pixels, the first {first[0]}×{first[1]}")
            if strict and frame.is_corrupt:
                raise ValueError(f"frame {number} of {frames} is damaged")
    if number < frames:
        raise ValueError(f"frame {number + 1} of {frames} is not there: the file is damaged")


def missing_end(path: Path) -> str | None:
    """What the header promises and the file lacks, as in one that was not written or copied to its end.

    Nothing is decoded. Formats that promise nothing, such as MPEG-TS, look whole unless the cut goes through a packet.

    Raises:
        av.error.FFmpegError: FFmpeg can't read the file.
    """
    end, torn = 0.0, False
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:  # frames cut away by editing are there
        video = container.streams.video[0]
        count = 0
        for packet in container.demux():
            if packet.size == 0:
                continue
            count += packet.stream is video
            torn = packet.is_corrupt
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None and packet.time_base is not None:
                end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        promised = (container.duration or 0) / av.time_base
        if count < (1 - MISSING_SHARE) * video.frames:
            return f"it ends after {count} of {video.frames} frames"
        if end < (1 - MISSING_SHARE) * promised:
            return f"it ends after {end:.2f} of {promised:.2f} seconds"
    return "its last packet is not whole" if torn else None
