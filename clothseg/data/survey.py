"""What is in a data set: how often each class occurs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def class_counts(labels: np.ndarray, rows: Iterable[int], *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts pixels and photos of every class, one photo in memory at a time.

    Args:
        labels: uint8 (n, height, width) in 0..classes-1.
        rows: which of the photos are counted.
        classes: how many classes there are.

    Returns:
        Pixels and photos, each int64 (classes,).
    """
    pixels, photos = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for row in rows:
        counts = np.bincount(labels[row].ravel(), minlength=classes)
        pixels += counts
        photos += counts > 0
    return pixels, photos
