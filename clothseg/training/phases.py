"""Training a model phase after phase."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from clothseg.errors import UserError
from clothseg.models.unet import Network, freeze
from clothseg.training.averaging import AveragedWeights
from clothseg.training.metrics import ConfusionMatrix, segmentation_metrics
from clothseg.training.presence import PresenceLoss, without_head
from clothseg.training.progress import Progress


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
        optimizer: makes the optimizer that this phase is compiled with, its learning rate set. Called when the weights
            that the phase trains can be told from those it does not.
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
    optimizer: Callable[[], keras.Optimizer]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1, counted across phases.
        phase: its phase.
        scores: by name: `train/...` and `val/...` scores, `learning_rate`, `images_per_second`.
        confusion: int64 (classes, classes) of the validation photos: rows labels, columns predictions.
    """

    number: int
    phase: Phase
    scores: dict[str, float]
    confusion: np.ndarray


@dataclass
class History:
    """All epochs so far, as figures want them.

    Attributes:
        epochs: in their order.
        network: that is being trained.
    """

    epochs: list[Epoch] = field(default_factory=list)
    network: Network | None = None

    def series(self) -> dict[str, list[float]]:
        """Every score as a list over the epochs."""
        names = dict.fromkeys(name for epoch in self.epochs for name in epoch.scores)
        return {name: [epoch.scores.get(name, float("nan")) for epoch in self.epochs] for name in names}

    def phases(self) -> list[tuple[str, int]]:
        """Name and first epoch (from 1) of every phase."""
        starts: dict[str, int] = {}
        for epoch in self.epochs:
            starts.setdefault(epoch.phase.name, epoch.number)
        return list(starts.items())

    def best(self, metric: str) -> Epoch | None:
        """The first epoch with the highest value of a score; None before the first epoch.

        Only epochs at the present size of photos count: scores at different sizes, of labels resized to them, are not
        of one scale.
        """
        if not self.epochs:
            return None
        size = self.epochs[-1].phase.network.model.input_shape
        comparable = [epoch for epoch in self.epochs if epoch.phase.network.model.input_shape == size]
        return max(comparable, key=lambda epoch: epoch.scores.get(metric, -np.inf))


class DivergedError(UserError):
    """The loss is no longer a number."""


Listener = Callable[[Epoch, History], None]


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
    history: History,
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
        history: epochs are appended to it.
        after_epoch: called with every epoch as it ends, and the history.
        after_phase: called with the last epoch of every phase, and the history.

    Raises:
        DivergedError: the loss became NaN or infinite; names epoch, step and learning rate.
    """
    total, done = sum(phase.epochs for phase in phases), 0
    network = phases[0].network
    for phase in phases:
        if phase.network is not network:
            phase.network.trained.set_weights(network.trained.get_weights())
            network = phase.network
        history.network = network
        freeze(network.encoder, phase.frozen, batch_norm_frozen=phase.batch_norm_frozen)
        metrics = _compile(phase, classes, loss, presence_weight, placement, jit_compile)
        recorder = _Recorder(
            phase, metrics[0], batch_size=batch_size, metric=metric, history=history, after_epoch=list(after_epoch)
        )
        progress = Progress(phase=phase.name, epochs=total, batch_size=batch_size)
        before = len(history.epochs)
        try:
            network.trained.fit(
                training(phase),
                initial_epoch=done,
                epochs=done + phase.epochs,
                steps_per_epoch=phase.steps_per_epoch,
                validation_data=validation(phase),
                validation_steps=phase.validation_steps,
                shuffle=False,  # the batches come shuffled
                verbose=0,
                # Averaged weights are put in before the epoch is recorded, and its weights are saved.
                callbacks=[AveragedWeights(), recorder, progress],
            )
        finally:
            progress.close()
        done += len(history.epochs) - before
        for listener in after_phase:
            listener(history.epochs[-1], history)


def _compile(
    phase: Phase,
    classes: int,
    loss: keras.Loss,
    presence_weight: float,
    placement: Callable[[], AbstractContextManager[object]],
    jit_compile: bool,
) -> list[keras.Metric]:
    model = phase.network.trained
    with placement():
        metrics = segmentation_metrics(classes)
        how: dict[str, Any] = {"optimizer": phase.optimizer(), "jit_compile": jit_compile}
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
        *,
        batch_size: int,
        metric: str,
        history: History,
        after_epoch: list[Listener],
    ) -> None:
        super().__init__()
        self.phase, self.confusion, self.batch_size = phase, confusion, batch_size
        self.metric, self.history, self.after_epoch = metric, history, after_epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.first_batch_done = self.last_batch_done = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not np.isfinite(float(logs["loss"])):
            rate = self._learning_rate()
            raise DivergedError(
                f"the loss is {float(logs['loss'])} in epoch {self.epoch + 1}, step {batch + 1}, "
                f"at learning rate {rate:g}; a lower one may work (optimizer.learning_rate)"
            )
        self.last_batch_done = time.perf_counter()
        # The first batch of a phase builds the graph; speed is what comes after it.
        if self.first_batch_done is None:
            self.first_batch_done, self.timed_from = self.last_batch_done, batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        scores = {}
        for name, value in without_head(logs or {}).items():
            scores[f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}"] = float(value)
        scores["learning_rate"] = self._learning_rate()
        images = (self.phase.steps_per_epoch - 1 - self.timed_from) * self.batch_size
        if images > 0:
            scores["images_per_second"] = images / (self.last_batch_done - self.first_batch_done)
        record = Epoch(epoch + 1, self.phase, scores, self.confusion.counts())
        self.history.epochs.append(record)
        for listener in self.after_epoch:
            listener(record, self.history)
        if self._out_of_patience():
            self.model.stop_training = True

    def _out_of_patience(self) -> bool:
        if self.phase.patience is None:
            return False
        values = [epoch.scores[self.metric] for epoch in self.history.epochs if epoch.phase is self.phase]
        return len(values) - 1 - int(np.argmax(values)) >= self.phase.patience

    def _learning_rate(self) -> float:
        # On several devices it is one variable on each.
        return float(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(self.model.optimizer.learning_rate)))


class Checkpoints:
    """Keeps the weights of the last and of the best epoch in a folder. A listener for `fit_phases`.

    Args:
        folder: gets `last.weights.h5` and `best.weights.h5`, each complete at any time.
        metric: the score by which epochs are compared, higher is better.

    Attributes:
        saved: the epoch whose weights "last" and "best" are; empty before the first was written.
    """

    def __init__(self, folder: Path, *, metric: str) -> None:
        self.folder, self.metric = folder, metric
        self.saved: dict[str, Epoch] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, which: str) -> Path:
        """Where the weights of "last" or "best" are."""
        return self.folder / f"{which}.weights.h5"

    def __call__(self, epoch: Epoch, history: History) -> None:
        model = epoch.phase.network.model
        self.write("last", model)
        self.saved["last"] = epoch
        if history.best(self.metric) is epoch:
            aside = self._aside("best")
            shutil.copyfile(self.path("last"), aside)
            os.replace(aside, self.path("best"))
            self.saved["best"] = epoch

    def write(self, which: str, model: keras.Model) -> None:
        """Writes the present weights of a model aside and renames them into place."""
        aside = self._aside(which)
        model.save_weights(aside, overwrite=True)
        os.replace(aside, self.path(which))

    def _aside(self, which: str) -> Path:
        return self.folder / f"{which}.partial.weights.h5"
