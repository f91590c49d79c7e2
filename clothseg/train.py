"""`python -m clothseg.train`: one experiment, from photos to a tracked run."""

from __future__ import annotations

import logging
import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clothseg import entry
from clothseg.data.prepared import Prepared
from clothseg.data.split import Split
from clothseg.models.backbones import check_encoder
from clothseg.settings import PhaseSettings, TrainSettings, check
from clothseg.stages import prepare_dataset, split_dataset

log = logging.getLogger(__name__)

# Overrides that say where a run happens rather than what is run stay out of its name.
NOT_IN_NAME = ("experiment", "backbone", "name", "tracking", "prepare.cache", "prepare.workers", "hydra")


def main(cfg: DictConfig) -> float:
    """Trains what `cfg` describes. Returns the best validation score, which a sweep optimises."""
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    settings: TrainSettings = check(cfg, TrainSettings)
    # Whatever can be refused is refused before TensorFlow is loaded.
    check_encoder(settings.backbone.name, image_size=settings.size, weights=settings.backbone.weights)
    prepared = prepare_dataset(entry.build(cfg.dataset), settings)
    parts = split_dataset(prepared, settings)
    return _train(cfg, settings, prepared, parts, Path(HydraConfig.get().runtime.output_dir), begun)


def _train(
    cfg: DictConfig, settings: TrainSettings, prepared: Prepared, parts: Split, folder: Path, begun: float
) -> float:
    log.info(
        "%s: %d photos to train on, %d to validate; loading TensorFlow",
        prepared.name,
        len(parts.train),
        len(parts.validation),
    )
    from clothseg.training import backend

    # Seeds first: whatever is built below draws from them.
    backend.load(seed=settings.seed, deterministic=settings.deterministic)
    import keras

    from clothseg.data.pipeline import evaluation_batches, steps_per_pass, training_batches
    from clothseg.models.backbones import build_encoder
    from clothseg.models.unet import build_unet, set_batch_norm_momentum
    from clothseg.tracking import figures
    from clothseg.tracking.report import Report
    from clothseg.tracking.run import TrackedRun, git_state, versions
    from clothseg.training import precision, scores
    from clothseg.training.devices import placement
    from clothseg.training.phases import Checkpoints, History, fit_phases

    policy = precision.choose(settings.precision)
    keras.mixed_precision.set_dtype_policy(policy)
    accelerated = precision.accelerated()
    jit_compile = (
        accelerated or keras.backend.backend() == "jax" if settings.jit_compile == "auto" else settings.jit_compile
    )

    classes = len(prepared.class_names)
    augmentation = entry.build(cfg.augmentation)
    place = placement(settings.devices)
    with place():
        encoder = build_encoder(
            settings.backbone.name,
            image_size=settings.size,
            weights=settings.backbone.weights,
            input_scaling=settings.backbone.input_scaling,
        )
        if settings.backbone.batch_norm_momentum is not None:
            set_batch_norm_momentum(encoder, settings.backbone.batch_norm_momentum)
        model = build_unet(encoder, decoder=entry.build(cfg.decoder), classes=classes, name="unet")
    steps = steps_per_pass(len(parts.train) * augmentation.variants, settings.batch_size)
    phases = [
        _phase(name, phase, entry.build(cfg.schedule.phases[name].optimizer), steps)
        for name, phase in settings.schedule.phases.items()
    ]
    loss = entry.build(cfg.loss)

    held_out = np.asarray(prepared.labels[parts.validation])
    background = scores.background_accuracy(np.diag(np.bincount(held_out.ravel(), minlength=classes)))
    shown = parts.validation[: settings.tracking.figure_photos]
    history = History()
    checkpoints = Checkpoints(model, folder / "weights", metric=settings.best_metric)

    tags = {
        "preset": settings.name,
        "dataset": prepared.name,
        "backbone": settings.backbone.name,
        "precision": policy,
        "command": _command(),
        **git_state(Path(__file__).parent),
        **settings.tracking.tags,
    }
    run_name = settings.tracking.run_name or _run_name(settings)
    with TrackedRun(experiment=settings.tracking.experiment, name=run_name, tags=tags) as run:
        log.info("MLflow run %s (%s)", run_name, run.id)
        run.parameters(
            _parameters(cfg) | {"precision_used": policy, "classes": classes, "parameters": model.count_params()}
        )
        run.text(
            "".join(f"{package}=={version}\n" for package, version in versions().items()), "environment/packages.txt"
        )
        run.text(OmegaConf.to_yaml(cfg, resolve=True), "config/config.yaml")
        run.text(parts.to_json(), "data/split.json")
        run.inputs(
            name=prepared.name,
            fingerprint=prepared.fingerprint,
            parts={"training": parts.names()["train"], "validation": parts.names()["validation"]},
            options=entry.flatten(cfg.dataset),
        )
        run.tag(**{f"version.{package}": version for package, version in versions().items()})
        if prepared.skipped:
            run.table(["name", "reason"], prepared.skipped, "data/skipped.csv")
        first = parts.train[:8]
        sheet = figures.sample_sheet(
            prepared.photos[first],
            prepared.labels[first],
            class_names=prepared.class_names,
            names=[prepared.names[i] for i in first],
        )
        run.figure(sheet, "figures/samples.png")
        report = Report(
            run,
            model,
            photos=np.asarray(prepared.photos[shown]),
            labels=np.asarray(prepared.labels[shown]),
            names=[prepared.names[i] for i in shown],
            class_names=prepared.class_names,
            background_accuracy=background,
        )
        try:
            fit_phases(
                model,
                encoder,
                phases=phases,
                training=lambda first_step: training_batches(
                    prepared.photos,
                    prepared.labels,
                    parts.train,
                    augmentation=augmentation,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    first_step=first_step,
                ),
                validation=evaluation_batches(
                    prepared.photos, prepared.labels, parts.validation, batch_size=settings.batch_size
                ),
                classes=classes,
                loss=loss,
                placement=place,
                jit_compile=jit_compile,
                batch_size=settings.batch_size,
                history=history,
                after_epoch=[checkpoints, report.after_epoch],
                after_phase=[report.after_phase],
            )
        finally:
            # Also after Ctrl-C or an error: what was trained so far is kept.
            if history.epochs:
                _conclude(settings, model, history, checkpoints, report, run, begun)
    best = history.best(settings.best_metric)
    _say_where(run_name, run.id, best, history, background, settings.best_metric)
    return best.scores[settings.best_metric]


