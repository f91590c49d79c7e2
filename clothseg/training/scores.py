"""Scores worked out from what a confusion matrix counts, in NumPy.

A confusion matrix is int (classes, classes): entry [t, p] counts pixels whose label is t and whose prediction is p.
Class 0 is the background. A class is present where it has at least one labelled pixel; absent classes are left out of
every mean, since scoring them 0 or 1 would both mislead. Predicting an absent class still costs: it lowers accuracy and
the IoU of the class that was there.

Below, T[c] are the pixels labelled c, P[c] those predicted c, and H[c] those of which both is true. Every score takes
`Counts` (..., classes) and gives float64 (...), in 0..1, or NaN where nothing is labelled that it could be of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """All that scores need of one or many confusion matrices; counts of photos add up to those of the whole.

    Attributes:
        hits: (..., classes), pixels that have and are given the class.
        truth: (..., classes), pixels that have it.
        predicted: (..., classes), pixels that are given it.
    """

    hits: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, confusion: np.ndarray) -> Counts:
        """Those of confusion matrices (..., classes, classes)."""
        hits = np.diagonal(confusion, axis1=-2, axis2=-1)
        return cls(hits, truth=confusion.sum(axis=-1), predicted=confusion.sum(axis=-2))


def accuracy(counts: Counts) -> np.ndarray:
    """Share of pixels whose class is predicted: sum H / sum T."""
    return _ratio(counts.hits.sum(axis=-1), counts.truth.sum(axis=-1))


def background_accuracy(counts: Counts) -> np.ndarray:
    """The accuracy of predicting nothing but background, T[0] / sum T: what any accuracy has to be compared with."""
    return _ratio(counts.truth[..., 0], counts.truth.sum(axis=-1))


def clothing_accuracy(counts: Counts) -> np.ndarray:
    """Share of the pixels labelled as some clothing whose very class is predicted."""
    return _ratio(counts.hits[..., 1:].sum(axis=-1), counts.truth[..., 1:].sum(axis=-1))


def class_iou(counts: Counts) -> np.ndarray:
    """Intersection over union H[c] / (T[c] + P[c] - H[c]) of every class.

    Returns:
        float64 (..., classes), NaN for absent classes.
    """
    return _of_present(counts.hits, counts.truth + counts.predicted - counts.hits, counts)


def class_recall(counts: Counts) -> np.ndarray:
    """Share of the pixels of every class that are found, H[c] / T[c]; shape and NaN as of `class_iou`."""
    return _of_present(counts.hits, counts.truth, counts)


def class_dice(counts: Counts) -> np.ndarray:
    """Dice coefficient, or F1, 2 H[c] / (T[c] + P[c]) of every class; shape and NaN as of `class_iou`."""
    return _of_present(2 * counts.hits, counts.truth + counts.predicted, counts)


def miou(counts: Counts) -> np.ndarray:
    """Mean IoU over the classes present, background included."""
    return _mean(class_iou(counts))


def clothing_miou(counts: Counts) -> np.ndarray:
    """Mean IoU over the classes present without the background. NaN where only background is labelled."""
    return _mean(class_iou(counts)[..., 1:])


def frequency_weighted_iou(counts: Counts) -> np.ndarray:
    """IoU of the classes weighted by their pixels: sum_c IoU[c] T[c] / sum T."""
    return _ratio(np.nansum(class_iou(counts) * counts.truth, axis=-1), counts.truth.sum(axis=-1))


def dice(counts: Counts) -> np.ndarray:
    """Mean Dice coefficient over the classes present, background included."""
    return _mean(class_dice(counts))


def mean_recall(counts: Counts) -> np.ndarray:
    """Mean recall over the classes present, background included."""
    return _mean(class_recall(counts))


SCORES = {
    score.__name__: score
    for score in (
        accuracy,
        background_accuracy,
        clothing_accuracy,
        miou,
        clothing_miou,
        frequency_weighted_iou,
        dice,
        mean_recall,
    )
}


def every(counts: Counts) -> dict[str, np.ndarray]:
    """Every score by its name."""
    return {name: score(counts) for name, score in SCORES.items()}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)[()]


def _of_present(part: np.ndarray, whole: np.ndarray, counts: Counts) -> np.ndarray:
    shares = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=shares, where=np.asarray(counts.truth) > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))
