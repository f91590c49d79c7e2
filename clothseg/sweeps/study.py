"""An Optuna study in a database that several processes open, leave, and open again.

Everything that is known of a trial is in the study: whoever opens it next reads it there. Trials are marked by these
user attributes: `baseline`, `asker` and `worker` (the processes that asked for it and train it), `mlflow_run_id`,
`epochs`, `failure` and `lost` (in words), `surplus` (asked for by two processes at once, one too many).
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import optuna
import psutil
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from clothseg.errors import UserError

log = logging.getLogger(__name__)

RETRIES = 1  # of a trial whose process was killed
Result = TypeVar("Result")


class StudyError(UserError):
    """A study cannot be opened, or not for this."""


def open_storage(address: str, *, grace_period: int) -> RDBStorage:
    """Opens a database for studies, making its tables where they are missing.

    Args:
        address: of SQLAlchemy: `sqlite:///optuna.db`, `postgresql://user:password@host/name`.
        grace_period: seconds after which a trial on another machine that no longer reports is taken for lost.

    Raises:
        StudyError: it cannot be opened; names the address without a password.
    """
    # Optuna tells of itself at every step, and that asking and telling by hand is unusual.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")
    sqlite = address.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}

    def opened() -> RDBStorage:
        return RDBStorage(
            address,
            engine_kwargs=options,
            heartbeat_interval=max(1, grace_period // 6),
            grace_period=grace_period,
            heartbeat_stale_trial_callback=_enqueue_again,
        )

    try:
        # Two processes that make the tables at the same moment get in each other's way once.
        return patiently(opened, seconds=5)
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        if isinstance(error, RuntimeError):
            # Both keep their version in a table of the same name.
            reason = "it holds something else than studies, perhaps MLflow's runs, which need a database of their own"
        raise StudyError(
            f"sweep.storage={without_password(address)}: {without_password(reason)}; "
            "sqlite:///FILE or postgresql://USER@HOST/NAME work (with pip install -e '.[postgresql]')"
        ) from None


def patiently(action: Callable[[], Result], *, seconds: float) -> Result:
    """Does it again, at least once, while the database is locked or away; raises what it raised when time is up."""
    until, pause, again = time.monotonic() + seconds, 0.1, False
    while True:
        try:
            return action()
        except (SQLAlchemyError, StorageInternalError):
            # On a busy machine the first attempt alone may take longer.
            if again and time.monotonic() + pause > until:
                raise
            time.sleep(pause)
            pause, again = 2 * pause, True


def without_password(text: str) -> str:
    """A text in which the addresses have neither user nor password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def open_study(
    storage: RDBStorage,
    *,
    name: str,
    sampler: BaseSampler,
    pruner: BasePruner,
    directions: Sequence[str],
    objectives: Sequence[str],
    space: Mapping[str, BaseDistribution],
    configuration: Mapping[str, Any],
    first: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any] | None,
) -> optuna.Study:
    """Opens a study, or begins it. Of several processes one begins it and the others wait for that.

    Args:
        storage: where it is kept.
        name: of the study.
        sampler: asks for trials.
        pruner: stops trials.
        directions: "maximize" or "minimize", one for each objective.
        objectives: names of the metrics.
        space: distributions by parameter.
        configuration: everything else that trials have in common, by dotted name.
        first: parameters of the trials to begin with, in their order.
        baseline: which of `first` is the baseline.

    Raises:
        StudyError: the study was begun with another configuration, search space or objective, which would make its
            trials incomparable; names the first difference.
    """
    space_text = {parameter: distribution_to_json(distribution) for parameter, distribution in space.items()}
    identity = {
        "objectives": list(objectives),
        "directions": list(directions),
        "space": space_text,
        # As it comes back from the database.
        "configuration": json.loads(json.dumps(dict(configuration), default=str)),
    }
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            directions=[StudyDirection[direction.upper()] for direction in directions],
        )
        begun = False
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        # Another process may be about to begin it; one that was killed while it did is not waited for.
        begun = _begun(study, seconds=10)
    if begun:
        _check_identity(study, identity)
        return study
    for key, value in identity.items():
        study.set_user_attr(key, value)
    for params in first:
        attributes = {"baseline": True} if params == baseline else None
        study.enqueue_trial(dict(params), user_attrs=attributes, skip_if_exists=True)
    study.set_user_attr("begun", True)
    return study


