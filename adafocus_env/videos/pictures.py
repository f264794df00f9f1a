"""Pictures of frames: from a file of any of Pillow's formats to RGB bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

BLACK_IS_ZERO = 1
"""A value of TIFF's field PhotometricInterpretation."""


def read_picture(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode a picture as it is stored: an orientation in its EXIF data is not applied, transparency is dropped, and of
    several pictures in a file the first is taken. These are the defaults of torchvision's loaders.

    Of grey with 16 bits these are the upper 8 bits, as Pillow takes them of colours with 16 bits.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no whole picture, or nothing says what its numbers mean.
    """
    with _opened(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            return np.repeat(_upper_bits(image)[..., None], 3, axis=-1)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width in pixels, by the file's header alone; raises as :func:`read_picture` does."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's plugins fail in every way there is, on what is too large or damaged
        raise ValueError(str(error) or type(error).__name__) from error


def _upper_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(H, W), of a picture of more than 8 bits per pixel whose format says that black is 0 and white 65535."""
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
