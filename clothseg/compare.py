"""`python -m clothseg.compare`: whether trained runs differ by more than chance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from clothseg import entry, scoring, trained
from clothseg.settings import CompareSettings, Comparing, check

if TYPE_CHECKING:
    from clothseg.tracking.comparison import Comparison

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Scores the runs that `cfg` names on the same photos, photo by photo, and tells what differs."""
    settings: CompareSettings = check(cfg, CompareSettings)
    trainings = trained.opened_together(settings.runs, weights=settings.weights)
    trained.check_different(trainings)
    compared(trainings, settings)


def compared(trainings: Sequence[trained.Trained], settings: Comparing) -> Comparison:
    """Scores trainings on the photos of the first, and logs and prints whether the others differ from it.

    Args:
        trainings: two or more, with the same classes.
        settings: how.

    Raises:
        UserError: the photos cannot be had, or one of the trainings was trained on some of them.
    """
    first = trainings[0]
    photos = scoring.photos_of_split(settings, first)
    scoring.check_unseen(trainings, photos, settings)
    class_names, _ = scoring.scored_classes(settings, first)
    configurations = trained.by_configuration(trainings)
    offsets = [scoring.offset(settings, training) for training in trainings]
    log.info("%s: %d photos; loading Keras", photos.what, len(photos.names))
    # The last may have been trained by this very process, which has its threads then and cannot take others.
    trainings[-1].load_keras(precision=None)

    from clothseg.evaluation.bootstrap import bootstrap
    from clothseg.evaluation.together import evaluate_together
    from clothseg.tracking import comparison as tracking
    from clothseg.tracking.evaluation import destinations

    evaluators = [
        scoring.evaluator([training], photos, settings, offset=offset)
        for training, offset in zip(trainings, offsets, strict=True)
    ]
    shown = configurations[:2] if len(configurations) > 1 else [[place] for place in configurations[0][:2]]
    pair = shown[0][0], shown[1][0]
    together = evaluate_together(evaluators, range(len(photos.names)), pair=pair, most=settings.figure_photos)
    seeds = [[together.confusions[place] for place in places] for places in configurations]
    draws = bootstrap(seeds, draws=settings.draws, seed=settings.seed)

    comparison = tracking.Comparison(
        configurations=[[trainings[place] for place in places] for places in configurations],
        confusions=seeds,
        draws=draws,
        confidence=settings.confidence,
        class_names=class_names,
        what=scoring.name(settings, photos),
        photos=len(photos.names),
    )
    runs = [training.found for training in trainings]
    with destinations(runs, comparison.what, tags={"role": "comparison"}, output=settings.output) as logs:
        tracking.log_comparison(logs, comparison)
        names = [photos.names[row] for row in together.rows]
        tracking.log_predictions(logs, comparison, together, names=names, pair=[trainings[place] for place in pair])
    return comparison


if __name__ == "__main__":
    entry.run(main, config_name="compare")
