"""Losses are what was worked out by hand, and leave out what does not count."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from math import log
from types import SimpleNamespace

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf
from hydra.utils import execution_whitelist

from clothseg import entry
from clothseg.errors import UserError
from clothseg.training.class_weights import ClassFrequencies
from clothseg.training.losses import CrossEntropy, Dice, Focal, LovaszSoftmax, Sum, Tversky, made

IGNORE = 255
CLASSES = 6


def cross_entropy(**options) -> CrossEntropy:
    plain = {"class_weights": None, "label_smoothing": 0.0, "prior": None, "adjustment": 0.0}
    return CrossEntropy(**plain | options)


def focal(**options) -> Focal:
    return Focal(**{"gamma": 2.0, "class_weights": None} | options)


def dice(**options) -> Dice:
    return Dice(**{"smooth": 0.0, "squared": False} | options)


def tversky(**options) -> Tversky:
    return Tversky(**{"alpha": 0.3, "beta": 0.7, "smooth": 0.0, "exponent": 1.0} | options)


def lovasz(**options) -> LovaszSoftmax:
    return LovaszSoftmax(**{"per_image": False, "most": None, "bins": 100_000} | options)


EVERY = {
    "cross_entropy": cross_entropy(),
    "cross_entropy_weighted": cross_entropy(class_weights=[1, 2, 3, 4, 5, 0]),
    "cross_entropy_adjusted": cross_entropy(prior=[0.6, 0.1, 0.1, 0.1, 0.1, 0], adjustment=0.5),
    "focal": focal(),
    "focal_below_1": focal(gamma=0.5, class_weights=[1, 2, 3, 4, 5, 0]),
    "dice": dice(),
    "dice_squared": dice(smooth=2.0, squared=True),
    "tversky": tversky(),
    "tversky_focal": tversky(exponent=0.75, smooth=1.0),
    "lovasz": lovasz(),
    "lovasz_per_image": lovasz(per_image=True, most=5, bins=1000),
    "sum": Sum({"a": cross_entropy(), "b": dice(), "c": lovasz()}, {"a": 1.0, "b": 0.5, "c": 2.0}),
}
every = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def example(batch: int = 3, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Labels, of which the last class is absent and some pixels are ignored, and logits."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 1, (batch, 4, 8), dtype=np.uint8)
    labels[:, 0, :3] = IGNORE
    return labels, random.normal(size=(batch, 4, 8, classes)).astype(np.float32) * 2


def value_and_gradient(loss, labels, logits) -> tuple[float, np.ndarray]:
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits)
    return float(value), tape.gradient(value, logits).numpy()


# Four pixels, the last of them ignored, of three classes, the last of them absent. Logits are logarithms of
# probabilities.
LABELS = np.array([[[0, 1], [1, IGNORE]]], np.uint8)
LOGITS = np.log([[[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]]).astype(np.float32)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # -log of 1/2, 1/2 and 1/4 is log(2) times 1, 1 and 2.
        (cross_entropy(), log(2) * 4 / 3),
        (cross_entropy(class_weights=[1, 3, 9]), log(2) * (1 + 3 + 3 * 2) / (1 + 3 + 3)),
        # Targets 0.8, 0.1, 0.1: 0.8 + 0.1 * 2 + 0.1 * 2 twice, and 0.8 * 2 + 0.1 + 0.1 * 2.
        (cross_entropy(label_smoothing=0.3), log(2) * (1.2 + 1.2 + 1.9) / 3),
        # Times the prior: (4 1 1)/6, (2 2 1)/5, (4 1 1)/6.
        (cross_entropy(prior=[0.5, 0.25, 0.25], adjustment=1.0), -log(4 / 6 * 2 / 5 * 1 / 6) / 3),
        # Times its square: (8 1 1)/10, (4 2 1)/7, (8 1 1)/10.
        (cross_entropy(prior=[0.5, 0.25, 0.25], adjustment=2.0), -log(8 / 10 * 2 / 7 * 1 / 10) / 3),
        # A class that does not occur stays as it is: (2 1 2)/5, (1 2 2)/5, (2 1 2)/5.
        (cross_entropy(prior=[0.5, 0.5, 0.0], adjustment=1.0), -log(2 / 5 * 2 / 5 * 1 / 5) / 3),
        (focal(gamma=0), log(2) * 4 / 3),
        (focal(gamma=2), log(2) * (0.25 + 0.25 + 0.75**2 * 2) / 3),
        (focal(gamma=1, class_weights=[1, 3, 9]), log(2) * (0.5 + 3 * 0.5 + 3 * 0.75 * 2) / 7),
        # Class 0: p t adds up to 0.5, p to 1.25, t to 1. Class 1: 0.75, 1 and 2.
        (dice(), 1 - (1 / 2.25 + 1.5 / 3) / 2),
        (dice(smooth=1.0), 1 - (2 / 3.25 + 2.5 / 4) / 2),
        # p squared adds up to 0.5625 and 0.375.
        (dice(squared=True), 1 - (1 / 1.5625 + 1.5 / 2.375) / 2),
        # Class 0: 0.5 found, 0.75 wrongly, 0.5 missed. Class 1: 0.75, 0.25 and 1.25.
        (tversky(), 1 - (0.5 / (0.5 + 0.225 + 0.35) + 0.75 / (0.75 + 0.075 + 0.875)) / 2),
        (tversky(alpha=0.5, beta=0.5), 1 - (1 / 2.25 + 1.5 / 3) / 2),
        (tversky(alpha=1, beta=1, smooth=1.0), 1 - (1.5 / 2.75 + 1.75 / 3.25) / 2),
        (tversky(alpha=1, beta=1, exponent=2.0), ((1.25 / 1.75) ** 2 + (1.5 / 2.25) ** 2) / 2),
        # Class 0: the pixel inside has error 0.5, and 1 - IoU is 1 once it is wrong; the one outside has 0.5 too.
        # Class 1: errors 0.75 and 0.5 inside each add 1/2 to 1 - IoU; 0.25 outside adds nothing more.
        (lovasz(), (0.5 + 0.75 / 2 + 0.5 / 2) / 2),
        # The more frequent class alone.
        (lovasz(most=1), 0.75 / 2 + 0.5 / 2),
        (Sum({"a": cross_entropy(), "b": dice()}, {"a": 3.0, "b": 2}), 4 * log(2) + 2 - 1 / 2.25 - 1.5 / 3),
        (Sum({"a": cross_entropy(), "b": dice()}, {"a": 0, "b": 1.0}), 1 - (1 / 2.25 + 1.5 / 3) / 2),
    ],
)
def test_values_worked_out_by_hand(loss, expected):
    assert float(loss(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_without_options_is_that_of_keras():
    labels, logits = example()
    labels[labels == IGNORE] = 0
    keras_own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    value, gradient = value_and_gradient(cross_entropy(), labels, logits)
    expected, expected_gradient = value_and_gradient(keras_own, labels, logits)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def lovasz_reference(labels: np.ndarray, logits: np.ndarray) -> float:
    """Algorithm 1 of Berman et al., with sorting, over all pixels of `labels` together."""
    probabilities = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(-1, keepdims=True)
    probabilities, labels = probabilities[labels != IGNORE], labels[labels != IGNORE]
    losses = []
    for label in np.unique(labels):
        inside = (labels == label).astype(float)
        errors = np.abs(inside - probabilities[:, label])
        order = np.argsort(-errors)
        inside = inside[order]
        iou = (inside.sum() - inside.cumsum()) / (inside.sum() + (1 - inside).cumsum())
        losses.append(errors[order] @ np.diff(1 - iou, prepend=0))
    return float(np.mean(losses))


def test_lovasz_is_the_published_algorithm():
    labels, logits = example()
    assert float(lovasz()(labels, logits)) == pytest.approx(lovasz_reference(labels, logits), abs=1e-5)
    per_image = [lovasz_reference(labels[i : i + 1], logits[i : i + 1]) for i in range(len(labels))]
    assert float(lovasz(per_image=True)(labels, logits)) == pytest.approx(np.mean(per_image), abs=1e-5)
    assert np.mean(per_image) != pytest.approx(lovasz_reference(labels, logits), abs=1e-3)


def test_lovasz_falls_as_the_published_algorithm_does():
    labels, logits = example()
    _, gradient = value_and_gradient(lovasz(), labels, logits)
    directions = np.random.default_rng(1).normal(size=(20, *logits.shape))
    slopes = [
        lovasz_reference(labels, logits + 1e-6 * direction) - lovasz_reference(labels, logits - 1e-6 * direction)
        for direction in directions
    ]
    assert (gradient * directions).sum((1, 2, 3, 4)) == pytest.approx(np.array(slopes) / 2e-6, abs=1e-5)
    assert np.ptp(slopes) / 2e-6 > 0.05


@pytest.mark.parametrize("bins", [2, 10, 100])
def test_lovasz_is_exact_to_one_bin(bins):
    labels, logits = example()
    difference = abs(float(lovasz(bins=bins)(labels, logits)) - lovasz_reference(labels, logits))
    assert difference <= 1 / bins


def test_lovasz_of_a_photo_needs_no_more_classes_than_it_has():
    labels, logits = example()
    whole = float(lovasz(per_image=True)(labels, logits))
    assert float(lovasz(per_image=True, most=CLASSES - 1)(labels, logits)) == pytest.approx(whole, rel=1e-6)
    assert float(lovasz(per_image=True, most=2)(labels, logits)) != pytest.approx(whole, rel=1e-3)


def sure_of(labels: np.ndarray, classes: int = CLASSES) -> np.ndarray:
    return 40 * np.eye(classes, dtype=np.float32)[np.where(labels == IGNORE, 0, labels)]


@every
def test_a_perfect_prediction_costs_nothing(loss):
    labels, _ = example()
    assert float(loss(labels, sure_of(labels))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("loss", [dice(), dice(squared=True), tversky(exponent=0.75), lovasz(), lovasz(per_image=True)])
def test_a_wholly_wrong_prediction_costs_1(loss):
    labels = np.array([[[0, 0, 1]], [[1, 0, 1]]], np.uint8)
    assert float(loss(labels, sure_of(1 - labels, 2))) == pytest.approx(1, abs=1e-5)


@every
def test_ignored_pixels_count_nowhere(loss):
    labels, logits = example()
    counted = np.ones_like(labels[0], bool)
    counted[0] = False  # with whole rows ignored, what counts is a batch of its own
    labels[:, 0] = IGNORE
    value, gradient = value_and_gradient(loss, labels, logits)
    assert value == pytest.approx(float(loss(labels[:, 1:], logits[:, 1:])), rel=1e-5)
    assert np.all(gradient[:, ~counted] == 0) and np.all(np.any(gradient[:, counted] != 0, axis=-1))
    changed = np.where(counted[..., None], logits, np.flip(logits, -1) * 9)
    assert float(loss(labels, changed)) == value


@every
def test_a_batch_without_a_pixel_that_counts_costs_nothing(loss):
    _, logits = example()
    value, gradient = value_and_gradient(loss, np.full(logits.shape[:-1], IGNORE, np.uint8), logits)
    assert value == 0 and np.all(gradient == 0)


def test_a_photo_without_a_pixel_that_counts_is_left_out_of_the_mean_of_photos():
    labels, logits = example()
    labels[1] = IGNORE
    loss = lovasz(per_image=True)
    assert float(loss(labels, logits)) == pytest.approx(float(loss(labels[::2], logits[::2])), rel=1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "cross_entropy_adjusted"])
def test_a_class_that_is_neither_there_nor_predicted_changes_nothing(name):
    labels, logits = example()
    more = np.concatenate([logits, np.full_like(logits[..., :1], -200)], axis=-1)
    assert float(EVERY[name](labels, more)) == pytest.approx(float(EVERY[name](labels, logits)), rel=1e-5)


@every
def test_coarser_logits_are_resized_to_the_labels(loss):
    labels, logits = example()
    coarse = logits[:, ::2, ::2]
    fine = keras.ops.image.resize(coarse, labels.shape[1:], interpolation="bilinear")
    value, gradient = value_and_gradient(loss, labels, coarse)
    assert value == pytest.approx(float(loss(labels, fine)), rel=1e-6)
    assert gradient.shape == coarse.shape and np.any(gradient != 0)


@every
@pytest.mark.parametrize("scale", [0, 1, 1000])
def test_gradients_are_finite(loss, scale):
    labels, logits = example()
    value, gradient = value_and_gradient(loss, labels, logits * scale)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    _, gradient = value_and_gradient(loss, labels, sure_of(labels) * scale)
    assert np.all(np.isfinite(gradient))


@every
def test_half_precision_logits_are_computed_in_float32(loss):
    labels, logits = example()
    half = tf.cast(logits, tf.bfloat16)
    assert loss(labels, half).dtype == tf.float32
    assert float(loss(labels, half)) == float(loss(labels, tf.cast(half, tf.float32)))


# Compiling takes a second each.
@pytest.mark.parametrize(
    ("name", "compiled"), [*((name, False) for name in EVERY), ("sum", True), ("lovasz_per_image", True)]
)
def test_graphs_of_unknown_batch_size_give_the_same(name, compiled):
    labels, logits = example()
    loss = EVERY[name]
    signature = [tf.TensorSpec((None, *labels.shape[1:]), tf.uint8), tf.TensorSpec((None, *logits.shape[1:]))]
    graph = tf.function(lambda *args: loss(*args), input_signature=signature, jit_compile=compiled)
    for batch in (3, 1):
        expected = float(loss(labels[:batch], logits[:batch]))
        assert float(graph(labels[:batch], logits[:batch])) == pytest.approx(expected, rel=1e-5)


@every
def test_each_of_two_devices_adds_half_of_its_loss(loss, monkeypatch):
    whole = float(loss(*example()))
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=2))
    assert float(loss(*example())) == pytest.approx(whole / 2, rel=1e-6)


TRAINED = EVERY | {"cross_entropy_smoothed": cross_entropy(label_smoothing=0.1)}


@pytest.mark.parametrize("loss", TRAINED.values(), ids=TRAINED)
def test_training_lowers_it(loss):
    keras.utils.set_random_seed(0)
    labels, _ = example()
    photos = sure_of(labels)[:, ::2, ::2, :3] / 40
    model = keras.Sequential([keras.Input(photos.shape[1:]), keras.layers.Conv2D(CLASSES, 1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=loss, run_eagerly=True)
    losses = model.fit(photos, labels, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.005


JAX = """
import json, sys
import jax, keras, numpy as np
from clothseg.training.losses import LovaszSoftmax, CrossEntropy, Dice, Focal, Sum, Tversky

assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
plain = dict(prior=None, adjustment=0.0)
losses = [
    CrossEntropy(class_weights=[1, 2, 3, 4, 5, 6], label_smoothing=0.0, **plain),
    CrossEntropy(class_weights=None, label_smoothing=0.1, **plain),
    Focal(gamma=2.0, class_weights=None),
    Dice(smooth=1.0, squared=False),
    Tversky(alpha=0.3, beta=0.7, smooth=0.0, exponent=0.75),
    LovaszSoftmax(per_image=True, most=4, bins=1000),
]
losses.append(Sum(dict(enumerate(losses)), dict.fromkeys(range(len(losses)), 1.0)))
labels, logits = np.load(sys.argv[1]), np.load(sys.argv[2])
found = []
for loss in losses:
    value, gradient = jax.jit(jax.value_and_grad(lambda logits: loss(labels, logits)))(logits)
    found.append([float(value), float(np.square(gradient).sum())])
print(json.dumps(found))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_jax_gives_the_same(tmp_path):
    labels, logits = example()
    coarse = logits[:, ::2, ::2]
    paths = [str(tmp_path / f"{name}.npy") for name in ("labels", "logits")]
    for path, array in zip(paths, (labels, coarse), strict=True):
        np.save(path, array)
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", JAX, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = {
        "a": cross_entropy(class_weights=[1, 2, 3, 4, 5, 6]),
        "b": cross_entropy(label_smoothing=0.1),
        "c": focal(),
        "d": dice(smooth=1.0),
        "e": tversky(exponent=0.75),
        "f": lovasz(per_image=True, most=4, bins=1000),
    }
    losses["sum"] = Sum(dict(losses), dict.fromkeys(losses, 1.0))
    expected = []
    for loss in losses.values():
        value, gradient = value_and_gradient(loss, labels, coarse)
        expected.append([value, float(np.square(gradient).sum())])
    assert np.array(json.loads(done.stdout)) == pytest.approx(np.array(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: cross_entropy(label_smoothing=1.5),
            "label_smoothing=1.5 of a loss does not work: it may be a number of 0",
        ),
        (lambda: cross_entropy(adjustment="much"), "adjustment=much of a loss does not work: it may be a number of at"),
        (lambda: focal(gamma=-1), "gamma=-1 of a loss does not work: it may be a number of at least 0"),
        (lambda: dice(smooth=float("nan")), "smooth=nan of a loss does not work"),
        (lambda: tversky(exponent=0), "exponent=0 of a loss does not work: it may be a number of 0.1 to 10"),
        (lambda: lovasz(most=0), "most=0 of a loss does not work: it may be a number of at least 1"),
        (lambda: lovasz(bins=10.5), "bins=10.5 of a loss does not work: it has to be a whole number"),
        (
            lambda: Sum({"dice": dice()}, {"dise": 1.0}),
            "losses: dice; weights: dise: both have to name the same, and dice",
        ),
        (lambda: Sum({}, {}), "weights={} of a sum of losses do not work: at least one has to be above 0"),
        (lambda: Sum({"dice": dice()}, {"dice": 0}), "weights={'dice': 0} of a sum"),
        (lambda: Sum({"dice": dice()}, {"dice": -1}), "weights.dice=-1 of a loss does not work"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(UserError) as told:
        make()
    assert message in str(told.value)


FREQUENCIES = ClassFrequencies(
    np.array([800, 100, 60, 39, 1, 0]), photo_pixels=np.array([1000, 1000, 500, 500, 100, 0])
)


def composed(*overrides: str):
    with hydra.initialize_config_dir(str(entry.config_folder())):
        cfg = hydra.compose("train", [*overrides])
    with execution_whitelist(entry.TARGETS):
        return made(entry.build(cfg.loss), FREQUENCIES)


def test_the_default_is_the_loss_of_the_article():
    labels, logits = example()
    labels[labels == IGNORE] = 0
    keras_own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(composed()(labels, logits)) == float(keras_own(labels, logits))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["loss=focal", "loss.gamma=1"], focal(gamma=1)),
        (["loss=dice", "loss.smooth=0", "loss.squared=true"], dice(squared=True)),
        (["loss=tversky", "loss.smooth=0"], tversky()),
        (["loss=lovasz"], lovasz(per_image=True, most=16, bins=1000)),
        (["loss.label_smoothing=0.1"], cross_entropy(label_smoothing=0.1)),
        # 800/1000 over 100/1000, 60/500, 39/500 and 1/100
        (
            ["loss.class_weights=median_frequency", "loss.weighting.power=1", "loss.weighting.maximum=50"],
            cross_entropy(class_weights=[1, 8, 8 / 1.2, 8 / 0.78, 50, 0]),
        ),
        (
            ["loss=focal", "loss.class_weights=effective_number", "loss.weighting.beta=1", "loss.weighting.power=0.5"],
            focal(class_weights=[1, 8**0.5, (80 / 6) ** 0.5, (800 / 39) ** 0.5, 800**0.5, 0]),
        ),
        (["loss.adjustment=1"], cross_entropy(prior=[0.8, 0.1, 0.06, 0.039, 0.001, 0], adjustment=1.0)),
        (
            ["loss=cross_entropy_dice", "loss.weights.dice=0.3"],
            Sum({"a": cross_entropy(), "b": dice(smooth=1.0)}, {"a": 1.0, "b": 0.3}),
        ),
        (
            ["loss=cross_entropy_lovasz", "loss.losses.cross_entropy.label_smoothing=0.1"],
            Sum(
                {"a": cross_entropy(label_smoothing=0.1), "b": lovasz(per_image=True, bins=1000)}, {"a": 1.0, "b": 1.0}
            ),
        ),
        (
            ["loss=cross_entropy_dice", "+loss@loss.losses.lovasz=lovasz", "+loss.weights.lovasz=0.5"],
            Sum(
                {"a": cross_entropy(), "b": dice(smooth=1.0), "c": lovasz(per_image=True, bins=1000)},
                {"a": 1.0, "b": 1.0, "c": 0.5},
            ),
        ),
        (["loss=sum", "+loss@loss.losses.dice=dice", "+loss.weights.dice=2"], Sum({"a": dice(smooth=1.0)}, {"a": 2.0})),
        (
            ["loss=sum", "+loss.losses.own._target_=keras.losses.SparseCategoricalCrossentropy"]
            + ["+loss.losses.own.from_logits=true", "+loss.weights.own=1"],
            cross_entropy(),
        ),
        (
            ["loss=sum", "+loss.losses.own._target_=keras.losses.SparseCategoricalCrossentropy"]
            + ["+loss.losses.own._partial_=true", "+loss.losses.own.from_logits=true", "+loss.weights.own=1"],
            cross_entropy(),
        ),
    ],
)
def test_a_configuration_makes_the_loss_it_says(overrides, expected):
    labels, logits = example()
    assert float(composed(*overrides)(labels, logits)) == pytest.approx(float(expected(labels, logits)), rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.class_weights=median"], "class_weights=median does not exist"),
        (["loss=sum"], "at least one has to be above 0"),
        (["loss.weighting=null"], "loss.weighting=None has to be beta, power and maximum"),
        (["loss=cross_entropy_dice", "loss.weights=null"], "loss.weights=None has to name losses"),
        (["loss=cross_entropy_dice", "+loss.losses.x=3", "+loss.weights.x=1"], "loss.losses.x=3 is no loss"),
        (["loss=dice", "loss.squared=0.5"], "squared=0.5 of a loss does not work: it may be true or false"),
        (["loss=lovasz", "loss.per_image=5"], "per_image=5 of a loss does not work"),
        (["loss=cross_entropy_dice", "+loss.weights.lovasz=1"], "lovasz is in one alone"),
        (["loss=lovasz", "+loss.bin=3"], "unexpected keyword argument 'bin'"),
        (["+loss.weighting.gamma=3"], "unexpected keyword argument 'gamma'"),
    ],
)
def test_a_configuration_that_says_something_else_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides)


def test_a_loss_of_keras_takes_coarser_logits_and_leaves_out_what_does_not_count():
    labels, logits = example()
    assert (labels == IGNORE).any()
    own = made(keras.losses.SparseCategoricalCrossentropy(from_logits=True), FREQUENCIES)
    for given in (logits, logits[:, ::2, ::2]):
        assert float(own(labels, given)) == pytest.approx(float(cross_entropy()(labels, given)), rel=1e-5)

    class OfPhotos(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred, axis=(1, 2, 3))

    with pytest.raises(UserError, match=r"loss=OfPhotos gives \(\d,\) instead of one value for each pixel"):
        made(OfPhotos(), FREQUENCIES)(labels, logits)


def test_lovasz_of_what_is_no_number_is_none_either():
    labels, logits = example()
    assert np.isnan(float(lovasz()(labels, logits * np.nan)))
