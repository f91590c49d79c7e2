from __future__ import annotations

import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest

from clothseg.models.backbones import build_encoder
from clothseg.models.decoders import fpn, pix2pix, upsample
from clothseg.models.unet import Network, batch_norms, build_network, freeze, set_batch_norm_momentum

SIZE = (32, 64)
CLASSES = 5
SMALL = (16, 12, 8, 8)
ARTICLE = (512, 256, 128, 64)
COARSE = partial(fpn, filters=8, branch_filters=8, dropout=0.1, batch_norm_momentum=0.9, output_stride=4)


def network(
    backbone="mobilenetv2", size=SIZE, filters=SMALL, classes=CLASSES, decoder=None, presence=False, gate=0.0
) -> Network:
    encoder = build_encoder(backbone, image_size=size, weights=None, input_scaling="matched")
    decoder = decoder or partial(pix2pix, filters=filters, upsample=upsample)
    return build_network(encoder, decoder=decoder, classes=classes, presence=presence, gate=gate, name="unet")


def batch(dtype="uint8") -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (2, *SIZE, 3)).astype(dtype)
    return photo, random.integers(0, CLASSES, (2, *SIZE)).astype("uint8")


def fit(model: keras.Model, eager: bool = True) -> float:
    # SGD moves every trainable variable that has a gradient.
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.losses.MeanSquaredError()]
    photo, labels = batch()
    targets = [labels, np.ones((2, CLASSES), "float32")]
    heads = len(model.outputs)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=losses[:heads], run_eagerly=eager)
    return model.fit(photo, targets[:heads], batch_size=2, verbose=0).history["loss"][0]


def values(layer: keras.Layer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in layer.variables]


