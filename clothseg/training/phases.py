"""Training a model phase after phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from clothseg.errors import UserError
from clothseg.models.unet import Network, freeze
from clothseg.training.averaging import AveragedWeights
from clothseg.training.checkpoints import State, restore
from clothseg.training.history import Epoch, History
from clothseg.training.interruption import BetweenSteps
from clothseg.training.metrics import ConfusionMatrix, segmentation_metrics
from clothseg.training.presence import PresenceLoss, without_head
from clothseg.training.progress import Progress

NAMED = 3  # photos of a batch with which a training diverged


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which nothing about the training changes.

    Attributes:
        name: in figures and logs.
        network: that is trained. Phases at another image size have another, which begins with the weights of the one
            before.
        epochs: how many at most.
        frozen: whether the encoder stays as it is, its batch-norm statistics too.
        batch_norm_frozen: whether the encoder's batch norms stay as they are where the encoder itself is trained.
        steps_per_epoch: training batches in an epoch.
        validation_steps: validation batches that are scored, or None for all of them.
        first_step: batches of the endless training data that come before this phase's first.
        patience: epochs without a higher score after which the phase ends, or None for never.
        optimizer: makes the optimizer that this phase is compiled with, its learning rate set and multiplied by what it
            is called with. Called when the weights that the phase trains can be told from those it does not.
    """

    name: str
    network: Network
    epochs: int
    frozen: bool
    batch_norm_frozen: bool
    steps_per_epoch: int
    validation_steps: int | None
    first_step: int
    patience: int | None
    optimizer: Callable[[float], keras.Optimizer]


class DivergedError(UserError):
    """The loss is no longer a number."""


class _Diverged(Exception):
    """Tells where, to what may roll back."""


Listener = Callable[[Epoch, History], None]


@dataclass(frozen=True)
class Rollback:
    """Going on after a divergence from the end of the last good epoch, at a lower learning rate.

    Attributes:
        times: how often in a training; after that, or if 0, the divergence ends it.
        rate_factor: what learning rates are multiplied by from then on, each time.
        names: the photos in a batch of a phase, counted from 0.
        tell: called with what happened.
    """

    times: int
    rate_factor: float
    names: Callable[[Phase, int], Sequence[str]]
    tell: Callable[[str], None]


