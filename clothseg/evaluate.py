"""`python -m clothseg.evaluate`: what a trained run scores on photos at their own size."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clothseg import assemble, entry
from clothseg.errors import UserError
from clothseg.settings import EvaluateSettings, TrainSettings, check

log = logging.getLogger(__name__)

PARTS = {"val": "validation", "test": "test", "train": "train"}


def main(cfg: DictConfig) -> None:
    """Scores the run that `cfg` names, and logs the scores to it."""
    settings: EvaluateSettings = check(cfg, EvaluateSettings)
    with tempfile.TemporaryDirectory() as folder:
        trained, options, weights = _download(settings, Path(folder))
        # They come from the run.
        options.backbone.weights = None
        data = assemble.data(trained, options)
        rows = getattr(data.parts, PARTS[settings.split])
        if not len(rows):
            filled = ", ".join(name for name, part in PARTS.items() if len(getattr(data.parts, part)))
            raise UserError(f"split={settings.split} of run {settings.run} is empty; it has {filled}")
        log.info("%s: %d photos; loading Keras", data.final.name, len(rows))

        from clothseg.training import backend, precision

        backend.load(seed=options.seed, deterministic=options.deterministic, threads=options.threads)
        precision.set_policy(options.precision)
        classes = len(data.final.class_names)
        network = assemble.network(trained, options, classes=classes, size=data.size)
        network.model.load_weights(weights)

    from clothseg.tracking.evaluation import log_evaluation
    from clothseg.tracking.run import RunLog

    evaluation = assemble.evaluation(network.model, data, rows, settings, batch_size=settings.batch_size)
    log_evaluation(
        RunLog(settings.run),
        evaluation,
        data.final.class_names,
        names=[data.final.names[row] for row in rows],
        what=assemble.evaluation_name(settings.split, settings),
        step=0,
    )


def _download(settings: EvaluateSettings, folder: Path) -> tuple[DictConfig, TrainSettings, Path]:
    """Configuration, with the split, and weights of the run."""
    import mlflow

    from clothseg.tracking.store import quiet

    quiet()
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(settings.run)
    except mlflow.MlflowException as error:
        raise UserError(
            f"run={settings.run} is not in {mlflow.get_tracking_uri()}: {error}; `mlflow ui` lists the runs, "
            "MLFLOW_TRACKING_URI names another store"
        ) from None
    if "preset" not in run.data.tags:
        raise UserError(f"run={settings.run} was not made by clothseg.train; the tag `preset` tells those that were")

    def download(path: str) -> Path:
        try:
            return Path(client.download_artifacts(settings.run, path, str(folder)))
        except Exception as error:  # of many types, by the kind of store
            raise UserError(f"run={settings.run} ({run.info.status}) has no {path}: {error}") from None

    trained = OmegaConf.create(download("config/config.yaml").read_text(encoding="utf-8"))
    split = download("data/split.json")
    try:
        trained.sweep = None
        trained.splitting.file = str(split)
        if settings.root is not None:
            trained.dataset.root = settings.root
        options = check(trained, TrainSettings)
    except (OmegaConfBaseException, UserError) as error:
        told = str(error).partition("\n")[0]
        raise UserError(
            f"run={settings.run} has a configuration that this version of clothseg does not take ({told}); "
            f"evaluate it with the version that made it: commit {run.data.tags.get('git.commit', 'unknown')}"
        ) from None
    return trained, options, download(f"weights/{settings.weights or trained.keep}.weights.h5")


if __name__ == "__main__":
    entry.run(main, config_name="evaluate")
