"""Phases follow each other, freeze what they say, and keep what was best."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from clothseg.models.unet import Network
from clothseg.training.history import Epoch, History
from clothseg.training.phases import DivergedError, Phase, Rollback, fit_phases
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
        optimizer or (lambda factor: keras.optimizers.SGD(rate * factor)),
    )  # fmt: skip


def fit(
    phases, *, training=None, validation=None, after_epoch=(), after_phase=(), metric="val/accuracy", rollbacks=0,
    tell=None, state=None, keep=None, after_first_step=(),
) -> History:  # fmt: skip
    history = History(list(state.epochs) if state is not None else [])
    rollback = Rollback(rollbacks, 0.1, lambda phase, step: [f"photo {step}"] * 5, tell or (lambda what: None))
    fit_phases(
        phases=phases, training=training or (lambda phase: batches(phase.first_step)),
        validation=validation or (lambda phase: next(batches(99))), classes=CLASSES,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), presence_weight=0.5, placement=nullcontext,
        jit_compile=False, batch_size=2, metric=metric, rollback=rollback, history=history, state=state,
        keep=keep or (lambda state: None), after_first_step=after_first_step, after_epoch=after_epoch,
        after_phase=after_phase,
    )  # fmt: skip
    return history


def test_epochs_are_counted_across_phases_and_every_listener_hears_of_them():
    heard, ended, counted = [], [], []
    net = network()
    history = fit(
        [phase(net, "first", epochs=2), phase(net, "second", epochs=3, rate=0.01)],
        after_epoch=[
            lambda epoch, _: heard.append(epoch.number),
            lambda epoch, _: counted.append(epoch.confusion.sum()),
        ],
        after_phase=[lambda epoch, _: ended.append(epoch.number)],
    )
    assert heard == [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5]
    assert ended == [2, 5]
    assert history.phases() == [("first", 1), ("second", 3)]
    assert history.series()["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01])
    assert counted == [2 * 4 * 4] * 5
    # Of so many epochs only two are kept with what takes room.
    assert {epoch.number for epoch in history.epochs if epoch.confusion.size} == {
        5,
        history.best("val/accuracy").number,
    }


def test_the_first_step_of_all_is_told_of_once_and_before_its_loss_is_looked_at():
    heard, net = [], network()
    two = [phase(net, "first", epochs=2), phase(net, "second", epochs=1)]

    def training(phase: Phase):
        # The first step diverges, once.
        for photos, labels in batches(phase.first_step):
            yield photos * (1 if heard else np.nan), labels

    fit(two, training=training, rollbacks=1, after_first_step=[lambda: heard.append("a"), lambda: heard.append("b")])
    assert heard == ["a", "b"]


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
    counted = []
    fit(
        [limited],
        validation=lambda phase: validation,
        after_epoch=[lambda epoch, _: counted.append(epoch.confusion.sum(axis=1).tolist())],
    )
    assert counted == [[32, 32, 0]] * 3


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
    still = lambda factor: keras.optimizers.SGD(1e-12)  # noqa: E731
    fit([phase(small, "small"), phase(large, "large", optimizer=still)])
    np.testing.assert_allclose(small.model.get_weights()[0], large.model.get_weights()[0], atol=1e-6)


def test_a_phase_ends_when_the_score_has_not_risen_for_as_long_as_its_patience():
    # The weights stay, and so do the scores: the first epoch is the best.
    net, still = network(), lambda factor: keras.optimizers.SGD(1e-30)
    history = fit(
        [phase(net, "a", epochs=9, patience=2, frozen=True, optimizer=still), phase(net, "b", epochs=2, patience=4)]
    )
    assert [(epoch.number, epoch.phase.name) for epoch in history.epochs] == [
        (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b")
    ]  # fmt: skip


def test_averaged_weights_are_what_is_scored_and_left():
    def averaging(factor):
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
    with pytest.raises(DivergedError, match=r"epoch 1, step \d \(photo \d, .* and 2 more\), at learning rate 1e\+30"):
        fit([phase(network(), rate=1e30)])


def spoilt(*at: int):
    """Batches of which some, counted over all phases, make the loss NaN."""

    def training(phase: Phase):
        for step, (photos, labels) in enumerate(batches(phase.first_step), phase.first_step):
            yield (photos * np.nan if step in at else photos), labels

    return training


def test_weights_that_the_last_step_of_an_epoch_spoilt_are_not_kept():
    kept = []
    # Of steps of two the third and last spoils the weights after its own loss is known, as a rate too high does.
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.1, 1e38])
    with pytest.raises(DivergedError, match="the loss of the validation photos is nan after epoch 2, at learning rate"):
        fit([phase(network(), epochs=3, optimizer=lambda factor: keras.optimizers.SGD(rates))], keep=kept.append)
    assert [len(state.epochs) for state in kept] == [1]
    assert all(np.isfinite(value).all() for value in kept[-1].weights)


def test_after_a_rollback_training_goes_on_from_the_last_good_epoch_at_a_lower_rate():
    told, kept = [], []
    net = network()
    start = [value.copy() for value in net.trained.get_weights()]
    # The fifth batch is spoilt the first time that it is shown.
    shown = []

    def training(phase: Phase):
        shown.append(phase.first_step)
        return spoilt(4)(phase) if len(shown) == 1 else batches(phase.first_step)

    two = [phase(net, "a", epochs=3), phase(net, "b", epochs=1, first=9, rate=0.5)]
    history = fit(two, training=training, rollbacks=1, tell=told.append, keep=kept.append)
    (what,) = told
    assert what.startswith("the loss is nan in epoch 2, step 2 (photo 4, ")
    assert what.endswith("rollback 1 of 1: on from the end of epoch 1, at 0.1 of the learning rate")
    assert shown == [0, 3, 9]
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4]
    assert history.series()["learning_rate"] == pytest.approx([0.1, 0.01, 0.01, 0.05])
    # As if it had been trained so from the beginning, by hand.
    net.trained.set_weights(start)
    net.trained.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    given = batches(0)
    for step in range(9):
        net.trained.optimizer.learning_rate = 0.1 if step < 3 else 0.01
        net.trained.train_on_batch(*next(given))
    trained = {id(variable): place for place, variable in enumerate(net.trained.variables)}
    for variable in net.trained.trainable_variables:
        np.testing.assert_allclose(variable.numpy(), kept[2].weights[trained[id(variable)]], rtol=1e-5)


def test_a_rollback_lowers_a_rate_that_changes_too_and_goes_back_to_the_beginning_of_a_phase():
    def falling(factor):
        from clothseg.training.rates import scaled

        return keras.optimizers.SGD(scaled(keras.optimizers.schedules.PolynomialDecay(0.1, 6, 0.0), factor))

    shown = []

    def training(phase: Phase):
        shown.append(phase.first_step)
        return spoilt(1)(phase) if len(shown) < 3 else batches(phase.first_step)

    told = []
    history = fit([phase(network(), optimizer=falling)], training=training, rollbacks=2, tell=told.append)
    assert shown == [0, 0, 0] and "on from the end of epoch 0" in told[1]
    np.testing.assert_allclose(history.series()["learning_rate"], [0.0005, 0.0], atol=1e-9)


def test_rollbacks_are_no_more_than_asked_for_and_those_before_an_interruption_count():
    always = lambda phase: spoilt(*range(4, 99))(phase)  # noqa: E731
    with pytest.raises(DivergedError, match="no rollback is left of 2; a lower learning rate may work"):
        fit([phase(network(), epochs=3)], training=always, rollbacks=2)
    net, kept = network(), []
    one = [phase(net, epochs=4)]
    shown = []

    def training(phase: Phase):
        shown.append(phase.first_step)
        return spoilt(4)(phase) if len(shown) == 1 else batches(phase.first_step)

    fit(one, training=training, rollbacks=1, keep=kept.append)
    assert [state.rollbacks for state in kept] == [0, 1, 1, 1]
    later = fit(one, training=batches_of, rollbacks=1, state=kept[2])
    assert (later.rollbacks, later.rate) == (1, pytest.approx(0.1))
    assert later.series()["learning_rate"][-1] == pytest.approx(0.01)
    with pytest.raises(DivergedError, match="no rollback is left of 1"):
        fit(one, training=always, rollbacks=1, state=kept[2])


def batches_of(phase: Phase):
    return batches(phase.first_step)


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
