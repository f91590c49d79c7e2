"""Several predictors on the same photos at once."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clothseg.data.labels import IGNORE
from clothseg.evaluation.native import Evaluator, Prediction, confusion_matrix


@dataclass(frozen=True)
class Together:
    """What several predictors came to on the same photos.

    Attributes:
        confusions: of every predictor int64 (n, classes, classes), photo by photo.
        rows: the photos where two of them differ most, in falling order.
        differing: the share of labelled pixels at which they do, in 0..1, of those photos.
        predictions: of those photos what the two predicted.
    """

    confusions: list[np.ndarray]
    rows: list[int]
    differing: list[float]
    predictions: list[tuple[Prediction, Prediction]]


def evaluate_together(
    evaluators: Sequence[Evaluator], rows: Sequence[int], *, pair: tuple[int, int], most: int
) -> Together:
    """Scores predictors photo by photo.

    Args:
        evaluators: of the same classes, reading the same photos.
        rows: which photos.
        pair: places of the two evaluators whose predictions are compared.
        most: how many photos are kept where they differ most.
    """
    classes = evaluators[0].classes
    confusions = [np.zeros((len(rows), classes, classes), np.int64) for _ in evaluators]
    kept: list[tuple[float, int, tuple[Prediction, Prediction]]] = []
    each = (evaluator.predictions(rows, shown=place == 0) for place, evaluator in enumerate(evaluators))
    for place, found in enumerate(zip(*each, strict=True)):
        for confusion, one in zip(confusions, found, strict=True):
            confusion[place] = confusion_matrix(one.truth, one.predicted, classes=classes)
        a, b = (found[number] for number in pair)
        labelled = a.truth != IGNORE
        differing = float(((a.predicted != b.predicted) & labelled).sum() / max(labelled.sum(), 1))
        # Of equal ones the first; the number of the photo also keeps predictions from being compared.
        heapq.heappush(kept, (differing, -place, (a, b)))
        if len(kept) > most:
            heapq.heappop(kept)
    kept.sort(reverse=True)
    return Together(
        confusions,
        rows=[int(rows[-place]) for _, place, _ in kept],
        differing=[differing for differing, _, _ in kept],
        predictions=[both for _, _, both in kept],
    )
