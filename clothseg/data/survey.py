"""What is in a data set: how often each class occurs."""

from __future__ import annotations

import numpy as np

# Photos whose labels are held in memory at a time.
_BLOCK = 256


def class_counts(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts pixels and photos of every class.

    Args:
        labels: uint8 (n, height, width) in 0..classes-1.
        classes: how many classes there are.

    Returns:
        Pixels and photos, each int64 (classes,).
    """
    pixels, photos = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for start in range(0, len(labels), _BLOCK):
        for one in labels[start : start + _BLOCK]:
            counts = np.bincount(one.ravel(), minlength=classes)
            pixels += counts
            photos += counts > 0
    return pixels, photos