def fit_phases(
    *,
    phases: Sequence[Phase],
    training: Callable[[Phase], Any],
    validation: Callable[[Phase], Any],
    classes: int,
    loss: keras.Loss,
    presence_weight: float,
    placement: Callable[[], AbstractContextManager[object]],
    jit_compile: bool,
    batch_size: int,
    metric: str,
    rollback: Rollback,
    history: History,
    state: State | None,
    keep: Callable[[State], None],
    after_first_step: Iterable[Callable[[], None]],
    after_epoch: Iterable[Listener],
    after_phase: Iterable[Listener],
) -> None:
    """Trains through all phases, each compiled anew (as the article does it, so an optimizer forgets what it knew).

    With an optimizer that averages weights (`use_ema`) epochs are scored and saved as averaged, and so is what is left.

    Args:
        phases: in their order.
        training: gives the endless training batches of a phase, from its `first_step` on.
        validation: gives the batches of a phase that are scored after every epoch.
        classes: how many.
        loss: of labels and logits.
        presence_weight: that of the loss of the auxiliary head, where the networks have one.
        placement: a context to compile in.
        jit_compile: whether to compile steps with XLA.
        batch_size: examples per step.
        metric: the score that a phase's patience waits for.
        rollback: what to do when the loss is no number.
        history: epochs are appended to it; the first are those of `state`.
        state: where an interrupted training of the same phases stood, to go on from there as if it had not been
            interrupted, or None to begin. The listeners hear of its last epoch once more.
        keep: called with the state of the training after every epoch, before the listeners are.
        after_first_step: called once, when the first step is done, for what the step need not wait for.
        after_epoch: called with every epoch as it ends, and the history.
        after_phase: called with the last epoch of every phase, and the history.

    Raises:
        DivergedError: the loss became NaN or infinite, and no rollback is left; names epoch, step, photos and learning
            rate.
    """
    total, after_epoch = sum(phase.epochs for phase in phases), list(after_epoch)
    after_first_step = list(after_first_step)
    first, resumed = 0, state is not None
    if state is not None:
        first = phases.index(history.epochs[-1].phase)
        history.rollbacks, history.rate = state.rollbacks, state.rate
    network = phases[first].network
    for phase in phases[first:]:
        if phase.network is not network:
            phase.network.trained.set_weights(network.trained.get_weights())
            network = phase.network
        history.network = network
        freeze(network.encoder, phase.frozen, batch_norm_frozen=phase.batch_norm_frozen)
        while True:
            metrics = _compile(phase, classes, loss, presence_weight, placement, jit_compile, history.rate)
            averaged = AveragedWeights()
            averaged.set_model(network.trained)
            if state is not None:
                restore(state, network.trained)
            elif history.rollbacks < rollback.times:
                state = State.of(history, network.trained, trained=averaged.raw())
            recorder = _Recorder(
                phase,
                metrics[0],
                averaged,
                state,
                batch_size=batch_size,
                metric=metric,
                history=history,
                names=rollback.names,
                keep=keep,
                after_first_step=after_first_step,
                after_epoch=after_epoch,
            )
            if resumed:
                with averaged.shown():
                    recorder.tell()
                resumed = False
            progress = Progress(phase=phase.name, epochs=total, batch_size=batch_size)
            try:
                _fit(phase, recorder, progress, training, validation)
                break
            except _Diverged as diverged:
                if history.rollbacks >= rollback.times:
                    raise DivergedError(f"{diverged}; {_hint(rollback)}") from None
                history.rollbacks += 1
                history.rate *= rollback.rate_factor
                rollback.tell(
                    f"{diverged}; rollback {history.rollbacks} of {rollback.times}: on from the end of epoch "
                    f"{len(history.epochs)}, at {history.rate:g} of the learning rate"
                )
                state = recorder.state
        state = None
        for listener in after_phase:
            listener(history.epochs[-1], history)


def _fit(
    phase: Phase,
    recorder: _Recorder,
    progress: Progress,
    training: Callable[[Phase], Any],
    validation: Callable[[Phase], Any],
) -> None:
    """Trains through what is left of a phase."""
    own = recorder.own_epochs()
    if own >= phase.epochs or recorder.out_of_patience():
        recorder.averaged.finish()
        return
    done = len(recorder.history.epochs)
    try:
        with BetweenSteps() as interruption:
            phase.network.trained.fit(
                training(replace(phase, first_step=phase.first_step + own * phase.steps_per_epoch)),
                initial_epoch=done,
                epochs=done + phase.epochs - own,
                steps_per_epoch=phase.steps_per_epoch,
                validation_data=validation(phase),
                validation_steps=phase.validation_steps,
                shuffle=False,  # the batches come shuffled
                verbose=0,
                # Averaged weights are put in before the epoch is recorded, and its weights are saved.
                callbacks=[recorder.averaged, recorder, progress, interruption],
            )
    finally:
        progress.close()


def _hint(rollback: Rollback) -> str:
    if rollback.times:
        return f"no rollback is left of {rollback.times}; a lower learning rate may work (optimizer.learning_rate)"
    return "a lower one may work (optimizer.learning_rate), or a rollback (divergence.rollbacks=1)"


def _compile(
    phase: Phase,
    classes: int,
    loss: keras.Loss,
    presence_weight: float,
    placement: Callable[[], AbstractContextManager[object]],
    jit_compile: bool,
    rate: float,
) -> list[keras.Metric]:
    model = phase.network.trained
    with placement():
        metrics = segmentation_metrics(classes)
        how: dict[str, Any] = {"optimizer": phase.optimizer(rate), "jit_compile": jit_compile}
        if phase.network.trained is not phase.network.model:
            model.compile(
                loss=[loss, PresenceLoss(classes=classes)],
                loss_weights=[1.0, presence_weight],
                metrics=[metrics, []],
                **how,
            )
        else:
            model.compile(loss=loss, metrics=metrics, **how)
        # Keras makes an optimizer's variables in the first step, and has to trace that step a second time without.
        model.optimizer.build(model.trainable_variables)
    return metrics


