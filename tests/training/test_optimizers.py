"""Only kernels decay, the encoder learns at its own rate, and averaged weights are what is scored and kept."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.errors import UserError
from clothseg.training.averaging import AveragedWeights
from clothseg.training.optimizers import decays, make, scale_rates
from clothseg.training.rates import polynomial

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
EVERY_OPTIMIZER = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Nadam", "RMSprop", "SGD",
)  # fmt: skip


def value(variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_tensor(variable))


def steps(optimizer, variables, gradients, *, count=1) -> list[np.ndarray]:
    for _ in range(count):
        optimizer.apply([np.float32(gradient) for gradient in gradients], variables)
    return [value(variable) for variable in variables]


def pair() -> list[keras.Variable]:
    """Of the encoder and of the decoder, of rank 2 so that both decay."""
    return [keras.Variable([[2.0]], name="kernel"), keras.Variable([[2.0]], name="kernel")]


def chosen(name, **options):
    with execution_whitelist(entry.TARGETS):
        return entry.build(OmegaConf.load(entry.config_folder() / "optimizer" / f"{name}.yaml") | options)


# Weight decay


def test_kernels_decay_and_norms_and_biases_do_not():
    photo = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 1)(photo)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.LayerNormalization(axis=(1, 2, 3))(x)
    model = keras.Model(photo, keras.layers.MultiHeadAttention(2, 3)(x, x))
    ranks = {(variable.name, len(variable.shape)) for variable in model.trainable_variables}
    assert {("kernel", 4), ("gamma", 3), ("beta", 3), ("bias", 2)} <= ranks, "nothing of high rank to tell apart"
    assert {variable.name for variable in model.trainable_variables if decays(variable)} == {"kernel"}
    assert all(decays(variable) for variable in model.trainable_variables if variable.name == "kernel")

    before = [value(variable) for variable in model.trainable_variables]
    optimizer = make(
        partial(keras.optimizers.SGD, weight_decay=0.5),
        learning_rate=0.1, variables=model.trainable_variables, encoder_variables=[], encoder_rate=1,
        fused=True,
    )  # fmt: skip
    optimizer.apply([np.zeros_like(start) for start in before], model.trainable_variables)
    for variable, start in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(value(variable), start * (0.95 if variable.name == "kernel" else 1), rtol=1e-6)


# A rate for the encoder


def test_sgd_steps_by_the_scaled_rate_and_decay():
    variables = pair()
    optimizer = make(
        partial(keras.optimizers.SGD, weight_decay=0.1),
        learning_rate=0.5, variables=variables, encoder_variables=variables[:1], encoder_rate=0.1,
        fused=True,
    )  # fmt: skip
    # 2 * (1 - 0.1 * 0.05) - 0.05 * 4, and 2 * (1 - 0.1 * 0.5) - 0.5 * 4
    slow, fast = steps(optimizer, variables, [[[4]], [[4]]])
    assert slow.item() == pytest.approx(1.79)
    assert fast.item() == pytest.approx(-0.1)
    assert value(optimizer.learning_rate) == pytest.approx(0.5)


def test_adam_moves_by_the_scaled_rate_whatever_the_gradient():
    variables = pair()
    optimizer = make(
        keras.optimizers.Adam,
        learning_rate=0.01, variables=variables, encoder_variables=variables[:1], encoder_rate=0.1,
        fused=True,
    )  # fmt: skip
    # Adam's steps along a constant gradient are as long as its rate.
    slow, fast = steps(optimizer, variables, [[[300]], [[-0.5]]], count=5)
    assert 2 - slow.item() == pytest.approx(5 * 0.001, rel=1e-3)
    assert fast.item() - 2 == pytest.approx(5 * 0.01, rel=1e-3)


@pytest.mark.parametrize("name", EVERY_OPTIMIZER)
def test_scaling_is_the_same_as_another_rate(name):
    factory = partial(getattr(keras.optimizers, name), weight_decay=0.1)

    def trained(learning_rate, factor):
        variables = pair()
        optimizer = make(
            factory, learning_rate=learning_rate, variables=variables, encoder_variables=variables[:1],
            encoder_rate=factor,
            fused=True,
        )  # fmt: skip
        return steps(optimizer, variables, [[[0.3]], [[0.7]]], count=3)

    both, slow, fast = trained(0.02, 0.25), trained(0.005, 1), trained(0.02, 1)
    np.testing.assert_allclose(both[0], slow[0], rtol=1e-6)
    np.testing.assert_allclose(both[1], fast[1], rtol=1e-6)
    assert both[0].item() != fast[0].item()


def test_scaling_follows_a_schedule_and_clipping_comes_before_it():
    variables = pair()
    optimizer = make(
        partial(keras.optimizers.SGD, global_clipnorm=5.0),
        learning_rate=polynomial(1.0, 4, warmup=0.0, power=1.0, floor=0.0),
        variables=variables, encoder_variables=variables[:1], encoder_rate=0.1,
        fused=True,
    )  # fmt: skip
    # Gradients of 6 and 8 have norm 10 and are halved. The rate is 1 and then 3/4.
    slow, fast = steps(optimizer, variables, [[[6]], [[8]]], count=2)
    assert slow.item() == pytest.approx(2 - 3 * 0.175)
    assert fast.item() == pytest.approx(2 - 4 * 1.75)


def test_an_optimizer_without_a_rate_for_the_encoder_is_kerass_own():
    optimizer = make(
        keras.optimizers.RMSprop,
        learning_rate=0.1,
        variables=pair(),
        encoder_variables=pair(),
        encoder_rate=1.0,
        fused=False,
    )
    assert optimizer.update_step.__func__ is keras.optimizers.RMSprop.update_step


def test_impossible_rates_are_told():
    for factor in (0, -1, float("nan"), "half"):
        with pytest.raises(UserError, match=f"times {factor} cannot be"):
            scale_rates(keras.optimizers.SGD(0.1), pair(), factor)


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="this Keras has none with a decay of its own")
def test_an_optimizer_with_a_decay_of_its_own_is_refused():
    with pytest.raises(UserError, match="Muon cannot have a rate for the encoder alone"):
        scale_rates(keras.optimizers.Muon(0.1), pair(), 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_can_be_chosen_clips_decays_and_averages(name):
    plain = chosen(name)()
    assert (plain.global_clipnorm, plain.clipnorm, plain.clipvalue, plain.use_ema) == (None, None, None, False)
    variables = pair()
    optimizer = make(
        chosen(name, weight_decay=0.1, use_ema=True, ema_momentum=0.5, clipvalue=0.25),
        learning_rate=0.1, variables=variables, encoder_variables=variables[:1], encoder_rate=0.5,
        fused=True,
    )  # fmt: skip
    slow, fast = steps(optimizer, variables, [[[4]], [[4]]])
    assert 2 - slow.item() == pytest.approx((2 - fast.item()) / 2, rel=1e-4)
    optimizer.finalize_variable_values(variables)
    assert value(variables[0]) == pytest.approx(slow)  # the first average


def test_the_articles_optimizer_is_what_it_was():
    config = chosen("rmsprop")().get_config()
    assert config | {"name": None} == keras.optimizers.RMSprop().get_config() | {"name": None}


# In a model


def network(optimizer, *, jit_compile=False, frozen=False) -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(0)
    photo = keras.Input((2, 2, 3))
    encoder = keras.Model(photo, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(photo)), name="encoder")
    model = keras.Model(photo, keras.layers.Conv2D(3, 1, dtype="float32")(encoder(photo)))
    encoder.trainable = not frozen
    model.compile(optimizer(model, encoder), "mse", jit_compile=jit_compile)
    return model, encoder


def data(count=12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((count, 2, 2, 3), np.float32), random.random((count, 2, 2, 3), np.float32)


def slow_encoder(factory, rate=0.1, factor=0.01):
    return lambda model, encoder: make(
        factory, learning_rate=rate, variables=model.trainable_variables,
        encoder_variables=encoder.trainable_variables, encoder_rate=factor,
        fused=True,
    )  # fmt: skip


@pytest.mark.parametrize("frozen", [True, False])
def test_fit_moves_the_encoder_by_its_own_rate(frozen):
    model, encoder = network(slow_encoder(keras.optimizers.Adam), jit_compile=True, frozen=frozen)
    whole, parts = ([value(variable) for variable in part.variables] for part in (model, encoder))
    model.fit(*data(4), batch_size=4, verbose=0)
    moved = [np.abs(value(v) - start).max() for v, start in zip(encoder.trainable_variables, parts, strict=False)]
    assert all(distance <= 0.00101 for distance in moved) and (frozen or max(moved) > 0.0009)
    assert np.abs(value(model.layers[-1].kernel) - whole[-2]).max() == pytest.approx(0.1, rel=1e-2)


def test_a_prepared_optimizer_is_saved_and_loaded_as_kerass(tmp_path):
    factory = partial(keras.optimizers.AdamW, weight_decay=0.1)
    rate = polynomial(0.1, 9, warmup=0.3, power=1.0, floor=0.0)
    model, _ = network(slow_encoder(factory, rate))
    model.fit(*data(4), batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.AdamW
    assert value(loaded.optimizer.learning_rate) == pytest.approx(value(model.optimizer.learning_rate))


# Averaged weights


class Recorder(keras.callbacks.Callback):
    """Notes the weights after every step and every epoch, and what validation came to."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.raw, self.begun, self.ended, self.losses, self.stop_after = [], [], [], [], stop_after

    def weights(self):
        return [value(variable) for variable in self.model.trainable_variables]

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.begun.append(self.weights())

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.raw.append(self.weights())

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self.weights())
        self.losses.append(logs["val_loss"])
        self.model.stop_training = epoch + 1 == self.stop_after


