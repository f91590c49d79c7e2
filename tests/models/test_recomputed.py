"""Gradients whose maps are computed anew are those of maps that were kept."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from clothseg.models.fused import fuse
from clothseg.models.recomputed import recompute

TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.03}  # of the largest value


def norm() -> keras.Layer:
    return keras.layers.BatchNormalization(
        momentum=0.7, gamma_initializer=keras.initializers.RandomUniform(0.5, 2), beta_initializer="uniform"
    )


def dense_block(x):
    for _ in range(3):
        y = keras.layers.Activation("relu")(norm()(x))
        y = keras.layers.Conv2D(6, 1, use_bias=False)(y)
        y = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.ReLU()(norm()(y)))
        x = keras.layers.Concatenate()([x, y])
    return x


def inverted_residual(x):
    y = keras.layers.ReLU(6.0)(norm()(keras.layers.Conv2D(8, 1)(x)))
    y = keras.layers.ReLU(6.0)(norm()(keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(y)))
    return keras.layers.Conv2D(3, 1, activation="relu")(norm()(keras.layers.Conv2D(5, 1)(y)))


def decoder(x):
    y = keras.layers.ReLU()(norm()(keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)))
    y = keras.layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(y)
    y = keras.layers.ReLU()(norm()(y))
    return keras.layers.Conv2DTranspose(5, 3, strides=1, padding="same", dtype="float32")(y)


NETWORKS = (dense_block, inverted_residual, decoder)


def made(network, policy: str, *, anew: bool) -> keras.Model:
    """The same weights every time."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        photo = keras.Input((8, 6, 4))
        model = keras.Model(photo, network(photo))
    finally:
        keras.config.set_dtype_policy("float32")
    fuse(model, deterministic=False)
    if anew:
        recompute(model)
    return model


def graph_of(model: keras.Model, *, training: bool):
    @tf.function
    def step(photos):
        with tf.GradientTape() as tape:
            tape.watch(photos)
            outputs = tf.cast(model(photos, training=training), tf.float32)
            loss = tf.reduce_sum(outputs * tf.sin(tf.reshape(tf.range(tf.size(outputs), delta=1.0), tf.shape(outputs))))
        return (outputs, *tape.gradient(loss, [photos, *(weight.value for weight in model.trainable_weights)]))

    return step.get_concrete_function(tf.TensorSpec((None, 8, 6, 4)))


def trained(model: keras.Model, *, training: bool = True) -> list[np.ndarray]:
    """Outputs, gradients of photos and of weights, and weights after the step."""
    photos = np.random.default_rng(0).normal(2, 3, (4, 8, 6, 4)).astype(np.float32)
    found = graph_of(model, training=training)(tf.constant(photos))
    return [*(np.asarray(value) for value in found), *model.get_weights()]


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_and_statistics_are_as_of_kept_maps(network, policy):
    kept, anew = (trained(made(network, policy, anew=anew)) for anew in (False, True))
    assert len(kept) == len(anew)
    np.testing.assert_array_equal(anew[0], kept[0])
    for one, other in zip(kept, anew, strict=True):
        np.testing.assert_allclose(other, one, atol=TOLERANCE[policy] * np.abs(one).max(), rtol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_no_gradient_needs_what_was_normed_forwards(network):
    def needing(anew: bool) -> set[str]:
        """Operations of gradients that forward norms and activations before a convolution go into."""
        operations = graph_of(made(network, "float32", anew=anew), training=True).graph.get_operations()
        forward = [one for one in operations if one.type in ("Relu", "Relu6") and not one.control_inputs]
        before = [one for one in forward if any("Conv" in other.type for other in one.outputs[0].consumers())]
        assert before
        # Those computed anew come from maps that wait for the gradient.
        before = [one for one in before if one.inputs[0].op.get_attr("is_training")]
        consumers = {other for one in before for other in one.outputs[0].consumers()}
        return {other.type for other in consumers if "BackpropFilter" in other.type or "Grad" in other.type}

    assert needing(False) and not needing(True)


def test_joined_maps_are_joined_again_once_the_gradient_is_there():
    operations = graph_of(made(dense_block, "float32", anew=True), training=True).graph.get_operations()
    joined = [one for one in operations if one.type == "ConcatV2"]
    again = [one for one in joined if one.inputs[0].op.type == "Identity" and one.inputs[0].op.control_inputs]
    # The first layer's maps are joined of nothing; the third's of three, flat.
    assert sorted(len(one.inputs) - 1 for one in again) == [2, 3]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("frozen", [True, False])
def test_what_stands_still_and_predictions_have_their_graph_as_it_was(network, frozen):
    def kinds(anew: bool) -> list[str]:
        model = made(network, "float32", anew=anew)
        model.trainable = not frozen
        graph = graph_of(model, training=frozen).graph
        return sorted(one.type for one in graph.get_operations() if one.type in ("FusedBatchNormV3", "IdentityN"))

    assert kinds(True) == kinds(False)


def settings_of(*options: str):
    from clothseg import entry
    from clothseg.settings import TrainSettings, check, options_of

    small = ("backbone=mobilenetv2", "backbone.weights=null", "image_size=[32,32]")
    cfg = options_of(entry.compose("train", [*small, *options]), "train", TrainSettings)
    return cfg, check(cfg, TrainSettings)


@pytest.mark.parametrize("wanted", [True, False])
def test_maps_are_computed_anew_where_the_configuration_says_so(wanted):
    from clothseg import assemble

    cfg, settings = settings_of(f"gradient_checkpointing={str(wanted).lower()}")
    network = assemble.network(cfg, settings, classes=3, size=(32, 32))
    convolutions = [one for one in network.model._flatten_layers() if isinstance(one, keras.layers.DepthwiseConv2D)]
    assert convolutions
    assert all(("call" in vars(layer)) is wanted for layer in convolutions)


def test_where_it_changes_nothing_a_training_is_told_so(monkeypatch, caplog):
    from clothseg import assemble

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    for options, told in (((), ""), (("gradient_checkpointing=true",), "gradient_checkpointing=true changes nothing")):
        assemble.networks(*settings_of(*options), classes=3)
        assert told in caplog.text if told else not caplog.records


def test_a_convolution_that_is_not_keras_own_stays_as_it_is():
    class Own(keras.layers.Conv2D):
        """A user's."""

    model = keras.Sequential([keras.Input((8, 6, 4)), norm(), Own(3, 1)])
    recompute(model)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_on_a_gpu_maps_are_kept(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    model = keras.Sequential([keras.Input((8, 6, 4)), norm(), keras.layers.Conv2D(3, 1)])
    recompute(model)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_step_by_step_it_convolves_as_keras_does():
    plain, anew = (made(dense_block, "float32", anew=anew) for anew in (False, True))
    photos = tf.random.stateless_normal((2, 8, 6, 4), (0, 0))
    np.testing.assert_allclose(anew(photos, training=True), plain(photos, training=True), rtol=1e-5, atol=1e-5)
