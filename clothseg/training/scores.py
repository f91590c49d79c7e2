"""Scores worked out from a confusion matrix, in NumPy.

A confusion matrix is int (classes, classes): entry [t, p] counts pixels whose label is t and whose prediction is p.
Class 0 is the background. A class is present where it has at least one labelled pixel; absent classes are left out of
every mean, since scoring them 0 or 1 would both mislead. Predicting an absent class still costs: it lowers accuracy and
the IoU of the class that was there.
"""

from __future__ import annotations

import numpy as np


def accuracy(confusion: np.ndarray) -> float:
    """Share of pixels whose class is predicted: sum_c n[c, c] / sum n, in 0..1. NaN without pixels."""
    return _ratio(np.trace(confusion), confusion.sum())


def background_accuracy(confusion: np.ndarray) -> float:
    """The accuracy of predicting nothing but background, in 0..1: what any accuracy has to be compared with."""
    return _ratio(confusion[0].sum(), confusion.sum())


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union n[c, c] / (sum_p n[c, p] + sum_t n[t, c] - n[c, c]) of every class.

    Returns:
        float (classes,) in 0..1, NaN for absent classes.
    """
    hits, truth = np.diag(confusion).astype(float), confusion.sum(axis=1)
    union = truth + confusion.sum(axis=0) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=truth > 0)


def class_recall(confusion: np.ndarray) -> np.ndarray:
    """Share of the pixels of every class that are found, n[c, c] / sum_p n[c, p].

    Returns:
        float (classes,) in 0..1, NaN for absent classes.
    """
    hits, truth = np.diag(confusion).astype(float), confusion.sum(axis=1)
    return np.divide(hits, truth, out=np.full(len(hits), np.nan), where=truth > 0)


def class_dice(confusion: np.ndarray) -> np.ndarray:
    """Dice coefficient, or F1, 2 n[c, c] / (sum_p n[c, p] + sum_t n[t, c]) of every class.

    Returns:
        float (classes,) in 0..1, NaN for absent classes.
    """
    hits, truth = np.diag(confusion).astype(float), confusion.sum(axis=1)
    return np.divide(2 * hits, truth + confusion.sum(axis=0), out=np.full(len(hits), np.nan), where=truth > 0)


def dice(confusion: np.ndarray) -> float:
    """Mean Dice coefficient over the classes present, background included, in 0..1."""
    return _mean(class_dice(confusion))


def frequency_weighted_iou(confusion: np.ndarray) -> float:
    """IoU of the classes weighted by their pixels: sum_c IoU[c] sum_p n[c, p] / sum n, in 0..1. NaN without pixels."""
    return _ratio(np.nansum(class_iou(confusion) * confusion.sum(axis=1)), confusion.sum())


def miou(confusion: np.ndarray) -> float:
    """Mean IoU over the classes present, background included, in 0..1."""
    return _mean(class_iou(confusion))


def clothing_miou(confusion: np.ndarray) -> float:
    """Mean IoU over the classes present without the background, in 0..1. NaN where only background is labelled."""
    return _mean(class_iou(confusion)[1:])


def mean_recall(confusion: np.ndarray) -> float:
    """Mean recall over the classes present, background included, in 0..1."""
    return _mean(class_recall(confusion))


def clothing_accuracy(confusion: np.ndarray) -> float:
    """Share of the pixels labelled as some clothing whose very class is predicted, in 0..1."""
    return _ratio(np.trace(confusion[1:, 1:]), confusion[1:].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
