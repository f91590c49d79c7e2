"""Cross entropies are Keras's, as are their gradients, where they are composed otherwise too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from clothseg.training.cross_entropy import cross_entropies

CLASSES = 59


def plain(labels, logits):
    return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def example(scale: float, shape=(2, 8, 9)):
    random = np.random.default_rng(0)
    logits = random.standard_normal((*shape, CLASSES), np.float32) * scale
    return tf.constant(random.integers(0, CLASSES, shape, np.int32)), tf.constant(logits)


def with_gradient(function, labels, logits):
    upstream = np.random.default_rng(1).uniform(0, 2, labels.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = function(labels, logits)
        total = tf.reduce_sum(values * upstream)
    return values.numpy(), tape.gradient(total, logits).numpy()


# At the largest the label's probability is 0 in float32, and its logarithm is not.
@pytest.mark.parametrize("scale", [0, 0.01, 1, 30, 1000])
@pytest.mark.parametrize("in_a_graph", [False, True])
def test_values_and_gradients_are_those_of_keras(scale, in_a_graph):
    labels, logits = example(scale)
    ours = tf.function(cross_entropies) if in_a_graph else cross_entropies
    (values, gradient), (expected, slope) = with_gradient(ours, labels, logits), with_gradient(plain, labels, logits)
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=2e-6)
    assert values.min() >= 0


def test_the_gradient_is_that_of_differences():
    random = np.random.default_rng(2)
    labels, logits = tf.constant([3, 0], tf.int32), random.standard_normal((2, 5)).astype(np.float32)
    with tf.GradientTape() as tape:
        watched = tf.constant(logits)
        tape.watch(watched)
        total = tf.reduce_sum(cross_entropies(labels, watched))
    step = np.zeros_like(logits)
    step[0, 1] = 0.01
    slope = (cross_entropies(labels, logits + step) - cross_entropies(labels, logits - step)).numpy().sum() / 0.02
    assert tape.gradient(total, watched).numpy()[0, 1] == pytest.approx(slope, abs=1e-4)


def test_sure_predictions_cost_nothing_and_wrong_ones_their_difference():
    logits = np.full((2, CLASSES), -500, np.float32)
    logits[:, 7] = 500
    assert cross_entropies(tf.constant([7, 8]), tf.constant(logits)).numpy().tolist() == [0, 1000]


def test_one_label_that_is_as_good_as_impossible_changes_no_other_loss():
    labels, logits = example(1)
    expected = cross_entropies(labels, logits).numpy()
    far = tf.tensor_scatter_nd_update(logits, [[0, 0, 0, int(labels[0, 0, 0])]], [-200.0])
    found = cross_entropies(labels, far).numpy()
    assert found[0, 0, 0] > 200
    assert found[0, 0, 0] == pytest.approx(plain(labels, far).numpy()[0, 0, 0], rel=1e-6)
    np.testing.assert_allclose(found.ravel()[1:], expected.ravel()[1:], rtol=2e-6, atol=2e-6)


def test_what_is_no_number_stays_none():
    labels, logits = example(1)
    logits = tf.tensor_scatter_nd_update(logits, [[0, 0, 0, 5]], [np.nan])
    values, gradient = with_gradient(cross_entropies, labels, logits)
    # Of which classes the gradient is none depends on the processor's softmax.
    assert np.isnan(values[0, 0, 0]) and np.isnan(gradient[0, 0, 0]).any()
    assert np.isfinite(values).sum() == values.size - 1


def test_nothing_is_added_up_across_pixels():
    # Of what adds up, which cores do in any order, there is nothing in the graph: TensorFlow then takes one core.
    labels, logits = example(1)
    graph = tf.function(lambda *given: with_gradient_in_graph(*given)).get_concrete_function(labels, logits)
    kinds = {operation.type for operation in graph.graph.get_operations()}
    assert "Softmax" in kinds and not any("Segment" in kind or "Scatter" in kind for kind in kinds), kinds


def test_targets_are_not_there_before_the_losses():
    # TensorFlow would make them as soon as it has the labels, and they are as large as the logits.
    labels, logits = example(1)
    graph = tf.function(lambda *given: with_gradient_in_graph(*given)).get_concrete_function(labels, logits)
    (target,) = (operation for operation in graph.graph.get_operations() if operation.type == "OneHot")
    # TensorFlow lets constants wait where an operation has some.
    waits = [one for each in target.inputs for one in each.op.control_inputs] + target.control_inputs
    assert any("If" in tensor.op.type for one in waits for tensor in one.inputs)


def with_gradient_in_graph(labels, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_mean(cross_entropies(labels, logits))
    return total, tape.gradient(total, logits)


def test_on_a_gpu_it_is_keras_own(monkeypatch):
    labels, logits = example(1)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])
    graph = tf.function(cross_entropies).get_concrete_function(labels, logits)
    kinds = {operation.type for operation in graph.graph.get_operations()}
    assert "SparseSoftmaxCrossEntropyWithLogits" in kinds and "Softmax" not in kinds
