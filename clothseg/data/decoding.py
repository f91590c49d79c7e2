"""Decoding pictures that anybody may have made: to the last pixel, and without running anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from clothseg.data.source import DataError

# Of Pillow's formats those that are programs (Ghostscript runs them) or that unpack without a limit.
NOT_OPENED = ("EPS", "FITS")
# A few bytes can say that they unpack to any size; Pillow itself refuses what has 179 megapixels or more.
MOST_PIXELS = 100_000_000


def decode_photo(path: Path, *, what: str, paper: tuple[int, int, int] | None) -> np.ndarray:
    """A photo as it is meant to be looked at: turned as its EXIF orientation says, in RGB.

    Of 16-bit grey the upper 8 bits are taken, of several frames the first.

    Args:
        path: of the file.
        what: that it cannot be read as, "a photo".
        paper: RGB of what is seen through transparency; None to drop the transparency.

    Returns:
        uint8 (height, width, 3) in 0..255.

    Raises:
        DataError: the file is missing, empty, cut off, damaged as far as its format can tell, too large, or no photo.
    """
    return _decoded(path, what, check=_check_photo, convert=lambda image: _rgb(ImageOps.exif_transpose(image), paper))


def decode_labels(path: Path, *, what: str) -> np.ndarray:
    """A label image as it is stored, whatever a camera would turn: its 8-bit grey levels, or indices of its palette.

    Returns:
        uint8 (height, width).

    Raises:
        DataError: the file is missing, empty, cut off, damaged, too large, or has other than one 8-bit channel.
    """
    return _decoded(path, what, check=_check_labels, convert=lambda image: image)


def _decoded(
    path: Path, what: str, check: Callable[[ImageFile], None], convert: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.format in NOT_OPENED:
                raise DataError(f"{path} is {image.format}, which is not opened; JPEG, PNG, WebP, TIFF and BMP are")
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{path} has {image.width} x {image.height} pixels; up to {MOST_PIXELS} are read, make it smaller"
                )
            check(image)
            image.load()
            picture = np.asarray(convert(image))
        if image.format == "PNG":
            # Decoding ends with the last row and leaves checksums out: of a damaged file it gives other pixels.
            with Image.open(path) as again:
                again.verify()
    except DataError:
        raise
    except Exception as error:  # for broken files Pillow's decoders raise nearly anything, SyntaxError included
        raise DataError(f"{path} cannot be read as {what}: {type(error).__name__}: {error}") from error
    return picture


def _name(image: ImageFile) -> str:
    return os.fsdecode(image.filename)


def _check_photo(image: ImageFile) -> None:
    if image.mode == "F":
        raise DataError(f"{_name(image)} has floating-point grey levels of no known range; 8 and 16 bits work")


def _check_labels(image: ImageFile) -> None:
    if image.mode not in ("L", "P"):
        raise DataError(f"{_name(image)} is of mode {image.mode}; labels need one 8-bit channel (mode L or P)")
    # Grey of fewer bits is spread over 0..255 in decoding, which gives other labels.
    depth = image.tile[0].args if image.tile else None
    if depth in ("L;2", "L;4"):
        raise DataError(f"{_name(image)} has {depth[2:]} bits a pixel; labels need one 8-bit channel (mode L or P)")


def _rgb(image: Image.Image, paper: tuple[int, int, int] | None) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(grey, 0, 65535) >> 8).astype(np.uint8))
    elif paper is not None and image.has_transparency_data:
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, (*paper, 255)), whole)
    return image.convert("RGB")
