"""Phases follow each other, freeze what they say, and keep what was best."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from clothseg.models.unet import Network
from clothseg.training.history import Epoch, History
from clothseg.training.phases import DivergedError, Phase, fit_phases
from clothseg.training.presence import for_both_heads

CLASSES = 3


def network(presence: bool = False, size: int = 4) -> Network:
    """A network of a few weights, whose encoder has a batch norm."""
    photo = keras.Input((size, size, 3))
    encoder = keras.Model(photo, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(photo)), name="encoder")
    features = encoder(photo)
    logits = keras.layers.Conv2D(CLASSES, 1, name="logits")(features)
    model = keras.Model(photo, logits)
    if not presence:
        return Network(encoder, model, model)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    head = keras.layers.Dense(CLASSES, name="presence")(pooled)
    return Network(encoder, model, keras.Model(photo, [logits, head]))


def batches(first_step: int):
    step = first_step
    while True:
        random = np.random.default_rng(step)
        yield random.random((2, 4, 4, 3), np.float32), random.integers(0, CLASSES, (2, 4, 4), np.uint8)
        step += 1


def phase(
    network: Network, name: str = "p", *, epochs: int = 2, frozen: bool = False, steps: int = 3, first: int = 0,
    rate: float = 0.1, patience: int | None = None, optimizer: Callable | None = None,
    validation_steps: int | None = None, batch_norm_frozen: bool = False,
) -> Phase:  # fmt: skip
    return Phase(
        name, network, epochs, frozen, batch_norm_frozen, steps, validation_steps, first, patience,
        optimizer or (lambda: keras.optimizers.SGD(rate)),
    )  # fmt: skip


def fit(phases, *, training=None, validation=None, after_epoch=(), after_phase=(), metric="val/accuracy") -> History:
    history = History()
    fit_phases(
        phases=phases, training=training or (lambda phase: batches(phase.first_step)),
        validation=validation or (lambda phase: next(batches(99))), classes=CLASSES,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), presence_weight=0.5, placement=nullcontext,
        jit_compile=False, batch_size=2, metric=metric, history=history, state=None,
        keep=lambda state: None, after_epoch=after_epoch, after_phase=after_phase,
    )  # fmt: skip
    return history


def test_epochs_are_counted_across_phases_and_every_listener_hears_of_them():
    heard, ended = [], []
    net = network()
    history = fit(
        [phase(net, "first", epochs=2), phase(net, "second", epochs=3, rate=0.01)],
        after_epoch=[lambda epoch, _: heard.append(epoch.number)],
        after_phase=[lambda epoch, _: ended.append(epoch.number)],
    )
    assert heard == [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5]
    assert ended == [2, 5]
    assert history.phases() == [("first", 1), ("second", 3)]
    assert history.series()["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01])
    assert all(epoch.confusion.sum() == 2 * 4 * 4 for epoch in history.epochs)


def test_every_phase_begins_in_the_data_where_it_is_told_to():
    begun, net = [], network()

    def training(phase: Phase):
        begun.append(phase.first_step)
        return batches(phase.first_step)

    fit([phase(net, "a", first=0), phase(net, "b", first=6), phase(net, "c", first=11)], training=training)
    assert begun == [0, 6, 11]


def test_limited_validation_scores_the_same_first_batches_every_epoch():
    import tensorflow as tf

    photos, labels = np.zeros((5, 4, 4, 3), np.float32), np.zeros((5, 4, 4), np.uint8)
    # Batches of 2, 2 and 1, told apart by their labels.
    labels[2:4], labels[4] = 1, 2
    validation = tf.data.Dataset.from_tensor_slices((photos, labels)).batch(2)
    limited = phase(network(), epochs=3, steps=2, validation_steps=2)
    history = fit([limited], validation=lambda phase: validation)
    assert [epoch.confusion.sum(axis=1).tolist() for epoch in history.epochs] == [[32, 32, 0]] * 3


def test_a_frozen_encoder_stays_to_the_bit_with_its_statistics_and_a_trainable_one_moves():
    net = network()
    before = [value.copy() for value in net.encoder.get_weights()]
    fit([phase(net, frozen=True)])
    assert all(np.array_equal(a, b) for a, b in zip(before, net.encoder.get_weights(), strict=True))
    fit([phase(net)])
    assert all(not np.array_equal(a, b) for a, b in zip(before, net.encoder.get_weights(), strict=True))


def test_batch_norms_may_be_held_still_in_an_encoder_that_is_trained():
    net = network()
    kernel, bias, *norm = (value.copy() for value in net.encoder.get_weights())
    fit([phase(net, batch_norm_frozen=True)])
    after_kernel, _, *after_norm = net.encoder.get_weights()
    assert len(norm) == 4 and all(np.array_equal(a, b) for a, b in zip(norm, after_norm, strict=True))
    assert not np.array_equal(kernel, after_kernel)


def test_a_phase_at_another_size_goes_on_with_the_weights_of_the_one_before():
    small, large = network(), network()
    assert not np.array_equal(small.model.get_weights()[0], large.model.get_weights()[0])
    still = lambda: keras.optimizers.SGD(1e-12)  # noqa: E731
    fit([phase(small, "small"), phase(large, "large", optimizer=still)])
    np.testing.assert_allclose(small.model.get_weights()[0], large.model.get_weights()[0], atol=1e-6)


def test_a_phase_ends_when_the_score_has_not_risen_for_as_long_as_its_patience():
    # The weights stay, and so do the scores: the first epoch is the best.
    net, still = network(), lambda: keras.optimizers.SGD(1e-30)
    history = fit(
        [phase(net, "a", epochs=9, patience=2, frozen=True, optimizer=still), phase(net, "b", epochs=2, patience=4)]
    )
    assert [(epoch.number, epoch.phase.name) for epoch in history.epochs] == [
        (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b")
    ]  # fmt: skip


def test_averaged_weights_are_what_is_scored_and_left():
    def averaging():
        return keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)

    net, saved = network(), []
    fit([phase(net, epochs=2, optimizer=averaging)], after_epoch=[lambda *_: saved.append(net.model.get_weights()[0])])
    np.testing.assert_array_equal(saved[-1], net.model.get_weights()[0])
    average = net.trained.optimizer._model_variables_moving_average[0]
    np.testing.assert_allclose(saved[-1], average)


def test_a_network_with_the_auxiliary_head_trains_both_and_reports_the_same_scores():
    net = network(presence=True)
    before = net.trained.get_layer("presence").get_weights()[0].copy()
    both = lambda phase: (for_both_heads(*batch) for batch in batches(phase.first_step))  # noqa: E731
    history = fit([phase(net)], training=both, validation=lambda phase: for_both_heads(*next(batches(99))))
    scores = history.epochs[-1].scores
    plain = fit([phase(network())]).epochs[-1].scores
    assert set(plain) < set(scores)
    assert scores["val/loss"] == pytest.approx(scores["val/logits_loss"] + 0.5 * scores["val/presence_loss"], rel=1e-4)
    assert not np.array_equal(before, net.trained.get_layer("presence").get_weights()[0])


def test_a_loss_that_is_no_number_stops_the_training_and_says_where():
    with pytest.raises(DivergedError, match=r"epoch 1, step \d, at learning rate 1e\+30"):
        fit([phase(network(), rate=1e30)])


def test_the_best_epoch_is_the_first_of_the_highest():
    epochs = [
        Epoch(n + 1, phase(network()), {"val/miou": value}, np.zeros((1, 1))) for n, value in enumerate([0.1, 0.3, 0.3])
    ]
    assert History(epochs).best("val/miou").number == 2
    assert History().best("val/miou") is None


def test_scores_at_another_size_are_no_competition():
    small, large = network(), network(size=8)
    epochs = [
        Epoch(n + 1, phase(net), {"val/miou": value}, np.zeros((1, 1)))
        for n, (net, value) in enumerate([(small, 0.5), (small, 0.4), (large, 0.1), (large, 0.2)])
    ]
    assert [History(epochs[:n]).best("val/miou").number for n in (1, 2, 3, 4)] == [1, 1, 3, 4]