def assert_same(ones, others, **tolerance):
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def averaging(factory):
    return partial(factory, use_ema=True, ema_momentum=0.5)


def fit(model, recorder, *, epochs=3, callbacks=()):
    photos, targets = data()
    model.fit(
        photos[:8], targets[:8], batch_size=2, epochs=epochs, shuffle=False, verbose=0,
        validation_data=(photos[8:], targets[8:]), callbacks=[*callbacks, recorder],
    )  # fmt: skip
    return photos[8:], targets[8:]


@pytest.mark.parametrize(
    ("policy", "jit_compile"),
    [("float32", False), ("float32", True), ("mixed_bfloat16", False), ("mixed_float16", False)],
)
def test_averages_are_scored_and_kept_and_training_goes_on_from_raw_weights(policy, jit_compile):
    rate = polynomial(0.1, 12, warmup=0.2, power=1.0, floor=0.1)
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model, _ = network(slow_encoder(averaging(keras.optimizers.Adam), rate, 0.5), jit_compile=jit_compile)
        recorder = Recorder()
        validation = fit(model, recorder, callbacks=[AveragedWeights()])
    finally:
        keras.mixed_precision.set_dtype_policy("float32")

    averages, before, ended = None, recorder.begun[0], []
    for step, raw in enumerate(recorder.raw):
        if not np.array_equal(raw[0], before[0]):  # else float16 overflowed, and nothing was done
            averages = [0.5 * old + 0.5 * new for old, new in zip(averages or raw, raw, strict=True)]
        before = raw
        if step % 4 == 3:
            ended.append(averages)
    assert len(ended) == len(recorder.ended) == 3
    for wanted, seen, raw in zip(ended, recorder.ended, recorder.raw[3::4], strict=True):
        assert_same(seen, wanted, rtol=1e-4, atol=1e-6)
        assert max(np.abs(one - other).max() for one, other in zip(seen, raw, strict=True)) > 0.01
    for last, first in zip(recorder.raw[3:-1:4], recorder.begun[1:], strict=True):
        assert_same(last, first, rtol=0)
    # What is left in the model are the last averages, and they are what was scored.
    assert_same(recorder.weights(), recorder.ended[-1], rtol=0)
    assert model.evaluate(*validation, verbose=0) == pytest.approx(recorder.losses[-1], rel=1e-5)
    # The optimizer is whole, to be saved or gone on with.
    assert all(np.isfinite(value(variable)).all() for variable in model.optimizer.variables)
    fit(model, recorder, epochs=1, callbacks=[AveragedWeights()])


