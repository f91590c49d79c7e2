"""What an evaluation leaves in an MLflow run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import mlflow
import numpy as np
from matplotlib.figure import Figure

from clothseg.errors import UserError
from clothseg.evaluation.native import Evaluation, Prediction
from clothseg.text import as_csv
from clothseg.tracking import figures
from clothseg.tracking.find import Found
from clothseg.tracking.run import RunLog
from clothseg.tracking.store import experiment_of, where
from clothseg.training import scores
from clothseg.training.scores import Counts

log = logging.getLogger(__name__)

CONFUSED = 15  # classes in the figure of the confusion


class Log(Protocol):
    """Where scores, tables, texts and figures go."""

    def scores(self, values: Mapping[str, float], *, step: int | None) -> None: ...

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> None: ...

    def text(self, text: str, path: str) -> None: ...

    def figure(self, figure: Figure, path: str) -> None: ...


class FolderLog:
    """A folder that scores, tables and figures go to, under the paths that they have in a run.

    Args:
        folder: made where it is missing; scores go into its `scores.json`, beside those that are there.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output={folder} cannot be made: {error}") from error

    def scores(self, values: Mapping[str, float], *, step: int | None) -> None:
        """Keeps what is a number."""
        path = self.folder / "scores.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        known |= {key: float(value) for key, value in values.items() if np.isfinite(value)}
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> None:
        """Writes a CSV file."""
        self.text(as_csv(columns, rows), path)

    def text(self, text: str, path: str) -> None:
        """Writes a text."""
        self._path(path).write_text(text, encoding="utf-8")

    def figure(self, figure: Figure, path: str) -> None:
        """Writes a picture."""
        figure.savefig(self._path(path))

    def _path(self, path: str) -> Path:
        whole = self.folder / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        return whole


@contextmanager
def destinations(
    runs: Sequence[Found], what: str, *, tags: Mapping[str, str], output: str | None
) -> Iterator[list[Log]]:
    """Where an evaluation goes: to the run that was scored, to a new run where several were, and to a folder.

    Args:
        runs: that were scored together.
        what: was scored, for the name of a new run.
        tags: of a new run.
        output: a folder, or None.
    """
    logs: list[Log] = [] if output is None else [FolderLog(Path(output).expanduser())]
    ids = [run.run_id for run in runs if run.run_id is not None]
    if len(runs) == 1 and ids:
        logs.append(RunLog(ids[0]))
    if len(runs) == 1 or not ids:
        if not logs:
            log.info("run=%s is a folder, so nothing is logged; output=FOLDER keeps tables and figures", runs[0].given)
        yield logs
        return
    client = mlflow.MlflowClient()
    experiment = experiment_of(ids[0], given="run=")
    names = " + ".join(run.name for run in runs)
    members = {"members": " ".join(run.run_id or run.given for run in runs)}
    new = client.create_run(experiment, run_name=f"{what} of {names}"[:200], tags=dict(tags) | members).info.run_id
    status = "FAILED"
    try:
        yield [*logs, RunLog(new)]
        status = "FINISHED"
    finally:
        client.set_terminated(new, status)
    log.info("run %s: %s", new, where(experiment, new))