def _conclude(
    settings: TrainSettings, model: Any, history: Any, checkpoints: Any, report: Any, run: Any, begun: float
) -> None:
    """Leaves in the run what a training came to, complete or not."""
    log.info("logging weights, figures and the model")
    best = history.best(settings.best_metric)
    kept = best if settings.keep == "best" else history.epochs[-1]
    model.load_weights(checkpoints.path(settings.keep))
    report.curves(history)
    report.final(kept.confusion, what=f"epoch {kept.number}")
    best_scores = {f"best/{name}": value for name, value in best.scores.items() if name.startswith("val/")}
    run.scores(
        best_scores | {"best/epoch": best.number, "duration_seconds": time.monotonic() - begun},
        step=history.epochs[-1].number,
    )
    for which in ("last", "best"):
        run.file(checkpoints.path(which), "weights")
    if settings.tracking.log_model:
        run.model(model)


def _phase(name: str, phase: PhaseSettings, optimizer: Any, steps_per_pass: int) -> Any:
    from clothseg.training.phases import Phase

    return Phase(
        name=name,
        epochs=phase.epochs,
        frozen=phase.encoder == "frozen",
        steps_per_epoch=phase.steps_per_epoch or steps_per_pass,
        validation_steps=phase.validation_steps,
        optimizer=optimizer if phase.learning_rate is None else partial(optimizer, learning_rate=phase.learning_rate),
    )


def _parameters(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as MLflow parameters, without what says nothing about the experiment."""
    flat = entry.flatten(cfg)
    return {key: value for key, value in flat.items() if not key.startswith("tracking.") and ".optimizer." not in key}


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task)


def _command() -> str:
    return " ".join(["python -m clothseg.train", *_overrides()])


def _run_name(settings: TrainSettings) -> str:
    """Experiment and backbone, then what was changed: `article densenet169 batch_size=32`."""
    changed = [
        override
        for override in _overrides()
        if not override.lstrip("+~").startswith(NOT_IN_NAME) or override.startswith("backbone.input_scaling")
    ]
    return " ".join([settings.name, settings.backbone.name, *changed])[:200]


def _say_where(run_name: str, run_id: str, best: Any, history: Any, background: float, metric: str) -> None:
    last = history.epochs[-1].scores
    log.info(
        "%s: validation accuracy %.3f (all background: %.3f), mIoU %.3f, clothing mIoU %.3f; best %s %.3f in epoch %d",
        run_name, last["val/accuracy"], background, last["val/miou"], last["val/clothing_miou"],
        metric, best.scores[metric], best.number,
    )  # fmt: skip
    log.info("run %s is in MLflow; `mlflow ui` here shows it", run_id)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A scheduler's SIGTERM ends a run as Ctrl-C does.
    raise KeyboardInterrupt


if __name__ == "__main__":
    entry.run(main, config_name="train")
