"""Every container and codec that PyAV can write, against a plain decode from the first packet to the last."""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from adafocus_env.videos import decoding
from adafocus_env.videos.decoding import read_frames
from adafocus_env.videos.extraction import extract_frames
from adafocus_env.videos.views import middle_frames

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder says errors only
HEIGHT, WIDTH = 48, 64


@functools.cache
def scene(number: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A texture that moves, so that every picture is like no other and can be predicted from its neighbours."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (40, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    y, x = number % 120, 2 * number % 120
    return np.ascontiguousarray(texture[y : y + size[0], x : x + size[1]])


def write(
    path: Path,
    codec: str,
    numbers: Iterable[int],
    *,
    muxer: str | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    rate: int = 25,
    change: Callable[[av.Packet], av.Packet | None] = lambda packet: packet,
) -> Path:
    """Encode the pictures of these numbers; ``change`` may alter or drop packets before they are written."""
    with av.open(str(path), "w", format=muxer, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        packets = []
        for place, number in enumerate(numbers):
            picture = av.VideoFrame.from_ndarray(scene(number, size), format="rgb24")
            picture.pts, picture.time_base = place, Fraction(1, rate)
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode()]:
            changed = change(packet)
            if changed is not None:
                container.mux(changed)
    return path


def sequential(path: Path) -> list[np.ndarray]:
    """What right is."""
    with av.open(f"file:{path}") as container:
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]


