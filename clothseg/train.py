"""`python -m clothseg.train`: one experiment, from photos to a tracked run; under `-m sweep=...`, a study's trial."""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from clothseg import assemble, entry, machine, register, results
from clothseg.errors import StoppedError, UserError
from clothseg.settings import TrainSettings, check, options_of
from clothseg.sweeps import plugin
from clothseg.training.checkpoints import STATE, Checkpoints, read_state, seconds_kept

if TYPE_CHECKING:
    from clothseg.evaluation.native import Evaluation
    from clothseg.interrupted import Interrupted
    from clothseg.sweeps.trial import Trial
    from clothseg.tracking.report import Report
    from clothseg.training.history import Epoch, History

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
    "splitting.file=",
    "threads=",
    "output=",
    "register=",
)


def main(cfg: DictConfig) -> float | list[float] | None:
    """Trains what `cfg` describes.

    Returns:
        The best validation score, which Hydra's own sweepers optimise; for a trial of a study its values, or None where
        it was pruned.
    """
    begun = time.monotonic()
    # A scheduler's SIGTERM ends a run as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    cfg = options_of(cfg, "train", TrainSettings)
    settings: TrainSettings = check(cfg, TrainSettings)
    before = None
    if settings.resume is not None:
        before = _interrupted(cfg, settings, settings.resume)
        cfg = before.cfg
        settings = check(cfg, TrainSettings)
    trial = _trial(cfg, settings)
    with trial or nullcontext():
        reached = _train(cfg, settings, trial, before, begun)
        if trial is None:
            return reached[settings.best_metric]
        trial.complete([reached[name] for name in trial.objectives])
        return trial.values
    return None


def _interrupted(cfg: DictConfig, settings: TrainSettings, given: str) -> Interrupted:
    """The training to go on with."""
    from clothseg.interrupted import taken_up

    if settings.sweep is not None or HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UserError(f"resume={given} goes on with one training; a multirun goes on by the same command again")
    if settings.folds is not None:
        raise UserError(f"resume={given} and folds={settings.folds} do not go together; folds start anew")
    overrides = _overrides()
    return taken_up(given, cfg if overrides else None, overrides)


def _trial(cfg: DictConfig, settings: TrainSettings) -> Trial | None:
    """The trial of a study that this job is, if it is one."""
    options = settings.sweep
    if options is None:
        return None
    if options.trial is None:
        hint = (
            "" if HydraConfig.get().mode is RunMode.MULTIRUN else f"; python -m clothseg.train -m sweep={options.space}"
        )
        raise UserError(f"sweep={options.space} is for multiruns{hint}")
    from clothseg.sweeps.trial import Trial

    return Trial(
        storage=options.storage,
        study_name=options.study_name,
        number=options.trial,
        objectives=options.objectives,
        pruner=entry.build(cfg.sweep.pruner),
        grace_period=options.grace_period,
    )


def _train(
    cfg: DictConfig, settings: TrainSettings, trial: Trial | None, before: Interrupted | None, begun: float
) -> dict[str, float]:
    _check_together(settings)
    output = None if settings.output is None else _made(settings.output)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if settings.folds is not None:
        return _cross_validate(cfg, settings, folder, begun, count=settings.folds)
    from clothseg.tracking.store import open_store

    # Whatever can be refused is refused before TensorFlow is loaded.
    data = assemble.data(cfg, settings)
    if before is not None:
        before.check_data(data)
    open_store()
    counts = data.final.name, len(data.parts.train), len(data.parts.validation)
    log.info("%s: %d photos to train on, %d to validate; loading Keras", *counts)

    from clothseg.training import backend

    # Seeds first: whatever is built below draws from them.
    backend.load(
        seed=settings.seed,
        deterministic=settings.deterministic,
        threads=settings.threads,
        precision=settings.precision,
    )
    if before is not None:
        own = _Own(before.name, _tags(settings, trial, before.command), parent=None, run_id=before.run_id)
    else:
        parent = trial.parent if trial is not None else None
        own = _Own(_run_name(settings, trial), _tags(settings, trial, _overrides()), parent=parent, run_id=None)
    fitted = _fit(cfg, settings, data, trial, own, folder / "weights", before, begun)
    if fitted.undelivered and (output is not None or settings.register_as is not None):
        raise UserError(
            f"run {fitted.run_id} has ended but is not whole in its store yet; after python -m clothseg.deliver: "
            f"python -m clothseg.results run={fitted.run_id}, python -m clothseg.register run={fitted.run_id} name=NAME"
        )
    if output is not None:
        results.leave(fitted.run_id, output)
    if settings.register_as is not None:
        register.main(entry.compose("register", [f"run={fitted.run_id}", f'name="{settings.register_as}"']))
    return fitted.reached


