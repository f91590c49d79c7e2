"""What every epoch of a training came to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from clothseg.models.unet import Network
    from clothseg.training.phases import Phase


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1, counted across phases.
        phase: its phase.
        scores: by name: `train/...` and `val/...` scores, `learning_rate`, `images_per_second`.
        confusion: int64 (classes, classes) of the validation photos: rows labels, columns predictions. Of an epoch that
            is neither the last nor the best (0, 0), so that memory does not grow with the epochs.
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
        rollbacks: how often the training went back to the end of an epoch because it diverged.
        rate: what learning rates are multiplied by since then.
    """

    epochs: list[Epoch] = field(default_factory=list)
    network: Network | None = None
    rollbacks: int = 0
    rate: float = 1.0

    def append(self, epoch: Epoch, *, metric: str) -> None:
        """Takes the latest epoch; of those before, only the best by `metric` keeps its confusion."""
        self.epochs.append(epoch)
        best = self.best(metric)
        for place, one in enumerate(self.epochs[:-1]):
            if one is not best and one.confusion.size:
                self.epochs[place] = replace(one, confusion=np.zeros((0, 0), np.int64))

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