def test_averages_are_kept_when_training_is_stopped_early():
    model, _ = network(slow_encoder(averaging(keras.optimizers.SGD)))
    recorder = Recorder(stop_after=2)
    fit(model, recorder, callbacks=[AveragedWeights()])
    assert len(recorder.ended) == 2
    assert_same(recorder.weights(), recorder.ended[-1], rtol=0)
    assert np.abs(recorder.weights()[-2] - recorder.raw[-1][-2]).max() > 1e-4


def test_training_is_the_same_as_without_averages():
    seen = []
    for factory, callbacks in (
        (averaging(keras.optimizers.SGD), [AveragedWeights()]),
        (keras.optimizers.SGD, [AveragedWeights()]),
        (keras.optimizers.SGD, []),
    ):
        model, _ = network(slow_encoder(factory))
        recorder = Recorder()
        fit(model, recorder, callbacks=callbacks)
        seen.append(recorder)
    for recorder in seen[:2]:
        for ones, others in zip(recorder.raw, seen[2].raw, strict=True):
            assert_same(ones, others, rtol=1e-5, atol=1e-7)
    # Without averages the callback shows the weights themselves.
    assert_same(seen[1].ended[-1], seen[1].raw[-1], rtol=0)


# Elsewhere


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="is what runs under jax")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
@pytest.mark.long
def test_it_holds_under_jax():
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # a few steps: compiling well takes longer than running
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "sgd or adam or early or float32",
        __file__,
    ]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
