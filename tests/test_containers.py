"""Every container and codec that PyAV can write, against a plain decode from the first packet to the last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from adafocus_env.videos.video_files import read_frames
from adafocus_env.videos.views import middle_frames

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
    choices = [[0], [last], [last, 0, last, last // 2, last // 2], [last - 1, last]]
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
    "dvvideo": {"size": (576, 720)},
    "libwebp_anim": {},
    "cinepak": {"pixels": "rgb24"},
    "svq1": {"pixels": "yuv410p"},
    "flashsv": {"pixels": "bgr24"},
    "zmbv": {"pixels": "bgr24"},
    "jpeg2000": {"pixels": "rgb24"},
    "magicyuv": {"pixels": "yuv422p"},
    "cfhd": {"pixels": "yuv422p10le"},
    "amv": {"pixels": "yuvj420p"},
    "vc2": {"pixels": "yuv422p"},
}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
MUXERS: dict[str, tuple[str, dict[str, str]]] = {
    "mp4": ("mp4", {}), "fragmented mp4": ("mp4", FRAGMENTED), "mov": ("mov", {}), "matroska": ("mkv", {}),
    "live matroska": ("mkv", {"live": "1"}), "webm": ("webm", {}), "avi": ("avi", {}), "flv": ("flv", {}),
    "mpegts": ("ts", {}), "mpegts m2ts": ("mts", {"mpegts_m2ts_mode": "1"}), "mpeg": ("mpg", {}), "vob": ("vob", {}),
    "svcd": ("mpg", {}), "ogg": ("ogv", {}), "asf": ("wmv", {}), "mxf": ("mxf", {}), "3gp": ("3gp", {}),
    "gif": ("gif", {}), "apng": ("apng", {}), "nut": ("nut", {}), "ivf": ("ivf", {}), "h264": ("h264", {}),
    "hevc": ("hevc", {}), "m4v": ("m4v", {}), "mpeg1video": ("m1v", {}), "mpeg2video": ("m2v", {}),
    "mjpeg": ("mjpeg", {}), "yuv4mpegpipe": ("y4m", {}), "obu": ("obu", {}), "dv": ("dv", {}), "swf": ("swf", {}),
    "webp": ("webp", {}), "gxf": ("gxf", {}), "ismv": ("ismv", {}), "h263": ("h263", {}), "amv": ("amv", {}),
    "image2pipe": ("png", {}), "dnxhd": ("dnxhd", {}), "vc2": ("drc", {}),
}  # fmt: skip
