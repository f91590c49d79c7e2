"""Cross entropy of every pixel by the operations that are fastest: the same numbers but for rounding."""

from __future__ import annotations

from typing import Any

from keras import ops

from clothseg.machine import tensorflow_on_processor


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
    if not tensorflow_on_processor():
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    import tensorflow as tf

    return _composed(tf.convert_to_tensor(labels), tf.convert_to_tensor(logits))


_LEAST = 1e-30  # probability whose logarithm is still exact


def _composed(labels: Any, logits: Any) -> Any:
    import tensorflow as tf

    classes = logits.shape[-1]

    @tf.custom_gradient
    def losses(logits: Any) -> tuple[Any, Any]:
        probabilities = tf.nn.softmax(logits)
        # Flat, lest a gather of several dimensions be a loop.
        places = tf.range(tf.size(labels)) * classes + tf.reshape(labels, (-1,))

        def of_label(values: Any) -> Any:
            return tf.reshape(tf.gather(tf.reshape(values, (-1,)), places), tf.shape(labels))

        def by_logits() -> Any:
            # By the most probable class, whose probability is at least 1 / classes.
            most = tf.minimum(tf.reduce_max(probabilities, axis=-1), 1.0)
            return (tf.reduce_max(logits, axis=-1) - of_label(logits)) - tf.math.log(most)

        likelihoods = tf.minimum(of_label(probabilities), 1.0)
        # A probability may be 0 in float32, of which there is no logarithm. Rarely then are all logits gone over again.
        above_zero = tf.reduce_all(likelihoods > _LEAST)
        values = tf.cond(above_zero, lambda: -tf.math.log(likelihoods), by_logits)

        def gradient(upstream: Any) -> Any:
            # Once the logits are done with, and not as soon as there are labels: it is as large as they are.
            with tf.control_dependencies([values]):
                target = tf.one_hot(labels, classes)
            return (probabilities - target) * upstream[..., tf.newaxis]

        return values, gradient

    return losses(logits)
