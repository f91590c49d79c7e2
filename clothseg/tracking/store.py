"""The tracking store: where it is, and what is in it. Nothing here loads Keras."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage

from clothseg.errors import UserError


def quiet() -> None:
    """Silences what MLflow reports of every migration of a new database, of a new experiment and of a model."""
    for chatty in (
        "alembic",
        "mlflow.store.db.utils",
        "mlflow.pyfunc",
        "mlflow.system_metrics.system_metrics_monitor",
        "mlflow.tracking.fluent",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


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
