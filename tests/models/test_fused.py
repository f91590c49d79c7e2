"""Fused layers compute what Keras's own do, forwards and backwards, and are saved as those."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from clothseg.models.fused import fuse, least_batch, patches

# Of the largest value; of bfloat16 the last of 8 bits is 0.4 %, of float16 that of 11 is 0.05 %.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.02, "mixed_float16": 0.004}


def made(layers, policy: str) -> keras.Model:
    """The same weights every time."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        return keras.Sequential([keras.Input((8, 6, 5)), *layers()])
    finally:
        keras.config.set_dtype_policy("float32")


def trained(model: keras.Model, photos: np.ndarray, *, training: bool) -> tuple[list[np.ndarray], list[str]]:
    """Outputs, gradients of photos and of weights, and weights after the step; the operations that it took."""

    @tf.function
    def step(photos: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(photos)
            outputs = tf.cast(model(photos, training=training), tf.float32)
            loss = tf.reduce_sum(outputs * tf.sin(tf.reshape(tf.range(tf.size(outputs), delta=1.0), tf.shape(outputs))))
        return (outputs, *tape.gradient(loss, [photos, *(weight.value for weight in model.trainable_weights)]))

    graph = step.get_concrete_function(tf.TensorSpec(photos.shape)).graph
    found = [np.asarray(tf.cast(value, tf.float32)) for value in step(photos)]
    return [*found, *model.get_weights()], [operation.type for operation in graph.get_operations()]


def same(plain: list[np.ndarray], fused: list[np.ndarray], policy: str) -> None:
    assert len(plain) == len(fused)
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(other, one, atol=TOLERANCE[policy] * np.abs(one).max(), rtol=0)


def as_near(truth: list[np.ndarray], plain: list[np.ndarray], fused: list[np.ndarray], policy: str) -> None:
    """As near to float32 as Keras's own, which on processors without bfloat16 is up to 8 % away."""
    for true, one, other in zip(truth, plain, fused, strict=True):
        most = np.abs(one - true).max() + TOLERANCE[policy] * np.abs(true).max()
        assert np.abs(other - true).max() <= most


def photos(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (count, 8, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_batch_norms(policy, training, trainable, options):
    def layers():
        norm = keras.layers.BatchNormalization(momentum=0.7, **options)
        norm.trainable = trainable
        return [norm]

    plain, fused = made(layers, policy), made(layers, policy)
    fuse(fused, deterministic=False)
    for model in (plain, fused):
        weights = [np.linspace(0.5, 2, weight.size, dtype=np.float32) for weight in model.get_weights()]
        model.set_weights(weights)
    expected, own = trained(plain, photos(), training=training)
    found, operations = trained(fused, photos(), training=training)
    same(expected, found, policy)
    assert "FusedBatchNormV3" in operations and len(operations) < len(own)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("bias", [False, True])
def test_doubling_convolutions(bias, policy, monkeypatch):
    monkeypatch.setattr("clothseg.models.fused.processor", lambda: "Some CPU avx2")

    def layers():
        return [
            keras.layers.Conv2DTranspose(7, 3, strides=2, padding="same", use_bias=bias, activation="relu"),
            keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=bias),
        ]

    plain, fused = made(layers, policy), made(layers, policy)
    fuse(fused, deterministic=False)
    truth, _ = trained(made(layers, "float32"), photos(), training=True)
    expected, own = trained(plain, photos(), training=True)
    found, operations = trained(fused, photos(), training=True)
    as_near(truth, expected, found, policy)
    assert own.count("Conv2DBackpropFilter") == operations.count("MatMul") == 2


@pytest.mark.parametrize("large", [False, True])
def test_with_amx_the_last_layer_which_is_of_float32_has_its_gradients_in_bfloat16(large, monkeypatch):
    monkeypatch.setattr("clothseg.models.fused.processor", lambda: "Some CPU avx2 avx512f avx512_bf16 amx_bf16")
    monkeypatch.setattr("clothseg.models.fused.SMALL", 8 * 6 - large)

    def layers():
        return [
            keras.layers.Conv2DTranspose(7, 3, strides=2, padding="same"),
            keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", dtype="float32", activation="relu"),
        ]

    policy = "mixed_bfloat16"
    plain, fused = made(layers, policy), made(layers, policy)
    fuse(fused, deterministic=False)
    expected, own = trained(plain, photos(), training=True)
    found, operations = trained(fused, photos(), training=True)
    np.testing.assert_array_equal(found[0], expected[0])
    as_near(trained(made(layers, "float32"), photos(), training=True)[0], expected, found, policy)
    # As a product only that of the first, whose map is small then.
    assert (own.count("MatMul"), operations.count("MatMul")) == (0, not large)
    assert own.count("Conv2DBackpropFilter") == 2 and operations.count("Conv2DBackpropFilter") == 1 + large

    @tf.function
    def gradient(upstream):
        last = fused.layers[-1]
        with tf.GradientTape() as tape:
            inputs = tf.ones((4, 16, 12, 7), tf.bfloat16)
            tape.watch(inputs)
            outputs = last(inputs)
        return tape.gradient(outputs, [inputs, last.kernel.value], upstream)

    graph = gradient.get_concrete_function(tf.ones((4, 32, 24, 3))).graph
    of_products = {"Conv2D", "Conv2DBackpropFilter"}
    assert {one.outputs[0].dtype for one in graph.get_operations() if one.type in of_products} == {tf.bfloat16}


def test_what_is_of_float32_because_16_bits_would_be_wrong_stays_so_backwards(monkeypatch):
    monkeypatch.setattr("clothseg.models.fused.processor", lambda: "Some CPU avx2 avx512f avx512_bf16 amx_bf16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        narrow = keras.Sequential([keras.Input((2, 1, 5), dtype="bfloat16"), keras.layers.ReLU()])
    finally:
        keras.config.set_dtype_policy("float32")
    narrow.add(keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", dtype="float32"))
    assert narrow.layers[-1].input.dtype == "bfloat16"
    before = narrow.layers[-1].call
    fuse(narrow, deterministic=False)
    assert narrow.layers[-1].call == before


@pytest.mark.parametrize(
    "options",
    [{"strides": 1}, {"padding": "valid"}, {"output_padding": 1}, {"strides": 1, "dilation_rate": 2},
     {"dtype": "float32"}],
    ids=str,
)  # fmt: skip
def test_other_convolutions_stay_as_they_are(options, monkeypatch):
    monkeypatch.setattr("clothseg.models.fused.processor", lambda: "Some CPU avx2 avx512f")
    given = {"strides": 2, "padding": "same"} | options
    model = made(lambda: [keras.layers.Conv2DTranspose(3, 3, **given)], "mixed_bfloat16")
    (layer,) = model.layers
    before = layer.call
    fuse(model, deterministic=False)
    assert layer.call == before


@pytest.mark.skipif(
    "renorm" not in inspect.signature(keras.layers.BatchNormalization).parameters, reason="needs a later Keras"
)
def test_batch_norms_of_which_there_is_no_fused_one_stay_keras_own():
    def layers():
        return [keras.layers.BatchNormalization(renorm=True, momentum=0.7)]

    plain, fused = made(layers, "float32"), made(layers, "float32")
    fuse(fused, deterministic=False)
    same(trained(plain, photos(), training=True)[0], trained(fused, photos(), training=True)[0], "float32")


@pytest.mark.parametrize("deterministic", [True, False])
def test_on_a_gpu_gradients_stay_keras_own_and_of_norms_that_stand_still_if_deterministic(deterministic, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])

    def layers():
        norm = keras.layers.BatchNormalization()
        norm.trainable = False
        return [norm, keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same")]

    model = made(layers, "mixed_bfloat16")
    norm, convolution = model.layers
    before = convolution.call
    fuse(model, deterministic=deterministic)
    assert convolution.call == before
    operations = trained(model, photos(), training=True)[1]
    assert ("FusedBatchNormV3" in operations) is not deterministic


def test_a_network_is_fused_as_the_configuration_says():
    from clothseg import assemble, entry
    from clothseg.settings import TrainSettings, check, options_of

    def calls(fused: bool) -> list[bool]:
        options = ["backbone=mobilenetv2", "backbone.weights=null", "image_size=[32,32]", f"fused_layers={fused}"]
        cfg = options_of(entry.compose("train", options), "train", TrainSettings)
        network = assemble.network(cfg, check(cfg, TrainSettings), classes=3, size=(32, 32))
        layers = network.model._flatten_layers()
        norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
        assert norms
        return ["call" in vars(norm) for norm in norms]

    assert all(calls(True)) and not any(calls(False))


def test_one_value_a_channel_has_no_variance():
    plain, fused = (made(lambda: [keras.layers.BatchNormalization(momentum=0.5)], "float32") for _ in range(2))
    fuse(fused, deterministic=False)
    one = photos(1)[:, :1, :1]
    for model in (plain, fused):
        model.layers[0](one, training=True)
    same(plain.get_weights(), fused.get_weights(), "float32")


def test_patches_are_those_of_tensorflow():
    maps = tf.reshape(tf.range(2 * 6 * 4 * 3, dtype=tf.float32), (2, 6, 4, 3))
    expected = tf.image.extract_patches(maps, (1, 3, 3, 1), (1, 2, 2, 1), (1, 1, 1, 1), "SAME")
    np.testing.assert_array_equal(patches(maps), expected)


def test_networks_are_saved_as_keras_has_them(tmp_path):
    model = made(lambda: [keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization()], "float32")
    fuse(model, deterministic=False)
    model.save(tmp_path / "network.keras")
    opened = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_allclose(opened(photos()), model(photos()), rtol=1e-5, atol=1e-5)
    assert "call" not in vars(opened.layers[1])


def test_networks_are_given_one_photo_at_once_but_where_two_are_faster(monkeypatch):
    for flags, least in (("avx2", 2), ("avx2 avx512f", 1), ("", 1)):
        monkeypatch.setattr("clothseg.models.fused.processor", lambda flags=flags: f"Some CPU {flags}")
        assert least_batch() == least
