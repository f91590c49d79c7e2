"""`python -m clothseg.train`: one experiment, from photos to a tracked run."""

from __future__ import annotations

import logging
import shlex
import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clothseg import entry
from clothseg.data.prepared import Prepared
from clothseg.data.split import Split
from clothseg.errors import UserError
from clothseg.models.backbones import check_download, check_encoder
from clothseg.settings import TrainSettings, check
from clothseg.stages import prepare_dataset, split_dataset

log = logging.getLogger(__name__)

# Overrides that say where a run happens rather than what is run stay out of its name, and so does what leads it anyway.
NOT_IN_NAME = (
    "experiment=",
    "backbone=",
    "backbone.weights=",
    "dataset.root=",
    "name=",
    "tracking.",
    "prepare.cache=",
    "prepare.workers=",
)


def main(cfg: DictConfig) -> float:
    """Trains what `cfg` describes. Returns the best validation score, which a sweep optimises."""
    begun = time.monotonic()
    # A scheduler's SIGTERM ends a run as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    settings: TrainSettings = check(cfg, TrainSettings)
    # Whatever can be refused is refused before TensorFlow is loaded.
    check_encoder(settings.backbone.name, image_size=settings.size, weights=settings.backbone.weights)
    source = entry.build(cfg.dataset)
    source.names()
    if settings.backbone.weights == "imagenet":
        check_download(settings.backbone.name)
    prepared = prepare_dataset(source, settings)
    parts = split_dataset(prepared, settings)
    counts = prepared.name, len(parts.train), len(parts.validation)
    log.info("%s: %d photos to train on, %d to validate; loading Keras", *counts)

    from clothseg.training import backend

    # Seeds first: whatever is built below draws from them.
    backend.load(seed=settings.seed, deterministic=settings.deterministic)
    return _train(cfg, settings, prepared, parts, Path(HydraConfig.get().runtime.output_dir), begun)


def _train(
    cfg: DictConfig, settings: TrainSettings, prepared: Prepared, parts: Split, folder: Path, begun: float
) -> float:
    from clothseg.data.pipeline import evaluation_batches, steps_per_pass, training_batches
    from clothseg.tracking.report import Report
    from clothseg.tracking.run import TrackedRun
    from clothseg.training import precision
    from clothseg.training.devices import placement
    from clothseg.training.phases import Checkpoints, History, fit_phases

    policy = precision.set_policy(settings.precision)
    place = placement(settings.devices)
    classes = len(prepared.class_names)
    with place():
        encoder, model = _network(cfg, settings, classes)
    augmentation = entry.build(cfg.augmentation)
    examples = len(parts.train) * len(augmentation.variants)
    check_batches(settings, examples, len(parts.validation))
    phases = _phases(cfg, settings, steps_per_pass(examples, settings.batch_size))
    loss = entry.build(cfg.loss)
    history = History()
    checkpoints = Checkpoints(model, folder / "weights", metric=settings.best_metric)

    tags = {
        "preset": settings.name,
        "dataset": prepared.name,
        "backbone": settings.backbone.name,
        "precision": policy,
        "command": shlex.join(["python", "-m", "clothseg.train", *HydraConfig.get().overrides.task]),
        **settings.tracking.tags,
    }
    name = settings.tracking.run_name or _run_name(settings)
    with TrackedRun(experiment=settings.tracking.experiment, name=name, tags=tags) as run:
        log.info("MLflow run %s (%s)", name, run.id)
        run.configuration(
            OmegaConf.to_yaml(cfg, resolve=True),
            _parameters(cfg) | {"precision_used": policy, "model_parameters": model.count_params()},
        )
        report = Report(run, model, prepared, parts, figure_photos=settings.tracking.figure_photos, begun=begun)
        report.data(options=entry.flatten(cfg.dataset))
        report.augmentation(augmentation, seed=settings.seed)
        try:
            fit_phases(
                model,
                encoder,
                phases=phases,
                training=partial(
                    training_batches,
                    prepared.photos,
                    prepared.labels,
                    parts.train,
                    augmentation=augmentation,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                ),
                validation=evaluation_batches(
                    prepared.photos, prepared.labels, parts.validation, batch_size=settings.batch_size
                ),
                classes=classes,
                loss=loss,
                placement=place,
                jit_compile=precision.compiles(settings.jit_compile),
                batch_size=settings.batch_size,
                history=history,
                after_epoch=[checkpoints, report.after_epoch],
                after_phase=[report.after_phase],
            )
        except KeyboardInterrupt:
            # The weights in the midst of an epoch, beside those of the last whole one.
            checkpoints.write("interrupted")
            raise
        finally:
            # Also after Ctrl-C or an error: what was trained so far is kept.
            if "best" in checkpoints.saved:
                report.conclude(history, checkpoints, keep=settings.keep, log_model=settings.tracking.log_model)
            else:
                report.weights(checkpoints)
    return history.best(settings.best_metric).scores[settings.best_metric]


