"""A study as a table: what was tried, what came of it, and how far that is from the baseline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from clothseg.sweeps.study import again_as, trials
from clothseg.text import as_csv, duration

Rows = list[list[Any]]


def rows(study: optuna.Study, *, objectives: Sequence[str]) -> tuple[list[str], Rows]:
    """One row for each trial that was begun.

    Args:
        study: where they are.
        objectives: names of the metrics.

    Returns:
        Names of the columns, and the rows: number, state, values, their differences from the baseline's, parameters,
        epochs trained, seconds, what is to be said, MLflow run.
    """
    begun, reference, again = trials(study), baseline(study), again_as(study)
    parameters = sorted({name for trial in begun for name in trial.params})
    columns = ["trial", "state", *objectives, *(f"{name} - baseline" for name in objectives), *parameters]
    columns += ["epochs", "seconds", "remark", "mlflow_run_id"]
    table: Rows = []
    for trial in begun:
        values = _values(trial, len(objectives))
        compared = reference if trial.state is TrialState.COMPLETE else None
        differences = [
            round(value - compared.values[place], 6) if compared is not None else ""
            for place, value in enumerate(trial.values or [""] * len(objectives))
        ]
        table.append([
            trial.number,
            trial.state.name,
            *values,
            *differences,
            *(trial.params.get(name, "") for name in parameters),
            trial.user_attrs.get("epochs", ""),
            round(trial.duration.total_seconds(), 1) if trial.duration else "",
            _remark(trial, again),
            trial.user_attrs.get("mlflow_run_id", ""),
        ])  # fmt: skip
    return columns, table


def baseline(study: optuna.Study) -> FrozenTrial | None:
    """The complete baseline trial, if there is one."""
    complete = (trial for trial in trials(study) if trial.state is TrialState.COMPLETE)
    return next((trial for trial in complete if trial.user_attrs.get("baseline")), None)


def write(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Writes a table as CSV, aside and renamed into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(as_csv(columns, rows), encoding="utf-8")
    os.replace(aside, path)


def text(columns: Sequence[str], rows: Rows) -> str:
    """A table for a terminal, without the run ids."""
    kept = [place for place, name in enumerate(columns) if name != "mlflow_run_id"]
    cells = [[columns[place] for place in kept]] + [[_cell(row[place]) for place in kept] for row in rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(kept))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def line(study: optuna.Study, trial: FrozenTrial, *, objectives: Sequence[str]) -> str:
    """A trial that ended, on one line."""
    reference = baseline(study)
    values = []
    for place, name in enumerate(objectives):
        value = _values(trial, len(objectives))[place]
        if value == "":
            continue
        away = ""
        if reference is not None and trial.state is TrialState.COMPLETE and reference.number != trial.number:
            away = f" ({value - reference.values[place]:+.4f} from the baseline)"
        values.append(f"{name} {value:.4f}{away}")
    params = " ".join(f"{name}={_cell(value)}" for name, value in trial.params.items())
    epochs = f", {trial.user_attrs['epochs']} epochs" if "epochs" in trial.user_attrs else ""
    seconds = f"in {duration(trial.duration.total_seconds())}{epochs}" if trial.duration else ""
    remark = _remark(trial, again_as(study))
    parts = [f"trial {trial.number} {trial.state.name}", ", ".join(values), params, seconds, remark]
    return "  ".join(part for part in parts if part)


def best_line(study: optuna.Study, *, objectives: Sequence[str]) -> str:
    """The best so far, on one line."""
    complete = [trial for trial in trials(study) if trial.state is TrialState.COMPLETE]
    if not complete:
        return "no trial has come to its end yet"
    if len(objectives) > 1:
        return f"{len(study.best_trials)} trials on the Pareto front"
    upwards = study.direction is StudyDirection.MAXIMIZE
    best = (max if upwards else min)(complete, key=lambda trial: trial.values[0])
    return f"best: trial {best.number} with {objectives[0]} {best.values[0]:.4f}"


def _values(trial: FrozenTrial, count: int) -> list[Any]:
    return [round(value, 6) for value in trial.values] if trial.values is not None else [""] * count


def _remark(trial: FrozenTrial, again: dict[int, int]) -> str:
    parts = ["baseline"] if trial.user_attrs.get("baseline") else []
    if trial.number in again:
        parts.append(f"{trial.user_attrs.get('lost', 'lost')}, run again as trial {again[trial.number]}")
    elif trial.state is TrialState.FAIL:
        parts.append(trial.user_attrs.get("failure") or trial.user_attrs.get("lost") or "its process was killed")
    return "; ".join(parts)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
