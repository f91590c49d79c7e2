"""What a training leaves in its MLflow run while it goes on, and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from clothseg.tracking import figures
from clothseg.tracking.run import TrackedRun
from clothseg.training import scores
from clothseg.training.phases import Epoch, History

# Drawing takes a good part of a second; short epochs do not wait for it.
SECONDS_BETWEEN_CURVES = 30


class Report:
    """Logs scores after every epoch and figures while training goes on. Its methods are listeners of `fit_phases`.

    Args:
        run: where it logs to.
        model: photos to logits.
        photos: uint8 (n, height, width, 3), the photos of the prediction figures.
        labels: uint8 (n, height, width).
        names: n names.
        class_names: one per class, background first.
        background_accuracy: accuracy of predicting nothing but background on the validation photos, drawn beside all others.
    """

    def __init__(
        self,
        run: TrackedRun,
        model: keras.Model,
        *,
        photos: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        class_names: Sequence[str],
        background_accuracy: float,
    ) -> None:
        self.run, self.model = run, model
        self.photos, self.labels, self.names = photos, labels, names
        self.class_names, self.background_accuracy = class_names, background_accuracy
        self.curves_drawn = -float("inf")

    def after_epoch(self, epoch: Epoch, history: History) -> None:
        """Logs the scores of an epoch, and now and then the curves."""
        self.run.scores({**epoch.scores, "val/background_accuracy": self.background_accuracy}, step=epoch.number)
        if time.monotonic() - self.curves_drawn > SECONDS_BETWEEN_CURVES:
            self.curves(history)

    def after_phase(self, epoch: Epoch, history: History) -> None:
        """Logs the curves, and photos with truth and prediction as the network stands now."""
        self.curves(history)
        self.predictions(history)

    def curves(self, history: History) -> None:
        """Loss, accuracy and mean IoU so far."""
        figure = figures.curves(
            history.series(), phases=history.phases(), all_background_accuracy=self.background_accuracy
        )
        self.run.figure(figure, "figures/curves.png")
        self.curves_drawn = time.monotonic()

    def predictions(self, history: History) -> None:
        """Photos, truth and prediction in the fixed palette, and as the article draws them."""
        epoch, starts = history.epochs[-1], history.phases()
        logits = self.model(self.photos.astype("float32"), training=False)
        predicted = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1)).astype(np.uint8)
        place = f"{len(starts)}_{epoch.phase.name}"
        title = f"Prediction after {epoch.number} epochs ({epoch.phase.name.replace('_', ' ')})"
        figure = figures.predictions(
            self.photos, self.labels, predicted, class_names=self.class_names, title=title, names=self.names
        )
        self.run.figure(figure, f"figures/predictions_{place}.png")
        if epoch.phase.frozen:
            how = "No Fine-tuning"
        elif len(starts) > 1:
            how = f"By Fine-tuning from {_ordinal(starts[-1][1])} Epoch"
        else:
            how = "Encoder Trained Throughout"
        title = f"Prediction After {epoch.number} Epochs ({how})"
        figure = figures.predictions_jet(self.photos, self.labels, predicted, title=title)
        self.run.figure(figure, f"figures/predictions_{place}_jet.png")

    def final(self, confusion: np.ndarray, *, what: str) -> None:
        """Logs which classes are found and what they are taken for.

        Args:
            confusion: int (classes, classes) of the validation photos: rows labels, columns predictions.
            what: whose it is, for the title.
        """
        iou, recall = scores.class_iou(confusion), scores.class_recall(confusion)
        truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        rows: list[list[Any]] = [
            [number, name, truth[number], predicted[number], _rounded(iou[number]), _rounded(recall[number])]
            for number, name in enumerate(self.class_names)
        ]
        columns = ["class", "name", "pixels_labelled", "pixels_predicted", "iou", "recall"]
        self.run.table(columns, rows, "tables/classes.csv")
        table = [[name, *row] for name, row in zip(self.class_names, confusion.tolist(), strict=True)]
        self.run.table(["label \\ prediction", *self.class_names], table, "tables/confusion.csv")
        figure = figures.class_iou(iou, pixels=truth, class_names=self.class_names, title=f"Validation IoU, {what}")
        self.run.figure(figure, "figures/class_iou.png")
        figure = figures.confusion(confusion, class_names=self.class_names, most=15)
        self.run.figure(figure, "figures/confusion.png")


def _rounded(value: float) -> float | str:
    # An absent class has no score: an empty cell, not a zero.
    return "" if np.isnan(value) else round(float(value), 6)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
