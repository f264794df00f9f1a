"""Reads picture files, of any format that Pillow knows, as RGB bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

BLACK_IS_ZERO = 1
"""The value of TIFF's field PhotometricInterpretation that says that 0 is black."""


def read_picture(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode a picture as it is stored.

    As in torchvision's loaders, an orientation in EXIF data is not applied, transparency is dropped, and of several
    pictures the first is taken. Of 16-bit grey the upper 8 bits are used, as Pillow does with 16-bit colours.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a complete picture, or doesn't say what its numbers mean.
    """
    with _opened(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            return np.repeat(_upper_bits(image)[..., None], 3, axis=-1)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width in pixels, read from the file's header; raises the errors of :func:`read_picture`."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's plugins raise errors of all classes on too large or damaged files
        raise ValueError(str(error) or type(error).__name__) from error


def _upper_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(H, W) uint8, the upper 8 bits of a picture whose format must say that 0 is black and 65535 white."""
    says_16_bits = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        form = tags.get(TiffImagePlugin.BITSPERSAMPLE), tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
        says_16_bits &= form == ((16,), BLACK_IS_ZERO)
    if image.mode == "F" or not says_16_bits:
        raise ValueError(
            f"nothing says which grey is white in pixels of mode {image.mode!r}: convert it to 8 bits, or to 16 bits "
            "without a sign and with 0 for black"
        )
    return (np.asarray(image) >> 8).astype(np.uint8)
