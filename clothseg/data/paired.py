"""A data set of one's own: a folder of photos, a folder of label images, and a list of classes."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clothseg.data.folders import (
    check_sizes,
    file_identity,
    file_problem,
    list_files,
    list_folder,
    read_label_image,
    read_photo,
)
from clothseg.data.labels import IGNORE
from clothseg.data.source import DataError

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class PairedFolders:
    """Photos and label images that are paired by their names; see `clothseg.data.source.Source`.

    A label image has one 8-bit channel, gray or indexed, whose values are the places of classes in the list of classes.

    Args:
        name: what the data set is called, of letters, digits, "-" and "_".
        root: the folder that the following ones are in. Looked into when the data is first asked for.
        photos: folder of photos, `NAME.jpg` or of another format in `PHOTOS`, in capitals too.
        labels: folder of label images, `NAME.png`.
        classes: the names of the classes, that of the background first, or a text file that has one on every line.

    Raises:
        DataError: the name has other characters.
    """

    def __init__(self, *, name: str, root: str | Path, photos: str, labels: str, classes: Sequence[str] | str) -> None:
        if not re.fullmatch(r"[\w-]+", name):
            raise DataError(f"dataset.name={name!r} may have letters, digits, - and _ only")
        self.name = name
        self.root = Path(root).expanduser()
        self.photos, self.labels = self.root / photos, self.root / labels
        self.classes = classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """As they are listed.

        Raises:
            DataError: the file cannot be read, or names are empty, doubled, too few or too many.
        """
        if not isinstance(self.classes, str):
            return _checked([str(name) for name in self.classes], "dataset.classes")
        path = self.root / self.classes
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"dataset.classes={self.classes}: {path} cannot be read as text: {error}") from error
        return _checked([line.strip() for line in lines if line.strip()], str(path))

    def names(self) -> tuple[str, ...]:
        """Sorted; those in `problems` are among them.

        Raises:
            DataError: a folder cannot be listed, or the two have no name in common.
        """
        if not self._photos.keys() & self._labels.keys():
            photo = next((file for files in self._photos.values() for file, _ in files), "none")
            labels = next((f"{name}.png" for name in self._labels), "none")
            raise DataError(
                f"no photo in {self.photos} (first: {photo}) has a label image in {self.labels} (first: {labels}); "
                "NAME.jpg and NAME.png belong together"
            )
        return self._all()

    def identity(self) -> dict[str, Any]:
        """Name, size and time of every file."""
        files = []
        for name in self._all():
            photos = [file_identity(*photo) for photo in self._photos.get(name, [])]
            files.append([name, photos, file_identity(f"{name}.png", self._labels.get(name))])
        return {"source": self.name, "files": files}

    def problems(self) -> dict[str, str]:
        """Files that are empty or lack their partner, and photos that are there twice, by name."""
        return {name: reason for name in self._all() if (reason := self._problem(name))}

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Photo uint8 (height, width, 3) in 0..255, labels uint8 (height, width).

        Raises:
            DataError: a file cannot be read, the label image has several channels, or the two differ in size.
        """
        photo_file, labels_file = self._photos[name][0][0], f"{name}.png"
        photo = read_photo(self.photos / photo_file)
        labels = read_label_image(self.labels / labels_file)
        check_sizes(photo, labels, photo_file, labels_file)
        return photo, labels

    def _all(self) -> tuple[str, ...]:
        return tuple(sorted(self._photos.keys() | self._labels.keys()))

    def _problem(self, name: str) -> str | None:
        photos = self._photos.get(name, [(f"{name}.jpg", None)])
        if len(photos) > 1:
            return f"{' and '.join(file for file, _ in photos)} are two photos of one name"
        return file_problem(*photos[0]) or file_problem(f"{name}.png", self._labels.get(name))

    @functools.cached_property
    def _photos(self) -> dict[str, list[tuple[str, os.stat_result]]]:
        found: dict[str, list[tuple[str, os.stat_result]]] = {}
        for file, stat in sorted(list_folder(self.photos).items()):
            if file.lower().endswith(PHOTOS):
                found.setdefault(Path(file).stem, []).append((file, stat))
        return found

    @functools.cached_property
    def _labels(self) -> dict[str, os.stat_result]:
        return list_files(self.labels, ".png")


def _checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not 2 <= len(names) <= IGNORE or not all(names):
        reason = f"{twice} twice" if twice else f"{len(names)} of them"
        raise DataError(f"{where} needs 2 to {IGNORE} class names, each once, the background's first; it has {reason}")
    return tuple(names)
