"""How a training shows that it is alive."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import keras
from tqdm import tqdm

from clothseg.text import duration
from clothseg.training.presence import without_head

log = logging.getLogger(__name__)


class Progress(keras.callbacks.Callback):
    """A live bar over the steps of each epoch on a terminal, and one line per epoch everywhere.

    Args:
        phase: name of the phase.
        epochs: in all phases together.
        batch_size: images per step.
    """

    def __init__(self, *, phase: str, epochs: int, batch_size: int) -> None:
        super().__init__()
        self.phase, self.epochs, self.batch_size = phase, epochs, batch_size
        self.bar: tqdm | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.begun = time.perf_counter()
        self.first: int | None = None
        log.info("phase %s: the first step builds the graph, which can take a minute", self.phase)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.first = epoch if self.first is None else self.first
        self.bar = tqdm(
            total=self.params["steps"], desc=f"{self.phase} {epoch + 1}/{self.epochs}", unit="step", leave=False,
            file=sys.stderr, disable=None, dynamic_ncols=True,
        )  # fmt: skip

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert self.bar is not None
        if not self.bar.disable:
            rate = self.bar.format_dict["rate"] or 0
            logs = without_head(logs)
            self.bar.set_postfix_str(
                f"loss {float(logs['loss']):.3f}, accuracy {float(logs['accuracy']):.3f}, "
                f"mIoU {float(logs['miou']):.3f}, {rate * self.batch_size:.0f} images/s",
                refresh=False,
            )
            self.bar.update(batch + 1 - self.bar.n)

    def on_test_begin(self, logs: Any = None) -> None:
        if self.bar is not None and not self.bar.disable:
            self.bar.set_postfix_str("validating")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.close()
        logs = without_head(logs)
        assert self.first is not None
        per_epoch = (time.perf_counter() - self.begun) / (epoch + 1 - self.first)
        log.info(
            "%s %d/%d: loss %.3f, accuracy %.3f; "
            "validation loss %.3f, accuracy %.3f, mIoU %.3f, clothing mIoU %.3f; "
            "%s left at this speed",
            self.phase, epoch + 1, self.epochs, logs["loss"], logs["accuracy"], logs["val_loss"], logs["val_accuracy"],
            logs["val_miou"], logs["val_clothing_miou"], duration(per_epoch * (self.epochs - epoch - 1)),
        )  # fmt: skip

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