def _check_together(settings: TrainSettings) -> None:
    """Refuses options that do not go together.

    Raises:
        UserError: names them, and what would work.
    """
    folds, name, sweep = settings.folds, settings.register_as, settings.sweep
    several = [f"folds={folds}"] if folds is not None else []
    several += [f"sweep={sweep.space}"] if sweep is not None else []
    if settings.output is not None and several:
        raise UserError(f"output={settings.output} and {several[0]} do not go together; the folder is for one training")
    if len(several) > 1:
        raise UserError(f"{' and '.join(several)} do not go together; folds=null sweeps")
    if folds is not None and not settings.evaluation.native:
        raise UserError(
            f"folds={folds} pools scores at the photos' own sizes; evaluation.native=false has none, true has"
        )
    if name is not None and several:
        raise UserError(
            f"register={name} and {several[0]} do not go together; python -m clothseg.register run=RUN name={name} "
            "registers one of their runs"
        )
    if name is not None and not settings.tracking.log_model:
        raise UserError(f"register={name} needs the logged model; tracking.log_model=false has none, true has")
    if settings.gradient_checkpointing and not settings.fused_layers:
        raise UserError("gradient_checkpointing=true needs batch norms in one operation; fused_layers=true has them")


def _made(output: str) -> Path:
    folder = Path(output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output} cannot be made: {error}") from error
    return folder


def _cross_validate(
    cfg: DictConfig, settings: TrainSettings, folder: Path, begun: float, *, count: int
) -> dict[str, float]:
    """Trains once for each fold. Returns the scores of all photos that were validated on, at their own sizes."""
    from clothseg.tracking.store import open_store

    folds = assemble.folds(cfg, settings, count=count)
    open_store()
    final = folds[0].final
    log.info("%s: %d photos in %d folds; loading Keras", final.name, sum(len(x.parts.validation) for x in folds), count)

    from clothseg.training import backend

    load = partial(
        backend.load,
        seed=settings.seed,
        deterministic=settings.deterministic,
        threads=settings.threads,
        precision=settings.precision,
    )
    load()

    from clothseg.tracking.folds import Fold, log_folds, log_pooled
    from clothseg.tracking.run import TrackedRun

    name, tags = _run_name(settings, None), _tags(settings, None, _overrides())
    what = assemble.evaluation_name("val", settings.evaluation)
    # Without the tag that tells trainings, which this run is none of.
    own_tags = {key: value for key, value in tags.items() if key != "preset"} | {"role": "cross_validation"}
    done: list[Fold] = []
    with TrackedRun(
        experiment=settings.tracking.experiment,
        name=name,
        tags=own_tags,
        parent=None,
        run_id=None,
        folder=folder,
        patience=settings.tracking.patience,
        figures=settings.tracking.figures,
    ) as run:
        log.info("MLflow run %s (%s), with a run for each fold", name, run.id)
        run.configuration(_text(cfg), _parameters(cfg))
        for number, data in enumerate(folds, 1):
            of = f"fold {number}/{count}"
            with entry.lines_begin(of):
                log.info("%d photos to train on, %d to validate", len(data.parts.train), len(data.parts.validation))
                # As if it were the only one: the same numbers as without those before it.
                load()
                of_fold = tags | {"fold": number, "folds": count}
                own = _Own(f"{of} of {name}"[:200], of_fold, parent=run.id, run_id=None)
                weights = folder / f"fold_{number}" / "weights"
                fitted = _fit(cfg, settings, data, None, own, weights, None, time.monotonic())
            names = [final.names[row] for row in data.parts.validation]
            assert fitted.evaluation is not None  # folds need evaluation.native
            done.append(Fold(fitted.run_id, names, fitted.evaluation))
            log_folds(run, done, what=what)
        pooled = log_pooled(run, done, final.class_names, what=what)
        run.scores({"duration_seconds": time.monotonic() - begun}, step=0)
        log.info("run %s: %s", run.id, run.where())
    return {f"val/{score}": value for score, value in pooled.items()}


@dataclass(frozen=True)
class _Own:
    """What tells a run from others.

    Attributes:
        name: of the run.
        tags: to find it by.
        parent: id of the run that it is nested under, if any.
        run_id: of the run itself, if it goes on.
    """

    name: str
    tags: dict[str, Any]
    parent: str | None
    run_id: str | None


@dataclass(frozen=True)
class _Fitted:
    """What came of a training.

    Attributes:
        run_id: of its MLflow run.
        reached: scores of the best epoch, and how long a photo takes if a study asks for it.
        evaluation: of the kept weights at the photos' own sizes, if they were scored.
        undelivered: how much of the run its store lacks, being away.
    """

    run_id: str
    reached: dict[str, float]
    evaluation: Evaluation | None
    undelivered: int


