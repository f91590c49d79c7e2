"""Keras metrics over one confusion matrix that is accumulated on the device, in Keras ops alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from clothseg.data.labels import IGNORE
from clothseg.training.logits import at_size_of

# Counts are kept in two int32 words, so that they stay exact beyond 2**31 pixels without 64-bit integers (which JAX
# has off).
_WORD = 2**24


class ConfusionMatrix(keras.metrics.Metric):
    """Counts pixels by label and prediction; its own result is the pixel accuracy.

    Args:
        classes: number of classes.
        name: under which the accuracy is reported.

    Labels are int (batch, height, width) in 0..classes-1, or `IGNORE` for pixels that are not counted, predictions
    logits float (batch, own height, own width, classes), which are resized to the labels where they are coarser.
    """

    def __init__(self, *, classes: int, name: str) -> None:
        super().__init__(name=name)
        self.classes = classes
        self.low = self.add_variable((classes * classes,), "zeros", dtype="int32", name="low")
        self.high = self.add_variable((classes * classes,), "zeros", dtype="int32", name="high")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch. Pixels cannot be weighted: a weighted confusion matrix would not count pixels."""
        if sample_weight is not None:
            raise ValueError("sample_weight has no meaning for a confusion matrix of pixels")
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        predicted = ops.reshape(predicted_classes(at_size_of(y_true, y_pred)), (-1,))
        counted = labels != IGNORE
        cells = ops.where(counted, labels * self.classes + predicted, 0)
        counts = ops.segment_sum(ops.cast(counted, "int32"), cells, num_segments=self.classes * self.classes)
        low = self.low + counts
        carry = low // _WORD
        self.low.assign(low - carry * _WORD)
        self.high.assign(self.high + carry)

    def matrix(self) -> Any:
        """float32 (classes, classes) tensor: rows labels, columns predictions."""
        counts = ops.cast(self.high, "float32") * _WORD + ops.cast(self.low, "float32")
        return ops.reshape(counts, (self.classes, self.classes))

    def counts(self) -> np.ndarray:
        """int64 (classes, classes), exact, on the host: rows labels, columns predictions."""
        high, low = (ops.convert_to_numpy(ops.convert_to_tensor(word)) for word in (self.high, self.low))
        return (high.astype(np.int64) * _WORD + low).reshape(self.classes, self.classes)

    def result(self) -> Any:
        """Pixel accuracy in 0..1; 0 before anything was counted."""
        matrix = self.matrix()
        return ops.divide_no_nan(ops.sum(ops.diagonal(matrix)), ops.sum(matrix))


class Score(keras.metrics.Metric):
    """A score of a `ConfusionMatrix` that another metric accumulates; it keeps no counts of its own.

    Args:
        function: from the matrix float32 (classes, classes) to a scalar.
        confusion: the metric to read. It has to be compiled into the same model.
        name: under which the score is reported.
    """

    def __init__(self, function: Callable[[Any], Any], *, confusion: ConfusionMatrix, name: str) -> None:
        super().__init__(name=name)
        # Held in a closure, lest Keras track the matrix's variables a second time.
        self._read = lambda: function(confusion.matrix())

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the confusion matrix is updated by itself."""

    def result(self) -> Any:
        """The score of what was counted so far."""
        return self._read()


def predicted_classes(logits: Any) -> Any:
    """The class with the highest logit, int32 (...), of logits float (..., classes); the first one of equals.

    What `ops.argmax` gives: in TensorFlow that goes over all logits several times, to tell -0 from 0.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.argmax(logits, axis=-1, output_type="int32")
    return ops.cast(ops.argmax(logits, axis=-1), "int32")


def _iou(matrix: Any) -> tuple[Any, Any]:
    hits, truth = ops.diagonal(matrix), ops.sum(matrix, axis=1)
    present = ops.cast(truth > 0, "float32")
    return ops.divide_no_nan(hits, truth + ops.sum(matrix, axis=0) - hits) * present, present


def _mean_iou(matrix: Any) -> Any:
    iou, present = _iou(matrix)
    return ops.divide_no_nan(ops.sum(iou), ops.sum(present))


def _clothing_mean_iou(matrix: Any) -> Any:
    iou, present = _iou(matrix)
    return ops.divide_no_nan(ops.sum(iou[1:]), ops.sum(present[1:]))


def _mean_recall(matrix: Any) -> Any:
    hits, truth = ops.diagonal(matrix), ops.sum(matrix, axis=1)
    return ops.divide_no_nan(ops.sum(ops.divide_no_nan(hits, truth)), ops.sum(ops.cast(truth > 0, "float32")))


def _clothing_accuracy(matrix: Any) -> Any:
    return ops.divide_no_nan(ops.sum(ops.diagonal(matrix)[1:]), ops.sum(matrix[1:]))


def _frequency_weighted_iou(matrix: Any) -> Any:
    iou, _ = _iou(matrix)
    return ops.divide_no_nan(ops.sum(iou * ops.sum(matrix, axis=1)), ops.sum(matrix))


def _dice(matrix: Any) -> Any:
    hits, truth = ops.diagonal(matrix), ops.sum(matrix, axis=1)
    dice = ops.divide_no_nan(2 * hits, truth + ops.sum(matrix, axis=0))
    return ops.divide_no_nan(ops.sum(dice * ops.cast(truth > 0, "float32")), ops.sum(ops.cast(truth > 0, "float32")))


def segmentation_metrics(classes: int) -> list[keras.metrics.Metric]:
    """The metrics of one compiled model, all from one confusion matrix.

    `accuracy` is over all pixels, `clothing_accuracy` over those labelled as some clothing; `frequency_weighted_iou`
    weighs classes by their pixels; `miou`, `clothing_miou` (without the background), `dice` and `mean_recall` are over
    the classes present in the labels seen since the last reset. `clothseg.training.scores` has the formulas.
    """
    confusion = ConfusionMatrix(classes=classes, name="accuracy")
    scores = {
        "miou": _mean_iou,
        "clothing_miou": _clothing_mean_iou,
        "mean_recall": _mean_recall,
        "clothing_accuracy": _clothing_accuracy,
        "frequency_weighted_iou": _frequency_weighted_iou,
        "dice": _dice,
    }
    return [confusion, *(Score(function, confusion=confusion, name=name) for name, function in scores.items())]
