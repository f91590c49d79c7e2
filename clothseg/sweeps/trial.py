"""A trial as the process that trains it sees it: it reports every epoch, asks whether to go on, and tells its end."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from clothseg.errors import StoppedError
from clothseg.sweeps.study import StudyError, load_study, lose, open_storage, patiently, process

log = logging.getLogger(__name__)

PATIENCE = 120  # seconds for a database that is away


class PrunedError(StoppedError):
    """The pruner has stopped this trial."""


class Trial:
    """A context in which one trial is trained: on every way out the study knows how it ended.

    It ends complete when `complete` was called, pruned after `PrunedError` (which goes no further), lost after an
    interruption, so that it will be run again, and failed with the reason after any other error; both are passed on.

    Args:
        storage: address of the study's database.
        study_name: of the study.
        number: of the trial, which the sweeper has begun.
        objectives: names of the metrics.
        pruner: says whether to go on.
        grace_period: seconds after which a trial that does not report is taken for lost.

    Attributes:
        params: what the trial tries, by name.
        parent: MLflow run of the study, or None.

    Raises:
        StudyError: there is no such trial, or it has ended.
    """

    def __init__(
        self,
        *,
        storage: str,
        study_name: str,
        number: int,
        objectives: Sequence[str],
        pruner: BasePruner,
        grace_period: int,
    ) -> None:
        self.storage = open_storage(storage, grace_period=grace_period)
        self.study = load_study(self.storage, name=study_name, pruner=pruner)
        self.number, self.objectives = number, list(objectives)
        self.parent: str | None = self.study.user_attrs.get("mlflow_parent")
        try:
            self.id = self.storage.get_trial_id_from_study_id_trial_number(
                self.storage.get_study_id_from_name(study_name), number
            )
        except KeyError:
            raise StudyError(f"sweep.trial={number} is not in study {study_name}") from None
        trial = self.storage.get_trial(self.id)
        if trial.state is not TrialState.RUNNING:
            raise StudyError(f"sweep.trial={number} of study {study_name} is {trial.state.name}, not RUNNING")
        self.params = dict(trial.params)
        self.is_baseline = bool(trial.user_attrs.get("baseline"))
        self.values: list[float] | None = None
        self.ended = threading.Event()

    def __enter__(self) -> Trial:
        self.note("worker", process())
        self.pulse = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.ended.set()
        self.pulse.join()
        try:
            if kind is None:
                self._tell(TrialState.COMPLETE, self.values)
            elif issubclass(kind, PrunedError):
                self._tell(TrialState.PRUNED, None)
            elif issubclass(kind, (KeyboardInterrupt, SystemExit)):
                patiently(lambda: lose(self.study, self.storage, self.number, "interrupted"), seconds=PATIENCE)
            else:
                self.note("failure", reason(error))
                self._tell(TrialState.FAIL, None)
        except UpdateFinishedTrialError:
            log.warning("trial %d was taken for lost meanwhile", self.number)
        finally:
            self.storage.remove_session()
            self.storage.engine.dispose()
        return kind is not None and issubclass(kind, PrunedError)

    def note(self, key: str, value: Any) -> None:
        """Keeps something about the trial in the study."""
        patiently(lambda: self.storage.set_trial_user_attr(self.id, key, value), seconds=PATIENCE)

    def report(self, value: float, *, epoch: int, last: bool) -> None:
        """Reports the score of an epoch.

        Args:
            value: of the first objective, after this epoch.
            epoch: from 1.
            last: whether it is the last one, after which there is nothing to stop.

        Raises:
            PrunedError: the trial is to stop here. The baseline, which the others are compared with, never is.
        """
        self.note("epochs", epoch)
        if len(self.objectives) > 1:
            return
        patiently(lambda: self.storage.set_trial_intermediate_value(self.id, epoch, value), seconds=PATIENCE)
        if last or self.is_baseline:
            return
        if patiently(lambda: self.study.pruner.prune(self.study, self.storage.get_trial(self.id)), seconds=PATIENCE):
            raise PrunedError(f"pruned after epoch {epoch}: {self.objectives[0]} {value:.4f}")

    def complete(self, values: Sequence[float]) -> None:
        """Takes what the trial came to, one value for each objective.

        Raises:
            ValueError: one of them is not a number.
        """
        for name, value in zip(self.objectives, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
        self.values = [float(value) for value in values]

    def _tell(self, state: TrialState, values: list[float] | None) -> None:
        # The last report is the value of a pruned trial, as Optuna has it.
        if state is TrialState.PRUNED:
            reports = self.storage.get_trial(self.id).intermediate_values
            values = [reports[max(reports)]]
        patiently(lambda: self.storage.set_trial_state_values(self.id, state, values), seconds=PATIENCE)

    def _beat(self) -> None:
        while True:
            try:
                self.storage.record_heartbeat(self.id)
            except Exception as error:
                log.warning("the study's database does not answer: %s", str(error).split("\n")[0])
            if self.ended.wait(self.storage.get_heartbeat_interval()):
                return


def reason(error: BaseException | None) -> str:
    """Why a trial failed, on one line."""
    text = " ".join(str(error).split())
    memory = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return f"{'out of memory: ' if memory else ''}{type(error).__name__}: {text}"[:1000]