def _fit(
    cfg: DictConfig,
    settings: TrainSettings,
    data: assemble.Data,
    trial: Trial | None,
    own: _Own,
    folder: Path,
    before: Interrupted | None,
    begun: float,
) -> _Fitted:
    """Trains and tracks. Checkpoints are in `folder`, or where those of an interrupted training are."""
    from clothseg.interrupted import held

    folder = folder if before is None else before.folder
    with held(folder):
        fitted = _fit_held(cfg, settings, data, trial, own, folder, before, begun)
    return fitted


def _fit_held(
    cfg: DictConfig,
    settings: TrainSettings,
    data: assemble.Data,
    trial: Trial | None,
    own: _Own,
    folder: Path,
    before: Interrupted | None,
    begun: float,
) -> _Fitted:
    from clothseg.tracking.report import Report
    from clothseg.tracking.run import TrackedRun
    from clothseg.training import precision
    from clothseg.training.devices import placement
    from clothseg.training.history import History
    from clothseg.training.latency import LATENCY, milliseconds_per_photo
    from clothseg.training.phases import Rollback, fit_phases

    policy = precision.set_policy(settings.precision)
    if before is not None:
        before.check_precision(policy)
    place = placement(settings.devices)
    classes = len(data.final.class_names)
    with place():
        networks = assemble.networks(cfg, settings, classes=classes)
    model = networks[data.size].model
    pixels = data.final.pixels[data.parts.train]
    augmentation = entry.build(cfg.augmentation)
    augmentation.fit(data.parts.train, pixels)
    variants, photos, shown = len(augmentation.variants), len(data.parts.train), len(data.parts.validation)
    assemble.check_batches(settings, training=photos * variants, validation=shown)
    phases = assemble.phases(cfg, settings, networks=networks, photos=photos, variants=variants)
    batches = assemble.Batches(
        data,
        augmentation=augmentation,
        weights=entry.call(cfg.sampling, entry.build(cfg.sampling), pixels),
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    loss = assemble.loss(cfg, pixels=pixels)
    log_model = settings.prepare.resize if settings.tracking.log_model else None
    history = History()
    state = None
    if before is not None:
        begun -= seconds_kept(folder / STATE)
        state = read_state(folder / STATE, {phase.name: phase for phase in phases}.__getitem__)
        history.epochs.extend(state.epochs)
    checkpoints = Checkpoints(folder, metric=settings.best_metric, begun=begun)

    tags = own.tags | {
        "dataset": data.final.name,
        "precision": policy,
        "machine": machine.description(threads=settings.threads),
        "checkpoints": folder.resolve(),
    }
    with TrackedRun(
        experiment=settings.tracking.experiment,
        name=own.name,
        tags=tags,
        parent=own.parent,
        run_id=own.run_id,
        folder=folder.parent,
        patience=settings.tracking.patience,
        figures=settings.tracking.figures,
    ) as run:
        log.info("MLflow run %s (%s)", own.name, run.id)
        report = Report(run, model, data.final, data.parts, figure_photos=settings.tracking.figure_photos, begun=begun)
        if before is None:
            run.configuration(
                _text(cfg),
                _parameters(cfg) | {"precision_used": policy, "model_parameters": model.count_params()},
            )
            report.data(options=entry.flatten(cfg.dataset))
            after_first_step = [partial(report.samples, augmentation, seed=settings.seed)]
        else:
            run.text(_text(cfg), "config/config.yaml")
            report.resumed(history)
            after_first_step = []
            last = history.epochs[-1]
            log.info(
                "going on after epoch %d of %d (%s)", last.number, sum(one.epochs for one in phases), last.phase.name
            )
        after_epoch: list[Callable[[Epoch, History], None]] = [checkpoints, report.after_epoch]
        if trial is not None:
            trial.note("mlflow_run_id", run.id)
            after_epoch.append(_reporter(trial, sum(phase.epochs for phase in phases)))
        try:
            fit_phases(
                phases=phases,
                training=batches.training,
                validation=batches.validation,
                classes=classes,
                loss=loss,
                presence_weight=settings.presence.weight,
                placement=place,
                jit_compile=precision.compiles(settings.jit_compile),
                batch_size=settings.batch_size,
                metric=settings.best_metric,
                rollback=Rollback(
                    times=settings.divergence.rollbacks,
                    rate_factor=settings.divergence.rate_factor,
                    names=batches.names,
                    tell=report.rolled_back,
                ),
                history=history,
                state=state,
                keep=checkpoints.keep,
                after_first_step=after_first_step,
                after_epoch=after_epoch,
                after_phase=[report.after_phase],
            )
        except StoppedError:
            report.stopped(history)
            checkpoints.clear()
            run.tag("trial.state", "PRUNED")
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and history.network is not None:
                # The weights in the midst of an epoch, beside those of the last whole one.
                try:
                    checkpoints.write("interrupted", history.network.model)
                except UserError as full:
                    log.warning(str(full))
            # What was trained so far is kept.
            report.conclude(history, checkpoints, keep=settings.keep, log_model=log_model)
            raise
        report.conclude(history, checkpoints, keep=settings.keep, log_model=log_model)
        evaluation = None
        if settings.evaluation.native:
            evaluation = _evaluate(settings, data, report, epoch=checkpoints.saved[settings.keep].number)
        best = history.best(settings.best_metric)
        assert best is not None
        reached = dict(best.scores)
        if trial is not None:
            if LATENCY in trial.objectives:
                reached[LATENCY] = milliseconds_per_photo(model, image_size=settings.size, repeats=30)
                run.scores({LATENCY: reached[LATENCY]}, step=len(history.epochs))
            run.tag("trial.state", "COMPLETE")
    # Only now: without a state, what is killed before its run has ended could not be gone on with.
    if run.lost:
        log.warning("the run lacks %s, which there was no room for; weights are in %s", ", ".join(run.lost), folder)
    else:
        checkpoints.clear()
    return _Fitted(run.id, reached, evaluation, run.undelivered)


def _evaluate(settings: TrainSettings, data: assemble.Data, report: Report, *, epoch: int) -> Evaluation:
    """Scores the kept weights, which the report's model has, at the photos' own sizes."""
    options = settings.evaluation
    rows = data.parts.validation
    members = [assemble.member(report.model, settings)]
    evaluator = assemble.evaluation(members, data, options, scored=None, batch_size=options.batch_size)
    evaluation = evaluator.evaluate(rows, boundary=options.boundary)
    report.evaluation(evaluation, what=assemble.evaluation_name("val", options), epoch=epoch)
    return evaluation


def _tags(settings: TrainSettings, trial: Trial | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What runs are found by."""
    tags = {
        "preset": settings.name,
        "backbone": settings.backbone.name,
        "command": shlex.join(["python", "-m", "clothseg.train", *_config(), *overrides]),
        **settings.tracking.tags,
    }
    if trial is not None:
        tags |= {"study": trial.study.study_name, "trial": trial.number, "trial.state": "RUNNING"}
    return tags


def _reporter(trial: Trial, epochs: int) -> Callable[[Epoch, History], None]:
    """Reports every epoch to the study, which may stop the training."""

    def report(epoch: Epoch, history: History) -> None:
        trial.report(epoch.scores.get(trial.objectives[0], 0.0), epoch=epoch.number, last=epoch.number == epochs)

    return report


def _parameters(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as MLflow parameters, without what says nothing about the experiment."""
    return {
        key: value for key, value in entry.flatten(cfg).items() if not key.startswith(("tracking.", "sweep", "resume"))
    }


def _text(cfg: DictConfig) -> str:
    """The configuration without the study that it is a trial of, whose address may hold a password."""
    kept = [str(key) for key in cfg if key not in ("sweep", "resume")]
    return OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, kept), resolve=True)


