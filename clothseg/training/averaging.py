"""Scoring and keeping averaged weights, while the training goes on from the raw ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np


class AveragedWeights(keras.callbacks.Callback):
    """Between the last step of an epoch and the next epoch the model holds the averages of its weights.

    So validation scores them, callbacks after this one see and save them, and they are what the model holds when `fit`
    ends, also when it is stopped early. Training goes on from exactly the weights it left off. (Keras's
    `SwapEMAWeights` rounds them at every swap under TensorFlow, and leaves the raw ones in the model when `fit` is
    stopped early.)

    The averages are those of an optimizer with `use_ema=True`: exponential ones that begin at the weights after the
    first step. With any other optimizer this does nothing. Statistics of batch norms are no trained weights and stay as
    they are, moving averages of their own. It has to come before callbacks that are to see the averages, and is for
    `fit` alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: list[np.ndarray] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._hide_averages()

    def on_test_begin(self, logs: Any = None) -> None:
        self._show_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._show_averages()

    def on_train_end(self, logs: Any = None) -> None:
        self._raw = None
        if self._averaging():
            self._part_from_averages()  # which `fit` has given the model once more

    def raw(self) -> list[np.ndarray]:
        """Of every trainable variable the value that training goes on from."""
        return self._raw if self._raw is not None else self._values()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model holds the averages meanwhile, outside of `fit`."""
        self._show_averages()
        yield
        self._hide_averages()

    def finish(self) -> None:
        """Leaves the averages in the model, as the end of `fit` does."""
        self._show_averages()
        self._raw = None

    def _hide_averages(self) -> None:
        if self._raw is not None:
            for variable, value in zip(self.model.trainable_variables, self._raw, strict=True):
                variable.assign(value)
            self._raw = None

    def _averaging(self) -> bool:
        # With float16 the optimizer is inside of one that scales the loss.
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer).use_ema

    def _show_averages(self) -> None:
        if self._raw is None and self._averaging():
            self._raw = self._values()
            # What Keras does at the end of `fit`, too: each variable is given its average.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            self._part_from_averages()

    def _values(self) -> list[np.ndarray]:
        # Through tensors, since on several devices a variable is one on each.
        return [np.array(keras.ops.convert_to_tensor(variable)) for variable in self.model.trainable_variables]

    def _part_from_averages(self) -> None:
        # Under JAX a weight and its average now are one array, which the next step, be it of evaluation, destroys.
        for variable in self.model.trainable_variables:
            variable.assign(keras.ops.copy(variable))
