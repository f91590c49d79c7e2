"""The Keras metrics give what `clothseg.training.scores` works out from the same confusion matrix."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from clothseg.training import scores
from clothseg.training.metrics import ConfusionMatrix, segmentation_metrics

CLASSES = 5


def pixels(seed: int, batch: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and logits of a batch, and the confusion matrix counted one pixel at a time. Class 4 is never labelled."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES - 1, (batch, 4, 6), dtype=np.uint8)
    logits = random.normal(size=(batch, 4, 6, CLASSES)).astype(np.float32)
    matrix = np.zeros((CLASSES, CLASSES), int)
    for truth, predicted in zip(labels.ravel(), logits.argmax(-1).ravel(), strict=True):
        matrix[truth, predicted] += 1
    return labels, logits, matrix


def test_counts_and_scores_are_over_all_batches_the_last_partial_one_too():
    metrics = segmentation_metrics(CLASSES)
    total = np.zeros((CLASSES, CLASSES), int)
    for seed, batch in enumerate((3, 3, 1)):
        labels, logits, matrix = pixels(seed, batch)
        total += matrix
        for metric in metrics:
            metric.update_state(labels, logits)
    assert np.array_equal(metrics[0].counts(), total)
    assert len(metrics) == 5
    got = {metric.name: float(metric.result()) for metric in metrics}
    assert got == pytest.approx({name: getattr(scores, name)(total) for name in got})


def test_counts_stay_exact_beyond_32_bits():
    metric = ConfusionMatrix(classes=2, name="accuracy")
    labels, logits = np.zeros((1, 2, 2), np.uint8), np.tile([1.0, 0.0], (1, 2, 2, 1)).astype(np.float32)
    metric.high.assign([300, 0, 0, 0])  # 300 * 2**24 is more than an int32 holds
    metric.low.assign([2**24 - 2, 0, 0, 0])
    metric.update_state(labels, logits)
    assert metric.counts().tolist() == [[300 * 2**24 + 2**24 + 2, 0], [0, 0]]


def test_resetting_forgets():
    metric = ConfusionMatrix(classes=CLASSES, name="accuracy")
    metric.update_state(*pixels(0)[:2])
    metric.reset_state()
    assert metric.counts().sum() == 0 and float(metric.result()) == 0


def test_pixels_cannot_be_weighted():
    with pytest.raises(ValueError, match="sample_weight"):
        ConfusionMatrix(classes=CLASSES, name="accuracy").update_state(*pixels(0)[:2], sample_weight=1.0)


def test_evaluating_a_model_scores_the_whole_set_and_not_the_mean_of_batches():
    # The network passes its input on as logits, so the confusion matrix is known.
    model = keras.Sequential([keras.Input((4, 6, CLASSES)), keras.layers.Identity()])
    metrics = segmentation_metrics(CLASSES)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=metrics)
    labels, logits, matrix = pixels(0, batch=7)
    result = model.evaluate(logits, labels, batch_size=3, verbose=0, return_dict=True)
    assert np.array_equal(metrics[0].counts(), matrix)
    assert result["miou"] == pytest.approx(scores.miou(matrix))
    assert result["accuracy"] == pytest.approx(scores.accuracy(matrix))
