"""Decodes chosen frames of an encoded video file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av import Packet, VideoFrame
from av.codec.context import ThreadType
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataKind
from av.stream import Disposition
from av.video.stream import VideoStream

from adafocus_env.videos.packets import content_reader

_KEPT = 64 << 20
"""Bytes of packets that are kept until it is known which ones to decode; a file with more is read twice."""
_SILENT = {"mjpeg", "mpeg1video", "mpeg2video"}
"""Codecs whose decoders conceal lost data without an error, unless they are told to stop there."""
_MISSING_SHARE = 0.05
"""Share of the frames or the time that a header promises; if less is missing, it is put down to rounding."""


def read_frames(path: Path, choose: Callable[[int], npt.NDArray[np.int64]]) -> npt.NDArray[np.uint8]:
    """Decode some frames of a video file.

    A frame's number is its place among the pictures that a decoder gives from the file's first packet to its last.
    If the packets themselves say how many pictures there are, at which times, and where decoding may begin
    (:mod:`adafocus_env.videos.packets`), only what is needed is decoded; the container's index is not used. If they
    don't, or if decoding contradicts them, pictures are counted from the start.

    Args:
        path: The file.
        choose: Takes the number of frames in the file, and returns the wanted ones, counted from 0. It is called again
            if counting finds another number than the packets promised.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: FFmpeg can't read the file, it holds no picture, it is damaged, or its pictures change their size.
    """
    count, wanted, found = 0, [], None
    with opened(path) as (container, stream):
        timeline = _timeline(container, stream)
        if timeline is not None:
            count = len(timeline.times)
            wanted = choose(count).tolist()
            found = _find_by_time(path, stream, timeline, wanted)
    if found is None:
        counted = sum(1 for _ in pictures(path))
        if counted != count:
            wanted = choose(counted).tolist()
        found = _find_by_counting(path, wanted)
    first = min(found)
    for number, frame in found.items():
        _check_size(number, frame.shape[1::-1], first, found[first].shape[1::-1])
    return np.stack([found[number] for number in wanted])


def pictures(path: Path) -> Generator[VideoFrame]:
    """All pictures of a video file in the order in which they are shown, decoded from the start.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: FFmpeg can't read the file, it holds no picture, it is damaged, or its pictures change their size.
    """
    first: tuple[int, int] | None = None
    with opened(path) as (container, stream):
        for number, picture in enumerate(_decoded(container.demux(stream))):
            size = picture.width, picture.height
            first = first or size
            _check_size(number, size, 0, first)
            yield picture
    if first is None:
        raise ValueError("no frames")


def missing_end(path: Path) -> str | None:
    """A sentence on what the header promises but the file lacks, because it was not written or copied to its end.

    Nothing is decoded. Formats that promise nothing, such as MPEG-TS, look whole unless the cut goes through a packet.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: FFmpeg can't read the file, or it holds no video stream.
    """
    end, torn = 0.0, False
    with opened(path, ignore_editlist="1") as (container, video):  # frames that an edit list hides count too
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
        if count < (1 - _MISSING_SHARE) * video.frames:
            return f"it ends after {count} of {video.frames} frames"
        if end < (1 - _MISSING_SHARE) * promised:
            return f"it ends after {end:.2f} of {promised:.2f} seconds"
    return "its last packet is not whole" if torn else None


def upright(picture: VideoFrame) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a picture, turned and mirrored as the file's metadata ask for.

    High bit depths are reduced to 8 bits, transparency is dropped, and high dynamic range is not tone-mapped.

    Raises:
        ValueError: The metadata ask for anything other than quarter turns and reflections.
    """
    pixels = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    matrix = _display_matrix(picture)
    if matrix is None:
        return pixels
    a, b, _, c, d, *_ = matrix  # a pixel at (x, y) is shown at (a x + c y, b x + d y), plus an offset
    match bool(a), bool(b), bool(c), bool(d):
        case True, False, False, True:
            x, y = a, d
        case False, True, True, False:
            pixels, x, y = pixels.swapaxes(0, 1), c, b
        case _:
            fixed = ", ".join(f"{value / 65536:.3g}" for value in (a, b, c, d))
            raise ValueError(f"its display matrix, ({fixed}), is no quarter turn, with or without a reflection")
    return pixels[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def _display_matrix(picture: VideoFrame) -> list[int] | None:
    """Nine numbers, in 16.16 fixed point in the first two columns; ``None`` if the picture has no display matrix."""
    try:
        listed: Any = picture.side_data
    except ValueError:  # PyAV can't list side data if one is of a kind that it has no name for
        listed = _without_unnamed_side_data(picture).side_data
    matrices = [data for data in listed if data.type is SideDataKind.DISPLAYMATRIX]
    return np.frombuffer(bytes(matrices[0]), dtype=np.int32).tolist() if matrices else None


def _without_unnamed_side_data(picture: VideoFrame) -> VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    unnamed = set(range(64)) - {kind.value for kind in SideDataKind}
    deletions = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in unnamed]
    graph.link_nodes(source, *deletions, graph.add("buffersink")).configure()
    graph.push(picture)
    result = graph.pull()
    assert isinstance(result, VideoFrame)
    return result


@dataclass(frozen=True)
class _Timeline:
    """What the packets of a file say about its pictures.

    Attributes:
        times: Times of the pictures by number, ascending.
        places: Places in the file of the packets that the pictures come from.
        entry_times: Times of the packets at which decoding may begin, ascending.
        entry_places: Places of these packets in the file, ascending.
        packets: All packets; ``None`` if they are too large to keep.
    """

    times: list[int]
    places: list[int]
    entry_times: list[int]
    entry_places: list[int]
    packets: list[Packet[VideoStream]] | None

    def entry(self, number: int) -> tuple[int, int]:
        """Place of the last packet from which a picture can be decoded, and number of the first picture from there."""
        before = min(
            bisect_right(self.entry_places, self.places[number]), bisect_right(self.entry_times, self.times[number])
        )
        return self.entry_places[before - 1], bisect_left(self.times, self.entry_times[before - 1])


