"""Finding a training by what its user calls it. Nothing here loads Keras."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities import Run

from clothseg.errors import UserError
from clothseg.tracking.store import open_store, quiet, store_address

WAYS = (
    "an MLflow run id, last, best:EXPERIMENT, models:/NAME/VERSION, models:/NAME@ALIAS or a folder of a run's artifacts"
)
# What the best run of an experiment is the best by.
BEST = "val_best/miou"
# A training that came to its end; runs of sweeps and of other programs have no preset.
_TRAINING = "attributes.status = 'FINISHED' AND tags.preset LIKE '%'"
_CONFIG = Path("config", "config.yaml")


@dataclass(frozen=True)
class Found:
    """A training and what is kept of it.

    Attributes:
        given: as its user called it.
        run_id: of its MLflow run; None for a folder.
        name: of the run or the folder.
        status: of the run, FINISHED for a folder.
        tags: of the run, none for a folder.
        folder: where its artifacts lie; None where MLflow has them.
    """

    given: str
    run_id: str | None
    name: str
    status: str
    tags: Mapping[str, str]
    folder: Path | None
    _aside: str = field(default_factory=tempfile.mkdtemp, repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self._aside, ignore_errors=True)

    def file(self, path: str) -> Path:
        """One of its artifacts as a file, fetched where it has to be; it lies there as long as this object lives.

        Raises:
            UserError: there is none.
        """
        if self.folder is not None:
            if not (self.folder / path).is_file():
                raise UserError(f"run={self.given} has no {path}")
            return self.folder / path
        assert self.run_id is not None  # where there is no folder
        try:
            return Path(mlflow.MlflowClient().download_artifacts(self.run_id, path, self._aside))
        except Exception as error:  # of many types, by the kind of store
            reason = str(error).partition("\n")[0]
            raise UserError(f"run={self.given} ({self.status}) has no {path}: {reason}") from None

    def files(self, folder: str) -> list[str]:
        """Paths of its artifacts in a folder, in the order of their names; none where there is no such folder."""
        if self.folder is not None:
            return sorted(f"{folder}/{path.name}" for path in (self.folder / folder).glob("*") if path.is_file())
        assert self.run_id is not None  # where there is no folder
        found = mlflow.MlflowClient().list_artifacts(self.run_id, folder)
        return sorted(artifact.path for artifact in found if not artifact.is_dir)

    def history(self, names: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
        """Epochs and values of those of its curves that it has; none for a folder, which has no metrics."""
        if self.run_id is None:
            return {}
        client = mlflow.MlflowClient()
        found = {name: client.get_metric_history(self.run_id, name) for name in names}
        return {name: sorted((metric.step, metric.value) for metric in own) for name, own in found.items() if own}

    @property
    def commit(self) -> str:
        """Of the checkout that made it, "unknown" where there was none."""
        return self.tags.get("git.commit", "unknown")


def find(given: str) -> Found:
    """A training by its name.

    Args:
        given: an MLflow run id; `last`, the training that began last of those that finished; `best:EXPERIMENT`, the
            finished training with the highest `val_best/miou` of an MLflow experiment or, if none has that name,
            of an experiment preset; a registered model `models:/NAME/VERSION` or `models:/NAME@ALIAS`; a folder with
            the artifacts of a run.

    Raises:
        UserError: nothing is called so, or it is no training.
    """
    quiet()
    if not Path(given).expanduser().is_dir():
        open_store()
    if given == "last":
        return _run(given, _first(given, _all_experiments(), _TRAINING, "attributes.start_time DESC"))
    kind, colon, name = given.partition(":")
    if colon and kind == "best":
        return _run(given, _best(given, name))
    if colon and kind == "models":
        return _run(given, _get(given, _run_of_model(given)))
    for folder in (Path(given).expanduser(), Path(given, "artifacts").expanduser()):
        if (folder / _CONFIG).is_file():
            # In an artifact store all of these folders have one name, and that above them is the run's.
            whole = folder.resolve()
            name = whole.parent.name if whole.name == "artifacts" else whole.name
            return Found(given, run_id=None, name=name, status="FINISHED", tags={}, folder=folder)
    if Path(given).is_dir():
        raise UserError(f"run={given} is a folder without {_CONFIG.as_posix()}; it has to be that of a run's artifacts")
    return _run(given, _get(given, given))


def unfinished(given: str) -> Run:
    """A training that was interrupted.

    Args:
        given: its MLflow run id; `last` for the one that began last of those that did not come to their end.

    Raises:
        UserError: there is none, or it cannot be gone on with.
    """
    open_store()
    if given == "last":
        query = "attributes.status != 'FINISHED' AND tags.checkpoints LIKE '%'"
        return _first(
            given, _all_experiments(), query, "attributes.start_time DESC", option="resume", kind="unfinished"
        )
    run = _get(given, given, option="resume")
    tags = run.data.tags
    if "fold" in tags or "trial" in tags:
        one = "fold of a cross-validation" if "fold" in tags else "trial of a study"
        how = "start that anew" if "fold" in tags else "the command of the study again goes on with it"
        raise UserError(f"resume={given} is a {one}; {how}")
    if run.info.status == "FINISHED":
        raise UserError(f"resume={given} came to its end; resume= goes on with what was interrupted")
    if "checkpoints" not in tags:
        raise UserError(f"resume={given} is no training of which a state is kept; the tag `checkpoints` tells those")
    return run


def file_of(run_id: str, path: str) -> str:
    """The text of an artifact of a run."""
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{path}")


def _run(given: str, run: Run) -> Found:
    if run.data.tags.get("role") == "cross_validation":
        raise UserError(f"run={given} is a cross-validation; the runs of its folds, nested in it, are trainings")
    if "preset" not in run.data.tags:
        raise UserError(f"run={given} was not made by clothseg.train; the tag `preset` tells those that were")
    info = run.info
    return Found(given, info.run_id, info.run_name, status=info.status, tags=dict(run.data.tags), folder=None)


def _get(given: str, run_id: str, *, option: str = "run") -> Run:
    if option == "resume" and not re.fullmatch(r"[\w-]+", run_id):
        raise UserError(f"resume={given} has to be the id of an MLflow run, or last")
    if not re.fullmatch(r"[\w-]+", run_id):
        raise UserError(f"run={given} is none of what a run can be called: {WAYS}")
    try:
        return mlflow.get_run(run_id)
    except mlflow.MlflowException as error:
        raise UserError(
            f"{option}={given} is not in {store_address()}: {error}; `mlflow ui` lists the runs, "
            f"MLFLOW_TRACKING_URI names another store, and a run can be called {WAYS}"
        ) from None


def _all_experiments() -> list[str]:
    return [experiment.experiment_id for experiment in mlflow.search_experiments()]


def _best(given: str, name: str) -> Run:
    experiment = mlflow.get_experiment_by_name(name)
    order = f'metrics."{BEST}" DESC'
    scored = f'{_TRAINING} AND metrics."{BEST}" >= 0'
    if experiment is not None:
        return _first(given, [experiment.experiment_id], scored, order)
    return _first(given, _all_experiments(), f"{scored} AND tags.preset = '{name.replace(chr(39), '')}'", order)


def _first(
    given: str, experiments: list[str], query: str, order: str, *, option: str = "run", kind: str = "finished"
) -> Run:
    client, token, more = mlflow.MlflowClient(), None, bool(experiments)
    while more:
        runs = client.search_runs(experiments, query, order_by=[order], max_results=100, page_token=token)
        # A fold of a cross-validation was scored on photos of its own, and is taken by its id alone.
        # So is a trial that was interrupted, which its study runs again.
        apart = ("fold",) if option == "run" else ("fold", "trial")
        found = next((run for run in runs if not any(tag in run.data.tags for tag in apart)), None)
        if found is not None:
            return found
        token, more = runs.token, bool(runs.token)
    raise UserError(
        f"{option}={given}: no {kind} training of that kind is in {store_address()}; `mlflow ui` lists the runs, "
        "MLFLOW_TRACKING_URI names another store"
    )


def _run_of_model(given: str) -> str:
    """Id of the run that a registered model comes from."""
    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([\w-]+))", given)
    if match is None:
        raise UserError(f"run={given} is no registered model; models:/NAME/VERSION and models:/NAME@ALIAS are")
    name, version, alias = match.groups()
    client = mlflow.MlflowClient()
    try:
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)
    except mlflow.MlflowException as error:
        raise UserError(
            f"run={given} is not in {store_address()}: {error}; MLFLOW_REGISTRY_URI names another registry"
        ) from None
    if not found.run_id:
        raise UserError(f"run={given} was registered without the run that it comes from; name that run instead")
    return found.run_id
