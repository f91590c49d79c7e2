"""Phases follow each other, freeze what they say, and keep what was best."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest

from clothseg.training.phases import Checkpoints, DivergedError, Epoch, History, Phase, fit_phases

CLASSES = 3


def network() -> tuple[keras.Model, keras.Model]:
    """A network of a few weights, and its encoder, which has a batch norm."""
    photo = keras.Input((4, 4, 3))
    encoder = keras.Model(photo, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(photo)), name="encoder")
    model = keras.Model(photo, keras.layers.Conv2D(CLASSES, 1)(encoder(photo)))
    return model, encoder


def batches(first_step: int):
    step = first_step
    while True:
        random = np.random.default_rng(step)
        yield random.random((2, 4, 4, 3), np.float32), random.integers(0, CLASSES, (2, 4, 4), np.uint8)
        step += 1


def phase(
    name: str, *, epochs: int = 2, frozen: bool = False, steps: int = 3, first: int = 0, rate: float = 0.1
) -> Phase:
    return Phase(name, epochs, frozen, steps, None, first, lambda: keras.optimizers.SGD(rate))


def fit(model, encoder, phases, *, training=batches, validation=None, after_epoch=(), after_phase=()) -> History:
    history = History()
    fit_phases(
        model, encoder, phases=phases, training=training, validation=validation or next(batches(99)), classes=CLASSES,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), placement=nullcontext, jit_compile=False,
        batch_size=2, history=history, after_epoch=after_epoch, after_phase=after_phase,
    )  # fmt: skip
    return history


def test_epochs_are_counted_across_phases_and_every_listener_hears_of_them():
    heard, ended = [], []
    history = fit(
        *network(),
        [phase("first", epochs=2), phase("second", epochs=3, rate=0.01)],
        after_epoch=[lambda epoch, _: heard.append(epoch.number)],
        after_phase=[lambda epoch, _: ended.append(epoch.number)],
    )
    assert heard == [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5]
    assert ended == [2, 5]
    assert history.phases() == [("first", 1), ("second", 3)]
    assert history.series()["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01])
    assert all(epoch.confusion.sum() == 2 * 4 * 4 for epoch in history.epochs)


def test_every_phase_begins_in_the_data_where_it_is_told_to():
    begun = []

    def training(first_step: int):
        begun.append(first_step)
        return batches(first_step)

    fit(*network(), [phase("a", first=0), phase("b", first=6), phase("c", first=11)], training=training)
    assert begun == [0, 6, 11]


def test_limited_validation_scores_the_same_first_batches_every_epoch():
    import tensorflow as tf

    photos, labels = np.zeros((5, 4, 4, 3), np.float32), np.zeros((5, 4, 4), np.uint8)
    # Batches of 2, 2 and 1, told apart by their labels.
    labels[2:4], labels[4] = 1, 2
    validation = tf.data.Dataset.from_tensor_slices((photos, labels)).batch(2)
    limited = Phase("p", 3, False, 2, 2, 0, lambda: keras.optimizers.SGD(0.1))
    history = fit(*network(), [limited], validation=validation)
    assert [epoch.confusion.sum(axis=1).tolist() for epoch in history.epochs] == [[32, 32, 0]] * 3


def test_a_frozen_encoder_stays_to_the_bit_with_its_statistics_and_a_trainable_one_moves():
    model, encoder = network()
    before = [value.copy() for value in encoder.get_weights()]
    fit(model, encoder, [phase("frozen", frozen=True)])
    assert all(np.array_equal(a, b) for a, b in zip(before, encoder.get_weights(), strict=True))
    fit(model, encoder, [phase("tuned")])
    assert all(not np.array_equal(a, b) for a, b in zip(before, encoder.get_weights(), strict=True))


def test_a_loss_that_is_no_number_stops_the_training_and_says_where():
    with pytest.raises(DivergedError, match=r"epoch 1, step \d, at learning rate 1e\+30"):
        fit(*network(), [phase("wild", rate=1e30)])


def test_the_best_epoch_is_the_first_of_the_highest():
    epochs = [
        Epoch(n + 1, phase("p"), {"val/miou": value}, np.zeros((1, 1))) for n, value in enumerate([0.1, 0.3, 0.3])
    ]
    assert History(epochs).best("val/miou").number == 2
    assert History().best("val/miou") is None


def test_weights_of_the_best_and_of_the_last_epoch_are_kept(tmp_path: Path):
    model, encoder = network()
    checkpoints = Checkpoints(model, tmp_path / "weights", metric="val/accuracy")
    seen: list[np.ndarray] = []
    history = fit(
        model, encoder, [phase("p", epochs=4)],
        after_epoch=[checkpoints, lambda *_: seen.append(model.get_weights()[0].copy())],
    )  # fmt: skip
    assert {which: epoch.number for which, epoch in checkpoints.saved.items()} == {
        "last": 4,
        "best": history.best("val/accuracy").number,
    }
    for which, epoch in checkpoints.saved.items():
        model.load_weights(checkpoints.path(which))
        np.testing.assert_array_equal(model.get_weights()[0], seen[epoch.number - 1])
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["best.weights.h5", "last.weights.h5"]
