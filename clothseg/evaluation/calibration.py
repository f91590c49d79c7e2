"""Whether a network is right as often as it says: reliability and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clothseg.data.labels import IGNORE

BINS = 20


@dataclass(frozen=True)
class Calibration:
    """Confidence and correctness of predictions, in bins of equal width over the confidence, 0 to 1.

    Attributes:
        pixels: int (bins,), how many predictions had such a confidence.
        correct: int (bins,), how many of them were right.
        confidence: float (bins,), sum of their confidences.
    """

    pixels: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017), in 0..1.

        The mean over predictions of the difference between accuracy and mean confidence of their bin.
        """
        return float(np.abs(self.correct - self.confidence).sum() / max(self.pixels.sum(), 1))


class CalibrationCounts:
    """Counts predictions by their confidence."""

    def __init__(self) -> None:
        self._pixels = np.zeros(BINS, np.int64)
        self._correct = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)

    def add(self, logits: np.ndarray, truth: np.ndarray) -> None:
        """Counts k predictions.

        Args:
            logits: float (k, classes).
            truth: uint8 (k,), the right classes; `IGNORE` counts nowhere.
        """
        counted = truth != IGNORE
        logits, truth = logits[counted].astype(np.float32), truth[counted]
        highest = logits.max(axis=1, keepdims=True)
        confidence = 1 / np.exp(logits - highest).sum(axis=1, dtype=np.float64)
        places = np.minimum((confidence * BINS).astype(int), BINS - 1)
        right = logits.argmax(axis=1) == truth
        self._pixels += np.bincount(places, minlength=BINS)
        self._correct += np.bincount(places, weights=right, minlength=BINS).astype(np.int64)
        self._confidence += np.bincount(places, weights=confidence, minlength=BINS)

    def result(self) -> Calibration:
        """What was counted so far."""
        return Calibration(self._pixels.copy(), self._correct.copy(), self._confidence.copy())
