"""One training as one MLflow run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import keras
import mlflow
import numpy as np
import pandas
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property
from PIL import Image

from clothseg.errors import StoppedError, UserError
from clothseg.models.label_maps import label_map_network
from clothseg.palette import palette
from clothseg.text import as_csv
from clothseg.tracking.store import experiment_of, quiet, set_view, store_address, where, where_all

log = logging.getLogger(__name__)

PACKAGES = (
    "clothseg",
    "tensorflow",
    "keras",
    "jax",
    "numpy",
    "mlflow",
    "hydra-core",
    "optuna",
    "scikit-learn",
    "pillow",
)
SERVED = Path(__file__).parents[1] / "deployment" / "served.py"  # which MLflow runs, not this package
PARAMETER_LENGTH = 6000  # MLflow's limit


class RunLog:
    """Where scores, tables and figures of a run go that exists, whether or not it is still going on.

    Args:
        run_id: of an MLflow run.
    """

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._client = mlflow.MlflowClient()

    def scores(self, values: Mapping[str, float], *, step: int | None) -> None:
        """Logs scores of one epoch, or of the last that the run has any of; what is not a number is left out."""
        if step is None:
            # MLflow shows the value of the highest step: scored again at another one, a run would keep its old scores.
            step = self.last_epoch()
        now = int(1000 * time.time())
        metrics = [Metric(key, float(value), now, step) for key, value in values.items() if np.isfinite(value)]
        self._client.log_batch(self.id, metrics=metrics, synchronous=True)

    def last_epoch(self) -> int:
        """The last epoch whose scores the run has; 0 where it has none."""
        return max((epoch.step for epoch in self._client.get_metric_history(self.id, "val/accuracy")), default=0)

    def tag(self, key: str, value: str) -> None:
        """Sets a tag, or changes it."""
        self._client.set_tag(self.id, key, value)

    def text(self, text: str, path: str) -> None:
        """Logs a text as an artifact."""
        self._client.log_text(self.id, text, path)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> None:
        """Logs a table as a CSV file, which MLflow's UI shows as a table."""
        self.text(as_csv(columns, rows), path)

    def file(self, path: Path, folder: str) -> None:
        """Logs a file as an artifact into a folder."""
        self._client.log_artifact(self.id, str(path), folder)

    def figure(self, figure: Figure, path: str) -> None:
        """Logs a figure as an artifact; one logged earlier under the same path is replaced."""
        self._client.log_figure(self.id, figure, path)