def _network(cfg: DictConfig, settings: TrainSettings, classes: int) -> tuple[Any, Any]:
    """The encoder, and the U-Net around it."""
    from clothseg.models.backbones import build_encoder
    from clothseg.models.unet import build_unet, set_batch_norm_momentum

    options = settings.backbone
    encoder = build_encoder(
        options.name, image_size=settings.size, weights=options.weights, input_scaling=options.input_scaling
    )
    if options.batch_norm_momentum is not None:
        set_batch_norm_momentum(encoder, options.batch_norm_momentum)
    return encoder, build_unet(encoder, decoder=entry.build(cfg.decoder), classes=classes, name="unet")


def _phases(cfg: DictConfig, settings: TrainSettings, pass_steps: int) -> list[Any]:
    """The phases of the schedule, each with its optimizer and its place in the training data."""
    from clothseg.training.phases import Phase

    phases: list[Phase] = []
    first_step = 0
    for name, options in settings.schedule.phases.items():
        part = cfg.optimizer if options.optimizer is None else cfg.schedule.phases[name].optimizer
        optimizer = entry.build(part)
        if options.learning_rate is not None:
            optimizer = partial(optimizer, learning_rate=options.learning_rate)
        try:
            optimizer()
        except (TypeError, ValueError) as error:
            # Now rather than when its phase begins.
            raise UserError(f"optimizer={part.get('_target_')} of phase {name}: {error}") from error
        if settings.schedule.restart_data:
            first_step = -(-first_step // pass_steps) * pass_steps
        steps_per_epoch = options.steps_per_epoch or pass_steps
        phases.append(
            Phase(
                name=name,
                epochs=options.epochs,
                frozen=options.encoder == "frozen",
                steps_per_epoch=steps_per_epoch,
                validation_steps=options.validation_steps,
                first_step=first_step,
                optimizer=optimizer,
            )
        )
        first_step += options.epochs * steps_per_epoch
    return phases


def check_batches(settings: TrainSettings, *examples: int) -> None:
    """Refuses a batch size whose last batch leaves a device without an example: batch norms fail on nothing.

    Raises:
        UserError: names the batch size and one that works.
    """
    size, devices = settings.batch_size, settings.devices

    def fits(size: int) -> bool:
        return all(not 0 < count % size < devices for count in examples)

    if not fits(size):
        works = next((other for other in range(size + 1, max(examples) + 1) if fits(other)), None)
        hint = f"batch_size={works} does not" if works else "use fewer devices"
        raise UserError(f"batch_size={size} leaves fewer than devices={devices} examples for the last batch; {hint}")


def _parameters(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as MLflow parameters, without what says nothing about the experiment."""
    return {key: value for key, value in entry.flatten(cfg).items() if not key.startswith("tracking.")}


def _run_name(settings: TrainSettings) -> str:
    """Experiment and backbone, then what was changed: `article densenet169 batch_size=32`."""
    overrides = HydraConfig.get().overrides.task
    changed = [override for override in overrides if not override.lstrip("+~").startswith(NOT_IN_NAME)]
    return " ".join([settings.name, settings.backbone.name, *changed])[:200]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    entry.run(main, config_name="train")
