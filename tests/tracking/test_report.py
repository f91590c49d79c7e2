"""What is logged of the epochs of a training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from clothseg.tracking.report import Report
from clothseg.training.history import Epoch, History


class Store:
    """A run whose store has the scores of its first epoch, as after a backup was put back."""

    def __init__(self) -> None:
        self.logged = {}

    def last_epoch(self) -> int:
        return 1

    def scores(self, values, *, step) -> None:
        self.logged[step] = values


def test_a_store_that_lost_several_epochs_gets_what_is_known_of_them():
    network = SimpleNamespace(model=SimpleNamespace(input_shape=(None, 32, 32, 3)))
    phase, history = SimpleNamespace(network=network), History()
    for number in (1, 2, 3):
        confusion = np.array([[6, 0], [2, 0]], np.int64)
        history.append(Epoch(number, phase, {"val/miou": 0.1 * number}, confusion), metric="val/miou")
    report = Report.__new__(Report)
    report.run = Store()
    report.resumed(history)
    assert report.run.logged == {2: {"val/miou": 0.2}, 3: {"val/miou": 0.1 * 3, "val/background_accuracy": 0.75}}
