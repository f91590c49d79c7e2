"""The loop of a sweep: it asks the study for trials, has them trained, and shows what came of them."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from clothseg import entry
from clothseg.assemble import check_backbone
from clothseg.errors import UserError
from clothseg.settings import TrainSettings, check
from clothseg.sweeps import table
from clothseg.sweeps.preset import write_preset
from clothseg.sweeps.sampling import NumberedSampler, grid_points
from clothseg.sweeps.study import (
    counted,
    lose,
    open_storage,
    open_study,
    process,
    recover,
    surplus,
    without_password,
)
from clothseg.sweeps.trial import reason
from clothseg.sweeps.workers import Workers
from clothseg.text import duration
from clothseg.tracking.sweep import SweepRun

log = logging.getLogger(__name__)

# Where and how trials are run, not what they are: two commands that differ in nothing else continue one study.
NOT_COMPARED = (
    "sweep.", "tracking.", "threads", "dataset.root", "prepare.cache", "prepare.workers", "splitting.file"
)  # fmt: skip


class Sweep(OptunaSweeperImpl):
    """Hydra's Optuna sweeper with a study that outlives the process.

    The search space, its notation and the sampler's options are the official sweeper's. Trials tell their own results
    to the study; what is left to do here is to begin them, and to settle those whose process died.

    Args:
        sampler: configuration of Optuna's sampler.
        pruner: configuration of Optuna's pruner.
        objectives: names of the metrics, as many as directions.
        baseline: parameters of the first trial, or None for no such trial.
        max_failures: with so many trials ended the sweep stops if all of them failed, or more than `max_failure_rate`.
        grace_period: seconds after which a trial on another machine that no longer reports is taken for lost.
        presets: folder of configuration that gets the best trial as a preset, or None for this checkout's.
        options: the official ones.
    """

    # Hydra gives them in `setup`, before anything else is called.
    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(
        self,
        *,
        sampler: DictConfig,
        pruner: DictConfig,
        objectives: Sequence[str],
        baseline: DictConfig | None,
        max_failures: int,
        grace_period: int,
        presets: str | None,
        **options: Any,
    ) -> None:
        super().__init__(sampler, **options)
        self.pruner, self.objectives, self.baseline = pruner, list(objectives), dict(baseline or {}) or None
        self.max_failures, self.grace_period = max_failures, grace_period
        self.presets = Path(presets) if presets is not None else None

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials until the study has as many as were asked for.

        Raises:
            UserError: an option is wrong, the study is another one, or all trials failed.
        """
        self.settled: list[int] = []
        signal.signal(signal.SIGTERM, _interrupt)
        self._process_searchspace_config()
        space, fixed, deleted = create_params_from_overrides([*self._parse_sweeper_params_config(), *arguments])
        self.space: dict[str, BaseDistribution] = {name: part for name, part in space.items() if name not in fixed}
        self.fixed, self.deleted = fixed, deleted
        if not self.space:
            raise UserError("the search space is empty: every parameter of sweep.params was given a value")
        directions = self._get_directions()
        if len(directions) != len(self.objectives):
            raise UserError(
                f"sweep.direction={directions}: one for each of sweep.objectives={self.objectives} is needed"
            )
        pruner = entry.build(self.pruner)
        if len(directions) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
            raise UserError(
                f"sweep.pruner={self.pruner.get('_target_')}: with two objectives only sweep/pruner=none works"
            )
        self.n_jobs = self._side_by_side()
        baseline = self._complete_baseline()
        first = self._first_trials(baseline)
        common = self._check(first[0] if first else {})
        self.storage_opened = open_storage(str(self.storage), grace_period=self.grace_period)
        self.study = open_study(
            self.storage_opened,
            name=str(self.study_name),
            sampler=self._make_sampler(),
            pruner=pruner,
            directions=directions,
            objectives=self.objectives,
            space=self.space,
            configuration=common,
            first=first,
            baseline=baseline,
        )
        lost = recover(self.study, self.storage_opened)
        self.run = SweepRun(
            experiment=self.config.tracking.experiment,
            name=self.study.study_name,
            known=self.study.user_attrs.get("mlflow_parent"),
            tags={
                "space": str(self.config.sweep.space),
                "objectives": ", ".join(self.objectives),
                "command": self._command(),
            },
        )
        self.study.set_user_attr("mlflow_parent", self.run.id)
        self._mourn(lost)
        self._introduce(baseline)
        status = "FAILED"
        try:
            self._run_trials()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            log.info("interrupted; the same command goes on with study %s", self.study.study_name)
            raise
        finally:
            self._update(final=True)
            # The last process that has a trial ends the run of them all.
            if all(trial.state.is_finished() for trial in counted(self.study)):
                self.run.end(status)
        self._conclude()

    # What is to be done

    def _side_by_side(self) -> int:
        launcher = self.config.hydra.launcher
        if self.n_jobs is not None:
            return int(self.n_jobs)
        own = launcher.get("n_jobs")
        if own is not None:
            return int(own) if own > 0 else os.cpu_count() or 1
        if str(launcher.get("_target_")).endswith("BasicLauncher"):
            return 1
        raise UserError(
            "sweep.n_jobs=null: this launcher does not say how many trials run side by side; sweep.n_jobs=4"
        )

    def _complete_baseline(self) -> dict[str, Any] | None:
        """The baseline within the search space: parameters it does not name have the experiment's own values."""
        if self.baseline is None:
            return None
        choices = self.config.hydra.runtime.choices
        complete = {}
        for name, distribution in self.space.items():
            named = name in self.baseline
            own = choices.get(name, OmegaConf.select(self.config, name.lstrip("+")))
            value = _within(distribution, self.baseline[name] if named else own)
            if value is None and named:
                raise UserError(
                    f"sweep.baseline.{name}={self.baseline[name]} is not in the search space {_told(distribution)}; "
                    "sweep.baseline=null does without a baseline"
                )
            if value is not None:
                complete[name] = value
        return complete

    def _first_trials(self, baseline: dict[str, Any] | None) -> list[dict[str, Any]]:
        first = [] if baseline is None else [baseline]
        if not _is_grid(self.sampler):
            return first
        try:
            choices = {name: list(self._to_grid_sampler_choices(part)) for name, part in self.space.items()}
        except ValueError:
            continuous = next(name for name, part in self.space.items() if not hasattr(part, "choices"))
            raise UserError(f"{continuous}: a grid needs choices, as in {continuous}=choice(1,2,3)") from None
        points = grid_points(choices, seed=self.sampler.get("seed") or 0)
        self.n_trials = min(self.n_trials, len(points))
        return first + [point for point in points if point != baseline]

    def _make_sampler(self) -> optuna.samplers.BaseSampler:
        allowed = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", *entry.own_targets())
        options: DictConfig = self.sampler
        make = functools.partial(instantiate, options, _execution_whitelist_=allowed)
        try:
            if _is_grid(options):
                # Every point of the grid is in the queue of the study already.
                return optuna.samplers.RandomSampler()
            if options.get("seed") is None or str(options.get("_target_")).endswith("QMCSampler"):
                # Quasi-random points are numbered by the study itself.
                return make()
            return NumberedSampler(lambda seed: make(seed=seed), seed=options.seed)
        except (TypeError, ValueError) as error:
            raise UserError(f"hydra.sweeper.sampler={options.get('_target_')}: {error}") from error

    def _check(self, params: dict[str, Any]) -> dict[str, Any]:
        """Refuses what every trial would be refused for, and returns what all trials have in common."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, self._overrides(params, trial=0))
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        settings: TrainSettings = check(task, TrainSettings)
        # A file that is missing here may be there where the trials run.
        weights = settings.backbone.weights if self._on_this_machine() else None
        check_backbone(settings, size=settings.size, weights=weights)
        varied = tuple(name.lstrip("+").split("@")[-1].replace("/", ".") for name in self.space)
        skipped = (*NOT_COMPARED, *(f"{name}." for name in varied))
        common = {key: value for key, value in entry.flatten(task).items() if not f"{key}.".startswith(skipped)}
        # The same file may lie elsewhere on another machine.
        if common.get("backbone.weights") is not None:
            common["backbone.weights"] = Path(common["backbone.weights"]).name
        return common

    def _overrides(self, params: dict[str, Any], *, trial: int) -> list[str]:
        mine = [f"sweep.trial={trial}"]
        if self.n_jobs > 1:
            # Trials side by side talk at the same time.
            mine.append(f"hydra.job_logging.formatters.simple.format='trial {trial}: %(message)s'")
        if self.n_jobs > 1 and "threads" not in self.fixed and self._on_this_machine():
            mine.append(f"threads={max(1, (os.cpu_count() or 1) // self.n_jobs)}")
        values = [f"{name}={value}" for name, value in (self.fixed | params).items()]
        return [*values, *self.deleted, *mine]

    def _on_this_machine(self) -> bool:
        return str(self.config.hydra.launcher.get("_target_")).endswith(
            ("WorkersLauncher", "JoblibLauncher", "BasicLauncher")
        )

    # Trials

    def _run_trials(self) -> None:
        with _Jobs(self.launcher) as jobs:
            while True:
                self._mourn(recover(self.study, self.storage_opened))
                self._stop_if_everything_fails()
                claimed = self._claim(self.n_jobs - len(jobs))
                if claimed and (failure := jobs.start(claimed)) is not None:
                    self._stop_if_none_began([number for number, _ in claimed], failure)
                if not len(jobs):
                    return
                for number, returned in jobs.ended():
                    self._settle(number, returned)

    def _claim(self, most: int) -> list[tuple[int, list[str]]]:
        """Begins trials: at most so many, and no more than the study still lacks."""
        claimed: list[tuple[int, list[str]]] = []
        while len(claimed) < min(most, self.n_trials) and len(counted(self.study)) < self.n_trials:
            trial = self.study.ask()
            trial.set_user_attr("asker", process())
            if surplus(self.study, trial.number, n_trials=self.n_trials):
                trial.set_user_attr("surplus", True)
                self.study.tell(trial, state=TrialState.FAIL)
                break
            self._configure_trials([trial], self.space, {}, [])
            claimed.append((trial.number, self._overrides(trial.params, trial=trial.number)))
        return claimed

    def _settle(self, number: int, returned: JobReturn | BaseException) -> None:
        """Makes sure that a trial whose job is over has ended in the study too, and shows it."""
        error = returned if isinstance(returned, BaseException) else returned._return_value
        failed = isinstance(returned, BaseException) or returned.status is JobStatus.FAILED
        trial = self._trial(number)
        if trial.state is TrialState.RUNNING:
            text = reason(error) if failed and isinstance(error, BaseException) else "its job ended without a word"
            trial_id = trial._trial_id
            try:
                self.storage_opened.set_trial_user_attr(trial_id, "failure", text)
                self.storage_opened.set_trial_state_values(trial_id, state=TrialState.FAIL)
            except UpdateFinishedTrialError:
                log.debug("trial %d ended at this moment", number)
            if "mlflow_run_id" in trial.user_attrs:
                self.run.lost(trial.user_attrs["mlflow_run_id"], text)
        self.settled.append(number)
        trial = self._trial(number)
        log.info("%s", table.line(self.study, trial, objectives=self.objectives))
        done = counted(self.study)
        ended = [other for other in done if other.state.is_finished()]
        left = self.n_trials - len(ended)
        seconds = [other.duration.total_seconds() for other in ended if other.duration is not None]
        remaining = sum(seconds) / max(1, len(seconds)) * left / self.n_jobs
        when = f", about {duration(remaining)} left" if left > 0 and seconds else ""
        log.info("%s; %d of %d done%s", table.best_line(self.study, objectives=self.objectives),
                 len(ended), self.n_trials, when)  # fmt: skip
        self._update(final=False)

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _mourn(self, lost: Iterable[FrozenTrial]) -> None:
        for trial in lost:
            log.info("trial %d was lost: %s", trial.number, trial.user_attrs.get("lost", "it no longer reports"))
            if "mlflow_run_id" in trial.user_attrs:
                self.run.lost(trial.user_attrs["mlflow_run_id"], "its process was killed")

    def _stop_if_none_began(self, numbers: Sequence[int], failure: Exception) -> None:
        """Where a launcher starts nothing, as without its cluster, no trial is used up."""
        if any("worker" in self._trial(number).user_attrs for number in numbers):
            return
        for number in numbers:
            lose(self.study, self.storage_opened, number, "its launcher failed", retries=None)
        launcher = self.config.hydra.runtime.choices.get("hydra/launcher")
        raise UserError(
            f"hydra/launcher={launcher}: it cannot start a trial here: {reason(failure)}; "
            "hydra/launcher=workers needs nothing but this machine"
        )

    def _stop_if_everything_fails(self) -> None:
        # Of this process: what failed before, the user has seen, and perhaps put right.
        ended = [self._trial(number) for number in self.settled]
        failed = [trial for trial in ended if trial.state is TrialState.FAIL]
        if len(ended) < min(self.max_failures, self.n_trials):
            return
        if len(failed) == len(ended) or len(failed) / len(ended) > self.max_failure_rate:
            why = failed[-1].user_attrs.get("failure", "its process was killed")
            counts = f"{len(failed)} of the first {len(ended)} trials failed"
            raise UserError(f"study {self.study.study_name}: {counts}, the last one: {why}")

    # What is shown

    def _introduce(self, baseline: dict[str, Any] | None) -> None:
        done = [trial for trial in counted(self.study) if trial.state.is_finished()]
        running = len(counted(self.study)) - len(done)
        elsewhere = f", {running} running in other processes" if running else ""
        log.info(
            "study %s in %s: %d of %d trials done%s, %d to do",
            self.study.study_name, without_password(str(self.storage)), len(done), self.n_trials, elsewhere,
            max(0, self.n_trials - len(done) - running),
        )  # fmt: skip
        for name, distribution in self.space.items():
            log.info("  %-26s %s", name, _told(distribution))
        if baseline:
            log.info("  %-26s %s", "baseline, trial 0", " ".join(f"{key}={value}" for key, value in baseline.items()))
        aims = [f"{way} {name}" for way, name in zip(self._get_directions(), self.objectives, strict=True)]
        kinds = [str(part.get("_target_")).rpartition(".")[2] for part in (self.sampler, self.pruner)]
        log.info("  %-26s %s; %s", "to", " and ".join(aims), ", ".join(kinds))
        log.info("  %-26s %s", "side by side", self.n_jobs)
        log.info("  %-26s %s", "runs", self.run.where())
        log.info("  %-26s %s", "files", self.config.hydra.sweep.dir)

    def _update(self, *, final: bool) -> None:
        columns, rows = table.rows(self.study, objectives=self.objectives)
        self.run.update(self.study, objectives=self.objectives, columns=columns, rows=rows, final=final)

    def _conclude(self) -> None:
        """Writes what the official sweeper writes, the table, and the best trial as a preset."""
        done = counted(self.study)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        columns, rows = table.rows(self.study, objectives=self.objectives)
        table.write(folder / "trials.csv", columns, rows)
        log.info("%s", table.text(columns, rows))
        log.info("trials: %s; %s", folder / "trials.csv", self.run.where())
        if not any(trial.state is TrialState.COMPLETE for trial in done):
            return
        results: dict[str, Any] = {"name": "optuna"}
        if len(self.objectives) > 1:
            front = self.study.best_trials
            results["solutions"] = [{"params": dict(trial.params), "values": list(trial.values)} for trial in front]
            log.info("Pareto front:")
            for trial in front:
                log.info("  %s", table.line(self.study, trial, objectives=self.objectives))
                log.info("    %s", shlex.join(["python", "-m", "clothseg.train", *self._plain(trial)]))
        else:
            best = self.study.best_trial
            results |= {"best_params": dict(best.params), "best_value": best.value}
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        if any(not trial.state.is_finished() for trial in done):
            log.info("trials are still running in other processes; the last one to end writes the preset")
        elif len(self.objectives) == 1:
            self._write_preset(self.study.best_trial)

    def _as_trained(self, trial: FrozenTrial) -> list[str]:
        return [f"{name}={value}" for name, value in (self.fixed | trial.params).items()] + self.deleted

    def _plain(self, trial: FrozenTrial) -> list[str]:
        """The trial's overrides without those of the sweep."""
        return [part for part in self._as_trained(trial) if not part.lstrip("+~").startswith(("sweep", "hydra"))]

    def _searched(self) -> list[str]:
        """Further folders of configuration, as they were given."""
        return [part for part in self.config.hydra.overrides.hydra if part.startswith("hydra.searchpath")]

    def _write_preset(self, best: FrozenTrial) -> None:
        folder, flags = self._preset_folder()
        name = f"best_of_{self.study.study_name}"
        done = counted(self.study)
        baseline = next((trial for trial in done if trial.user_attrs.get("baseline") and trial.value is not None), None)
        against = f" (the baseline: {baseline.value:.3f})" if baseline is not None else ""
        try:
            preset = write_preset(
                folder,
                name=name,
                overrides=[*self._searched(), *self._as_trained(best)],
                about=[
                    f"The best trial of the study {self.study.study_name}: trial {best.number} of {len(done)}, which "
                    "varied",
                    f"{', '.join(self.space)}.",
                ],
                duration=f"{duration(best.duration.total_seconds() if best.duration else 0)} in the sweep",
                expect=f"{self.objectives[0]} {best.value:.3f}{against}",
            )
        except UserError as error:
            log.info("%s", error)
            command = self._plain(best)
        else:
            log.info("the best trial is now a preset: %s", preset.path)
            command = [*flags, f"experiment={name}", *preset.overrides]
        log.info("  %s", shlex.join(["python", "-m", "clothseg.train", *command]))

    def _preset_folder(self) -> tuple[Path, list[str]]:
        if self.presets is not None:
            return self.presets, ["--config-dir", str(self.presets)]
        own = entry.config_folder()
        # An installed package is no place for a user's files.
        if own.parent != Path(entry.__file__).resolve().parent and os.access(own / "experiment", os.W_OK):
            return own, []
        return Path("conf"), ["--config-dir", "conf"]

    def _command(self) -> str:
        own = [part for part in self.config.hydra.overrides.hydra if part != "hydra.mode=MULTIRUN"]
        arguments = [*own, *self.config.hydra.overrides.task]
        return without_password(shlex.join(["python", "-m", "clothseg.train", "-m", *arguments]))


class _Jobs:
    """Running trials. Our own launcher gives each back as it ends; others run a batch and give back all of it."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.workers: Workers | None = getattr(launcher, "workers", None)
        self.running: dict[Future[JobReturn], int] = {}
        self.over: list[tuple[int, JobReturn | BaseException]] = []

    def __enter__(self) -> _Jobs:
        if self.workers is not None:
            self.workers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.workers is not None:
            self.workers.__exit__(*error)

    def __len__(self) -> int:
        return len(self.running) + len(self.over)

    def start(self, claimed: list[tuple[int, list[str]]]) -> Exception | None:
        """Starts trials; gives what the launcher raised, if it did."""
        if self.workers is not None:
            self.running |= {self.workers.submit(overrides, number): number for number, overrides in claimed}
            return None
        numbers = [number for number, _ in claimed]
        returned: Sequence[JobReturn | BaseException]
        try:
            returned = self.launcher.launch([overrides for _, overrides in claimed], initial_job_idx=numbers[0])
        except Exception as error:
            # A launcher gives up a whole batch when one of its processes dies.
            self.over += [(number, error) for number in numbers]
            return error
        self.over += zip(numbers, returned, strict=True)
        return None

    def ended(self) -> list[tuple[int, JobReturn | BaseException]]:
        if self.workers is not None:
            done, _ = wait(self.running, return_when=FIRST_COMPLETED)
            self.over += [(self.running.pop(future), future.exception() or future.result()) for future in done]
        over, self.over = self.over, []
        return over


def _is_grid(sampler: DictConfig) -> bool:
    return str(sampler.get("_target_")) == "optuna.samplers.GridSampler"


def _within(distribution: BaseDistribution, value: Any) -> Any:
    """A value as the distribution has it, or None where it does not have it."""
    if isinstance(distribution, CategoricalDistribution):
        return next((choice for choice in distribution.choices if str(choice) == str(value)), None)
    try:
        return value if distribution._contains(distribution.to_internal_repr(value)) else None
    except (TypeError, ValueError):
        return None


def _told(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(choice) for choice in distribution.choices)
    step = getattr(distribution, "step", None)
    log_scale = ", log" if getattr(distribution, "log", False) else ""
    in_steps = f", in steps of {step}" if step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{log_scale}{in_steps}"  # type: ignore[attr-defined]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
