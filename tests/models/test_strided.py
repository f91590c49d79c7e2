"""Where TensorFlow computes convolutions of 16 bits wrongly, networks compute in float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from clothseg import machine
from clothseg.models.strided import compute_in_float32_where_wrong


def network(width: int, policy: str = "mixed_bfloat16") -> keras.Model:
    """An encoder to stride 8 within a network, and a decoder."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        photos = keras.Input((64, width, 3))
        first = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="wide")(photos)
        first = keras.layers.Conv2D(96, 3, strides=2, padding="same", name="wider")(first)
        deep = keras.layers.SeparableConv2D(128, 3, strides=2, padding="same", name="down")(first)
        same = keras.layers.Conv2D(128, 3, padding="same", name="same")(deep)
        encoder = keras.Model(photos, [first, same], name="encoder")
        first, deep = encoder(photos)
        up = keras.layers.Conv2DTranspose(32, 3, strides=2, padding="same", name="up")(deep)
        both = keras.layers.Concatenate()([up, first])
        return keras.Model(photos, keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="last")(both))
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("width", "policy", "expected"),
    [
        (8, "mixed_bfloat16", {"down", "up"}),
        (16, "mixed_bfloat16", set()),
        (8, "mixed_float16", {"down", "up"}),
    ],
)
def test_strided_convolutions_of_maps_one_pixel_wide_compute_in_float32(width, policy, expected):
    made = network(width, policy)
    compute_in_float32_where_wrong(made)
    found = {layer.name for layer in made._flatten_layers() if layer.compute_dtype == "float32"}
    assert {name for name in found if not name.startswith("input_layer")} == expected


def test_convolutions_of_stride_4_compute_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = [keras.layers.Conv2D(8, 4, strides=stride, padding="same") for stride in (1, 2, 4)]
        made = keras.Sequential([keras.Input((64, 64, 16)), *layers])
    finally:
        keras.config.set_dtype_policy("float32")
    compute_in_float32_where_wrong(made)
    assert [layer.compute_dtype for layer in made.layers] == ["bfloat16", "bfloat16", "float32"]


def test_a_network_in_float32_and_layers_without_shapes_are_left_alone():
    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Conv2D(3, 3, strides=2, padding="same")

        def call(self, maps):
            return self.inner(maps)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        photos = keras.Input((2, 1, 3))
        made = keras.Model(photos, Inner()(photos))
    finally:
        keras.config.set_dtype_policy("float32")
    compute_in_float32_where_wrong(made)
    compute_in_float32_where_wrong(network(8, "float32"))
    assert made(np.zeros((1, 2, 1, 3), np.float32)).shape == (1, 1, 1, 3)


@pytest.mark.skipif(not machine.has_bfloat16(), reason="this processor does not compute in bfloat16")
def test_whatever_is_in_memory_steps_are_the_same():
    made = network(8)
    compute_in_float32_where_wrong(made)
    photos = tf.constant(np.random.default_rng(0).random((4, 64, 8, 3), np.float32))

    @tf.function
    def step(photos):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(made(photos), tf.float32) ** 2)
        return [loss, *tape.gradient(loss, made.trainable_variables)]

    found = []
    for _ in range(8):
        for size in range(8, 23):
            # Freed again at once: what the next operations are given holds it.
            tf.fill([3, 2**size], np.float32("nan")) * 1.0
        found.append([np.asarray(value) for value in step(photos)])
    for one in found[1:]:
        for value, expected in zip(one, found[0], strict=True):
            assert np.isfinite(value).all()
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
