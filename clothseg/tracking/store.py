"""The tracking store: where it is, and what is in it. Nothing here loads Keras."""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.entities import LifecycleStage

from clothseg.errors import UserError

# Of the list of runs.
VIEW = "clothseg"
SHOWN_METRICS = ("val_native/clothing_miou", "val_native/accuracy", "val_native/miou", "val_best/clothing_miou")
SHOWN_PARAMS = ("backbone.name", "batch_size", "optimizer.learning_rate", "seed")

# What a database says whose tables are being made at this moment; how often it is then tried, and the pause in seconds.
_BEING_MADE = "IntegrityError|already exists|duplicate|does not exist|no such table|Online migration expected"
ATTEMPTS, SETTLE = 10, 1.0
# What SQLite says of a file that another program writes to; for how many seconds that is waited for.
_LOCKED = "database is locked"
PATIENCE = 30

log = logging.getLogger(__name__)


def quiet() -> None:
    """Silences what MLflow reports of every migration of a new database, of a new experiment and of a model."""
    for chatty in (
        "alembic",
        "mlflow.pyfunc",
        "mlflow.system_metrics.system_metrics_monitor",
        "mlflow.tracking.fluent",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It logs tracebacks of what it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Of every attempt to reach a server that is away, and of where a run is, which is told otherwise.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def open_store() -> None:
    """Reaches the store of runs, or makes it; waits for one that another program has locked.

    Raises:
        UserError: it cannot be made, or its server is away, or does not know the user.
    """
    quiet()
    begun, attempt, waiting = time.monotonic(), 0, False
    while True:
        try:
            with briefly(), _alone():
                mlflow.MlflowClient().search_experiments(max_results=1)
            return
        except Exception as error:
            if _LOCKED in str(error) and time.monotonic() - begun < PATIENCE:
                if not waiting:
                    log.info("waiting for another program that has locked %s", store_address())
                waiting = True
            # On another machine somebody may be making the tables of the same database.
            elif (attempt := attempt + 1) == ATTEMPTS or not re.search(_BEING_MADE, str(error)):
                raise cannot_track(error) from error
            time.sleep(SETTLE)


@contextmanager
def _alone() -> Iterator[None]:
    """No other process of this user and machine opens the same store meanwhile.

    Of two that find a new database MLflow lets both make its tables, and neither may come to the end.
    """
    if store_address().startswith("http"):
        yield
        return
    store = hashlib.sha256(mlflow.get_tracking_uri().encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"clothseg_{getpass.getuser()}_{store}.lock"):
        yield


def cannot_track(error: Exception) -> UserError:
    """Says why a tracking store cannot be used, and what would help."""
    hint = "MLFLOW_TRACKING_URI names another store"
    if "Invalid Host" in str(error):
        # What MLflow 3 says to whoever calls it by a name that it was not told.
        host = urlsplit(store_address()).netloc
        hint = f"the server does not answer to {host}; start it with --allowed-hosts {host}"
    elif re.search(r"error code 40[13]\b", str(error)):
        hint = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, say who you are"
    elif _LOCKED in str(error):
        hint = "try again once the program that writes to it has ended"
    elif "disk is full" in str(error):
        hint = f"make room, or {hint}"
    return UserError(f"cannot track in {store_address()} ({reason(error)}); {hint}")


def reason(error: Exception) -> str:
    """What went wrong with a store, on one line, without the addresses that MLflow repeats and without SQL."""
    text = re.split(r" *(?:\[SQL: |\(Background on this error)", " ".join(str(error).split()))[0]
    text = re.sub(r"^\(\w+(?:\.\w+)*Error\) ", "", text)
    found = re.search(r"\[Errno [^\]]*\] [^'\"()]+|[^:()]*timed out|error code \d+.*", text)
    return (found[0].strip() if found else text)[:300] or type(error).__name__


@contextmanager
def briefly() -> Iterator[None]:
    """Requests to a tracking server that is away fail in seconds meanwhile; MLflow itself goes on for minutes.

    MLflow's variables, where the user has set them, count.
    """
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def where(experiment_id: str, run_id: str) -> str:
    """Where to look at a run, in words."""
    # MLflow's UI opens on its pages for language models unless it is told what the visitor works on.
    page = f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
    store = store_address()
    if store.startswith("http"):
        return f"{store.rstrip('/')}/{page}"
    here = store == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    command = "mlflow ui" if here else f"mlflow ui --backend-store-uri {store}"
    return f"http://127.0.0.1:5000/{page} while `{command}` runs"


def where_all(experiment_id: str) -> str:
    """Where to look at all runs of an experiment with their scores; see `set_view`."""
    store = store_address()
    base = store.rstrip("/") if store.startswith("http") else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"


def set_view(experiment_id: str) -> None:
    """Gives MLflow's list of an experiment's runs the columns that tell trainings apart, under the name `VIEW`.

    By itself the list shows who ran what file and none of the scores. This is the list as MLflow's own "share" keeps
    it, in a tag of the experiment; whoever changes it in the browser has their own.
    """
    client, tag = mlflow.MlflowClient(), f"mlflow.sharedViewState.{VIEW}"
    columns = [
        "attributes.`Created`",
        "attributes.`Duration`",
        *(f"metrics.`{name}`" for name in SHOWN_METRICS),
        *(f"params.`{name}`" for name in SHOWN_PARAMS),
    ]
    # All that MLflow 3.17 expects of such a state; what it does not find here it cannot do without.
    state = {
        "selectedColumns": columns,
        # The latest first. By any score MLflow would not nest trials in their study; a click on a column sorts by it.
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "viewMaximized": False,
        "runListHidden": False,
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_10_RUNS",
        "runsVisibilityMap": {},
        "runsExpanded": {},
        "autoRefreshEnabled": True,
        "compareRunCharts": None,
        "compareRunSections": None,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    text = json.dumps(state)
    if client.get_experiment(experiment_id).tags.get(tag) != text:
        client.set_experiment_tag(experiment_id, tag, text)


def store_address() -> str:
    """MLflow's tracking store, without the user and password that its address may hold."""
    return re.sub(r"//[^/@]*@", "//", mlflow.get_tracking_uri())


def experiment_of(run_id: str, *, given: str) -> str:
    """Id of the experiment that an existing run is in."""
    store = store_address()
    try:
        info = mlflow.get_run(run_id).info
    except mlflow.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{given}{run_id} is not in {store}; MLFLOW_TRACKING_URI names another store") from error
    if info.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"{given}{run_id} was deleted from {store}; `mlflow runs restore --run-id {run_id}` brings it back"
        )
    return info.experiment_id
