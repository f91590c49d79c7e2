"""The article's data set, "People Clothing Segmentation", as Kaggle gives it out.

    png_images/IMAGES/img_0001.png ...  RGB or RGBA
    png_masks/MASKS/seg_0001.png ...    one 8-bit channel of labels
    labels.csv                          class names, in the order of the label values

The JPEG copies beside them are of no use: their masks are wrong in 3 % of the pixels.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from clothseg.data.folders import check_sizes, file_identity, file_problem, list_files, read_label_image, read_photo
from clothseg.data.labels import BACKGROUND, CLASS_NAMES, IGNORE
from clothseg.data.source import DataError

PHOTOS = "png_images/IMAGES"
MASKS = "png_masks/MASKS"
LABELS = "labels.csv"


class Kaggle:
    """A folder in the layout of the Kaggle data set; see `clothseg.data.source.Source`.

    Names are numbers as they stand in the file names, such as "0001".

    Args:
        root: folder that holds `png_images` and `png_masks`. Looked into when the data is first asked for.
    """

    name = "kaggle"

    def __init__(self, *, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `labels.csv`, background first; those of Clothing Co-Parsing where there is no such file.

        Raises:
            DataError: the file cannot be read, has no column `label_list`, or names too few or too many classes.
        """
        path = self.root / LABELS
        return read_class_names(path) if path.exists() else CLASS_NAMES

    def names(self) -> tuple[str, ...]:
        """Sorted; those in `problems` are among them.

        Raises:
            DataError: the folder does not hold the data set.
        """
        photos, masks = self._scan()
        return tuple(sorted(photos.keys() | masks.keys()))

    def identity(self) -> dict[str, Any]:
        """Name, size and time of every file."""
        photos, masks = self._scan()
        files = [
            file_identity(_photo(name), photos.get(name)) + file_identity(_mask(name), masks.get(name))
            for name in sorted(photos.keys() | masks.keys())
        ]
        return {"source": self.name, "files": files}

    def problems(self) -> dict[str, str]:
        """Photos and masks that are empty or lack their partner, by name."""
        photos, masks = self._scan()
        return {
            name: reason
            for name in sorted(photos.keys() | masks.keys())
            if (reason := file_problem(_photo(name), photos.get(name)) or file_problem(_mask(name), masks.get(name)))
        }

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Photo uint8 (height, width, 3) in 0..255, labels uint8 (height, width).

        Raises:
            DataError: a file cannot be read, the mask has several channels, or the two differ in size.
        """
        photo = read_photo(self.root / _photo(name))
        labels = read_label_image(self.root / _mask(name))
        check_sizes(photo, labels, _photo(name), _mask(name))
        return photo, labels

    def _scan(self) -> tuple[dict[str, os.stat_result], dict[str, os.stat_result]]:
        for folder in (PHOTOS, MASKS):
            if not (self.root / folder).is_dir():
                raise DataError(
                    f"{self.root} does not hold {folder}/ as the Kaggle data set does; set dataset.root to the folder "
                    "that its archive was unpacked into, or run experiment=quickstart, which needs no files"
                )
        return _numbered(self.root / PHOTOS, "img_"), _numbered(self.root / MASKS, "seg_")


def read_class_names(path: Path) -> tuple[str, ...]:
    """The column `label_list` of a CSV file, one class per line in the order of the label values.

    The first name, "null" or nothing in the data set, becomes "background".

    Raises:
        DataError: the file cannot be read, has no such column, or has not 2 to 255 names: the last value is no class.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    names = [(row.get("label_list") or "").strip() for row in rows]
    if not 2 <= len(names) <= IGNORE or not all(names[1:]):
        raise DataError(
            f"{path} needs a column label_list with 2 to {IGNORE} class names, one per line, and none left out; it has "
            f"{len(names)}"
        )
    names[BACKGROUND] = CLASS_NAMES[BACKGROUND]
    return tuple(names)


def _numbered(folder: Path, prefix: str) -> dict[str, os.stat_result]:
    files = list_files(folder, ".png")
    return {stem.removeprefix(prefix): stat for stem, stat in files.items() if stem.startswith(prefix)}


def _photo(name: str) -> str:
    return f"{PHOTOS}/img_{name}.png"


def _mask(name: str) -> str:
    return f"{MASKS}/seg_{name}.png"
