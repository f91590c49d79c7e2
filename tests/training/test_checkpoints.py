"""A training that is interrupted anywhere goes on as if it had not been, and what is kept of it is always whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import keras
import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.models.unet import Network
from clothseg.training.checkpoints import STATE, Checkpoints, State, read_state, restore
from clothseg.training.history import Epoch, History
from clothseg.training.phases import Phase, Rollback, fit_phases

CLASSES, STEPS = 3, 3
EPOCHS = {"frozen": 2, "small": 3, "large": 2}
TOTAL_STEPS = STEPS * sum(EPOCHS.values())


class Killed(BaseException):
    """As a process is: nothing that follows is done."""


NONE = Rollback(0, 0.1, lambda phase, step: [], lambda what: None)


def network(size: int) -> Network:
    """With everything that has a state: batch norm, dropout with random numbers, an encoder that may be frozen."""
    photo = keras.Input((size, size, 3))
    features = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(photo))
    encoder = keras.Model(photo, features, name="encoder")
    dropped = keras.layers.Dropout(0.3, seed=5)(encoder(photo))
    model = keras.Model(photo, keras.layers.Conv2D(CLASSES, 1)(dropped))
    return Network(encoder, model, model)


def batches(phase: Phase) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step, size = phase.first_step, phase.network.model.input_shape[1]
    while True:
        random = np.random.default_rng(step)
        yield random.random((2, size, size, 3), np.float32), random.integers(0, CLASSES, (2, size, size), np.uint8)
        step += 1


def averaging(span: int) -> Callable[[float], keras.Optimizer]:
    rate = keras.optimizers.schedules.CosineDecay(0.05, span)
    return lambda factor: keras.optimizers.AdamW(rate, use_ema=True, ema_momentum=0.7)


def phases(patience: int | None = None) -> list[Phase]:
    """Three, with other optimizers and the last at another size."""
    keras.utils.set_random_seed(3)
    small, large = network(4), network(8)
    return [
        Phase("frozen", small, 2, True, False, STEPS, None, 0, patience, lambda factor: keras.optimizers.RMSprop(0.01)),
        Phase("small", small, 3, False, False, STEPS, None, 2 * STEPS, patience, averaging(3 * STEPS)),
        Phase("large", large, 2, False, True, STEPS, None, 5 * STEPS, patience, averaging(2 * STEPS)),
    ]


def train(
    folder: Path, *, kill_at_step: int | None = None, keep: Callable[[State], None] | None = None, patience=None
) -> tuple[History, Checkpoints, list[np.ndarray]]:
    """Trains on from the state in a folder, if there is one."""
    own = phases(patience)
    checkpoints = Checkpoints(folder, metric="val/accuracy", begun=0.0)
    state, history = None, History()
    if (folder / STATE).exists():
        state = read_state(folder / STATE, lambda name: next(phase for phase in own if phase.name == name))
        history.epochs.extend(state.epochs)
    shown = 0

    def training(phase: Phase):
        nonlocal shown
        for step, batch in enumerate(batches(phase), phase.first_step):
            if step == kill_at_step:
                raise Killed
            shown += 1
            yield batch

    fit_phases(
        phases=own, training=training, validation=lambda phase: next(batches(phase)), classes=CLASSES,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), presence_weight=0.5, placement=nullcontext,
        jit_compile=False, batch_size=2, metric="val/accuracy", rollback=NONE, history=history, state=state,
        keep=keep or checkpoints.keep, after_first_step=[], after_epoch=[checkpoints], after_phase=[],
    )  # fmt: skip
    return history, checkpoints, own[-1].network.model.get_weights()


def told(history: History) -> list[tuple]:
    """What two trainings have to agree in; speed is none of it."""
    return [
        (
            epoch.number,
            epoch.phase.name,
            {name: value for name, value in epoch.scores.items() if name != "images_per_second"},
            epoch.confusion.tolist(),
        )
        for epoch in history.epochs
    ]


def files(folder: Path) -> dict[str, list[np.ndarray]]:
    net, found = network(8).model, {}
    for which in ("best", "last"):
        Checkpoints(folder, metric="val/accuracy", begun=0.0).load(which, net)
        found[which] = net.get_weights()
    return found


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    history, checkpoints, weights = train(folder)
    assert [epoch.phase.name for epoch in history.epochs] == ["frozen"] * 2 + ["small"] * 3 + ["large"] * 2
    # Something is learned, so that there is something to lose.
    assert len({str(epoch.scores) for epoch in history.epochs}) == len(history.epochs)
    return told(history), {name: epoch.number for name, epoch in checkpoints.saved.items()}, weights, files(folder)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_training_killed_again_and_again_ends_with_the_same_bits(whole, tmp_path, seed):
    told_whole, saved, weights, kept = whole
    random = np.random.default_rng(seed)
    for step in sorted(random.choice(np.arange(1, TOTAL_STEPS), 4, replace=False)):
        # What an iterator raises comes out of Keras as an error of TensorFlow.
        with pytest.raises((Killed, Exception)):
            train(tmp_path, kill_at_step=int(step))
    history, checkpoints, ended = train(tmp_path)
    assert told(history) == told_whole
    assert {name: epoch.number for name, epoch in checkpoints.saved.items()} == saved
    assert same(ended, weights)
    assert all(same(kept[which], files(tmp_path)[which]) for which in kept)


@pytest.mark.parametrize("epoch", [2, 4, 5, 7])
def test_a_kill_between_state_and_weights_loses_neither(whole, tmp_path, epoch):
    told_whole, saved, weights, kept = whole
    checkpoints = Checkpoints(tmp_path, metric="val/accuracy", begun=0.0)

    def keep_and_die(state: State) -> None:
        checkpoints.keep(state)
        if len(state.epochs) == epoch:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, keep=keep_and_die)
    history, checkpoints, ended = train(tmp_path)
    assert told(history) == told_whole and same(ended, weights)
    assert {name: of.number for name, of in checkpoints.saved.items()} == saved
    assert all(same(kept[which], files(tmp_path)[which]) for which in kept)


def test_what_a_crash_left_half_written_is_ignored(whole, tmp_path):
    with pytest.raises((Killed, Exception)):
        train(tmp_path, kill_at_step=4 * STEPS)
    for name in ("state", "last", "best"):
        kept = (tmp_path / f"{name}.npz").read_bytes()
        (tmp_path / f"{name}.partial.npz").write_bytes(kept[: len(kept) // 2])
    history, _, ended = train(tmp_path)
    assert told(history) == whole[0] and same(ended, whole[2])
    assert all(same(whole[3][which], files(tmp_path)[which]) for which in whole[3])
    assert not list(tmp_path.glob("*.partial.*"))


def test_what_an_ended_training_is_taken_up_with_is_its_end(whole, tmp_path):
    train(tmp_path)
    history, _, ended = train(tmp_path)
    assert told(history) == whole[0] and same(ended, whole[2])


def test_patience_is_remembered(tmp_path):
    whole, *_ = train(tmp_path / "whole", patience=1)
    assert len(whole.epochs) < sum(EPOCHS.values())
    for step in (4, 8, 16):
        # A phase may be over before that step.
        with suppress(Killed, Exception):
            train(tmp_path / "killed", kill_at_step=step, patience=1)
    history, *_ = train(tmp_path / "killed", patience=1)
    assert told(history) == told(whole)


def test_a_full_disk_is_told_and_leaves_what_was_kept(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, metric="val/accuracy", begun=0.0)
    model = network(4).model
    model.compile(optimizer="sgd", loss="mse")
    state = State.of(History([_epoch(1)]), model, trained=[np.array(one) for one in model.trainable_variables])
    checkpoints.keep(state)
    before = (tmp_path / STATE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: checkpoints.keep(state), lambda: checkpoints.write("last", model)):
        with pytest.raises(
            UserError, match=r"cannot be written \(No space left on device\); what was kept before is as"
        ):
            write()
    assert (tmp_path / STATE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize("content", [b"", b"PK", b"not a state", "half", "pickle"])
def test_what_is_no_state_is_refused_and_never_unpickled(tmp_path, content):
    path = tmp_path / STATE
    if content == "pickle":
        np.savez(path, about=np.array([print], object))
    elif content == "half":
        model = network(4).model
        model.compile(optimizer="sgd", loss="mse")
        trained = [np.array(one) for one in model.trainable_variables]
        Checkpoints(tmp_path, metric="val/accuracy", begun=0.0).keep(
            State.of(History([_epoch(1)]), model, trained=trained)
        )
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"state.npz is no state of a training \("):
        read_state(path, lambda name: None)


def test_the_state_of_another_network_is_refused():
    small, other = network(4).model, keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    for model in (small, other):
        model.compile(optimizer="sgd", loss="mse")
    state = State.of(History([_epoch(1)]), small, trained=[np.array(one) for one in small.trainable_variables])
    with pytest.raises(UserError, match="variables of the network, and the one made from the configuration has 2"):
        restore(state, other)


def _epoch(number: int) -> Epoch:
    return Epoch(number, phases()[0], {"val/accuracy": 0.5}, np.eye(CLASSES, dtype=np.int64))


def test_weights_of_the_best_and_of_the_last_epoch_are_kept(tmp_path):
    phase = phases()[0]
    model, history = phase.network.model, History()
    checkpoints = Checkpoints(tmp_path / "weights", metric="val/accuracy", begun=0.0)
    for number, score in enumerate([0.2, 0.5, 0.5, 0.4], 1):
        model.layers[-1].bias.assign([number] * CLASSES)
        history.epochs.append(Epoch(number, phase, {"val/accuracy": score}, np.eye(CLASSES)))
        checkpoints(history.epochs[-1], history)
    assert {which: epoch.number for which, epoch in checkpoints.saved.items()} == {"last": 4, "best": 2}
    for which, epoch in checkpoints.saved.items():
        checkpoints.load(which, model)
        assert np.array(model.layers[-1].bias).tolist() == [epoch.number] * CLASSES
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["best.npz", "last.npz"]
    checkpoints.export(model)
    assert [path.name for path in checkpoints.files()] == ["best.weights.h5", "last.weights.h5"]
    for which, epoch in checkpoints.saved.items():
        model.load_weights(tmp_path / "weights" / f"{which}.weights.h5")
        assert np.array(model.layers[-1].bias).tolist() == [epoch.number] * CLASSES
    checkpoints.clear()
    assert not list((tmp_path / "weights").iterdir())
