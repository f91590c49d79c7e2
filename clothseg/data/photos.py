"""Photos as people have them: any format, size and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clothseg.data.decoding import NOT_OPENED, decode_photo
from clothseg.data.folders import check_name
from clothseg.errors import UserError

PAPER = (255, 255, 255)  # behind what is transparent


@dataclass(frozen=True)
class PhotoFile:
    """A photo that lies somewhere.

    Attributes:
        path: of the file.
        name: path below the folder that was asked for, with slashes and with its ending; unique among the photos.
    """

    path: Path
    name: str


def find_photos(given: Sequence[str]) -> list[PhotoFile]:
    """The photos in files and folders, in the order given and, in a folder and all below it, of their names.

    In folders hidden files, and those whose ending is of no picture, are left out; a file that is named is taken
    whatever its ending.

    Raises:
        UserError: a path does not exist, a folder has no photos, two photos have the same name, or a name is not UTF-8.
    """
    photos: list[PhotoFile] = []
    endings = _endings()
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            found = [PhotoFile(file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*"))]
            found = [photo for photo in found if _is_picture(photo, endings)]
            if not found:
                raise UserError(f"photos={text} has no pictures in it; {', '.join(endings[:6])} and more are")
            photos += found
        elif path.is_file():
            photos.append(PhotoFile(path, path.name))
        else:
            raise UserError(f"photos={text} does not exist; name files, or folders with photos in them")
    seen: dict[str, Path] = {}
    for photo in photos:
        check_name(photo.path)
        if photo.name in seen:
            raise UserError(
                f"photos has {seen[photo.name]} and {photo.path}, whose results would have one name; "
                "predict them into different outputs"
            )
        seen[photo.name] = photo.path
    return photos


def read_photo(path: Path) -> np.ndarray:
    """A photo as it is meant to be looked at: turned as its EXIF orientation says, in RGB, transparency over white.

    Of 16-bit grey the upper 8 bits are taken, of several frames the first.

    Returns:
        uint8 (height, width, 3).

    Raises:
        DataError: it cannot be read.
    """
    return decode_photo(path, what="a photo", paper=PAPER)


def _is_picture(photo: PhotoFile, endings: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in photo.name.split("/"))
    return not hidden and photo.path.suffix.lower() in endings and photo.path.is_file()


def _endings() -> list[str]:
    """Of file names that Pillow opens, the commonest first."""
    common = [".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp"]
    opened = [ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN]
    known = [ending for ending in opened if Image.EXTENSION[ending] not in (*NOT_OPENED, "MPEG")]
    return [*common, *(ending for ending in known if ending not in common and ending != ".pdf")]
