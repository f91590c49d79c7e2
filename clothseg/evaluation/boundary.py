"""How well boundaries are found, which overlap hardly tells for large regions."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from clothseg.data.labels import IGNORE

TOLERANCE = 0.0075  # of the photo's diagonal (Csurka et al. 2013)


class BoundaryScores:
    """The boundary F score of every class (Csurka, Larlus, Perronnin 2013).

    In every photo and for every class that its labels have, precision is the share of predicted boundary pixels within
    `TOLERANCE` of a labelled one, recall the share of labelled ones within it of a predicted one, and
    F = 2 * precision * recall / (precision + recall), 0 where the class is not predicted at all. The score of a class
    is the mean over the photos that have it.

    A boundary pixel of a class is one of its pixels with a neighbour above, below, left or right that is of another
    class; the photo's edge is no boundary. A class that fills the photo has none, and is left out there.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        self.totals, self.photos = np.zeros(classes), np.zeros(classes, np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Adds a photo: labels, or `IGNORE`, and predictions, both uint8 (height, width)."""
        reach = TOLERANCE * float(np.hypot(*truth.shape))
        predicted = np.where(truth == IGNORE, IGNORE, predicted)
        for number in np.unique(truth[truth != IGNORE]):
            score = boundary_f(truth == number, predicted == number, reach=reach)
            if not np.isnan(score):
                self.totals[number] += score
                self.photos[number] += 1

    def of_classes(self) -> np.ndarray:
        """float (classes,) in 0..1, NaN for classes that no photo has."""
        return np.divide(self.totals, self.photos, out=np.full(len(self.totals), np.nan), where=self.photos > 0)


def boundary_f(truth: np.ndarray, predicted: np.ndarray, *, reach: float) -> float:
    """The F score of two boundaries.

    Args:
        truth: bool (height, width), a region as labelled.
        predicted: bool (height, width), the region as predicted.
        reach: how far apart boundary pixels may be and still be the same, in pixels.

    Returns:
        In 0..1; NaN where the labelled region has no boundary.
    """
    # Only where either region is, and as far around it as a boundary may be off.
    margin = int(np.ceil(reach)) + 1
    window = tuple(
        slice(max(int(line[0]) - margin, 0), int(line[-1]) + margin + 1)
        for line in (np.flatnonzero((truth | predicted).any(axis=axis)) for axis in (1, 0))
    )
    wanted, found = boundary(truth[window]), boundary(predicted[window])
    # A cut through the middle of the photo is no boundary: the window is wider than the regions unless they end there.
    if not wanted.any():
        return float("nan")
    if not found.any():
        return 0.0
    precision = float((distance_transform_edt(~wanted)[found] <= reach).mean())
    recall = float((distance_transform_edt(~found)[wanted] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(region: np.ndarray) -> np.ndarray:
    """The pixels of a region, bool (height, width), with a neighbour that is outside of it but in the photo."""
    padded = np.pad(region, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner
