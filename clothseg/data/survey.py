"""What is in a data set: how often each class occurs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clothseg.data.groups import Labels
from clothseg.data.labels import IGNORE


def pixels_by_photo(labels: Labels, rows: Sequence[int] | np.ndarray, *, classes: int) -> np.ndarray:
    """Counts the pixels of every class in every photo, one photo in memory at a time.

    Args:
        labels: uint8 (n, height, width) in 0..classes-1, or `IGNORE`.
        rows: m numbers of photos, those that are counted.
        classes: how many classes there are.

    Returns:
        int64 (m, classes); ignored pixels are counted nowhere.
    """
    pixels = np.zeros((len(rows), classes), np.int64)
    for place, row in enumerate(rows):
        pixels[place] = np.bincount(labels[row].ravel(), minlength=IGNORE + 1)[:classes]
    return pixels
