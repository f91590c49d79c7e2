"""The model of a run in MLflow, which is served and loaded without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property

from clothseg.palette import palette

NETWORK, EXAMPLE = "network.keras", "example.jpg"
SERVED = Path(__file__).parents[1] / "deployment" / "served.py"  # which MLflow runs, not this package


def log_model(
    client: mlflow.MlflowClient, run_id: str, folder: Path, *, class_names: Sequence[str], requirements: Sequence[str]
) -> None:
    """Logs a network so that `mlflow models serve` and `mlflow.pyfunc.load_model` map photos to label maps.

    Args:
        client: of the store.
        run_id: of the run.
        folder: with the network as `NETWORK`, photos to label maps, and a photo to show what it takes as `EXAMPLE`.
        class_names: one per class.
        requirements: packages that it runs with.
    """
    _delete_unfinished(client, run_id)
    Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.pyfunc,
        run_id=run_id,
        python_model=str(SERVED),
        artifacts={"network": str(folder / NETWORK)},
        signature=_signature(),
        input_example=pandas.DataFrame({"photo": [(folder / EXAMPLE).read_bytes()]}),
        model_config={"classes": list(class_names), "colours": palette(len(class_names)).tolist()},
        pip_requirements=list(requirements),
    )


def _delete_unfinished(client: mlflow.MlflowClient, run_id: str) -> None:
    """Deletes what an attempt left that the store's absence cut short."""
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)


def _signature() -> ModelSignature:
    """What the logged model takes and gives; see `deployment.served.LabelMaps.predict`."""
    area = Object(
        [
            Property("class", DataType.long),
            Property("name", DataType.string),
            Property("pixels", DataType.long),
            Property("share", DataType.double),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "photo")]),
        outputs=Schema(
            [
                ColSpec(DataType.long, "height"),
                ColSpec(DataType.long, "width"),
                ColSpec(DataType.string, "label_map"),
                ColSpec(Array(area), "classes"),
            ]
        ),
    )
