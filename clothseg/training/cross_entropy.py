"""Cross entropy of every pixel by the operations that are fastest: the same numbers but for rounding."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def cross_entropies(labels: Any, logits: Any) -> Any:
    """-log of the softmax probability of each label: `keras.ops.sparse_categorical_crossentropy` of logits.

    On a processor TensorFlow's operation for it takes twice as long as what is composed of a softmax here. Where the
    same numbers are asked for every time, TensorFlow gathers instead, and the gradient of that adds up on one core
    (`benchmarks/README.md`). Here nothing is added up across pixels.

    Args:
        labels: int32 (...) in 0..classes-1.
        logits: float32 (..., classes).

    Returns:
        float32 (...), at least 0.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return _composed(tf.convert_to_tensor(labels), tf.convert_to_tensor(logits))


def _composed(labels: Any, logits: Any) -> Any:
    import tensorflow as tf

    classes = logits.shape[-1]

    @tf.custom_gradient
    def losses(logits: Any) -> tuple[Any, Any]:
        probabilities = tf.nn.softmax(logits)
        # Flat, lest a gather of several dimensions be a loop.
        places = tf.range(tf.size(labels)) * classes + tf.reshape(labels, (-1,))
        of_label = tf.reshape(tf.gather(tf.reshape(logits, (-1,)), places), tf.shape(labels))
        # By the most probable class, whose probability is at least 1 / classes; that of the label may be 0 in float32.
        most = tf.minimum(tf.reduce_max(probabilities, axis=-1), 1.0)
        values = (tf.reduce_max(logits, axis=-1) - of_label) - tf.math.log(most)

        def gradient(upstream: Any) -> Any:
            upstream = upstream[..., tf.newaxis]
            hit = tf.range(classes, dtype=labels.dtype) == labels[..., tf.newaxis]
            return probabilities * upstream - tf.where(hit, upstream, 0.0)

        return values, gradient

    return losses(logits)
