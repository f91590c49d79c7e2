"""The run of a study in MLflow, which its trials are nested under."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlflow
import optuna
from mlflow.entities import LifecycleStage, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context import registry
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE
from optuna.study import StudyDirection
from optuna.trial import TrialState

from clothseg.errors import UserError
from clothseg.text import as_csv
from clothseg.tracking.store import cannot_track, experiment_of, open_store, store_address, where
from clothseg.tracking.study_figures import study_figures

log = logging.getLogger(__name__)

SHARE_OF_DRAWING = 0.05  # of the time that may be spent on figures while trials run
SETTLE = 1.0  # seconds; by less, workers may see each other's runs late, and their clocks differ


class SweepRun:
    """The parent run of a study: opened anew or continued, and kept up to date.

    Everything goes through MLflow's client by the run's id, as trials have runs of their own in the same process. A
    store that fails later on is warned of and does not end the sweep.

    Args:
        experiment: name of the MLflow experiment, made where it is missing, or the value of MLFLOW_EXPERIMENT_ID.
        name: of the study, and of its run.
        known: the run that the study had before, or None. Under MLFLOW_RUN_ID it is the run named there instead.
        tags: to find it by.

    Attributes:
        id: of the run.
        experiment_id: of the experiment that it is in.

    Raises:
        UserError: the tracking store cannot be used.
    """

    def __init__(self, *, experiment: str, name: str, known: str | None, tags: Mapping[str, str]) -> None:
        open_store()
        self.drawn, self.seconds = -float("inf"), 0.0
        try:
            self.client = mlflow.MlflowClient()
            run = self._open(experiment, name, known)
            self.id, self.experiment_id = run.info.run_id, run.info.experiment_id
            self.client.update_run(self.id, status="RUNNING")
            self._tag(self.id, {**registry.resolve_tags(), **tags, "study": name, "role": "sweep"})
        except UserError:
            raise
        except Exception as error:
            raise cannot_track(error) from error

    def where(self) -> str:
        """Where to look at the run, in words."""
        return where(self.experiment_id, self.id)

    def update(
        self,
        study: optuna.Study,
        *,
        objectives: Sequence[str],
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        final: bool,
    ) -> None:
        """Logs the study as it stands.

        Args:
            study: with its trials.
            objectives: names of what is optimised.
            columns: of the table of trials.
            rows: of that table.
            final: whether figures are drawn however long that takes; they are drawn in a small share of the time else.
        """
        with self._forgiving("the study"):
            self.client.log_text(self.id, as_csv(columns, rows), "tables/trials.csv")
            trials = [trial for trial in study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]
            states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
            counts = {f"trials.{state.name.lower()}": sum(trial.state is state for trial in trials) for state in states}
            self._tag(self.id, counts)
            self._best(study, objectives, trials)
            self._describe(study, counts)
            if final or time.monotonic() - self.drawn > self.seconds / SHARE_OF_DRAWING:
                begun = time.monotonic()
                for name, figure in study_figures(study, objectives=objectives).items():
                    self.client.log_figure(self.id, figure, f"figures/{name}.png")
                self.drawn, self.seconds = time.monotonic(), time.monotonic() - begun

    def lost(self, run_id: str, reason: str) -> None:
        """Ends the run of a trial whose process is gone and could not do so itself."""
        with self._forgiving(f"run {run_id}"):
            if self.client.get_run(run_id).info.status == "RUNNING":
                self._tag(run_id, {"failure": reason[:5000], "trial.state": "FAIL"})
                self.client.set_terminated(run_id, "KILLED")

    def end(self, status: str) -> None:
        """Ends the run as FINISHED, KILLED or FAILED."""
        with self._forgiving("the end of the study"):
            self.client.set_terminated(self.id, status)

    def _open(self, experiment: str, name: str, known: str | None) -> Run:
        if named := os.environ.get("MLFLOW_RUN_ID"):
            experiment_of(named, given="MLFLOW_RUN_ID=")
            return self.client.get_run(named)
        if known is not None and (run := self._existing(known)) is not None:
            return run
        experiment_id = self._experiment(experiment)
        own, found = None, self._tagged(experiment_id, name)
        if not found:
            own = self.client.create_run(experiment_id, tags={MLFLOW_RUN_NAME: name, "study": name, "role": "sweep"})
        # Other workers may be doing so at this moment, an older run not yet be seen; in the end all take the oldest.
        if own or time.time() - found[0].info.start_time / 1000 < 2 * SETTLE:
            time.sleep(SETTLE)
            found = self._tagged(experiment_id, name)
        if own and found[0].info.run_id != own.info.run_id:
            self.client.delete_run(own.info.run_id)
        return found[0]

    def _existing(self, run_id: str) -> Run | None:
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            # The study was begun in another store.
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _experiment(self, name: str) -> str:
        """Id of the experiment, which is made where it is missing, perhaps by another process at this moment."""
        if name == os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return name
        for attempt in range(2):
            found = self.client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == LifecycleStage.ACTIVE:
                return found.experiment_id
            if found is not None:
                break
            try:
                return self.client.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or attempt:
                    raise
        raise UserError(
            f"tracking.experiment={name} was deleted from {store_address()}; "
            "`mlflow experiments restore` brings it back, tracking.experiment=OTHER takes another"
        )

    def _tagged(self, experiment_id: str, name: str) -> list[Run]:
        quoted = name.replace("'", "")
        found = self.client.search_runs([experiment_id], f"tags.study = '{quoted}' and tags.role = 'sweep'")
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _best(self, study: optuna.Study, objectives: Sequence[str], trials: list[optuna.trial.FrozenTrial]) -> None:
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if not complete:
            return
        if len(objectives) > 1:
            self._tag(self.id, {"pareto.trials": ", ".join(str(trial.number) for trial in study.best_trials)})
            return
        upwards = study.direction is StudyDirection.MAXIMIZE
        best = (max if upwards else min)(complete, key=lambda trial: trial.values[0])
        # Tags, as a parameter of a run can never change.
        told = {"trial": best.number, "value": best.values[0], **best.params}
        self._tag(self.id, {f"best.{key}": value for key, value in told.items()})
        ended = sum(trial.state.is_finished() for trial in trials)
        self.client.log_metric(self.id, f"best/{objectives[0]}", best.values[0], step=ended)

    def _describe(self, study: optuna.Study, counts: Mapping[str, int]) -> None:
        """Sets the description that MLflow shows above the run, unless somebody has written another."""
        tags = self.client.get_run(self.id).data.tags
        now, begin = tags.get(MLFLOW_RUN_NOTE, ""), f"Study {study.study_name}"
        if now and not now.startswith(begin):
            return
        told = [f"{begin}: " + ", ".join(f"{count} {name.removeprefix('trials.')}" for name, count in counts.items())]
        best = {key.removeprefix("best."): value for key, value in tags.items() if key.startswith("best.")}
        if best:
            options = ", ".join(f"{key}={value}" for key, value in best.items() if key not in ("trial", "value"))
            told.append(f"Best: trial {best['trial']}, {float(best['value']):.4f} with {options}")
        self._tag(self.id, {MLFLOW_RUN_NOTE: ". ".join(told)})

    def _tag(self, run_id: str, tags: Mapping[str, Any]) -> None:
        # One by one, a tag that another worker sets for the first time at this moment would be an error in MLflow.
        self.client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    @contextmanager
    def _forgiving(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.warning("%s could not be logged to %s: %s", what, store_address(), str(error).split("\n")[0])
