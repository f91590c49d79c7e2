"""Fused updates of weights are Keras's own, but for rounding."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from clothseg.training.updates import fuse

OPTIMIZERS = {
    "adam": (partial(keras.optimizers.Adam, 0.1, beta_1=0.8, epsilon=0.01), "ResourceApplyAdam"),
    "adamw": (partial(keras.optimizers.AdamW, 0.1, weight_decay=0.2), "ResourceApplyAdam"),
    "clipped": (partial(keras.optimizers.Adam, 0.1, global_clipnorm=0.5, use_ema=True), "ResourceApplyAdam"),
    "rmsprop": (partial(keras.optimizers.RMSprop, 0.1, rho=0.7, epsilon=0.01), "ResourceApplyRMSProp"),
    "rmsprop with momentum": (partial(keras.optimizers.RMSprop, 0.1, momentum=0.6), "ResourceApplyRMSProp"),
    "sgd": (partial(keras.optimizers.SGD, 0.1, momentum=0.9), "ResourceApplyKerasMomentum"),
    "nesterov": (partial(keras.optimizers.SGD, 0.1, momentum=0.9, nesterov=True), "ResourceApplyKerasMomentum"),
}
SHAPES = [(3, 3, 4, 5), (5,)]


def trained(optimizer: keras.Optimizer, *, in_a_graph: bool) -> tuple[list[np.ndarray], set[str]]:
    """Weights and the optimizer's variables after steps; operations of a step."""
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.standard_normal(shape, np.float32), name="kernel") for shape in SHAPES]
    optimizer.build(variables)

    def step(*gradients: tf.Tensor) -> None:
        optimizer.apply(list(gradients), variables)

    run = tf.function(step)
    shown = run.get_concrete_function(*(tf.TensorSpec(shape) for shape in SHAPES))
    for _ in range(4):
        gradients = [tf.constant(random.standard_normal(shape, np.float32)) for shape in SHAPES]
        (run if in_a_graph else step)(*gradients)
    kinds = {operation.type for operation in shown.graph.get_operations()}
    return [np.array(variable.value) for variable in [*variables, *optimizer.variables]], kinds


@pytest.mark.parametrize("in_a_graph", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_what_an_optimizer_remembers_are_those_of_keras(name, in_a_graph):
    make, operation = OPTIMIZERS[name]
    plain, fused = make(), make()
    fuse(fused)
    expected, own = trained(plain, in_a_graph=in_a_graph)
    found, kinds = trained(fused, in_a_graph=in_a_graph)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-5)
    assert operation in kinds and operation not in own
    assert fused.get_config() | {"name": ""} == plain.get_config() | {"name": ""}


def test_an_optimizer_may_be_built_while_its_first_step_is_traced():
    optimizer, variable = keras.optimizers.RMSprop(0.1), keras.Variable(np.zeros(2, np.float32))
    fuse(optimizer)
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    step(tf.constant([1.0, -2.0]))
    first = np.array(variable.value)
    step(tf.constant([1.0, -2.0]))
    assert (np.sign(first) == [-1, 1]).all() and (np.abs(variable.value) > np.abs(first)).all()


class Own(keras.optimizers.Adam):
    """A user's."""


@pytest.mark.parametrize(
    "make",
    [partial(keras.optimizers.Adam, amsgrad=True), partial(keras.optimizers.RMSprop, centered=True),
     keras.optimizers.SGD, keras.optimizers.Lion, Own],
)  # fmt: skip
def test_others_stay_as_they_are(make):
    optimizer = make(0.1)
    fuse(optimizer)
    assert "update_step" not in vars(optimizer)


def test_on_a_gpu_updates_stay_keras_own(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    optimizer = keras.optimizers.Adam(0.1)
    fuse(optimizer)
    assert "update_step" not in vars(optimizer)
