"""What a cross-validation leaves in its MLflow run, which those of the folds are nested under."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clothseg.evaluation.native import Evaluation
from clothseg.tracking.canvas import BLUE, INK, NORMAL, ORANGE, SMALL, blank, headline, tidy
from clothseg.tracking.comparison import NAMES
from clothseg.tracking.evaluation import log_evaluation, rounded
from clothseg.tracking.run import RunLog
from clothseg.training import scores
from clothseg.training.scores import Counts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One training of a cross-validation.

    Attributes:
        run_id: of its MLflow run.
        photos: names of those that it was validated on.
        evaluation: of its network on them.
    """

    run_id: str
    photos: Sequence[str]
    evaluation: Evaluation


def log_folds(run: RunLog, folds: Sequence[Fold], *, what: str) -> None:
    """Logs the table of the folds that are done, and how many those are.

    Args:
        run: of the cross-validation.
        folds: in their order, those done so far.
        what: the scores are called by.
    """
    found = _scores(folds)
    rows = [
        [number, fold.run_id, len(fold.photos), *(rounded(values[number - 1]) for values in found.values())]
        for number, fold in enumerate(folds, 1)
    ]
    run.table(["fold", "run", "photos", *(f"{what}/{score}" for score in found)], rows, "tables/folds.csv")
    run.tag("folds.done", str(len(folds)))


def log_pooled(run: RunLog, folds: Sequence[Fold], class_names: Sequence[str], *, what: str) -> dict[str, float]:
    """Logs the scores of all photos, each predicted by the network that was not trained on it.

    Pixels are added up over all folds before anything is divided: a class that a fold lacks distorts no mean. Beside
    every score stand the mean over the folds and their standard deviation, `WHAT/SCORE_fold_mean` and `_fold_std`.

    Args:
        run: of the cross-validation.
        folds: all of them, two or more.
        class_names: one per class.
        what: names scores, tables and figures.

    Returns:
        The pooled scores, by name.
    """
    photos = [name for fold in folds for name in fold.photos]
    evaluation = Evaluation.pooled([fold.evaluation for fold in folds])
    pooled = log_evaluation([run], evaluation, class_names, names=photos, what=what, step=0)
    found = _scores(folds)
    means = {f"{what}/{score}_fold_mean": values.mean() for score, values in found.items()}
    deviations = {f"{what}/{score}_fold_std": values.std(ddof=1) for score, values in found.items()}
    run.scores(means | deviations, step=0)
    for score in NAMES:
        mean, deviation = found[score].mean(), found[score].std(ddof=1)
        log.info("  %-36s %8.4f, deviation %.4f", f"{score}, mean of the folds", mean, deviation)
    run.figure(scores_figure(found, pooled, photos=len(photos)), "figures/folds.png")
    return pooled


def scores_figure(found: Mapping[str, np.ndarray], pooled: Mapping[str, float], *, photos: int) -> Figure:
    """Every headline score: how far each fold, a dot, and the mean of all are from the score of all photos together.

    Args:
        found: of every score those of the folds, float (folds,).
        pooled: the scores of all photos.
        photos: how many.
    """
    figure = blank(7, 1.4 + 0.3 * len(NAMES))
    figure.set_layout_engine("constrained")
    count = len(found["miou"])
    headline(figure, f"{count} folds, {photos} photos, at their own sizes")
    axes = figure.subplots()
    axes.axvline(0, color=ORANGE, linewidth=1.2, label="all photos together")
    for row, score in enumerate(NAMES):
        values, first = found[score], row == 0
        away = values - pooled[score]
        axes.scatter(away, [row] * count, s=26, color=BLUE, alpha=0.7, linewidths=0, label="a fold" if first else None)
        axes.scatter(away.mean(), row, s=150, marker="|", color=INK, label="mean of the folds" if first else None)
        axes.annotate(
            f"{pooled[score]:.3f}, folds {values.mean():.3f} ± {values.std(ddof=1):.3f}", (1.01, row),
            xycoords=("axes fraction", "data"), fontsize=SMALL, color=INK, va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(NAMES)), list(NAMES.values()), fontsize=NORMAL)
    axes.set_ylim(len(NAMES) - 0.5, -0.5)
    axes.set_xlabel("score less that of all photos together", fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=SMALL, frameon=False)
    tidy(axes, grid="x")
    return figure


def _scores(folds: Sequence[Fold]) -> dict[str, np.ndarray]:
    """Of every score those of the folds, float (folds,)."""
    return scores.every(Counts.of(np.stack([fold.evaluation.confusion for fold in folds])))
