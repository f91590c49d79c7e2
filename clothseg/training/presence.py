"""The auxiliary task of telling which classes occur in a photo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


class PresenceLoss(keras.losses.Loss):
    """Binary cross entropy of whether each class has a pixel in the photo, mean over photos and classes.

    The classification branch of EncNet's "semantic encoding loss" (Zhang et al. 2018): large and small clothes count
    the same.

    Args:
        classes: how many.

    Labels are int (batch, height, width) in 0..classes-1 or ignored, predictions logits float (batch, classes).
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__(name="presence")
        self.classes = classes

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of every photo, float (batch,)."""
        labels = ops.cast(y_true, "int32")[..., None]
        there = ops.any(labels == ops.arange(self.classes, dtype="int32"), axis=(1, 2))
        # A photo without a single pixel that counts says nothing of what is in it.
        counted = ops.cast(ops.any(there, axis=-1), "float32")
        losses = ops.binary_crossentropy(ops.cast(there, "float32"), ops.cast(y_pred, "float32"), from_logits=True)
        return ops.mean(losses, axis=-1) * counted


def without_head(logs: Mapping[str, float]) -> dict[str, float]:
    """Keras's logs, with the scores named as for a network without the auxiliary head.

    With two heads Keras puts the name of the head before that of a score: `val_logits_accuracy`. The losses of the two
    keep it, since `loss` is their sum.
    """
    return {
        name if name.endswith("logits_loss") else re.sub("(gated_)?logits_", "", name, count=1): value
        for name, value in logs.items()
    }


def for_both_heads(photos: Any, labels: Any) -> tuple[Any, tuple[Any, Any]]:
    """A batch as a network with the auxiliary head takes it, whose both outputs are compared with the labels."""
    return photos, (labels, labels)