def moved(before: list[np.ndarray], after: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.fixture
def mixed_bfloat16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network().model


@pytest.fixture(scope="module")
def with_presence() -> Network:
    return network(presence=True)


def test_every_pixel_gets_a_logit_per_class(model):
    logits = keras.ops.convert_to_numpy(model(batch()[0]))
    assert logits.shape == (2, *SIZE, CLASSES)
    assert logits.dtype == "float32"
    assert logits.min() < 0 < logits.max()


def test_encoder_can_be_found_by_name(model):
    assert model.name == "unet"
    assert len(model.get_layer("encoder").outputs) == 5


def test_integers_and_floats_give_equal_logits(model):
    np.testing.assert_array_equal(model(batch("uint8")[0]), model(batch("float32")[0]))


def test_the_articles_network_has_the_parameters_worked_out_by_hand():
    model = network("densenet121", size=(128, 128), filters=ARTICLE, classes=59).model
    assert [shape[1:] for shape in model.get_layer("encoder").output_shape] == [
        (64, 64, 64),
        (32, 32, 256),
        (16, 16, 512),
        (8, 8, 1024),
        (4, 4, 1024),
    ]
    assert model.output_shape == (None, 128, 128, 59)
    blocks = [(1024, 512), (512 + 1024, 256), (256 + 512, 128), (128 + 256, 64)]
    decoder = sum(9 * have * want + 4 * want for have, want in blocks)
    head = 9 * (64 + 64) * 59 + 59
    assert model.get_layer("encoder").count_params() == 7_037_504  # as Keras publishes it, without top
    assert model.count_params() == 7_037_504 + decoder + head == 16_472_827


# What moves in a step


NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def share_moved(encoder: keras.Model, before: list[np.ndarray], norms: bool) -> dict[str, float]:
    """Of the encoder's variables, the share that moved, by name; those of its batch norms or those of the rest."""
    of_norms = {variable.path for norm in batch_norms(encoder) for variable in norm.variables}
    shares: dict[str, list[bool]] = {}
    for variable, change in zip(encoder.variables, moved(before, values(encoder)), strict=True):
        if (variable.path in of_norms) == norms:
            shares.setdefault(variable.name, []).append(change)
    return {name: float(np.mean(changes)) for name, changes in shares.items()}


def with_statistics(**how) -> Network:
    """A network whose encoder has the statistics of the batch; those of a fresh one let next to nothing through."""
    net = network(**how)
    set_batch_norm_momentum(net.encoder, 0)
    net.encoder(batch()[0], training=True)
    set_batch_norm_momentum(net.encoder, 0.9)
    return net


@pytest.mark.parametrize("presence", [False, True])
def test_frozen_encoder_keeps_weights_and_statistics_while_the_rest_learns(presence):
    net = with_statistics(presence=presence)
    freeze(net.encoder, True, batch_norm_frozen=False)
    heads = [net.trained.get_layer(name) for name in (["logits", "presence"] if presence else ["logits"])]
    before, heads_before = values(net.encoder), [values(head) for head in heads]
    assert np.isfinite(fit(net.trained))
    assert len(before) > 200 and not any(moved(before, values(net.encoder)))
    for head, head_before in zip(heads, heads_before, strict=True):
        assert all(moved(head_before, values(head)))


def test_thawed_encoder_moves_kernels_and_statistics():
    net = network()
    freeze(net.encoder, True, batch_norm_frozen=True)
    freeze(net.encoder, False, batch_norm_frozen=False)
    before = values(net.encoder)
    fit(net.model)
    norms, rest = (share_moved(net.encoder, before, norms) for norms in (True, False))
    assert set(norms) == set(NORM) and min(norms.values()) > 0.9
    assert set(rest) == {"kernel"} and rest["kernel"] > 0.9


@pytest.mark.parametrize("eager", [True, False])
def test_frozen_batch_norms_keep_weights_and_statistics_while_kernels_learn(eager):
    net = with_statistics()
    freeze(net.encoder, False, batch_norm_frozen=True)
    before = values(net.encoder)
    fit(net.model, eager=eager)
    norms, rest = (share_moved(net.encoder, before, norms) for norms in (True, False))
    assert norms == dict.fromkeys(NORM, 0.0)
    assert rest["kernel"] > 0.9


def test_frozen_batch_norms_use_their_statistics_in_training():
    encoder = with_statistics().encoder
    elsewhere = 255 - batch()[0] // 4  # another photo than the statistics are of
    coarsest = encoder(elsewhere)[-1]
    freeze(encoder, False, batch_norm_frozen=True)
    np.testing.assert_array_equal(encoder(elsewhere, training=True)[-1], coarsest)
    freeze(encoder, False, batch_norm_frozen=False)
    assert not np.allclose(encoder(elsewhere, training=True)[-1], coarsest)


def test_freezing_leaves_the_decoder_alone():
    net = network()
    of_encoder = {id(norm) for norm in batch_norms(net.encoder)}
    decoder = [norm for norm in batch_norms(net.model) if id(norm) not in of_encoder]
    freeze(net.encoder, True, batch_norm_frozen=True)
    assert len(decoder) == 4 and all(norm.trainable for norm in decoder)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("batch_norm_frozen", [True, False])
def test_freezing_can_be_undone(model, frozen, batch_norm_frozen):
    encoder = model.get_layer("encoder")
    trainable = [variable.path for variable in encoder.trainable_variables]
    freeze(encoder, frozen, batch_norm_frozen=batch_norm_frozen)
    assert len(encoder.trainable_variables) < len(trainable) or not (frozen or batch_norm_frozen)
    freeze(encoder, False, batch_norm_frozen=False)
    assert [variable.path for variable in encoder.trainable_variables] == trainable


# The auxiliary head


def test_without_the_auxiliary_head_what_is_fitted_is_the_model():
    net = network()
    assert net.trained is net.model


def test_auxiliary_head_gives_a_logit_per_photo_and_class(with_presence):
    photo = batch()[0]
    logits, presence = (keras.ops.convert_to_numpy(x) for x in with_presence.trained(photo))
    assert logits.shape == (2, *SIZE, CLASSES)
    assert presence.shape == (2, CLASSES) and presence.dtype == "float32"
    assert presence.min() < 0 < presence.max()
    np.testing.assert_array_equal(logits, with_presence.model(photo))


def test_auxiliary_head_stands_on_the_mean_of_the_coarsest_map(with_presence):
    photo = batch()[0]
    coarsest = keras.ops.convert_to_numpy(with_presence.encoder(photo)[-1])
    kernel, bias = values(with_presence.trained.get_layer("presence"))
    _, presence = with_presence.trained(photo)
    np.testing.assert_allclose(presence, coarsest.mean(axis=(1, 2)) @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_auxiliary_head_adds_its_own_weights_to_those_of_the_model(with_presence):
    model, trained = with_presence.model, with_presence.trained
    own = {id(variable) for variable in trained.variables} - {id(variable) for variable in model.variables}
    assert own == {id(variable) for variable in trained.get_layer("presence").variables}
    assert {id(variable) for variable in model.variables} < {id(variable) for variable in trained.variables}
    assert trained.count_params() == model.count_params() + 320 * CLASSES + CLASSES


def test_a_gate_adds_the_logarithm_of_presence_to_every_pixel():
    net = network(presence=True, gate=2.0)
    photo = batch()[0]
    gated, presence = (keras.ops.convert_to_numpy(x) for x in net.trained(photo))
    plain = keras.Model(net.model.input, net.model.get_layer("logits").output)
    log_presence = -np.log1p(np.exp(-presence))
    np.testing.assert_allclose(gated, plain(photo) + 2 * log_presence[:, None, None], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(gated, net.model(photo))


def test_what_is_fitted_with_the_auxiliary_head_is_learnt_by_the_model():
    net = network(presence=True)
    photo = batch()[0]
    before = keras.ops.convert_to_numpy(net.model(photo))
    fit(net.trained)
    assert not np.array_equal(net.model(photo), before)


@pytest.mark.parametrize("presence", [False, True])
def test_weights_survive_a_file_with_either_head(tmp_path, presence):
    saved, other = network(presence=presence), network(presence=presence)
    saved.model.save_weights(tmp_path / "model.weights.h5")
    other.model.load_weights(tmp_path / "model.weights.h5")
    photo = batch()[0]
    np.testing.assert_array_equal(saved.model(photo), other.model(photo))


def test_weights_fit_the_network_of_another_size():
    small, large = network(presence=True), network(size=(64, 96), presence=True)
    large.trained.set_weights(small.trained.get_weights())
    for a, b in zip(values(small.trained), values(large.trained), strict=True):
        np.testing.assert_array_equal(a, b)


# Precision and files


@pytest.mark.parametrize("presence", [False, True])
def test_outputs_are_float32_under_bfloat16(mixed_bfloat16, presence):
    net = network(presence=presence, decoder=COARSE)
    assert net.model.output_shape == (None, SIZE[0] // 4, SIZE[1] // 4, CLASSES)
    assert {x.dtype for x in net.trained.outputs} == {"float32"}
    assert len(net.trained.outputs) == 1 + presence


def test_compiled_step_on_integers_under_bfloat16(mixed_bfloat16):
    model = network().model
    before = values(model)
    assert np.isfinite(fit(model, eager=False))
    assert any(moved(before, values(model)))
    assert model.compute_dtype == "bfloat16"
    assert model(batch()[0]).dtype == "float32"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_saved_network_opens_without_this_package(tmp_path, model):
    photo = batch()[0]
    model.save(tmp_path / "unet.keras")
    np.save(tmp_path / "photo.npy", photo)
    code = (
        "import sys\n"
        "sys.modules['clothseg'] = None\n"  # any import of it fails
        "import keras, numpy as np\n"
        "model = keras.saving.load_model('unet.keras', safe_mode=True)\n"
        "np.save('logits.npy', model(np.load('photo.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(photo), rtol=1e-5, atol=1e-6)


def test_batch_norm_momentum_reaches_every_batch_norm_of_the_encoder():
    encoder = network().encoder
    assert {norm.momentum for norm in batch_norms(encoder)} == {0.999}
    set_batch_norm_momentum(encoder, 0.9)
    assert {norm.momentum for norm in batch_norms(encoder)} == {0.9}


def test_batch_norms_are_found_in_models_within_models(model):
    encoder, decoder = batch_norms(model.get_layer("encoder")), batch_norms(model)
    statistics = [variable for variable in model.variables if variable.name == "moving_mean"]
    assert len(encoder) > 40 and len(decoder) == len(encoder) + len(SMALL) == len(statistics)
