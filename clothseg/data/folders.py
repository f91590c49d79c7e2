"""Folders of data: listing them, reading their images, and taking turns at making them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from clothseg.data.decoding import decode_labels, decode_photo
from clothseg.data.source import DataError

logger = logging.getLogger(__name__)


def read_photo(path: Path) -> np.ndarray:
    """A photo as it is meant to be looked at: turned as its EXIF orientation says, in RGB, transparency dropped.

    Of 16-bit grey the upper 8 bits are taken.

    Returns:
        uint8 (height, width, 3) in 0..255.

    Raises:
        DataError: the file is missing, empty, cut off, damaged or no photo.
    """
    return decode_photo(path, what="an image", paper=None)


def read_label_image(path: Path) -> np.ndarray:
    """A label image with one 8-bit channel; of a palette image the indices, not the colours.

    Returns:
        uint8 (height, width).

    Raises:
        DataError: the file is missing, empty, cut off, or has another mode.
    """
    return decode_labels(path, what="an image")


def check_sizes(photo: np.ndarray, labels: np.ndarray, photo_file: str, labels_file: str) -> None:
    """Raises `DataError`, naming both files, where a photo and its labels differ in size."""
    if photo.shape[:2] != labels.shape:
        sizes = " and ".join(f"{height} x {width}" for height, width in (photo.shape[:2], labels.shape))
        raise DataError(f"{photo_file} and {labels_file} differ in size: {sizes} (height x width)")


def list_folder(folder: Path) -> dict[str, os.stat_result]:
    """The files of a folder, not below it, by their name; hidden ones are left out.

    Raises:
        DataError: the folder cannot be listed, or has a name that no text file can hold.
    """
    try:
        with os.scandir(folder) as entries:
            files = {
                entry.name: entry.stat() for entry in entries if not entry.name.startswith(".") and entry.is_file()
            }
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error}") from error
    for name in files:
        check_name(folder / name)
    return files


def check_name(path: Path) -> None:
    """Raises `DataError` for a file whose name is in another encoding than the system's, and in no report can be."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{ascii(str(path))} has a name that is not UTF-8; rename it") from None


def list_files(folder: Path, suffix: str) -> dict[str, os.stat_result]:
    """The files of a folder by their stem.

    Args:
        folder: where to look, not below it.
        suffix: how the names end, such as ".jpg". Hidden files are left out.

    Raises:
        DataError: the folder cannot be listed.
    """
    files = list_folder(folder).items()
    return {os.path.splitext(name)[0]: stat for name, stat in files if name.endswith(suffix)}


def file_identity(relative: str, stat: os.stat_result | None) -> list[Any]:
    """What tells one state of a file from another, fit for JSON: its name, size and time of change."""
    return [relative, None, None] if stat is None else [relative, stat.st_size, stat.st_mtime_ns]


def file_problem(relative: str, stat: os.stat_result | None) -> str | None:
    """What is wrong with a file before it is opened, if anything."""
    if stat is None:
        return f"{relative} is missing"
    return f"{relative} is empty" if stat.st_size == 0 else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file, of which only one process has hold at a time; logs that it waits where it has to."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("waiting for another process that holds %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