def assert_reads_right(path: Path) -> int:
    """Returns the number of pictures."""
    pictures = sequential(path)
    last = len(pictures) - 1
    choices = [[0], [last], [last, 0, last, last // 2, last // 2], [max(last - 1, 0), last]]
    choices += [middle_frames(len(pictures), count).tolist() for count in (8, 16)]
    for chosen in choices:
        counts = []

        def choose(available: int, chosen: list[int] = chosen, counts: list[int] = counts) -> np.ndarray:
            counts.append(available)
            return np.array(chosen)

        found = read_frames(path, choose)
        assert counts[-1] == len(pictures)
        for number, picture in zip(chosen, found, strict=True):
            assert np.array_equal(picture, pictures[number]), f"frame {number} of {len(pictures)}"
    return len(pictures)


X264 = {"preset": "ultrafast", "g": "12", "bf": "2", "b_strategy": "0"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:log-level=none:pools=none"}
CODECS: dict[str, dict[str, Any]] = {
    "libx264": {"options": X264},
    "libx264 open": {"options": {**X264, "x264-params": "open-gop=1:keyint=12:min-keyint=1:bframes=3:b-adapt=0"}},
    "libx264 refresh": {"options": {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=12"}},
    "libx264 interlaced": {"options": {**X264, "x264-params": "interlaced=1"}},
    "libx264 4:4:4 10 bits": {"options": X264, "pixels": "yuv444p10le"},
    "libx265": {"options": X265},
    "libx265 closed": {"options": {**X265, "x265-params": X265["x265-params"] + ":open-gop=0"}},
    "mpeg4": {"options": {"g": "12"}},
    "mpeg4 B": {"options": {"g": "12", "bf": "2"}},
    "msmpeg4": {"options": {"g": "12"}},
    "mpeg2video": {"options": {"g": "12", "bf": "2"}},
    "mpeg2video closed": {"options": {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}},
    "mpeg1video": {"options": {"g": "12", "bf": "2"}},
    "h263": {"options": {"g": "12"}, "size": (96, 128)},
    "flv": {"options": {"g": "12"}},
    "wmv1": {"options": {"g": "12"}},
    "wmv2": {"options": {"g": "12"}},
    "libvpx": {"options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}},
    "libvpx hidden": {
        "options": {"g": "12", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "10"}
    },
    "libvpx-vp9": {"options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}},
    "libvpx-vp9 hidden": {
        "options": {"g": "12", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "10"}
    },
    "libsvtav1": {"options": {"g": "12", "preset": "12"}, "size": (64, 64)},
    "mjpeg": {"pixels": "yuvj420p"},
    "ffv1": {"options": {"g": "12"}},
    "huffyuv": {"pixels": "yuv422p"},
    "ffvhuff": {},
    "utvideo": {},
    "prores_ks": {"pixels": "yuv422p10le"},
    "dnxhd": {"pixels": "yuv422p", "options": {"profile": "dnxhr_lb"}, "size": (128, 256)},
    "png": {"pixels": "rgb24"},
    "apng": {"pixels": "rgb24"},
    "gif": {"pixels": "rgb8"},
    "rawvideo": {},
    "qtrle": {"pixels": "rgb24"},
    "snow": {"options": {"g": "12"}},
    "cinepak": {"pixels": "rgb24"},
    "svq1": {"pixels": "yuv410p"},
    "flashsv": {"pixels": "bgr24"},
    "jpeg2000": {"pixels": "rgb24"},
    "magicyuv": {"pixels": "yuv422p"},
    "cfhd": {"pixels": "yuv422p10le"},
    "amv": {"pixels": "yuvj420p"},
}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
MUXERS: dict[str, tuple[str, dict[str, str]]] = {
    "mp4": ("mp4", {}), "fragmented mp4": ("mp4", FRAGMENTED), "mov": ("mov", {}), "matroska": ("mkv", {}),
    "live matroska": ("mkv", {"live": "1"}), "webm": ("webm", {}), "avi": ("avi", {}), "flv": ("flv", {}),
    "mpegts": ("ts", {}), "mpegts m2ts": ("mts", {"mpegts_m2ts_mode": "1"}), "mpeg": ("mpg", {}), "vob": ("vob", {}),
    "svcd": ("mpg", {}), "ogg": ("ogv", {}), "asf": ("wmv", {}), "mxf": ("mxf", {}), "3gp": ("3gp", {}),
    "gif": ("gif", {}), "apng": ("apng", {}), "nut": ("nut", {}), "ivf": ("ivf", {}), "h264": ("h264", {}),
    "hevc": ("hevc", {}), "m4v": ("m4v", {}), "mpeg1video": ("m1v", {}), "mpeg2video": ("m2v", {}),
    "mjpeg": ("mjpeg", {}), "yuv4mpegpipe": ("y4m", {}), "obu": ("obu", {}), "swf": ("swf", {}),
    "ismv": ("ismv", {}), "h263": ("h263", {}),
    "image2pipe": ("png", {}), "dnxhd": ("dnxhd", {}),
}  # fmt: skip


def written(folder: Path, codec: str, muxer: str, count: int = 30) -> Path | None:
    """A video, or ``None`` if this container doesn't take this codec."""
    suffix, container_options = MUXERS[muxer]
    path = folder / f"{codec}-{muxer}.{suffix}"
    try:
        write(
            path,
            codec.split()[0],
            range(count),
            muxer=muxer.removeprefix("fragmented ").removeprefix("live ").split()[0],
            container_options=container_options,
            **CODECS[codec],
        )
        return path if len(sequential(path)) > 1 else None  # one picture: a format of stills
    except (av.error.FFmpegError, ValueError, IndexError):
        return None


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(codec: str, tmp_path: Path) -> None:
    paths = [written(tmp_path, codec, muxer) for muxer in ("mov", "mpegts m2ts", "avi", "apng")]
    counts = [assert_reads_right(path) for path in paths if path is not None]
    assert counts
    assert set(counts) == {30}


@pytest.mark.parametrize("muxer", MUXERS)
def test_every_container(muxer: str, tmp_path: Path) -> None:
    """With the first codec that it takes."""
    paths = (written(tmp_path, codec, muxer) for codec in CODECS)
    path = next(path for path in paths if path is not None)
    assert assert_reads_right(path) == 30


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_in_every_container(codec: str, tmp_path: Path) -> None:
    for muxer in MUXERS:
        path = written(tmp_path, codec, muxer, 60)
        if path is not None:
            assert assert_reads_right(path) == 60


def test_a_camera_s_transport_stream(tmp_path: Path) -> None:
    """Twelve seconds with one key frame per ten: a seek in it lands at its end."""
    path = write(tmp_path / "cam.mts", "libx264", range(300), options={"preset": "ultrafast", "bf": "3"})
    chosen = [18, 56, 93, 131, 168, 206, 243, 281]
    pictures = sequential(path)
    assert len(pictures) == 300
    assert np.array_equal(read_frames(path, lambda n: np.array(chosen)), [pictures[k] for k in chosen])


FAST = {"mp4": "libx264", "mkv": "libx265", "webm": "libvpx", "avi": "mpeg4", "mts": "libx264 open", "mov": "prores_ks"}


@pytest.mark.parametrize("suffix", FAST)
def test_what_the_packets_tell_is_used(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy files are not decoded whole, whether or not their packets are kept in memory."""
    codec = FAST[suffix]
    path = write(tmp_path / f"a.{suffix}", codec.split()[0], range(40), **CODECS[codec])
    pictures = sequential(path)
    monkeypatch.delattr(decoding, "pictures")
    for kept in (0, 1 << 20):
        monkeypatch.setattr(decoding, "_KEPT", kept)
        found = read_frames(path, lambda n: np.arange(0, n, 3))
        assert np.array_equal(found, pictures[::3])


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_clock_that_starts_again(codec: str, suffix: str, tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"{start}.{suffix}", codec, range(start, start + 20), **CODECS[codec]).read_bytes()
        for start in (0, 50)
    ]
    for order in ([0, 1], [0, 0], [1, 0, 1]):
        path = tmp_path / f"joined.{suffix}"
        path.write_bytes(b"".join(parts[k] for k in order))
        assert assert_reads_right(path) > 20


CHANGES: dict[str, tuple[str, str, Callable[[av.Packet], av.Packet | None]]] = {}


def change(name: str, codec: str, suffix: str) -> Callable[[Any], Any]:
    def register(function: Callable[[av.Packet], av.Packet | None]) -> Callable[[av.Packet], av.Packet | None]:
        CHANGES[f"{name}, {codec} in {suffix}"] = codec, suffix, function
        return function

    return register


@change("two at one time", "libx264 P", "mkv")
@change("two at one time", "mpeg4", "nut")
def _(packet: av.Packet) -> av.Packet:
    packet.pts = 6 if packet.pts == 5 else packet.pts
    return packet


@change("uneven times", "libx264 P", "mp4")
@change("uneven times", "mpeg4", "mkv")
def _(packet: av.Packet) -> av.Packet:
    packet.pts = packet.dts = (packet.pts or 0) ** 2
    return packet


@change("no key frame is marked", "libx264", "mp4")
@change("no key frame is marked", "mpeg4", "avi")
@change("no key frame is marked", "libvpx-vp9", "webm")
def _(packet: av.Packet) -> av.Packet:
    packet.is_keyframe = False
    return packet


@change("all are marked as key frames", "libx264", "mp4")
@change("all are marked as key frames", "libx265", "mp4")
@change("all are marked as key frames", "mpeg4", "avi")
@change("all are marked as key frames", "flv", "flv")
@change("all are marked as key frames", "mpeg2video", "mkv")
@change("all are marked as key frames", "libvpx", "webm")
@change("all are marked as key frames", "libvpx-vp9", "webm")
@change("all are marked as key frames", "libsvtav1", "mp4")
def _(packet: av.Packet) -> av.Packet:
    packet.is_keyframe = True
    return packet


@change("begins within a group", "libx264", "ts")
@change("begins within a group", "libx264 open", "mp4")
@change("begins within a group", "libx265", "mkv")
@change("begins within a group", "mpeg2video", "mpg")
@change("begins within a group", "mpeg4", "avi")
def _(packet: av.Packet) -> av.Packet | None:
    return packet if packet.dts is None or packet.dts > 3 else None


@pytest.mark.parametrize("name", CHANGES)
def test_odd_times_and_flags(name: str, tmp_path: Path) -> None:
    codec, suffix, changed = CHANGES[name]
    settings = CODECS.get(codec, {"options": {**X264, "bf": "0"}})
    assert_reads_right(
        write(tmp_path / f"a.{suffix}", codec.split()[0], range(40), change=changed, **settings),
    )


CLOCKS: dict[str, tuple[str, dict[str, str]]] = {
    "begins late": ("mp4", {"output_ts_offset": "7"}),
    "begins before 0": ("mkv", {"output_ts_offset": "-1", "avoid_negative_ts": "disabled"}),
    "wraps at 33 bits": ("ts", {"output_ts_offset": "95443.2", "mpegts_copyts": "1"}),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_odd_clocks(name: str, tmp_path: Path) -> None:
    suffix, container_options = CLOCKS[name]
    path = write(tmp_path / f"a.{suffix}", "libx264", range(40), container_options=container_options, options=X264)
    assert assert_reads_right(path) == 40


@pytest.mark.parametrize("start", [0.3, 0.5])
def test_an_edit_list_that_cuts_the_beginning(start: float, tmp_path: Path) -> None:
    """Pictures that are decoded but not shown have no number."""
    path = write(tmp_path / "a.mp4", "libx264", range(40), options=X264)
    whole = sequential(path)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # version and flags, number of entries, then duration and time in the media
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    (first,) = struct.unpack_from(">i", data, entry + 4)
    struct.pack_into(">i", data, entry + 4, first + round(start / base))
    path.write_bytes(data)
    count = assert_reads_right(path)
    assert np.array_equal(read_frames(path, lambda n: np.arange(n)), whole[-count:])
    assert abs(count - (40 - 25 * start)) <= 1


def test_pictures_that_are_packed_in_pairs(tmp_path: Path) -> None:
    """As XviD does in AVI: P and B in one packet, then a placeholder, which gives no picture."""
    path = write(tmp_path / "a.avi", "mpeg4", range(41), options={"g": "20", "bf": "1", "b_strategy": "0"})
    start, placeholder = b"\0\0\1\xb6", b"\0\0\1\xb6\x50\x57\xff"
    with av.open(str(path)) as source, av.open(str(tmp_path / "packed.avi"), "w") as container:
        packets = [bytes(packet) for packet in source.demux(source.streams.video[0]) if packet.size]
        stream = container.add_stream_from_template(source.streams.video[0])
        packed: list[bytes] = []
        for packet in packets:
            if packet[packet.index(start) + 4] >> 6 == 2:  # B
                packed[-1:] = [packed[-1] + packet, placeholder]
            else:
                packed.append(packet)
        user_data = packed[0].index(b"\0\0\1\xb2")
        packed[0] = packed[0][:user_data] + b"\0\0\1\xb2DivX503b1393p" + packed[0][packed[0].index(start) :]
        for place, data in enumerate(packed):
            new = av.Packet(data)
            new.stream, new.pts, new.dts = stream, place, place
            new.is_keyframe = start in data and data[data.index(start) + 4] >> 6 == 0
            container.mux(new)
    assert assert_reads_right(tmp_path / "packed.avi") == 41


def test_a_video_beside_other_streams(tmp_path: Path) -> None:
    """The first video is read, whichever comes after; a cover picture is none."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options=X264) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(30):
            for offset, stream in zip((0, 50), streams, strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(number + offset), format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert assert_reads_right(path) == 30


@pytest.mark.parametrize("with_video", [False, True])
def test_a_cover_is_no_video(with_video: bool, tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        sound = container.add_stream("aac", rate=8000)
        videos = [container.add_stream("libx264", rate=25, options=X264)] if with_video else []
        for stream in videos:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(scene(0, (32, 32)), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        for number in range(20):
            for stream in videos:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(number), format="rgb24")))
        for stream in [cover, sound, *videos]:
            container.mux(stream.encode())
    if with_video:
        found = read_frames(path, lambda n: np.arange(n))
        assert found.shape == (20, HEIGHT, WIDTH, 3)
        assert np.abs(found[5].astype(float) - scene(5)).mean() < 30
    else:
        with pytest.raises(ValueError, match="no video stream"):
            read_frames(path, lambda n: np.arange(n))


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", "libx264", range(5)).rename(tmp_path / "12:30:05.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read_frames(Path("12:30:05.mp4"), lambda n: np.arange(n))) == 5


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mjpeg"])
def test_pictures_that_change_their_size(codec: str, tmp_path: Path) -> None:
    settings = {**CODECS[codec]}
    suffix = {"libx264": "h264", "mpeg2video": "m2v", "mjpeg": "mjpeg"}[codec]
    parts = [
        write(tmp_path / f"{height}.{suffix}", codec, range(10), size=(height, WIDTH), **settings).read_bytes()
        for height in (48, 80)
    ]
    path = tmp_path / f"changes.{suffix}"
    path.write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"frame 1 is 64×48 pixels, frame \d+ 64×80"):
        read_frames(path, lambda n: np.array([0, n - 1]))
    with pytest.raises(ValueError, match=r"frame 1 is 64×48 pixels, frame 1\d 64×80"):
        extract_frames(path, tmp_path / "out" / "frames")
    assert list((tmp_path / "out").iterdir()) == []


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    (path.parent / f"cut{path.suffix}").write_bytes(data[: round(len(data) * share)])
    return path.parent / f"cut{path.suffix}"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "flv", "webm", "mpg", "h264", "mjpeg"])
def test_files_that_are_cut_off(suffix: str, tmp_path: Path) -> None:
    """Each is refused with a reason, or read as a plain decode reads it."""
    codecs = {"avi": "mpeg4", "flv": "flv", "webm": "libvpx-vp9", "mpg": "mpeg2video", "mjpeg": "mjpeg"}
    codec = codecs.get(suffix, "libx264")
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    whole = write(tmp_path / f"a.{suffix}", codec, range(30), container_options=options, **CODECS[codec])
    for share in np.linspace(0, 0.99, 23):
        path = cut(whole, share)
        try:
            found = read_frames(path, lambda n: np.arange(n))
        except ValueError as error:
            assert str(error)  # noqa: PT017
        else:
            assert np.array_equal(found, sequential(path))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libvpx-vp9", "mjpeg"])
def test_damage_is_an_error_or_changes_nothing(codec: str, tmp_path: Path) -> None:
    """Bytes in the middle of a file that are others than they were."""
    path = write(tmp_path / "a.mkv", codec, range(40), **CODECS[codec])
    right = sequential(path)
    whole = path.read_bytes()
    for start in range(len(whole) // 2, len(whole) * 9 // 10, len(whole) // 40):
        path.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
        for chosen in ([0], list(range(40))):
            try:
                found = read_frames(path, lambda n, chosen=chosen: np.minimum(chosen, n - 1))
            except ValueError as error:
                assert str(error)  # noqa: PT017
                continue
            if len(chosen) == 1:  # what lies before the damage
                assert np.array_equal(found[0], right[0])
            else:
                pictures = sequential(path)
                assert np.array_equal(found, [pictures[min(k, len(pictures) - 1)] for k in chosen])


def test_tags_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", "mpeg4", range(5))
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.avi"), "w") as container:
        container.metadata["title"] = "ABCDEFGH"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    data = (tmp_path / "b.avi").read_bytes()
    assert b"ABCDEFGH" in data
    path.write_bytes(data.replace(b"ABCDEFGH", b"Caf\xe9 \xfcber"[:8]))
    assert len(read_frames(path, lambda n: np.arange(n))) == 5


# (a, b, c, d) of a track header's matrix: a pixel at (x, y) is shown at (a x + c y, b x + d y).
MATRICES: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda picture: picture,
    (-1, 0, 0, 1): lambda picture: picture[:, ::-1],
    (1, 0, 0, -1): lambda picture: picture[::-1],
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (0, 1, -1, 0): lambda picture: np.rot90(picture, -1),  # clockwise
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (0, 1, 1, 0): lambda picture: picture.swapaxes(0, 1),
    (0, -1, -1, 0): lambda picture: np.rot90(picture.swapaxes(0, 1), 2),
}


def set_matrix(path: Path, values: tuple[float, ...]) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # of a track header, version 0
    a, b, c, d = (round(value * 65536) for value in values)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("scale", [1, 0.5])
def test_all_turns_and_reflections(matrix: tuple[int, int, int, int], scale: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", range(4))
    expected = [MATRICES[matrix](picture) for picture in sequential(path)]
    set_matrix(path, tuple(scale * value for value in matrix))
    assert np.array_equal(read_frames(path, lambda n: np.arange(n)), expected)
    assert extract_frames(path, tmp_path / "frames", quality=100) == 4
    for number, picture in enumerate(expected, start=1):
        with Image.open(tmp_path / "frames" / f"image_{number:05d}.jpg") as image:
            assert image.size == picture.shape[1::-1]
            assert np.abs(np.asarray(image).astype(float) - picture).mean() < 12


def test_other_matrices_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", range(4))
    set_matrix(path, (0.7071, 0.7071, -0.7071, 0.7071))
    with pytest.raises(ValueError, match=r"display matrix, \(0.707, 0.707, -0.707, 0.707\), is no quarter turn"):
        read_frames(path, lambda n: np.arange(n))
    with pytest.raises(ValueError, match="display matrix"):
        extract_frames(path, tmp_path / "frames")


def test_a_camera_s_jpegs_with_orientation(tmp_path: Path) -> None:
    """Pictures with EXIF data, of which PyAV has no name for the kind."""
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    jpeg = io.BytesIO()
    Image.fromarray(scene(0)).save(jpeg, "jpeg", exif=exif)
    path = tmp_path / "a.mjpeg"
    path.write_bytes(jpeg.getvalue() * 5)
    found = read_frames(path, lambda n: np.arange(n))
    if found.shape[1] == HEIGHT:
        pytest.skip("this FFmpeg doesn't read EXIF")
    assert np.array_equal(found, [np.rot90(picture, -1) for picture in sequential(path)])
