"""Reliability, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.data.labels import IGNORE
from clothseg.evaluation.calibration import BINS, CalibrationCounts


def logits_of(*probabilities: list[float]) -> np.ndarray:
    return np.log(np.array(probabilities)) + 7  # a constant changes nothing


def test_a_worked_example():
    counts = CalibrationCounts()
    # Right with 0.62; wrong with 0.64; right with 1.0; and one that counts nowhere.
    counts.add(
        logits_of([0.62, 0.2, 0.18], [0.64, 0.3, 0.06], [1e-9, 1e-9, 1.0], [0.9, 0.05, 0.05]),
        np.array([0, 1, 2, IGNORE], np.uint8),
    )
    found = counts.result()
    assert found.pixels.tolist() == [0] * 12 + [2] + [0] * 6 + [1]
    assert found.correct[12] == 1 and found.correct[19] == 1
    assert found.confidence[12] == pytest.approx(1.26)
    # (|1 - 1.26| + |1 - 1|) / 3
    assert found.error == pytest.approx(0.26 / 3, abs=1e-6)


def test_counts_add_up_over_calls_and_nothing_is_no_error():
    counts = CalibrationCounts()
    assert counts.result().error == 0 and counts.result().pixels.shape == (BINS,)
    for _ in range(3):
        counts.add(logits_of([0.5, 0.5]), np.array([1], np.uint8))
    # The first of equals wins, with 0.5, and is wrong.
    assert counts.result().pixels.sum() == 3 and counts.result().error == pytest.approx(0.5)
