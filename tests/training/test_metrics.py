"""The Keras metrics give what `clothseg.training.scores` works out from the same confusion matrix."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from clothseg.data.labels import IGNORE
from clothseg.training import scores
from clothseg.training.metrics import ConfusionMatrix, predicted_classes, segmentation_metrics

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
    got = {metric.name: float(metric.result()) for metric in metrics}
    assert got.keys() == {
        "accuracy", "miou", "clothing_miou", "mean_recall", "clothing_accuracy", "frequency_weighted_iou", "dice"
    }  # fmt: skip
    assert got == pytest.approx({name: getattr(scores, name)(scores.Counts.of(total)) for name in got})


def test_ignored_pixels_are_not_counted_whatever_is_predicted_there():
    labels, logits, _ = pixels(0)
    counted = np.random.default_rng(1).random(labels.shape) < 0.6
    metrics = segmentation_metrics(CLASSES)
    for metric in metrics:
        metric.update_state(np.where(counted, labels, IGNORE).astype(np.uint8), logits)
    expected = confusion_matrix(labels[counted], logits.argmax(-1)[counted], labels=range(CLASSES))
    assert np.array_equal(metrics[0].counts(), expected)
    for metric in metrics:
        assert float(metric.result()) == pytest.approx(getattr(scores, metric.name)(scores.Counts.of(expected)))


def test_a_batch_of_ignored_pixels_alone_scores_zero_and_not_nan():
    for metric in (metrics := segmentation_metrics(CLASSES)):
        metric.update_state(np.full((1, 4, 6), IGNORE, np.uint8), pixels(0)[1][:1])
    assert [float(metric.result()) for metric in metrics] == [0] * len(metrics)


def test_coarser_logits_are_resized_to_the_labels():
    labels, _, _ = pixels(0)
    logits = np.random.default_rng(2).normal(size=(3, 2, 3, CLASSES)).astype(np.float32)
    metric = ConfusionMatrix(classes=CLASSES, name="accuracy")
    metric.update_state(labels, logits)
    resized = np.asarray(keras.ops.image.resize(logits, (4, 6), interpolation="bilinear"))
    expected = confusion_matrix(labels.ravel(), resized.argmax(-1).ravel(), labels=range(CLASSES))
    assert np.array_equal(metric.counts(), expected)


def test_agrees_with_scikit_learn():
    labels, logits, _ = pixels(3, batch=9)
    truth, predicted = labels.ravel(), logits.argmax(-1).ravel()
    metrics = segmentation_metrics(CLASSES)
    for metric in metrics:
        metric.update_state(labels, logits)
    got = {metric.name: float(metric.result()) for metric in metrics}
    present = {"average": "macro", "labels": range(CLASSES - 1)}
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert got["miou"] == pytest.approx(jaccard_score(truth, predicted, **present))
    assert got["dice"] == pytest.approx(f1_score(truth, predicted, **present))
    assert got["mean_recall"] == pytest.approx(recall_score(truth, predicted, **present))
    assert got["frequency_weighted_iou"] == pytest.approx(jaccard_score(truth, predicted, average="weighted"))


def test_the_predicted_class_is_the_first_of_the_highest():
    logits = np.array([[0, 3, 3, 1], [2, 2, 2, 2], [-5, -6, -np.inf, -7], [1, 2, 3, 4]], np.float32)
    assert np.array_equal(predicted_classes(logits), [1, 0, 0, 3])
    assert np.array_equal(predicted_classes(np.array([[-1, -0.0, 0.0], [-1, 0.0, -0.0]], np.float32)), [1, 1])
    many = np.random.default_rng(4).integers(0, 6, (2, 30, 40, 59)).astype(np.float32)  # full of equals
    assert np.array_equal(predicted_classes(many), many.argmax(-1))


def test_logits_that_are_no_numbers_are_of_some_class():
    assert 0 <= int(predicted_classes(np.full((4,), np.nan, np.float32))) < 4


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
    assert result["miou"] == pytest.approx(scores.miou(scores.Counts.of(matrix)))
    assert result["accuracy"] == pytest.approx(scores.accuracy(scores.Counts.of(matrix)))
