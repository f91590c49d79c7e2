"""One training as one MLflow run."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import logging
import re
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from clothseg.errors import UserError

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
PARAMETER_LENGTH = 6000  # MLflow's limit


class TrackedRun:
    """A context: the MLflow run is opened on entry and closed on every way out, with a status that tells how it ended.

    It says from the start which commit of which checkout and which versions of packages made it. At its end it is
    FINISHED, KILLED after Ctrl-C (which is passed on), FAILED after any other error, whose message becomes
    the tag `failure`. Where runs are kept is MLflow's own affair: its variables are obeyed, and without them it is
    `sqlite:///mlflow.db` and `mlruns/` in the working folder.

    Args:
        experiment: name of the MLflow experiment; made where it is missing.
        name: of the run.
        tags: to find it by.

    Raises:
        UserError: the tracking store cannot be used.
    """

    def __init__(self, *, experiment: str, name: str, tags: Mapping[str, Any]) -> None:
        self.experiment, self.name, self.tags = experiment, name, {key: str(value) for key, value in tags.items()}
        package = Path(__file__).parents[1]
        self.tags |= git_state(package, package.parent / "conf")
        self.tags |= {"keras_backend": keras.backend.backend()}
        self.tags |= {f"version.{package}": version for package, version in versions().items()}

    def __enter__(self) -> TrackedRun:
        # They report every migration of a new database, and a new experiment.
        for chatty in (
            "alembic",
            "mlflow.store.db.utils",
            "mlflow.system_metrics.system_metrics_monitor",
            "mlflow.tracking.fluent",
        ):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            mlflow.set_experiment(self.experiment)
            run = mlflow.start_run(run_name=self.name, tags=self.tags, log_system_metrics=True)
        except Exception as error:
            raise UserError(f"cannot track in {_store()} ({error}); MLFLOW_TRACKING_URI names another store") from error
        self.id = run.info.run_id
        # MLflow's UI opens on its pages for language models unless it is told what the visitor works on.
        self.page = f"#/experiments/{run.info.experiment_id}/runs/{self.id}?workflowType=machine_learning"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            status = "FINISHED"
        elif issubclass(kind, KeyboardInterrupt):
            status = "KILLED"
        else:
            status = "FAILED"
        try:
            if status == "FAILED":
                mlflow.set_tag("failure", f"{kind.__name__}: {error}"[:5000])
        finally:
            mlflow.end_run(status)

    def where(self) -> str:
        """Where to look at the run, in words."""
        store = _store()
        if store.startswith("http"):
            return f"{store.rstrip('/')}/{self.page}"
        here = store == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        command = "mlflow ui" if here else f"mlflow ui --backend-store-uri {store}"
        return f"http://127.0.0.1:5000/{self.page} while `{command}` runs"

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

    def scores(self, values: Mapping[str, float], *, step: int) -> None:
        """Logs scores of one epoch; what is not a number is left out."""
        mlflow.log_metrics({key: value for key, value in values.items() if np.isfinite(value)}, step=step)

    def text(self, text: str, path: str) -> None:
        """Logs a text as an artifact."""
        mlflow.log_text(text, path)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> None:
        """Logs a table as a CSV file, which MLflow's UI shows as a table."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        mlflow.log_text(text.getvalue(), path)

    def file(self, path: Path, folder: str) -> None:
        """Logs a file as an artifact into a folder."""
        mlflow.log_artifact(str(path), folder)

    def figure(self, figure: Figure, path: str) -> None:
        """Logs a figure as an artifact; one logged earlier under the same path is replaced."""
        mlflow.log_figure(figure, path)

    def model(self, model: keras.Model) -> None:
        """Logs a network so that `mlflow.pyfunc.load_model` opens it and maps raw photos to label maps."""
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1))]),
        )
        backend = keras.backend.backend()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # The signature is written down above, so no example is needed to find it out.
            warnings.filterwarnings("ignore", message="(?s).*input example was not provided")
            path = Path(folder, "network.keras")
            # A model around the same layers is not compiled: neither optimizer nor metrics are saved with it.
            keras.Model(model.input, model.output, name=model.name).save(path)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("label_maps.py")),
                artifacts={"network": str(path)},
                signature=signature,
                pip_requirements=[
                    f"{package}=={versions()[package]}" for package in ("mlflow", "keras", "numpy", backend)
                ],
            )


def _store() -> str:
    """MLflow's tracking store, without the user and password that its address may hold."""
    return re.sub(r"//[^/@]*@", "//", mlflow.get_tracking_uri())


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
