from __future__ import annotations

import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest

from clothseg.models.backbones import build_encoder
from clothseg.models.decoders import pix2pix, upsample
from clothseg.models.unet import build_unet, freeze, set_batch_norm_momentum

SIZE = (32, 64)
CLASSES = 5
SMALL = (16, 12, 8, 8)
ARTICLE = (512, 256, 128, 64)


def unet(backbone="mobilenetv2", size=SIZE, filters=SMALL, classes=CLASSES) -> keras.Model:
    encoder = build_encoder(backbone, image_size=size, weights=None, input_scaling="matched")
    decoder = partial(pix2pix, filters=filters, upsample=upsample)
    return build_unet(encoder, decoder=decoder, classes=classes, name="unet")


def batch(dtype="uint8") -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (2, *SIZE, 3)).astype(dtype)
    return photo, random.integers(0, CLASSES, (2, *SIZE)).astype("uint8")


def fit(model: keras.Model, eager: bool = True) -> float:
    # SGD moves every trainable variable that has a gradient.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, run_eagerly=eager)
    photo, labels = batch()
    return model.fit(photo, labels, batch_size=2, verbose=0).history["loss"][0]


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
    return unet()


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
    model = unet("densenet121", size=(128, 128), filters=ARTICLE, classes=59)
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


def test_frozen_encoder_keeps_weights_and_statistics_while_the_rest_learns():
    model = unet()
    encoder, head = model.get_layer("encoder"), model.get_layer("logits")
    freeze(encoder, True)
    before, head_before = values(encoder), values(head)
    assert np.isfinite(fit(model))
    assert len(before) > 200 and not any(moved(before, values(encoder)))
    assert all(moved(head_before, values(head)))


def test_thawed_encoder_moves_kernels_and_statistics():
    model = unet()
    encoder = model.get_layer("encoder")
    freeze(encoder, True)
    freeze(encoder, False)
    before = values(encoder)
    fit(model)
    changed = moved(before, values(encoder))
    for name in ("kernel", "gamma", "beta", "moving_mean", "moving_variance"):
        having = [change for variable, change in zip(encoder.variables, changed, strict=True) if variable.name == name]
        assert having and np.mean(having) > 0.9, name


def test_compiled_step_on_integers_under_bfloat16(mixed_bfloat16):
    model = unet()
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
    def momenta(model):
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                yield from momenta(layer)
            elif isinstance(layer, keras.layers.BatchNormalization):
                yield layer.momentum

    encoder = build_encoder("mobilenetv2", image_size=(32, 32), weights=None, input_scaling="matched")
    assert set(momenta(encoder)) == {0.999}
    set_batch_norm_momentum(encoder, 0.9)
    assert set(momenta(encoder)) == {0.9} and len(list(momenta(encoder))) > 40