def _config() -> list[str]:
    """The option that names the configuration, where it is not this command's own."""
    name = HydraConfig.get().job.config_name
    return [] if name == "train" else [f"--config-name={name}"]


def _overrides() -> list[str]:
    """What was given on the command line, without sweep and resume: what gives this one run."""
    overrides = HydraConfig.get().overrides.task
    return [override for override in overrides if not override.lstrip("+~").startswith(("sweep", "resume="))]


def _run_name(settings: TrainSettings, trial: Trial | None) -> str:
    """Experiment and backbone, then what was changed: `article densenet169 batch_size=32`; of a trial what it tries."""
    if settings.tracking.run_name:
        return settings.tracking.run_name
    if trial is not None:
        last = [name.rpartition(".")[2] for name in trial.params]
        # MLflow shows the first thirty letters or so.
        names = last if len(set(last)) == len(last) else list(trial.params)
        tried = (
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in zip(names, trial.params.values(), strict=True)
        )
        return " ".join([f"trial {trial.number:02d}", *tried])[:200]
    changed = [override for override in _overrides() if not override.lstrip("+~").startswith(NOT_IN_NAME)]
    return " ".join([settings.name, settings.backbone.name, *changed])[:200]


def _arguments(given: list[str]) -> list[str]:
    """What is composed: of an interrupted training that goes on with changes, its own options and those."""
    if not any(argument.startswith("resume=") for argument in given):
        return given
    from clothseg.interrupted import with_its_command

    return with_its_command(given)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    plugin.register()
    entry.run(main, config_name="train", arguments=_arguments)
