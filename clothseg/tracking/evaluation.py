"""What an evaluation leaves in an MLflow run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from clothseg.evaluation.native import Evaluation
from clothseg.tracking.run import RunLog
from clothseg.training import scores

log = logging.getLogger(__name__)


def headline_scores(confusion: np.ndarray) -> dict[str, float]:
    """Every score of a confusion matrix by its name; the formulas are those of `clothseg.training.scores`."""
    return {
        "accuracy": scores.accuracy(confusion),
        "background_accuracy": scores.background_accuracy(confusion),
        "clothing_accuracy": scores.clothing_accuracy(confusion),
        "miou": scores.miou(confusion),
        "clothing_miou": scores.clothing_miou(confusion),
        "frequency_weighted_iou": scores.frequency_weighted_iou(confusion),
        "dice": scores.dice(confusion),
        "mean_recall": scores.mean_recall(confusion),
    }


def log_evaluation(
    run: RunLog, evaluation: Evaluation, class_names: Sequence[str], *, names: Sequence[str], what: str, step: int
) -> dict[str, float]:
    """Logs scores and tables to a run, and prints the scores.

    Args:
        run: where they go.
        evaluation: what is logged.
        class_names: one per class.
        names: of the photos, in their order.
        what: names the scores (`WHAT/miou`) and the tables.
        step: the epoch whose weights were evaluated.

    Returns:
        The scores at the photos' own sizes.
    """
    native = headline_scores(evaluation.confusion)
    network = headline_scores(evaluation.network_confusion)
    if evaluation.boundary_f is not None:
        native["boundary_f"] = float(np.nanmean(evaluation.boundary_f))
    run.scores({f"{what}/{name}": value for name, value in native.items()}, step=step)
    run.table(*_classes(evaluation, class_names), f"tables/{what}_classes.csv")
    run.table(*_photos(evaluation, names), f"tables/{what}_photos.csv")
    log.info("%s, %d photos%s own size   network's", what, len(names), " " * max(1, 24 - len(what)))
    for name, value in native.items():
        log.info("  %-36s %.4f     %s", name, value, f"{network[name]:.4f}" if name in network else "")
    return native


def _classes(evaluation: Evaluation, class_names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    confusion = evaluation.confusion
    columns = ["class", "name", "pixels_labelled", "pixels_predicted", "iou", "recall", "dice"]
    values = [scores.class_iou(confusion), scores.class_recall(confusion), scores.class_dice(confusion)]
    if evaluation.boundary_f is not None:
        columns.append("boundary_f")
        values.append(evaluation.boundary_f)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    rows = [
        [number, name, truth[number], predicted[number], *(rounded(value[number]) for value in values)]
        for number, name in enumerate(class_names)
    ]
    return columns, rows


def _photos(evaluation: Evaluation, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    columns = ["photo", "accuracy", "background_accuracy", "clothing_accuracy", "miou", "clothing_miou"]
    rows = []
    for name, confusion in zip(names, evaluation.photo_confusions, strict=True):
        found = headline_scores(confusion)
        rows.append([name, *(rounded(found[column]) for column in columns[1:])])
    return columns, rows


def rounded(value: float) -> float | str:
    """A score as tables have it: an absent class has none, an empty cell and not a zero."""
    return "" if np.isnan(value) else round(float(value), 6)