def _begun(study: optuna.Study, *, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not study.user_attrs.get("begun"):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _check_identity(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    for part, now in identity.items():
        then = study.user_attrs.get(part)
        if then == now:
            continue
        if isinstance(now, dict) and isinstance(then, dict):
            key = next(key for key in [*now, *then] if now.get(key, "absent") != then.get(key, "absent"))
            now, then = f"{key}={now.get(key, 'absent')}", f"{key}={then.get(key, 'absent')}"
        raise StudyError(
            f"study {study.study_name} was begun with other {part}: {then}, now {now}; trials of both cannot be "
            "compared, sweep.study_name=OTHER begins a study of its own"
        )


def trials(study: optuna.Study) -> list[FrozenTrial]:
    """All that were begun, in their order."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state is not TrialState.WAITING and "surplus" not in trial.user_attrs
    ]


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count towards the number asked for: begun, and not lost and run again under another number."""
    begun = trials(study)
    again = again_as(study)
    return [trial for trial in begun if trial.number not in again]


def again_as(study: optuna.Study) -> dict[int, int]:
    """The numbers under which lost trials are run again."""
    return {
        history[-1]: trial.number
        for trial in study.get_trials(deepcopy=False)
        if (history := RetryHeartbeatStaleTrialCallback.retry_history(trial))
    }


def surplus(study: optuna.Study, number: int, *, n_trials: int) -> bool:
    """Whether a trial that was just begun is one too many, as other processes began theirs at the same moment."""
    order = sorted(counted(study), key=lambda trial: (trial.datetime_start, trial.number))
    return number in [trial.number for trial in order[n_trials:]]


def process() -> dict[str, Any]:
    """What tells this process from any other, also from a later one with its number."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def alive(owner: Mapping[str, Any]) -> bool | None:
    """Whether a process is still there; None for one on another machine."""
    if owner["host"] != socket.gethostname():
        return None
    try:
        found = psutil.Process(owner["pid"])
        return abs(found.create_time() - owner["started"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recover(study: optuna.Study, storage: RDBStorage) -> list[FrozenTrial]:
    """Fails running trials whose process is gone and enqueues their parameters again, once.

    On this machine that is known at once; from another one, by a trial that no longer reports.

    Returns:
        The trials that were lost.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        owner = trial.user_attrs.get("worker") or trial.user_attrs.get("asker")
        if owner is None:
            # Its process was about to say who it is, and was killed in this moment if that is long ago.
            began = trial.datetime_start or datetime.min
            gone = datetime.now() - began > timedelta(seconds=storage.grace_period or 0)
        else:
            gone = alive(owner) is False
        if gone:
            lose(study, storage, trial.number, "its process was killed")
    fail_stale_trials(study)
    now = study.get_trials(deepcopy=False)
    # What failed by itself in this moment says why.
    return [
        now[trial.number]
        for trial in running
        if now[trial.number].state is TrialState.FAIL and "failure" not in now[trial.number].user_attrs
    ]


def lose(study: optuna.Study, storage: RDBStorage, number: int, reason: str, *, retries: int | None = RETRIES) -> bool:
    """Fails a trial that did not come to its end through no fault of its own, and enqueues its parameters again.

    Args:
        study, storage, number: of the trial.
        reason: goes into its attribute `lost`.
        retries: how often its parameters may be enqueued again; None for any number of times.

    Returns:
        Whether this process did; False where the trial has ended already.
    """
    trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)
    try:
        storage.set_trial_user_attr(trial_id, "lost", reason)
        storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False
    _enqueue_again(study, storage.get_trial(trial_id), retries=retries)
    return True


def _enqueue_again(study: optuna.Study, trial: FrozenTrial, *, retries: int | None = RETRIES) -> None:
    again = copy.deepcopy(trial)
    again.user_attrs = {key: value for key, value in trial.user_attrs.items() if key == "baseline"}
    RetryHeartbeatStaleTrialCallback(max_retry=retries)(study, again)


def load_study(storage: RDBStorage, *, name: str, pruner: BasePruner) -> optuna.Study:
    """Opens a study that exists, to report to it.

    Raises:
        StudyError: there is none of that name.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    except KeyError:
        raise StudyError(f"sweep.study_name={name} is not in {without_password(str(storage.url))}") from None