from clothseg.training.averaging import AveragedWeights
from clothseg.training.devices import placement
from clothseg.training.optimizers import make

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
random = np.random.default_rng(0)
photos, targets = random.random((2, 8, 2, 2, 3), np.float32)

def trained(devices):
    keras.utils.set_random_seed(0)
    with placement(devices)():
        photo = keras.Input((2, 2, 3))
        encoder = keras.Model(photo, keras.layers.Conv2D(4, 1)(photo))
        model = keras.Model(photo, keras.layers.Conv2D(3, 1)(encoder(photo)))
        optimizer = make(
            lambda learning_rate: keras.optimizers.SGD(learning_rate, weight_decay=0.5, use_ema=True, ema_momentum=0.5),
            learning_rate=0.1, variables=model.trainable_variables, encoder_variables=encoder.trainable_variables,
            encoder_rate=0.1, fused=True)
        model.compile(optimizer, "mse", jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((photos, targets)).batch(4)
    fit = model.fit(batches, validation_data=batches, epochs=3, verbose=0, callbacks=[AveragedWeights()])
    return model.get_weights(), fit.history["val_loss"]

(one, first), (two, second) = trained(1), trained(2)
for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
np.testing.assert_allclose(first, second, rtol=1e-4)
print("equal")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow trains on several devices here")
def test_two_devices_train_as_one_does():
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-3000:]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clipnorm": "long"}, "optimizer.clipnorm=long has to be a number of at least 0, or null"),
        ({"clipvalue": "x"}, "optimizer.clipvalue=x has to be"),
        ({"global_clipnorm": -1}, "optimizer.global_clipnorm=-1 has to be"),
        ({"use_ema": "yes"}, "optimizer.use_ema=yes has to be true or false"),
        ({"ema_momentum": "high"}, "optimizer.ema_momentum=high has to be a number from 0 to 1"),
    ],
)
def test_options_that_keras_takes_as_they_come_are_told(options, told):
    def factory(learning_rate: float) -> keras.Optimizer:
        return keras.optimizers.Adam(learning_rate, **options)

    with pytest.raises(UserError) as error:
        make(factory, learning_rate=0.1, variables=[], encoder_variables=[], encoder_rate=1, fused=True)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("decay", ["high", -1, float("nan"), True])
def test_a_weight_decay_that_cannot_be_is_told_before_anything_is_trained(decay):
    with pytest.raises(UserError, match=rf"optimizer.weight_decay={decay} has to be a number of at least 0, or null"):
        make(
            lambda learning_rate: keras.optimizers.AdamW(learning_rate, weight_decay=decay),
            learning_rate=0.1, variables=pair(), encoder_variables=pair(), encoder_rate=1.0,
            fused=True,
        )  # fmt: skip
