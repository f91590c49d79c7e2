"""`python -m clothseg.report`: a page to look at, of a trained run or of several side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from clothseg import entry, scoring, trained
from clothseg.errors import UserError
from clothseg.settings import ReportSettings, check

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Scores each of the runs that `cfg` names, and logs a page of them to the run, or to a new one of several."""
    settings: ReportSettings = check(cfg, ReportSettings)
    trainings = trained.opened_together(settings.runs, weights=settings.weights)
    trained.check_different(trainings)
    if settings.output is None and all(training.found.run_id is None for training in trainings):
        raise UserError(
            f"runs={','.join(settings.runs)}: a page cannot be logged to a folder; output=FOLDER says where it goes"
        )
    first = trainings[0]
    photos = scoring.photos_of_split(settings, first)
    scoring.check_unseen(trainings, photos, settings)
    class_names, _ = scoring.scored_classes(settings, first)
    offsets = [scoring.offset(settings, training) for training in trainings]
    log.info("%s: %d photos; loading Keras", photos.what, len(photos.names))
    first.load_keras(precision=None)

    from clothseg.reporting import curves
    from clothseg.reporting.page import Example, Run, page, spread
    from clothseg.tracking.evaluation import destinations

    evaluators = [
        scoring.evaluator([training], photos, settings, offset=offset)
        for training, offset in zip(trainings, offsets, strict=True)
    ]
    places = range(len(photos.names))
    evaluations = [evaluator.evaluate(places, boundary=settings.boundary) for evaluator in evaluators]
    shown = spread(evaluations, most=settings.figure_photos)
    each = [evaluator.predictions(shown, shown=True) for evaluator in evaluators]
    what = scoring.name(settings, photos)
    text = page(
        [
            Run(
                name=name,
                origin=_origin(training),
                options=trained.configuration(training) | {"seed": training.settings.seed},
                evaluation=evaluation,
                history=training.found.history(curves.NAMES),
            )
            for name, training, evaluation in zip(_names(trainings), trainings, evaluations, strict=True)
        ],
        [
            Example(photos.names[row], row, predictions)
            for row, predictions in zip(shown, zip(*each, strict=True), strict=True)
        ],
        class_names=class_names,
        what=what.replace("_", " "),
        photos=len(photos.names),
    )
    path = f"report_{what}.html"
    runs = [training.found for training in trainings]
    with destinations(runs, what, tags={"role": "report"}, output=settings.output) as logs:
        for destination in logs:
            destination.text(text, path)
    if settings.output is not None:
        log.info("%s", Path(settings.output) / path)
    if len(trainings) == 1 and first.found.run_id is not None:
        log.info("%s is among the artifacts of run %s", path, first.found.run_id)


def _names(trainings: Sequence[trained.Trained]) -> list[str]:
    """Of their runs, numbered where two are the same."""
    names = [training.found.name for training in trainings]
    return [f"{name} [{place + 1}]" if names.count(name) > 1 else name for place, name in enumerate(names)]


def _origin(training: trained.Trained) -> str:
    found = training.found
    return f"run {found.run_id}\ncommit {found.commit[:12]}" if found.run_id else "a folder of artifacts"


if __name__ == "__main__":
    entry.run(main, config_name="report")
