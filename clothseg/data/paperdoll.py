"""A data set that the package draws itself: dressed figures in front of street scenes."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from clothseg.checks import is_count
from clothseg.data.dolls.body import pose
from clothseg.data.dolls.easel import Easel
from clothseg.data.dolls.fabric import grain
from clothseg.data.dolls.scenery import paint_scene
from clothseg.data.dolls.tailor import paint_figure
from clothseg.data.dolls.wardrobe import dress_up
from clothseg.data.labels import CLASS_NAMES
from clothseg.data.source import DataError, Source
from clothseg.errors import UserError

# Raised whenever the same seed gives other pictures, so that no cache outlives it.
EDITION = 1
SMALLEST, LARGEST, MOST = 32, 8192, 999_999


class Paperdoll:
    """Dressed figures drawn by the package, with the labels of Clothing Co-Parsing.

    Nothing is downloaded, and photo i depends on the seed, i and the image size alone. About three quarters of the
    pixels are background; skin, hair and shoes are in nearly every photo, some classes in one of a hundred.

    Args:
        count: number of photos, 1..999,999.
        image_size: height and width in pixels, each 32..8192.
        seed: 0 or above.

    Raises:
        UserError: an argument out of range.
    """

    name = "paperdoll"
    class_names = CLASS_NAMES

    def __init__(self, *, count: int, image_size: tuple[int, int], seed: int) -> None:
        sides = list(image_size) if isinstance(image_size, Sequence) else image_size
        if not is_count(count) or count > MOST:
            raise UserError(f"paperdoll cannot draw count={count} photos; it draws 1 to {MOST}")
        if not isinstance(sides, list) or len(sides) != 2 or not all(map(_is_side, sides)):
            raise UserError(
                f"paperdoll cannot draw image_size={sides}; it takes height and width, {SMALLEST} to {LARGEST} each"
            )
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UserError(f"paperdoll cannot draw with seed={seed}; it has to be 0 or above")
        self._count, self._size, self._seed = count, (sides[0], sides[1]), seed

    def names(self) -> tuple[str, ...]:
        """`000001` and on."""
        return tuple(f"{number:06d}" for number in range(1, self._count + 1))

    def identity(self) -> dict[str, Any]:
        """See `Source.identity`."""
        return {
            "source": self.name, "edition": EDITION, "count": self._count, "image_size": list(self._size),
            "seed": self._seed,
        }  # fmt: skip

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Draw one pair: photo uint8 (h, w, 3) in 0..255, labels uint8 (h, w).

        Raises:
            DataError: no photo of this name.
        """
        number = int(name) if name.isdecimal() and len(name) == 6 else 0
        if not 1 <= number <= self._count:
            raise DataError(f"paperdoll has no {name!r}; its photos are 000001 to {self._count:06d}")
        return draw_pair(np.random.default_rng([self._seed, number]), self._size)

    def problems(self) -> dict[str, str]:
        """Always empty."""
        return {}


def _is_side(value: object) -> bool:
    return is_count(value) and SMALLEST <= value <= LARGEST


def draw_pair(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One photo uint8 (h, w, 3) and its labels uint8 (h, w).

    What is in the picture is decided before anything that depends on the size, so that one seed gives the same
    figure large and small.
    """
    height, width = size
    person, outfit = dress_up(rng)
    frame = rng.uniform(0.55, 1.0) if person.masculine else rng.uniform(0.0, 0.45)
    body = pose(rng, build=rng.uniform(0.95, 1.2), frame=frame)
    light = (rng.uniform(-1, 1), -0.5)
    # The figure takes the same share of a tall, a square or a wide picture as far as it fits in.
    # One in four is taken from nearer, so that the feet are out of the picture.
    near = rng.random() < 0.25
    unit = (rng.uniform(1.05, 1.4) if near else rng.uniform(0.88, 0.98)) * min(
        math.sqrt(height * width), height, 1.7 * width
    )
    room = height - unit
    above = 0.04 * unit if near else room * rng.uniform(0.4, 0.75)
    ground = (width * rng.normal(0.5, 0.05), above + unit)

    easel = Easel(size, ground=ground, unit=unit)
    paint_figure(easel, body, person, outfit)
    colours, coverage, labels = easel.render(light=light, grain=grain(rng))
    scene = paint_scene(size, rng, ground=ground, unit=unit, light=light)
    return _develop(colours + (1 - coverage) * scene, rng), labels


def _develop(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What camera and hour do to a photo: exposure, warmth, contrast, haze, vignette and noise. uint8 (h, w, 3)."""
    height, width = photo.shape[:2]
    warmth = rng.normal(0, 0.045)
    photo = photo * (rng.uniform(0.92, 1.18) * np.array([1 + warmth, 1, 1 - warmth], np.float32))
    photo = 118 + (photo - 118) * rng.uniform(0.8, 1.12)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    photo *= (1 - rng.uniform(0, 0.2) * (x * x + y * y) / 2)[..., None]
    photo += rng.normal(0, rng.uniform(1, 4), photo.shape).astype(np.float32)
    return np.clip(photo + 0.5, 0, 255).astype(np.uint8)


def write_kaggle(source: Source, folder: Path) -> None:
    """Write a data set in the layout of the article's Kaggle set.

    `png_images/IMAGES/img_0001.png`, `png_masks/MASKS/seg_0001.png` (8 bit, the label of each pixel) and `labels.csv`
    (columns `index` and `label_list`), numbered in the order of `source.names()`.

    Raises:
        UserError: one of the files is there already (nothing has been written then), or the folder cannot be made.
        DataError: an example cannot be read.
    """
    names = source.names()
    pairs = [
        (folder / "png_images" / "IMAGES" / f"img_{i:04d}.png", folder / "png_masks" / "MASKS" / f"seg_{i:04d}.png")
        for i in range(1, len(names) + 1)
    ]
    table = folder / "labels.csv"
    present = next((path for path in (table, *(path for pair in pairs for path in pair)) if path.exists()), None)
    if present is not None:
        raise UserError(f"{present} exists and is not overwritten; name an empty or a new folder")
    try:
        for parent in {path.parent for pair in pairs for path in pair}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name a folder that can be written to") from error
    logging.getLogger(__name__).info("writing %d pairs to %s", len(names), folder)
    progress = tqdm(names, desc="writing", unit="pair", disable=None)
    for name, (photo_path, labels_path) in zip(progress, pairs, strict=True):
        photo, labels = source.read(name)
        Image.fromarray(photo).save(photo_path)
        Image.fromarray(labels).save(labels_path)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label_list"])
        writer.writerows(enumerate(source.class_names))
