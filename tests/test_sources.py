"""Pictures from files, folders and webcams, the windows that they come in, and where views are in them."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adafocus_env import RoamingMotion
from adafocus_env.videos.decoding import read_frames
from adafocus_env.videos.sources import Clips, Webcam, open_source, windows
from adafocus_env.videos.views import Box, evaluation_view, in_original


def write_clip(
    path: Path, count: int, *, size: tuple[int, int] = (48, 64), rate: int = 25, audio: bool = False
) -> Path:
    """Encode a red blob that moves over a grey texture."""
    height, width = size
    texture = np.random.default_rng(0).integers(0, 200, (height // 8 + 1, width // 8 + 1, 1))
    texture = np.kron(texture, np.ones((8, 8, 3))).astype(np.uint8)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"qp": "0", "g": "7", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        sound = container.add_stream("aac", rate=8000) if audio else None
        for number in range(count):
            pixels = texture.copy()
            left = number * 3 % (width - 12)
            pixels[10:22, left : left + 12] = (250, 40 + 5 * number % 200, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 8000, 0
            container.mux([*sound.encode(silence), *sound.encode(None)])
        container.mux(stream.encode(None))
    return path


@given(count=st.integers(0, 40), length=st.integers(1, 9), data=st.data())
def test_windows_cover_everything_once(count: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    found = list(windows(range(count), length, stride))
    assert [item for window in found for item in window.items[len(window.items) - window.fresh :]] == list(range(count))
    starts = [window.items[0] for window in found]
    for window, start in zip(found, starts, strict=True):
        assert window.items == tuple(range(start, start + min(length, count)))
    assert starts[:-1] == list(range(0, len(starts[:-1]) * stride, stride))


@pytest.mark.parametrize("size", [(48, 64), (49, 65), (50, 34)])
def test_every_third_picture_with_its_time(size: tuple[int, int], tmp_path: Path) -> None:
    source = open_source(str(write_clip(tmp_path / "clip.mp4", 20, size=size, audio=True)))
    assert (source.rate, source.expected) == (25, 20)
    found = list(source.read(every=3))
    assert [picture.number for picture in found] == list(range(0, 20, 3))
    assert [picture.time for picture in found] == pytest.approx([number / 25 for number in range(0, 20, 3)])
    wanted = read_frames(tmp_path / "clip.mp4", lambda available: np.arange(0, available, 3))
    assert np.array_equal(np.stack([picture.pixels for picture in found]), wanted)
    assert found[0].pixels.shape == (*size, 3)


def test_pictures_stand_upright(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 3)
    plain = next(open_source(str(path)).read()).pixels
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    assert np.array_equal(next(open_source(str(path)).read()).pixels, np.rot90(plain, -1))


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"image_{number}.png")
    (tmp_path / "extraction.json").write_text("{}")
    source = open_source(str(tmp_path))
    assert source.expected == 4
    assert [int(picture.pixels[0, 0, 0]) for picture in source.read()] == [1, 2, 9, 10]
    assert [picture.number for picture in source.read(every=2)] == [0, 2]
    assert [picture.time for picture in source.read()] == [0, 0.04, 0.08, 0.12]
    assert [picture.time for picture in open_source(str(tmp_path), 2.0).read()] == [0, 0.5, 1, 1.5]
    with pytest.raises(ValueError, match="rate must be a finite number above 0"):
        open_source(str(tmp_path), 0)
    with pytest.raises(ValueError, match=r"rate: .*\.png is no folder of pictures and knows its own rate"):
        open_source(str(tmp_path / "image_1.png"), 2.0)
    Image.new("RGB", (8, 8)).save(tmp_path / "image_3.png")
    with pytest.raises(ValueError, match=r"image_3\.png has 8×8 pixels, a picture before it 8×6"):
        list(source.__class__(tmp_path).read())


def test_clips_follow_each_other() -> None:
    videos = RoamingMotion("val")
    source = Clips(videos, (3, 1))
    found = np.stack([picture.pixels for picture in source.read()])
    wanted = videos.frames(torch.tensor([3, 1]))[:, 4:].flatten(0, 1).permute(0, 2, 3, 1)
    assert np.array_equal(found, wanted.numpy())
    assert source.labels == videos.labels[[3, 1]].tolist()


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no video, and no folder of pictures, at .*absent"):
        open_source(str(tmp_path / "absent.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty: it has 0 bytes"):
        open_source(str(tmp_path / "empty.mp4"))
    (tmp_path / "text.mp4").write_text("not a video" * 99)
    with pytest.raises(ValueError, match=r"text\.mp4 can't be read as a video"):
        open_source(str(tmp_path / "text.mp4"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder has no picture in it; names end in \.jpg"):
        open_source(str(tmp_path / "folder"))
    with pytest.raises(OSError, match=r"no webcam 87: /dev/video87 can't be opened"):
        open_source("87")


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"clip\.mp4 can't be read as a video: damaged at packet"):
        list(open_source(str(path)).read())


def test_a_webcam_goes_on_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Webcam, "driver", "lavfi")
    monkeypatch.setattr(Webcam, "device", "testsrc=size=66x50:rate=10:duration={}")
    source = open_source("2")
    assert (source.name, source.rate, source.expected) == ("webcam 2", 10, None)
    found = list(source.read(every=4))
    assert [(picture.number, picture.time) for picture in found] == [
        (k, pytest.approx(k / 10)) for k in range(0, 20, 4)
    ]
    assert found[0].pixels.shape == (50, 66, 3)


@pytest.mark.parametrize(("height", "width"), [(90, 160), (161, 90), (97, 97), (48, 111), (300, 211)])
def test_a_patch_of_the_view_is_found_in_the_original(height: int, width: int) -> None:
    """A ramp tells where a pixel of the view comes from, as bilinear resizing keeps ramps."""
    resized, size = 64, 56
    rows, columns = np.mgrid[:height, :width] * 250 / max(height, width)
    ramp = torch.from_numpy(np.stack([rows, columns, rows]).round().astype(np.uint8))[None]
    view = evaluation_view(ramp, resized, size)[0].numpy()
    box = in_original(Box(20, 30, 16, 8), height, width, resized, size)
    places = view[:2, 20:36, 30:38].mean(axis=(1, 2)) * max(height, width) / 250
    middle = box.top + box.height / 2 - 0.5, box.left + box.width / 2 - 0.5
    assert places == pytest.approx(middle, abs=1.0)
    assert (box.height / 16, box.width / 8) == pytest.approx([min(height, width) / resized] * 2, rel=0.02)
    whole = in_original(Box(0, 0, size, size), height, width, resized, size)
    assert min(whole) >= 0
    assert whole.top + whole.height <= height
    assert whole.left + whole.width <= width
