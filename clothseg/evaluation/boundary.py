"""How well boundaries are found, which overlap hardly tells for large regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

from clothseg.data.labels import IGNORE

TOLERANCE = 0.0075  # of the photo's diagonal (Csurka et al. 2013)

Points = np.ndarray | Sequence[Sequence[float]]


class BoundaryScores:
    """The boundary F score of every class (Csurka, Larlus, Perronnin, BMVC 2013).

    In every photo and for every class that its labels have, precision is the share of predicted boundary pixels that
    lie within the tolerance of a labelled one, recall the share of labelled ones within it of a predicted one, and
    F = 2 * precision * recall / (precision + recall), 0 where the class is not predicted at all. The score of a class
    is the mean over the photos that have it.

    A boundary pixel of a class is one of its pixels with a neighbour above, below, left or right that is of another
    class; neither the photo's edge nor that of ignored pixels is a boundary. A class that fills a photo has none, and
    is left out there.

    Args:
        classes: how many.
        tolerance: how far apart boundary pixels may be and still be the same, as a share of the photo's diagonal.
    """

    def __init__(self, classes: int, *, tolerance: float) -> None:
        self.tolerance = tolerance
        self.totals, self.photos = np.zeros(classes), np.zeros(classes, np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Adds a photo: labels, or `IGNORE`, and predictions, both uint8 (height, width)."""
        reach = self.tolerance * float(np.hypot(*truth.shape))
        predicted = np.where(truth == IGNORE, IGNORE, predicted)
        wanted, found = _points_by_class(truth), _points_by_class(predicted)
        for number, points in wanted.items():
            self.totals[number] += matching_f(points, found.get(number, ()), reach=reach)
            self.photos[number] += 1

    def of_classes(self) -> np.ndarray:
        """float (classes,) in 0..1, NaN for classes that have a boundary in no photo."""
        return np.divide(self.totals, self.photos, out=np.full(len(self.totals), np.nan), where=self.photos > 0)


def boundary(classes: np.ndarray) -> np.ndarray:
    """Where a neighbour above, below, left or right is of another class, and neither is `IGNORE`.

    Args:
        classes: uint8 (height, width).

    Returns:
        bool (height, width), the pixels on both sides of every boundary.
    """
    found = np.zeros(classes.shape, bool)
    for along, mark in ((classes, found), (classes.T, found.T)):
        here, there = along[:-1], along[1:]
        differs = (here != there) & (here != IGNORE) & (there != IGNORE)
        mark[:-1] |= differs
        mark[1:] |= differs
    return found


def matching_f(wanted: Points, found: Points, *, reach: float) -> float:
    """The F score of two sets of points, in 0..1.

    Args:
        wanted: (n, 2), at least one.
        found: (m, 2), any number.
        reach: how far apart points may be and still match.
    """
    if not len(found):
        return 0.0
    precision, recall = _share_near(found, wanted, reach), _share_near(wanted, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _points_by_class(classes: np.ndarray) -> dict[int, np.ndarray]:
    """The boundary pixels of every class that has any, int (n, 2)."""
    points = np.argwhere(boundary(classes))
    numbers = classes[tuple(points.T)]
    return {int(number): points[numbers == number] for number in np.unique(numbers)}


def _share_near(points: Points, others: Points, reach: float) -> float:
    # Points as far apart as the bound itself are not found, and those as far apart as `reach` shall be.
    bound = np.nextafter(reach, np.inf)
    distance, _ = KDTree(others, balanced_tree=False, compact_nodes=False).query(points, distance_upper_bound=bound)
    return float(np.isfinite(distance).mean())