class TrackedRun(RunLog):
    """A context: the MLflow run is opened on entry and closed on every way out, with a status that tells how it ended.

    It says from the start which commit of which checkout and which versions of packages made it. At its end it is
    FINISHED, KILLED after Ctrl-C or where it was stopped on purpose (with the reason in the tag `stopped`), FAILED
    after any other error, whose message becomes the tag `failure`. Where runs are kept is MLflow's own affair: its
    variables are obeyed, and without them it is `sqlite:///mlflow.db` and `mlruns/` in the working folder.

    Under MLFLOW_RUN_ID the training is logged into that run, in whatever experiment it is, and the run ends with it. A
    nested run does not take the variable: all trials of a sweep would be logged into one.

    Args:
        experiment: name of the MLflow experiment, made where it is missing, or the value of MLFLOW_EXPERIMENT_ID. Runs
            that are nested or exist already are where they are.
        name: of the run.
        tags: to find it by.
        parent: id of the run that this one is nested under, if any.
        run_id: of the run itself where it goes on with an interrupted training; else None. It keeps the tags that say
            what began it.

    Raises:
        UserError: the tracking store cannot be used, or the run to log into or under is not in it.
    """

    def __init__(
        self, *, experiment: str, name: str, tags: Mapping[str, Any], parent: str | None, run_id: str | None
    ) -> None:
        self.experiment, self.name, self.parent, self.interrupted = experiment, name, parent, run_id
        self.tags = {key: str(value) for key, value in tags.items()}
        package = Path(__file__).parents[1]
        self.tags |= git_state(package, package.parent / "conf")
        self.tags |= {"keras_backend": keras.backend.backend()}
        self.tags |= {f"version.{package}": version for package, version in versions().items()}

    def __enter__(self) -> TrackedRun:
        quiet()
        try:
            with _unchanged("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
                run = self._start()
                set_view(run.info.experiment_id)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"cannot track in {store_address()} ({error}); MLFLOW_TRACKING_URI names another store"
            ) from error
        super().__init__(run.info.run_id)
        self.experiment_id = run.info.experiment_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            status = "FINISHED"
        elif issubclass(kind, (KeyboardInterrupt, StoppedError)):
            status = "KILLED"
        else:
            status = "FAILED"
        try:
            if status == "FAILED":
                mlflow.set_tag("failure", f"{kind.__name__}: {error}"[:5000])
            elif kind is not None and issubclass(kind, StoppedError):
                mlflow.set_tag("stopped", str(error))
        finally:
            # The run that the variable names was this one, or is none of a trial's business.
            with _unchanged("MLFLOW_RUN_ID") if self.parent is not None else nullcontext():
                mlflow.end_run(status)

    def _start(self) -> mlflow.ActiveRun:
        # MLflow would take the variable for a nested run too.
        existing = os.environ.pop("MLFLOW_RUN_ID", None) or None
        if self.interrupted is not None:
            experiment = experiment_of(self.interrupted, given="resume=")
            existing = self.interrupted
            self._go_on(mlflow.get_run(existing).data.tags)
        elif self.parent is not None:
            existing = None
            experiment = experiment_of(self.parent, given="parent run ")
        elif existing is not None:
            experiment = experiment_of(existing, given="MLFLOW_RUN_ID=")
        elif self.experiment == os.environ.get("MLFLOW_EXPERIMENT_ID"):
            experiment = self.experiment
        else:
            experiment = mlflow.set_experiment(self.experiment).experiment_id
        # By its id: MLflow does not activate one by name that another process makes at the same moment.
        mlflow.set_experiment(experiment_id=experiment)
        return mlflow.start_run(
            run_id=existing,
            run_name=self.name,
            parent_run_id=self.parent,
            # The run that it is nested under may be open in this very process.
            nested=self.parent is not None,
            tags=self.tags,
            log_system_metrics=True,
        )

    def _go_on(self, tags: Mapping[str, str]) -> None:
        """Keeps the tags of the run's beginning, and says in what its going on differs from it."""
        made_by = ("git.", "version.", "keras_backend")
        now = {key: value for key, value in self.tags.items() if key.startswith(made_by)}
        other = [f"{key} {tags.get(key)}, now {value}" for key, value in now.items() if tags.get(key) != value]
        self.tags = {key: value for key, value in self.tags.items() if key not in now}
        self.tags["resumed"] = str(int(tags.get("resumed", 0)) + 1)
        if other:
            self.tags["resumed.differently"] = "; ".join([tags.get("resumed.differently", ""), *other]).strip("; ")
            log.warning("the training began with other code or packages: %s", "; ".join(other))
        for key in ("failure", "stopped"):
            if key in tags:
                mlflow.MlflowClient().delete_tag(self.interrupted, key)

    def where(self) -> str:
        """Where to look at the run, in words."""
        return where(self.experiment_id, self.id)

    def where_all(self) -> str:
        """Where to look at it among all runs of its experiment."""
        return where_all(self.experiment_id)

    def configuration(self, text: str, values: Mapping[str, Any]) -> None:
        """Logs what was run: the configuration as a file and as parameters, and the versions of packages."""
        self.text(text, "config/config.yaml")
        self.text("".join(f"{package}=={version}\n" for package, version in versions().items()), "config/packages.txt")
        mlflow.log_params({key: str(value)[:PARAMETER_LENGTH] for key, value in values.items()})

    def inputs(
        self, *, name: str, fingerprint: str, parts: Mapping[str, Sequence[str]], options: Mapping[str, Any]
    ) -> None:
        """Logs what was trained and validated on as MLflow inputs, one for each part.

        Args:
            name: of the data set.
            fingerprint: of its prepared arrays. MLflow's digest of a part is made of it and the names in that part, so
                runs have equal digests where they had equal data.
            parts: names of the photos, by what they were used for.
            options: of the data set.
        """
        for part, photos in parts.items():
            described = {"name": name, "part": part, "photos": len(photos), **options}
            source = CodeDatasetSource({key: str(value) for key, value in described.items()})
            digest = hashlib.sha256("\n".join([fingerprint, *photos]).encode()).hexdigest()[:16]
            dataset = MetaDataset(source, name=name, digest=digest)
            mlflow.log_input(dataset, context=part, tags={"photos": str(len(photos)), "fingerprint": fingerprint})

    def model(
        self, model: keras.Model, *, resize: Literal["squash", "pad"], class_names: Sequence[str], example: np.ndarray
    ) -> None:
        """Logs a network so that `mlflow models serve` and `mlflow.pyfunc.load_model` map photos to label maps.

        Args:
            model: photos to logits.
            resize: how photos were brought to its size in training.
            class_names: one per class.
            example: uint8 (height, width, 3), a photo to show what the model takes.
        """
        backend = keras.backend.backend()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.keras")
            # A model around the same layers is not compiled: neither optimizer nor metrics are saved with it.
            network = keras.Model(model.input, model.output, name=model.name)
            label_map_network(network, resize=resize).save(path)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(SERVED),
                artifacts={"network": str(path)},
                signature=_signature(),
                input_example=pandas.DataFrame({"photo": [_jpeg(example)]}),
                model_config={"classes": list(class_names), "colours": palette(len(class_names)).tolist()},
                pip_requirements=[
                    f"{package}=={versions()[package]}" for package in ("mlflow", "keras", "numpy", "pillow", backend)
                ],
            )


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


def _jpeg(photo: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, format="JPEG", quality=80)
    return file.getvalue()


@contextmanager
def _unchanged(*variables: str) -> Iterator[None]:
    """Puts back environment variables, which MLflow sets and deletes for its own purposes."""
    before = {variable: os.environ.get(variable) for variable in variables}
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(package: Path, *also: Path) -> dict[str, str]:
    """Commit and dirty flag of the checkout that `package` is part of; nothing where there is none, or no git.

    Dirty is a checkout with changed files, or with new ones in `package` or the folders `also`. A package that git does
    not track, as where one was installed below somebody's checkout, is no part of it.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if not git("ls-files", "."):
            return {}
        changed = git("status", "--porcelain", "--untracked-files=no")
        new = git("status", "--porcelain", "--", ".", *(str(folder) for folder in also if folder.is_dir()))
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(changed or new)).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}
