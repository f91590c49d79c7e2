"""One training as one MLflow run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import keras
import mlflow
import numpy as np
from filelock import Timeout
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context import registry
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
)
from PIL import Image

from clothseg.errors import StoppedError, UserError
from clothseg.models.label_maps import label_map_network
from clothseg.text import as_csv
from clothseg.tracking.logged_model import EXAMPLE, NETWORK
from clothseg.tracking.outbox import FOLDER, Outbox, write
from clothseg.tracking.store import (
    briefly,
    cannot_track,
    experiment_of,
    quiet,
    set_view,
    store_address,
    where,
    where_all,
)

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
_CODE = "    "  # by which a description, Markdown, has a command on a line of its own
PARAMETER_LENGTH = 6000  # MLflow's limit
PATIENCE_AFTER_CTRL_C = 5.0  # seconds; schedulers kill soon after they ask


def _link_or_copy(path: Path, other: Path) -> None:
    """Gives what is in a file, which is never written again in place, another name; takes room only where it has to."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _is_ours(description: str) -> bool:
    return description == "" or description.startswith(f"{_CODE}python -m clothseg")


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
        numbers = {key: float(value) for key, value in values.items() if np.isfinite(value)}
        self._put({"kind": "metrics", "values": numbers, "step": step, "time": _now()})

    def last_epoch(self) -> int:
        """The last epoch whose scores the run has; 0 where it has none."""
        return max((epoch.step for epoch in self._client.get_metric_history(self.id, "val/accuracy")), default=0)

    def tag(self, key: str, value: str) -> None:
        """Sets a tag, or changes it."""
        self._put({"kind": "tags", "tags": {key: value}})

    def text(self, text: str, path: str) -> None:
        """Logs a text as an artifact."""
        self._artifact(path, lambda file: file.write_text(text, encoding="utf-8"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> None:
        """Logs a table as a CSV file, which MLflow's UI shows as a table."""
        self.text(as_csv(columns, rows), path)

    def file(self, path: Path, folder: str) -> None:
        """Logs a file as an artifact into a folder."""
        self._artifact(f"{folder}/{path.name}", lambda file: _link_or_copy(path, file))

    def figure(self, figure: Figure, path: str) -> None:
        """Logs a figure as an artifact; one logged earlier under the same path is replaced."""
        self._artifact(path, figure.savefig)

    def _artifact(self, path: str, make: Callable[[Path], object]) -> None:
        folder, _, name = path.rpartition("/")
        entry = {"kind": "artifact", "file": name, "folder": folder or None}
        self._put(entry, lambda files: make(files / name))

    def _put(self, entry: Mapping[str, Any], fill: Callable[[Path], object] | None = None) -> None:
        """Logs an entry, see `outbox.write`; `fill` makes its files."""
        with tempfile.TemporaryDirectory() as folder:
            if fill is not None:
                fill(Path(folder))
            write(self._client, self.id, entry, Path(folder))


class TrackedRun(RunLog):
    """A context: the MLflow run is opened on entry and closed on every way out, with a status that tells how it ended.

    It says from the start which commit of which checkout and which versions of packages made it. At its end it is
    FINISHED, KILLED after Ctrl-C or where it was stopped on purpose (with the reason in the tag `stopped`), FAILED
    after any other error, whose message becomes the tag `failure`. Where runs are kept is MLflow's own affair: its
    variables are obeyed, and without them it is `sqlite:///mlflow.db` and `mlruns/` in the working folder.

    The store has to be there on entry. After that what is logged goes through an `Outbox`, and neither a slow store nor
    one that is away for a while holds anything up.

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
        folder: for the outbox, with what the store has not taken yet.
        patience: seconds that a store which is away has to come back when the run has ended.
        figures: whether figures are logged; they are most of what a short training spends on tracking.

    Attributes:
        undelivered: how much the store had not taken when the run was closed.

    Raises:
        UserError: the tracking store cannot be used, or the run to log into or under is not in it.
    """

    def __init__(
        self,
        *,
        experiment: str,
        name: str,
        tags: Mapping[str, Any],
        parent: str | None,
        run_id: str | None,
        folder: Path,
        patience: float,
        figures: bool,
    ) -> None:
        self.experiment, self.name, self.parent, self.interrupted = experiment, name, parent, run_id
        self.folder, self.patience, self.undelivered = folder / FOLDER, patience, 0
        self.figures = figures
        self.tags = {key: str(value) for key, value in tags.items()}
        package = Path(__file__).parents[1]
        self.tags |= git_state(package, package.parent / "conf")
        self.tags |= {"keras_backend": keras.backend.backend()}
        self.tags |= {f"version.{package}": version for package, version in versions().items()}

    def __enter__(self) -> TrackedRun:
        quiet()
        with ExitStack() as closing:
            # The outbox tries again by itself, and says so.
            closing.enter_context(briefly())
            self._open()
            self._closing = closing.pop_all()
        return self

    def _open(self) -> None:
        try:
            with _unchanged("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
                run = self._start()
                set_view(run.info.experiment_id)
        except UserError:
            raise
        except Exception as error:
            raise cannot_track(error) from error
        super().__init__(run.info.run_id)
        self.experiment_id = run.info.experiment_id
        try:
            self._outbox = Outbox(self.folder, self.id)
        except Timeout:
            raise UserError(f"another process is logging from {self.folder}; wait for it") from None
        self._monitor = _SystemMetrics(self, resume_logging=self.interrupted is not None)
        self._monitor.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            status = "FINISHED"
        elif issubclass(kind, (KeyboardInterrupt, StoppedError)):
            status = "KILLED"
        else:
            status = "FAILED"
        self._monitor.finish()
        if kind is not None and status == "FAILED":
            self.tag("failure", f"{kind.__name__}: {error}"[:5000])
        elif kind is not None and issubclass(kind, StoppedError):
            self.tag("stopped", str(error))
        self._put({"kind": "end", "status": status, "time": _now()})
        hurried = kind is not None and issubclass(kind, KeyboardInterrupt)
        with self._closing:
            patience = min(self.patience, PATIENCE_AFTER_CTRL_C) if hurried else self.patience
            self.undelivered = self._outbox.close(patience)
        if self.undelivered:
            log.warning(
                "%s is still away, and the run lacks what is in %s; when it is back: python -m clothseg.deliver "
                'folder="%s"',
                store_address(),
                self.folder,
                self.folder,
            )
        if self.parent is None:
            # The run that the variable names was this one.
            os.environ.pop("MLFLOW_RUN_ID", None)

    def figure(self, figure: Figure, path: str) -> None:
        if self.figures:
            super().figure(figure, path)

    @property
    def lost(self) -> list[str]:
        """Files that there was no room for."""
        return self._outbox.lost

    def _put(self, entry: Mapping[str, Any], fill: Callable[[Path], object] | None = None) -> None:
        self._outbox.put(entry, fill)

    def _start(self) -> Run:
        client = mlflow.MlflowClient()
        existing = os.environ.pop("MLFLOW_RUN_ID", None) or None
        if self.interrupted is not None:
            experiment = experiment_of(self.interrupted, given="resume=")
            existing = self.interrupted
            self._go_on(existing, mlflow.get_run(existing).data.tags)
        elif self.parent is not None:
            existing = None
            experiment = experiment_of(self.parent, given="parent run ")
        elif existing is not None:
            experiment = experiment_of(existing, given="MLFLOW_RUN_ID=")
        elif self.experiment == os.environ.get("MLFLOW_EXPERIMENT_ID"):
            experiment = self.experiment
        else:
            experiment = mlflow.set_experiment(self.experiment).experiment_id
        # That it is there, and was not deleted.
        mlflow.set_experiment(experiment_id=experiment)
        if existing is not None:
            client.update_run(existing, status="RUNNING", name=self.name)
            client.log_batch(existing, tags=[RunTag(key, value) for key, value in self.tags.items()])
            return client.get_run(existing)
        tags = self.tags | {MLFLOW_RUN_NAME: self.name}
        if self.parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent
        # With what MLflow says of every run: who started it, and of what file.
        return client.create_run(experiment, tags=registry.resolve_tags(tags), run_name=self.name)

    def _go_on(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Keeps the tags of the run's beginning, and says in what its going on differs from it."""
        made_by = ("git.", "version.", "keras_backend", "machine")
        now = {key: value for key, value in self.tags.items() if key.startswith(made_by)}
        other = [f"{key} {tags.get(key)}, now {value}" for key, value in now.items() if tags.get(key) != value]
        self.tags = {key: value for key, value in self.tags.items() if key not in now}
        self.tags["resumed"] = str(int(tags.get("resumed", 0)) + 1)
        if other:
            self.tags["resumed.differently"] = "; ".join([tags.get("resumed.differently", ""), *other]).strip("; ")
            log.warning("the training began with other code or packages, or on another machine: %s", "; ".join(other))
        for key in ("failure", "stopped"):
            if key in tags:
                mlflow.MlflowClient().delete_tag(run_id, key)

    def where(self) -> str:
        """Where to look at the run, in words."""
        return where(self.experiment_id, self.id)

    def where_all(self) -> str:
        """Where to look at it among all runs of its experiment."""
        return where_all(self.experiment_id)

    def describe(self, command: str, text: str) -> None:
        """Sets the description that MLflow shows above a run, unless somebody has written another.

        Args:
            command: what the run came of.
            text: what is to be known of it first.
        """
        try:
            now = self._client.get_run(self.id).data.tags.get(MLFLOW_RUN_NOTE, "")
        except Exception:
            return  # of a server that is away, which has more important things to be given
        if _is_ours(now):
            self.tag(MLFLOW_RUN_NOTE, f"{_CODE}{command}\n\n{text}")

    def configuration(self, text: str, values: Mapping[str, Any]) -> None:
        """Logs what was run: the configuration as a file and as parameters, and the versions of packages."""
        self.text(text, "config/config.yaml")
        self.text("".join(f"{package}=={version}\n" for package, version in versions().items()), "config/packages.txt")
        params = {key: str(value)[:PARAMETER_LENGTH] for key, value in values.items()}
        self._put({"kind": "params", "params": params})

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
            # MLflow instantiates it so itself, without `profile`.
            dataset = MetaDataset(source, name=name, digest=digest).to_dict()  # type: ignore[abstract]
            tags = {MLFLOW_DATASET_CONTEXT: part, "photos": str(len(photos)), "fingerprint": fingerprint}
            self._put({"kind": "input", "dataset": dataset, "tags": tags})

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

        def fill(folder: Path) -> None:
            # A model around the same layers is not compiled: neither optimizer nor metrics are saved with it.
            network = keras.Model(model.input, model.output, name=model.name)
            label_map_network(network, resize=resize).save(folder / NETWORK)
            Image.fromarray(example).save(folder / EXAMPLE, quality=80)

        packages = ("mlflow", "keras", "numpy", "pillow", keras.backend.backend())
        requirements = [f"{package}=={versions()[package]}" for package in packages]
        self._put({"kind": "model", "class_names": list(class_names), "requirements": requirements}, fill)


class _SystemMetrics(SystemMetricsMonitor):
    """MLflow's measurements of the machine, which of itself gives up measuring when the store is away once."""

    def __init__(self, run: RunLog, *, resume_logging: bool) -> None:
        super().__init__(run.id, resume_logging=resume_logging)
        self._run = run

    def monitor(self) -> None:
        while True:
            for _ in range(self.samples_before_logging):
                self.collect_metrics()
                if self._shutdown_event.wait(self.sampling_interval):
                    return
            self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        self._run.scores({prefix + name: value for name, value in metrics.items()}, step=self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()


def _now() -> int:
    """Milliseconds, as MLflow counts them."""
    return int(1000 * time.time())


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
