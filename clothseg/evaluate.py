"""`python -m clothseg.evaluate`: what trained runs score on photos at their own size."""

from __future__ import annotations

import logging
import shlex

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clothseg import entry, scoring, trained
from clothseg.errors import UserError
from clothseg.settings import EvaluateSettings, check

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Scores the runs that `cfg` names together, and logs the scores to the run, or to a new one of several."""
    options = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "dataset"])
    settings: EvaluateSettings = check(options, EvaluateSettings)
    dataset = cfg.get("dataset")
    trainings = trained.opened_together(settings.runs, weights=settings.weights)
    first = trainings[0]
    if dataset is None:
        photos = scoring.photos_of_split(settings, first)
        scoring.check_unseen(trainings, photos, settings)
    elif settings.adjustment > 0:
        raise UserError(
            f"adjustment={settings.adjustment:g} needs the photos that the run was trained on; leave dataset= out"
        )
    else:
        photos = scoring.photos_of_dataset(dataset, first)
    class_names, _ = scoring.scored_classes(settings, first)
    offset = scoring.offset(settings, first)
    log.info("%s: %d photos; loading Keras", photos.what, len(photos.names))
    first.load_keras(precision=None)

    from clothseg.tracking import evaluation as tracking

    evaluator = scoring.evaluator(trainings, photos, settings, offset=offset)
    evaluation = evaluator.evaluate(range(len(photos.names)), boundary=settings.boundary)
    what = scoring.name(settings, photos)
    runs = [training.found for training in trainings]
    command = shlex.join(["python", "-m", "clothseg.evaluate", *HydraConfig.get().overrides.task])
    tags = {"role": "evaluation", "command": command}
    with tracking.destinations(runs, what, tags=tags, output=settings.output) as logs:
        tracking.log_evaluation(logs, evaluation, class_names, names=photos.names, what=what, step=None)
        if settings.figure_photos:
            shown = tracking.extremes(evaluation, most=settings.figure_photos)
            predictions = list(evaluator.predictions(shown, shown=True))
            names = [photos.names[row] for row in shown]
            tracking.log_mistakes(logs, predictions, class_names, names=names, what=what)


if __name__ == "__main__":
    entry.run(main, config_name="evaluate")
