"""Ctrl-C and a scheduler's SIGTERM during training: heard between two steps, not within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import keras


class BetweenSteps(keras.callbacks.Callback):
    """While it is entered as a context, the first SIGINT or SIGTERM takes effect when the running step has ended.

    TensorFlow calls Python out of C while it traces a step, and turns an exception of a handler there into errors
    of its own (`SystemError: bad argument to internal function`), which would end the run as FAILED instead of
    interrupted. The second signal takes effect at once, as it does outside. Signals that are ignored stay so, and in
    threads other than the main one, which hear of no signals, nothing is changed.

    Raises:
        KeyboardInterrupt: after the step in which a signal came, or when the context is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> BetweenSteps:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self.before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self._obey()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._obey()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._obey()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            self.before[number](number, frame)
        self.came = True

    def _obey(self) -> None:
        if self.came:
            raise KeyboardInterrupt