def log_evaluation(
    logs: Sequence[Log],
    evaluation: Evaluation,
    class_names: Sequence[str],
    *,
    names: Sequence[str],
    what: str,
    step: int | None,
) -> dict[str, float]:
    """Logs scores, tables and figures, and prints the scores beside those of painting everything background.

    Args:
        logs: where they go.
        evaluation: what is logged.
        class_names: one per class.
        names: of the photos, in their order.
        what: names the scores (`WHAT/miou`), the tables and the figures.
        step: the epoch whose weights were evaluated; None for the last one that a log knows of.

    Returns:
        The scores at the photos' own sizes.
    """
    native = {name: float(value) for name, value in scores.every(Counts.of(evaluation.confusion)).items()}
    network = scores.every(Counts.of(evaluation.network_confusion))
    baseline = scores.every(Counts.of(all_background(evaluation.confusion)))
    if evaluation.boundary_f is not None:
        native["boundary_f"] = float(np.nanmean(evaluation.boundary_f))
    if evaluation.calibration is not None:
        native["calibration_error"] = evaluation.calibration.error
    drawn = {
        "class_iou": figures.class_iou(
            scores.class_iou(Counts.of(evaluation.confusion)),
            pixels=evaluation.confusion.sum(axis=1),
            class_names=class_names,
            title=f"IoU at the photos' own sizes, {what.replace('_', ' ')}",
        ),
        "confusion": figures.confusion(evaluation.confusion, class_names=class_names, most=CONFUSED),
    }
    if evaluation.calibration is not None:
        drawn["calibration"] = figures.reliability(evaluation.calibration)
    for destination in logs:
        destination.scores({f"{what}/{name}": value for name, value in native.items()}, step=step)
        destination.table(*_classes(evaluation, class_names), f"tables/{what}_classes.csv")
        destination.table(*_photos(evaluation, names), f"tables/{what}_photos.csv")
        for name, figure in drawn.items():
            destination.figure(figure, f"figures/{what}_{name}.png")
    log.info("%-38s %8s %10s %15s", f"{what}, {len(names)} photos", "own size", "network's", "all background")
    for name, value in native.items():
        others = "".join(
            f"{scored[name]:{width}.4f}" for scored, width in ((network, 11), (baseline, 16)) if name in scored
        )
        log.info("  %-36s %8.4f%s", name, value, others)
    return native


def all_background(confusion: np.ndarray) -> np.ndarray:
    """The confusion matrix of predicting nothing but background, of the same labels."""
    background = np.zeros_like(confusion)
    background[:, 0] = confusion.sum(axis=1)
    return background


def extremes(evaluation: Evaluation, *, most: int) -> list[int]:
    """Places of the photos with the highest and the lowest clothing mean IoU, best first; all where they are few."""
    iou = scores.clothing_miou(Counts.of(evaluation.photo_confusions))
    order = [int(place) for place in np.argsort(-iou, kind="stable") if np.isfinite(iou[place])]
    return order if len(order) <= 2 * most else order[:most] + order[-most:]


def log_mistakes(
    logs: Sequence[Log],
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
    *,
    names: Sequence[str],
    what: str,
) -> None:
    """Draws photos with what is wrong in them.

    Args:
        logs: where the figure goes.
        predictions: of the photos, best first.
        class_names: one per class.
        names: of the photos.
        what: names the figure.
    """
    figure = figures.predictions(
        [found.photo for found in predictions],
        [found.truth for found in predictions],
        [found.predicted for found in predictions],
        class_names=class_names,
        title=f"Best and worst photos by clothing mean IoU, {what.replace('_', ' ')}",
        names=names,
        mistakes=True,
    )
    for destination in logs:
        destination.figure(figure, f"figures/{what}_best_and_worst.png")


def _classes(evaluation: Evaluation, class_names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    counts = Counts.of(evaluation.confusion)
    columns = ["class", "name", "pixels_labelled", "pixels_predicted", "iou", "recall", "dice"]
    values = [score(counts) for score in (scores.class_iou, scores.class_recall, scores.class_dice)]
    if evaluation.boundary_f is not None:
        columns.append("boundary_f")
        values.append(evaluation.boundary_f)
    rows = [
        [number, name, counts.truth[number], counts.predicted[number], *(rounded(value[number]) for value in values)]
        for number, name in enumerate(class_names)
    ]
    return columns, rows


def _photos(evaluation: Evaluation, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    columns = ["photo", "accuracy", "background_accuracy", "clothing_accuracy", "miou", "clothing_miou"]
    rows = []
    for name, confusion in zip(names, evaluation.photo_confusions, strict=True):
        found = scores.every(Counts.of(confusion))
        rows.append([name, *(rounded(found[column]) for column in columns[1:])])
    return columns, rows


def rounded(value: float | np.ndarray) -> float | str:
    """A score as tables have it: an absent class has none, an empty cell and not a zero."""
    return "" if np.isnan(value) else round(float(value), 6)
