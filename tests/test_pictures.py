"""Pictures of every kind that frames may have: the right bytes, or an error that names the file and the line."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.io import decode_image

from adafocus_env import FrameFolders
from adafocus_env.videos.pictures import picture_size, read_picture

DEEP = (np.arange(40 * 64).reshape(40, 64) * 25).astype(np.uint16)  # 0 to 63975
GREY = (DEEP >> 8).astype(np.uint8)
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def pgm(path: Path, *, most: int, values: np.ndarray) -> None:
    path.write_bytes(f"P5 64 40 {most}\n".encode() + values.astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("grey.png", lambda path: Image.fromarray(DEEP).save(path)),
        ("little.tif", lambda path: Image.fromarray(DEEP).save(path)),
        ("big.tif", lambda path: Image.fromarray(DEEP.astype(">u2")).save(path)),
        ("packed.tif", lambda path: Image.fromarray(DEEP).save(path, compression="tiff_deflate")),
        ("grey.jp2", lambda path: Image.fromarray(DEEP).save(path)),
        ("grey.pgm", lambda path: pgm(path, most=65535, values=DEEP)),
        ("eight.png", lambda path: Image.fromarray(GREY).save(path)),
        ("alpha.png", lambda path: Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY // 2)]).save(path)),
        ("palette.png", lambda path: Image.fromarray(GREY).convert("P").save(path, transparency=3)),
    ],
)
def test_grey_keeps_its_upper_bits(name: str, save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / name)
    assert np.array_equal(read_picture(tmp_path / name), np.repeat(GREY[..., None], 3, axis=-1))
    assert picture_size(tmp_path / name) == (40, 64)


def test_twelve_bits_of_sixteen_are_scaled_by_their_own_white(tmp_path: Path) -> None:
    pgm(tmp_path / "12.pgm", most=4095, values=DEEP >> 4)
    assert np.abs(read_picture(tmp_path / "12.pgm")[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("integers.tif", lambda path: Image.fromarray(DEEP.astype(np.int32)).save(path)),
        ("float.tif", lambda path: Image.fromarray(DEEP.astype(np.float32) / 65535).save(path)),
        ("inverted.tif", lambda path: Image.fromarray(DEEP).save(path, tiffinfo={262: 0})),
    ],
)
def test_grey_of_unknown_range_is_refused(name: str, save: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    save(tmp_path / "1" / name)
    (tmp_path / "list.txt").write_text(". 3 1")
    videos = FrameFolders(tmp_path, tmp_path / "list.txt", num_classes=2, template=f"{{:d}}/{name}")
    with pytest.raises(ValueError, match=r"\.tif can't be decoded .*list\.txt, line 1.*which grey is white"):
        videos.frames(torch.tensor([0]))


def turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, quality=95, exif=exif)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_orientation_is_not_applied_as_in_torchvision(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    turned(path, orientation)
    found = read_picture(path)
    assert found.shape == COLOURS.shape
    assert np.array_equal(found, np.asarray(default_loader(str(path))))
    assert np.abs(found.astype(int) - decode_image(str(path)).permute(1, 2, 0).numpy()).max() <= 3


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("cmyk.jpg", Image.fromarray(COLOURS).convert("CMYK")),
        ("bits.png", Image.fromarray(GREY > 99)),
        ("rgba.png", Image.fromarray(np.concatenate([COLOURS, GREY[..., None]], axis=-1))),
        ("first.gif", Image.fromarray(GREY)),
    ],
)
def test_others_are_what_torchvision_takes_them_for(name: str, picture: Image.Image, tmp_path: Path) -> None:
    more = {"save_all": True, "append_images": [Image.fromarray(GREY[::-1])]} if name == "first.gif" else {}
    picture.save(tmp_path / name, **more)
    assert np.array_equal(read_picture(tmp_path / name), np.asarray(default_loader(str(tmp_path / name))))


def test_huge_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    data = io.BytesIO()
    Image.fromarray(COLOURS).save(data, "JPEG")
    huge = bytearray(data.getvalue())
    size = huge.index(b"\xff\xc0") + 5
    huge[size : size + 4] = (10000).to_bytes(2, "big") + (20000).to_bytes(2, "big")
    for number in range(1, 4):
        (tmp_path / "v" / f"image_{number:05d}.jpg").write_bytes(huge)
    (tmp_path / "list.txt").write_text("w 3 1\nv 3 1")
    videos = FrameFolders(tmp_path, tmp_path / "list.txt", num_classes=2)
    message = r"v/image_00001\.jpg can't be decoded \(.*list\.txt, line 2\): .*200000000 pixels"
    with pytest.raises(ValueError, match=message):
        videos.frames(torch.tensor([1]))
    assert "line 2" in videos.problems()[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
@given(
    suffix=st.sampled_from(["png", "jpg", "tif", "gif", "bmp", "webp", "ppm"]), random=st.randoms(use_true_random=False)
)
def test_damage_is_a_value_error(suffix: str, random: Random, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(COLOURS).save(path)
    data = bytearray(path.read_bytes())
    for _ in range(random.randint(1, 6)):
        data[random.randrange(min(len(data), 300))] = random.randrange(256)
    path.write_bytes(data[: random.randint(1, len(data))])
    try:
        assert read_picture(path).dtype == np.uint8
    except ValueError as error:
        assert str(error)  # noqa: PT017