class _Recorder(keras.callbacks.Callback):
    """Turns Keras's logs into epochs, and stops a training that diverged, or a phase whose patience is at its end."""

    def __init__(
        self,
        phase: Phase,
        confusion: ConfusionMatrix,
        averaged: AveragedWeights,
        state: State | None,
        *,
        batch_size: int,
        metric: str,
        history: History,
        names: Callable[[Phase, int], Sequence[str]],
        keep: Callable[[State], None],
        after_first_step: list[Callable[[], None]],
        after_epoch: list[Listener],
    ) -> None:
        super().__init__()
        self.phase, self.confusion, self.averaged, self.batch_size = phase, confusion, averaged, batch_size
        self.metric, self.history, self.keep, self.after_epoch = metric, history, keep, after_epoch
        self.names, self.after_first_step = names, after_first_step
        # At the end of the last epoch, or where the phase began.
        self.state = state

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.first_batch_done: float | None = None
        self.last_batch_done: float | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Emptied, as it is the same list in every phase and after every rollback.
        while self.after_first_step:
            self.after_first_step.pop(0)()
        if not np.isfinite(float(logs["loss"])):
            names = self.names(self.phase, self.own_epochs() * self.phase.steps_per_epoch + batch)
            others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise _Diverged(
                f"the loss is {float(logs['loss'])} in epoch {self.epoch + 1}, step {batch + 1} "
                f"({', '.join(names[:NAMED])}{others}), at learning rate {self._learning_rate():g}"
            )
        self.last_batch_done = time.perf_counter()
        # The first batch of a phase builds the graph; speed is what comes after it.
        if self.first_batch_done is None:
            self.first_batch_done, self.timed_from = self.last_batch_done, batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The last step may have spoilt the weights, of which the loss of the training photos does not know yet.
        if "val_loss" in (logs or {}) and not np.isfinite(float(logs["val_loss"])):
            raise _Diverged(
                f"the loss of the validation photos is {float(logs['val_loss'])} after epoch {epoch + 1}, at learning "
                f"rate {self._learning_rate():g}"
            )
        scores = {}
        for name, value in without_head(logs or {}).items():
            scores[f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}"] = float(value)
        scores["learning_rate"] = self._learning_rate()
        images = (self.phase.steps_per_epoch - 1 - self.timed_from) * self.batch_size
        if images > 0:
            assert self.first_batch_done is not None and self.last_batch_done is not None
            scores["images_per_second"] = images / (self.last_batch_done - self.first_batch_done)
        self.history.append(Epoch(epoch + 1, self.phase, scores, self.confusion.counts()), metric=self.metric)
        self.state = State.of(self.history, self.model, trained=self.averaged.raw())
        self.keep(self.state)
        self.tell()
        if self.out_of_patience():
            self.model.stop_training = True

    def tell(self) -> None:
        """Lets the listeners hear of the last epoch."""
        for listener in self.after_epoch:
            listener(self.history.epochs[-1], self.history)

    def own_epochs(self) -> int:
        """How many epochs of the phase are done."""
        return sum(epoch.phase is self.phase for epoch in self.history.epochs)

    def out_of_patience(self) -> bool:
        """Whether the phase has waited long enough for a higher score."""
        values = [epoch.scores[self.metric] for epoch in self.history.epochs if epoch.phase is self.phase]
        if self.phase.patience is None or not values:
            return False
        return len(values) - 1 - int(np.argmax(values)) >= self.phase.patience

    def _learning_rate(self) -> float:
        # On several devices it is one variable on each.
        return float(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(self.model.optimizer.learning_rate)))