def _timeline(container: InputContainer, stream: VideoStream) -> _Timeline | None:
    """What the packets say, or ``None`` if that is not clear."""
    codec = stream.codec_context
    read = content_reader(codec.codec.canonical_name, codec.extradata or b"")
    if read is None:
        return None
    shown: list[tuple[int, int]] = []
    entries: list[tuple[int, int]] = []
    latest: int | None = None
    packets, size = [], 0
    for place, packet in enumerate(container.demux(stream)):
        size += packet.size
        if size <= _KEPT:
            packets.append(packet)
        if not packet.size:  # an empty packet, which flushes the decoder at the end
            continue
        content, time = read(bytes(packet), packet.is_keyframe), packet.pts
        if content is None or time is None or packet.is_corrupt:
            return None
        if content.entry:
            if latest is not None and time <= latest:  # times have been set back
                return None
            entries.append((time, place))
        if content.shown and not packet.is_discard:
            shown.append((time, place))
        latest = time if latest is None else max(latest, time)
    shown.sort()
    if not entries or not shown or entries[0] > min(shown) or entries[0][1] > 0:
        return None
    times = [time for time, _ in shown]
    if len(set(times)) < len(times):
        return None
    return _Timeline(
        times,
        [place for _, place in shown],
        [time for time, _ in entries],
        [place for _, place in entries],
        packets if size <= _KEPT else None,
    )


def _find_by_time(
    path: Path, stream: VideoStream, timeline: _Timeline, wanted: list[int]
) -> dict[int, npt.NDArray[np.uint8]] | None:
    """Wanted pictures by number; ``None`` if the decoder gives others than the packets promised."""
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with ExitStack() as stack:
        if timeline.packets is None:
            container, stream = stack.enter_context(opened(path))
            packets = _Packets(container.demux(stream))
        else:
            packets = _Packets(iter(timeline.packets))
        decoded: Iterator[VideoFrame] = iter(())
        number = -1  # number of the picture that was decoded last
        for target in sorted(set(wanted)):
            place, first = timeline.entry(target)
            if place >= packets.place:
                packets.skip_to(place)
                stream.codec_context.flush_buffers()
                decoded, number = _decoded(packets, since=timeline.times[first]), first - 1
            while number < target:
                number += 1
                try:
                    picture = next(decoded, None)
                except ValueError:
                    return None
                if picture is None or picture.pts != timeline.times[number]:
                    return None
            assert picture is not None
            found[target] = upright(picture)
    return found


def _find_by_counting(path: Path, wanted: list[int]) -> dict[int, npt.NDArray[np.uint8]]:
    """Wanted pictures by number."""
    counted = islice(enumerate(pictures(path)), max(wanted) + 1)
    return {number: upright(picture) for number, picture in counted if number in wanted}


class _Packets:
    """Iterates over packets and counts them.

    Attributes:
        place: Place of the next packet.
    """

    def __init__(self, packets: Iterator[Packet[VideoStream]]) -> None:
        self._packets, self.place = packets, 0

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        return self

    def __next__(self) -> Packet[VideoStream]:
        packet = next(self._packets)
        self.place += 1
        return packet

    def skip_to(self, place: int) -> None:
        """Skip packets until the next one is at ``place``, which must not have been passed."""
        while self.place < place:
            next(self)


@contextmanager
def opened(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file, and give it with its first video stream that is not a cover picture.

    Args:
        path: The file.
        options: Options of FFmpeg's demuxer.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: FFmpeg can't read the file, or it holds no video stream.
    """
    try:
        # Without "file:", a name with a colon would be taken for a protocol. Tags may be in any encoding.
        with av.open(f"file:{path}", metadata_errors="replace", options=options) as container:
            for stream in container.streams.video:
                if not stream.disposition & Disposition.attached_pic:
                    break
            else:
                raise ValueError("no video stream")
            if stream.codec_context is None:
                raise ValueError("FFmpeg has no decoder for its video stream")
            stream.thread_type = ThreadType.NONE  # several videos are decoded in parallel
            if stream.codec_context.codec.canonical_name in _SILENT:
                stream.codec_context.options = {"err_detect": "explode"}
            yield container, stream
    except FileNotFoundError:
        raise
    except av.error.FFmpegError as error:
        raise ValueError(error.strerror) from error


def _decoded(packets: Iterable[Packet[VideoStream]], since: int | None = None) -> Iterator[VideoFrame]:
    """Decode packets; pictures before ``since`` are left out, as they refer to what was not decoded.

    Raises:
        ValueError: A packet or picture is damaged.
    """
    cut_off = False
    for number, packet in enumerate(packets, start=1):
        # Inside a file, this may only mean that two files were joined; the decoder tells whether anything is lost.
        if cut_off and not packet.size:
            raise ValueError(f"cut off in packet {number - 1}")
        cut_off = packet.is_corrupt
        try:
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            raise ValueError(f"damaged at packet {number}: {error.strerror}") from error
        for picture in decoded:
            if since is not None and picture.pts is not None and picture.pts < since:
                continue
            if picture.is_corrupt:
                raise ValueError(f"damaged at packet {number}")
            yield picture


def _check_size(number: int, size: tuple[int, ...], first: int, expected: tuple[int, ...]) -> None:
    if size != expected:
        raise ValueError(
            f"its pictures change their size: frame {first + 1} is {expected[0]}×{expected[1]} pixels, frame "
            f"{number + 1} {size[0]}×{size[1]}"
        )
