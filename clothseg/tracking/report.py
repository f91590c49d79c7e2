"""What a training leaves in its MLflow run while it goes on, and at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from matplotlib.figure import Figure

from clothseg.data.augmentation.contract import Augmentation
from clothseg.data.prepared import Prepared
from clothseg.data.split import Split
from clothseg.evaluation.native import Evaluation
from clothseg.tracking import figures
from clothseg.tracking.evaluation import log_evaluation, rounded
from clothseg.tracking.run import TrackedRun
from clothseg.training import scores
from clothseg.training.checkpoints import Checkpoints
from clothseg.training.history import Epoch, History
from clothseg.training.logits import at_size_of
from clothseg.training.scores import Counts

log = logging.getLogger(__name__)

SAMPLES = 8  # photos on the sample sheet
RANDOM_PHOTOS, RANDOM_PASSES = 3, 5  # in the figure of a random augmentation

# Drawing takes a good part of a second; short epochs do not wait for it.
SECONDS_BETWEEN_CURVES = 30


class Report:
    """Logs data, scores and figures of one training. `after_epoch` and `after_phase` are listeners of `fit_phases`.

    Args:
        run: where it logs to.
        model: photos to logits, at the size of the last phase.
        prepared: the data set.
        parts: which of its photos are trained on and which are scored.
        figure_photos: how many validation photos the prediction figures show.
        begun: `time.monotonic()` at which the command began, for its duration.
    """

    def __init__(
        self,
        run: TrackedRun,
        model: keras.Model,
        prepared: Prepared,
        parts: Split,
        *,
        figure_photos: int,
        begun: float,
    ) -> None:
        self.run, self.model, self.prepared, self.parts, self.begun = run, model, prepared, parts, begun
        self.class_names = prepared.class_names
        self.shown = parts.validation[:figure_photos]
        self.rollbacks: list[str] = []
        self.curves_drawn, self.curves_took = -float("inf"), 0.0
        self.predictions_drawn, self.logged = 0, 0

    def data(self, *, options: Mapping[str, Any]) -> None:
        """Logs what is trained and scored on: MLflow inputs, the split, what was left out.

        Args:
            options: of the data set, by name.
        """
        names = self.parts.names()
        self.run.inputs(
            name=self.prepared.name,
            fingerprint=self.prepared.fingerprint,
            parts={"training": names["train"], "validation": names["validation"]}
            | ({"test": names["test"]} if names["test"] else {}),
            options=options,
        )
        self.run.text(self.parts.to_json(), "data/split.json")
        if self.prepared.skipped:
            self.run.table(["name", "reason"], self.prepared.skipped, "data/skipped.csv")

    def samples(self, augmentation: Augmentation, *, seed: int) -> None:
        """Draws training photos with their labels, and what the augmentation makes of them.

        Of fixed variants each is drawn, of the first photo; random changes of a few photos in the first passes.
        """
        rows = self.parts.train[:SAMPLES]
        sheet = figures.sample_sheet(
            self.prepared.photos[rows],
            self.prepared.labels[rows],
            class_names=self.class_names,
            names=[self.prepared.names[row] for row in rows],
        )
        self.run.figure(sheet, "figures/samples.png")
        if len(augmentation.variants) > 1:
            figure = self._variants(augmentation, seed=seed)
        else:
            figure = self._versions(augmentation, seed=seed)
        self.run.figure(figure, "figures/augmentation.png")

    def _variants(self, augmentation: Augmentation, *, seed: int) -> Figure:
        row = int(self.parts.train[0])
        photos, labels = self._augmented(augmentation, [[seed, 0, v, row] for v in range(len(augmentation.variants))])
        titles = [variant.replace("_", " ") for variant in augmentation.variants]
        return figures.augmentation_sheet(photos, labels, titles=titles, class_names=self.class_names)

    def _versions(self, augmentation: Augmentation, *, seed: int) -> Figure:
        rows = [int(row) for row in self.parts.train[:RANDOM_PHOTOS]]
        photos, labels = [], []
        for row in rows:
            changed = self._augmented(augmentation, [[seed, number, 0, row] for number in range(RANDOM_PASSES)])
            photos.append([self.prepared.photos[row], *changed[0]])
            labels.append([self.prepared.labels[row], *changed[1]])
        return figures.augmentation_gallery(
            photos,
            labels,
            names=[self.prepared.names[row] for row in rows],
            titles=["original", *(f"pass {number + 1}" for number in range(RANDOM_PASSES))],
            class_names=self.class_names,
        )

    def _augmented(self, augmentation: Augmentation, keys: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        keys_array = np.array(keys, np.int64)
        photos, labels = augmentation(*self._read(keys_array[:, 3]), keys_array, self._read)
        return np.asarray(photos), np.asarray(labels)

    def _read(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        rows = np.asarray(rows)
        return self.prepared.photos[rows], self.prepared.labels[rows]

    def resumed(self, history: History) -> None:
        """Logs what the interruption kept from being logged of the epochs before it."""
        self.logged = self.run.last_epoch()
        for epoch in history.epochs[self.logged :]:
            self._scores(epoch)

    def rolled_back(self, what: str) -> None:
        """Logs that the training went back to an earlier epoch, and why."""
        log.warning(what)
        self.rollbacks.append(what)
        self.run.tag("rollbacks", "\n".join(self.rollbacks))

    def after_epoch(self, epoch: Epoch, history: History) -> None:
        """Logs the scores of an epoch, and now and then the curves; nothing of an epoch that was logged before."""
        if epoch.number <= self.logged:
            return
        self._scores(epoch)
        # The more rarely, the longer it takes: a figure of many short epochs must not hold them up.
        if time.monotonic() - self.curves_drawn > max(SECONDS_BETWEEN_CURVES, 200 * self.curves_took):
            self.curves(history)

    def _scores(self, epoch: Epoch) -> None:
        values = dict(epoch.scores)
        if epoch.confusion.size:  # which a store that lost several epochs is too late for
            values["val/background_accuracy"] = float(scores.background_accuracy(Counts.of(epoch.confusion)))
        self.run.scores(values, step=epoch.number)
        self.logged = epoch.number

    def after_phase(self, epoch: Epoch, history: History) -> None:
        """Logs the curves, and photos with truth and prediction as the network stands now."""
        self.curves(history)
        if epoch.phase.network.model is not self.model:
            # The same network for photos of another size.
            self.model.set_weights(epoch.phase.network.model.get_weights())
        self.predictions(epoch, place=f"{len(history.phases())}_{epoch.phase.name}", starts=history.phases())

    def curves(self, history: History) -> None:
        """Loss, accuracy and mean IoU so far."""
        begun = time.monotonic()
        figure = figures.curves(
            history.series(),
            phases=[(name.replace("_", " "), first) for name, first in history.phases()],
            all_background_accuracy=float(scores.background_accuracy(Counts.of(history.epochs[-1].confusion))),
        )
        self.run.figure(figure, "figures/curves.png")
        self.curves_drawn = time.monotonic()
        self.curves_took = self.curves_drawn - begun

    def predictions(self, epoch: Epoch, *, place: str, starts: list[tuple[str, int]]) -> None:
        """Photos, truth and prediction in the fixed palette, and as the article draws them.

        Args:
            epoch: whose weights the network has.
            place: of the figures among the others.
            starts: name and first epoch of every phase so far.
        """
        photos, labels = self.prepared.photos[self.shown], self.prepared.labels[self.shown]
        names = [self.prepared.names[row] for row in self.shown]
        logits = at_size_of(labels, self.model(photos.astype("float32"), training=False))
        predicted = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1)).astype(np.uint8)
        title = f"Prediction after {epoch.number} epochs ({epoch.phase.name.replace('_', ' ')})"
        figure = figures.predictions(
            photos, labels, predicted, class_names=self.class_names, title=title, names=names, mistakes=False
        )
        self.run.figure(figure, f"figures/predictions_{place}.png")
        if epoch.phase.frozen:
            how = "No Fine-tuning"
        elif len(starts) > 1:
            how = f"By Fine-tuning from {_ordinal(starts[-1][1])} Epoch"
        else:
            how = "Encoder Trained Throughout"
        title = f"Prediction After {epoch.number} Epochs ({how})"
        figure = figures.predictions_jet(photos, labels, predicted, title=title)
        self.run.figure(figure, f"figures/predictions_{place}_jet.png")
        self.predictions_drawn = epoch.number

    def conclude(
        self,
        history: History,
        checkpoints: Checkpoints,
        *,
        keep: Literal["last", "best"],
        log_model: Literal["squash", "pad"] | None,
    ) -> None:
        """Logs what a training came to, complete or not: weights, classes, figures, the model, the best scores.

        Args:
            history: of the training.
            checkpoints: the weights of the last and the best epoch.
            keep: which of them the tables of classes and the logged model are of; the model is left with them.
            log_model: how photos were brought to its size, to log the model itself besides its weights; None not to.
        """
        if "best" not in checkpoints.saved:
            self.weights(checkpoints)
            return
        log.info("logging weights, figures and the model")
        best, last, kept = checkpoints.saved["best"], checkpoints.saved["last"], checkpoints.saved[keep]
        checkpoints.export(self.model)
        checkpoints.load(keep, self.model)
        self.curves(history)
        self.classes(kept.confusion, what=f"epoch {kept.number}")
        if kept.number != self.predictions_drawn:
            self.predictions(kept, place=f"{keep}_epoch", starts=history.phases())
        if log_model is not None:
            example = self.prepared.photos[self.parts.validation[0]]
            self.run.model(self.model, resize=log_model, class_names=self.class_names, example=example)
        # Named so that MLflow, which sorts charts by name, shows them after the curves.
        best_scores = {f"val_best/{name[4:]}": value for name, value in best.scores.items() if name.startswith("val/")}
        best_scores |= {"val_best/epoch": best.number}
        self.run.scores(best_scores | {"duration_seconds": time.monotonic() - self.begun}, step=last.number)
        self.weights(checkpoints)
        log.info(
            "validation accuracy %.3f (all background: %.3f), mIoU %.3f, clothing mIoU %.3f; best %s %.3f in epoch %d",
            last.scores["val/accuracy"],
            scores.background_accuracy(Counts.of(last.confusion)),
            last.scores["val/miou"],
            last.scores["val/clothing_miou"],
            checkpoints.metric,
            best.scores[checkpoints.metric],
            best.number,
        )
        self.run.describe(
            self.run.tags.get("command", ""),
            f"Epoch {last.number} on {len(self.parts.validation)} validation photos: accuracy "
            f"{last.scores['val/accuracy']:.3f} (all background: "
            f"{scores.background_accuracy(Counts.of(last.confusion)):.3f}), mean IoU {last.scores['val/miou']:.3f}, "
            f"clothing mean IoU {last.scores['val/clothing_miou']:.3f}. Best {checkpoints.metric} "
            f"{best.scores[checkpoints.metric]:.3f} in epoch {best.number}.",
        )
        log.info("run %s: %s", self.run.id, self.run.where())
        log.info("all runs and their scores: %s", self.run.where_all())

    def evaluation(self, evaluation: Evaluation, *, what: str, epoch: int) -> None:
        """Logs what the kept weights score at the photos' own sizes; arguments as of `log_evaluation`."""
        names = [self.prepared.names[row] for row in self.parts.validation]
        log_evaluation([self.run], evaluation, self.class_names, names=names, what=what, step=epoch)

    def stopped(self, history: History) -> None:
        """Logs what is worth keeping of a training that was not worth going on with: its curves, and no weights."""
        self.curves(history)
        self.run.scores({"duration_seconds": time.monotonic() - self.begun}, step=len(history.epochs))

    def weights(self, checkpoints: Checkpoints) -> None:
        """Logs every file of weights."""
        for path in checkpoints.files():
            self.run.file(path, "weights")

    def classes(self, confusion: np.ndarray, *, what: str) -> None:
        """Logs which classes are found and what they are taken for.

        Args:
            confusion: int (classes, classes) of the validation photos: rows labels, columns predictions.
            what: whose it is, for the title.
        """
        counts = Counts.of(confusion)
        iou, recall, truth = scores.class_iou(counts), scores.class_recall(counts), counts.truth
        rows: list[list[Any]] = [
            [number, name, truth[number], counts.predicted[number], rounded(iou[number]), rounded(recall[number])]
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


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
