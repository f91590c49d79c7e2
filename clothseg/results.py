"""`python -m clothseg.results`: copy a measured run from MLflow into `experiments/` and tabulate all of them."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clothseg import entry
from clothseg.errors import UserError
from clothseg.settings import ResultsSettings, check
from clothseg.text import as_csv, portable

log = logging.getLogger(__name__)

SCORES = ("accuracy", "miou", "clothing_miou", "clothing_accuracy", "mean_recall")
NATIVE_SCORES = {
    "accuracy": "accuracy",
    "miou": "mean IoU",
    "clothing_miou": "clothing mean IoU",
    "clothing_accuracy": "accuracy on clothing",
    "mean_recall": "mean recall",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "dice": "mean Dice",
    "boundary_f": "boundary F",
}
PLAIN_FIGURES = ("val_native_best_and_worst", "val_native_calibration", "val_native_confusion")
KINDS = ("result", "sweep", "ensemble")
ARTIFACTS = ("figures", "tables", "config", "data/split.json")


def main(cfg: DictConfig) -> None:
    """Takes in the run that `cfg` names, if any, and writes the table anew."""
    settings: ResultsSettings = check(cfg, ResultsSettings)
    experiments = Path(settings.experiments)
    if settings.run is not None:
        folder = take_in(settings.run, experiments, settings.name)
        log.info("run %s: %s", settings.run, folder)
    if settings.series is not None:
        from clothseg.tracking import series

        folder = experiments / (settings.name or settings.series)
        steps = series.collect(settings.series)
        series.write(steps, folder, title=folder.name.replace("_", " "), cumulative=settings.cumulative)
        log.info("series %s, %d steps: %s", settings.series, len(steps), folder)
    if any(experiments.glob("*/*.json")) or settings.series is None:
        log.info("table: %s", write_table(experiments))


def take_in(run_id: str, experiments: Path, name: str | None) -> Path:
    """Copies what tells the story of a run out of MLflow: command, scores, tables and figures.

    Args:
        run_id: of a training, of the parent run of a sweep, or of an evaluation of several trainings together.
        experiments: where results are kept.
        name: of the folder the run gets; None makes one from the run's name. A result of that name is replaced.

    Returns:
        The folder.

    Raises:
        UserError: there is no such run, it is none of these, has not finished, or the folder holds something that is
            not a result.
    """
    import mlflow

    from clothseg.tracking.store import open_store

    open_store()
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
    except mlflow.MlflowException as error:
        raise UserError(
            f"run={run_id} is not in {mlflow.get_tracking_uri()}: {error}; `mlflow ui` lists the runs, "
            "MLFLOW_TRACKING_URI names another store"
        ) from None
    if run.info.status != "FINISHED":
        raise UserError(f"run={run_id} is {run.info.status}; only a FINISHED run is a result")
    kinds = {"sweep": _take_in_sweep, "evaluation": _take_in_ensemble}
    take = _take_in_training if "preset" in run.data.tags else kinds.get(run.data.tags.get("role", ""))
    if take is None:
        raise UserError(f"run={run_id} was not made by clothseg.train; the tag `preset` tells those that were")
    folder = experiments / (name or _slug(run.info.run_name))
    if folder.exists() and not any((folder / f"{kind}.json").is_file() for kind in KINDS):
        raise UserError(f"{folder} exists and is not a result; name=NAME takes another folder")
    aside = experiments / f".{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    take(client, run, aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def leave(run_id: str, folder: Path) -> None:
    """Writes what other programs go on with after a training.

    Args:
        run_id: of its MLflow run.
        folder: gets `run_id` and, a row for each epoch, `metrics.csv`, which the same training on the same machine
            leaves again as it is.
    """
    import mlflow

    client = mlflow.MlflowClient()
    histories = _histories(client, client.get_run(run_id))
    histories.pop("images_per_second", None)
    _write_epochs(histories, folder / "metrics.csv")
    (folder / "run_id").write_text(f"{run_id}\n", encoding="utf-8")


def write_table(experiments: Path) -> Path:
    """Writes `README.md` with one row per result, and those of `references.yaml`, which were measured by others.

    Returns:
        The file.

    Raises:
        UserError: the folder holds no result.
    """
    results = [
        (path.parent.name, json.loads(path.read_text("utf-8"))) for path in sorted(experiments.glob("*/result.json"))
    ]
    ensembles = [
        (path.parent.name, json.loads(path.read_text("utf-8"))) for path in sorted(experiments.glob("*/ensemble.json"))
    ]
    sweeps = _sweeps(experiments)
    if not results and not sweeps:
        raise UserError(f"experiments={experiments} holds no result yet; run=<MLflow run id> takes one in")
    lines = [
        "# Measured results",
        "",
        "Made by `python -m clothseg.results`; every row links to a folder with the run's command, configuration, "
        "scores per epoch, tables and figures. Scores are of the last epoch on the validation photos at the network's "
        "resolution; mean IoU and mean recall are over the classes present there, clothing is everything but "
        "background.",
        "",
    ]
    references = experiments / "references.yaml"
    others: list[Any] = list(OmegaConf.load(references)) if references.is_file() else []
    for dataset in dict.fromkeys(result["dataset"] for _, result in results):
        rows = [_row(f"[{name}]({name})", result) for name, result in results if result["dataset"] == dataset]
        quoted = [reference for reference in others if reference["dataset"] == dataset]
        rows += [_row(reference["name"], reference) for reference in quoted if "accuracy" in reference]
        lines += [f"## {dataset}", "", *_table(rows), ""]
        lines += [f"- {reference['name']}: {reference['source']}" for reference in quoted]
        lines += [""] if quoted else []
        own = [(name, result) for name, result in [*results, *ensembles] if result["dataset"] == dataset]
        lines += _native_lines(own, quoted)
        lines += ["Commands:", ""]
        for name, result in own:
            lines += [f"- {name}: `{result['command']}`"]
            lines += [f"  - {member}: `{command}`" for member, command in result.get("members", {}).items()]
        lines += [""]
    lines += _series(experiments)
    lines += sweeps
    path = experiments / "README.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _native_lines(results: list[tuple[str, Any]], quoted: list[Any]) -> list[str]:
    """What was scored at the photos' own sizes, as lines of the table."""
    rows = [
        [f"[{name}]({name})", how, *_native_cells(scores)]
        for name, result in results
        for how, scores in result.get("native", {}).items()
    ]
    rows += [
        [reference["name"], how, *_native_cells(scores)]
        for reference in quoted
        for how, scores in reference.get("native", {}).items()
    ]
    if not rows:
        return []
    columns = ["result", "evaluation", *NATIVE_SCORES.values()]
    return [
        "At the photos' own size (flip: averaged with the mirror image; tags: told which classes each photo has):",
        "",
        *map(_line, [columns, ["---"] * 2 + ["---:"] * len(NATIVE_SCORES), *rows]),
        "",
    ]


def _native_cells(scores: Any) -> list[str]:
    return [f"{scores[name]:.3f}" if scores.get(name) is not None else "" for name in NATIVE_SCORES]


def _take_in_training(client: Any, run: Any, aside: Path) -> None:
    series = _histories(client, run)
    for artifact in ARTIFACTS:
        client.download_artifacts(run.info.run_id, artifact, str(aside))
    # The same few training photos in every result would only fill the repository.
    for figure in ("samples", "augmentation"):
        (aside / "figures" / f"{figure}.png").unlink(missing_ok=True)
    # Of the evaluations, whose tables are all here, the plain one is drawn.
    for path in (aside / "figures").glob("*_native_*.png"):
        if path.stem not in PLAIN_FIGURES:
            path.unlink()
    config = aside / "config" / "config.yaml"
    (aside / "config.yaml").write_text(portable(config.read_text("utf-8")), encoding="utf-8")
    shutil.rmtree(config.parent)
    _write_epochs(series, aside / "metrics.csv")
    (aside / "result.json").write_text(json.dumps(_result(run, series), indent=2) + "\n", encoding="utf-8")


def _histories(client: Any, run: Any) -> dict[str, list[Any]]:
    names = [name for name in run.data.metrics if not name.startswith("system/")]
    return {name: client.get_metric_history(run.info.run_id, name) for name in names}


def _take_in_sweep(client: Any, run: Any, aside: Path) -> None:
    client.download_artifacts(run.info.run_id, "figures", str(aside))
    tables = Path(client.download_artifacts(run.info.run_id, "tables", str(aside)))
    (tables / "trials.csv").rename(aside / "trials.csv")
    tables.rmdir()
    (aside / "sweep.json").write_text(json.dumps(_sweep(run, aside / "trials.csv"), indent=2) + "\n", encoding="utf-8")


def _take_in_ensemble(client: Any, run: Any, aside: Path) -> None:
    members = [client.get_run(run_id) for run_id in run.data.tags["members"].split() if re.fullmatch(r"\w+", run_id)]
    if len(members) < 2:
        raise UserError(f"run={run.info.run_id} has members that are folders; evaluate runs in MLflow together")
    for artifact in ("figures", "tables"):
        client.download_artifacts(run.info.run_id, artifact, str(aside))
    described = {
        "run_id": run.info.run_id,
        "command": portable(run.data.tags["command"]),
        "members": {member.info.run_id: portable(member.data.tags["command"]) for member in members},
        "git_commits": [member.data.tags.get("git.commit") for member in members],
        "minutes": round(sum(member.data.metrics["duration_seconds"] for member in members) / 60, 1),
        "dataset": members[0].data.tags["dataset"],
        "native": _native(run.data.metrics),
    }
    (aside / "ensemble.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _sweep(run: Any, trials: Path) -> dict[str, Any]:
    tags = run.data.tags
    with trials.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    objective = tags["objectives"].split(", ")[0]
    lost = [row for row in rows if "run again as trial" in row["remark"]]
    baseline = next((row for row in rows if row["state"] == "COMPLETE" and "baseline" in row["remark"]), None)
    return {
        "run_id": run.info.run_id,
        "study": tags["study"],
        "command": portable(tags["command"]),
        "objectives": tags["objectives"],
        "trials": {
            "complete": sum(row["state"] == "COMPLETE" for row in rows),
            "pruned": sum(row["state"] == "PRUNED" for row in rows),
            "failed": sum(row["state"] == "FAIL" for row in rows) - len(lost),
            "lost": len(lost),
        },
        "epochs": sum(int(row["epochs"] or 0) for row in rows),
        "minutes": round(sum(float(row["seconds"] or 0) for row in rows) / 60, 1),
        "baseline": float(baseline[objective]) if baseline is not None else None,
        "best": {key.removeprefix("best."): value for key, value in tags.items() if key.startswith("best.")} or None,
        "pareto": tags.get("pareto.trials"),
    }


def _result(run: Any, series: dict[str, list[Any]]) -> dict[str, Any]:
    tags, metrics, params = run.data.tags, run.data.metrics, run.data.params
    return {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name,
        "command": portable(tags["command"]),
        "preset": tags["preset"],
        "dataset": tags["dataset"],
        "backbone": tags["backbone"],
        "fingerprint": next(tag.value for tag in run.inputs.dataset_inputs[0].tags if tag.key == "fingerprint"),
        "git_commit": tags.get("git.commit"),
        "git_dirty": tags.get("git.dirty"),
        "precision": tags["precision"],
        "seed": int(params["seed"]),
        "epochs": max(point.step for point in series["val/accuracy"]),
        "minutes": round(metrics["duration_seconds"] / 60, 1),
        "background_accuracy": metrics["val/background_accuracy"],
        "best_metric": params["best_metric"],
        "best_epoch": max(series[params["best_metric"]], key=lambda point: (point.value, -point.step)).step,
        "highest_accuracy": max(point.value for point in series["val/accuracy"]),
        **{score: metrics[f"val/{score}"] for score in SCORES},
        "native": _native(metrics),
        "versions": {key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")},
    }


def _native(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """What the run scored at the photos' own sizes, by how: plain, flip, tags, flip_tags."""
    found: dict[str, dict[str, float]] = {}
    for name, value in sorted(metrics.items()):
        if match := re.fullmatch(r"val_native(?:_(\w+))?/(\w+)", name):
            found.setdefault(match[1] or "plain", {})[match[2]] = round(value, 6)
    return found


def _write_epochs(series: dict[str, list[Any]], path: Path) -> None:
    names = sorted(
        name for name in series if name.startswith(("train/", "val/")) or name in ("learning_rate", "images_per_second")
    )
    values = {name: {point.step: point.value for point in series[name]} for name in names}
    steps = sorted({step for points in values.values() for step in points})
    rows = ([step, *(f"{values[name][step]:.6g}" if step in values[name] else "" for name in names)] for step in steps)
    path.write_text(as_csv(["epoch", *names], rows), encoding="utf-8")


def _series(experiments: Path) -> list[str]:
    """The series of experiments that were taken in, as lines of the table."""
    found = [path.parent.name for path in sorted(experiments.glob("*/runs.csv"))]
    lines = [
        "## Series",
        "",
        *(f"- [{name}]({name}): what every step changes, a table and a figure" for name in found),
        "",
    ]
    return lines if found else []


def _sweeps(experiments: Path) -> list[str]:
    """The studies that were taken in, as lines of the table."""
    found = [
        (path.parent.name, json.loads(path.read_text("utf-8"))) for path in sorted(experiments.glob("*/sweep.json"))
    ]
    if not found:
        return []
    counted = ["complete", "pruned", "failed", "lost", "epochs", "minutes"]
    columns = ["sweep", "objective", *counted, "baseline", "best", "with"]
    lines = ["## Sweeps", "", _line(columns), _line(["---"] * 2 + ["---:"] * 8 + ["---"])]
    for name, sweep in found:
        best = dict(sweep["best"] or {})
        trial, value = best.pop("trial", None), best.pop("value", None)
        params = " ".join(f"{key}={_short(given)}" for key, given in best.items())
        chosen = f"trial {trial}: {params}" if trial is not None else f"Pareto front: trials {sweep['pareto']}"
        scores = [f"{float(score):.4f}" if score is not None else "" for score in (sweep["baseline"], value)]
        counts = [*sweep["trials"].values(), sweep["epochs"], f"{sweep['minutes']:.1f}"]
        lines.append(_line([f"[{name}]({name}/trials.csv)", sweep["objectives"], *map(str, counts), *scores, chosen]))
    lines += ["", "Commands:", "", *(f"- {name}: `{sweep['command']}`" for name, sweep in found), ""]
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _row(name: str, result: dict[str, Any]) -> list[str]:
    def score(key: str) -> str:
        return f"{result[key]:.3f}" if result.get(key) is not None else ""

    return [
        name,
        str(result.get("backbone") or ""),
        str(result.get("precision") or ""),
        str(result.get("epochs") or ""),
        score("background_accuracy"),
        score("accuracy"),
        score("highest_accuracy"),
        *(score(key) for key in SCORES[1:]),
        f"{result['minutes']:.1f}" if result.get("minutes") is not None else "",
    ]


def _table(rows: list[list[str]]) -> list[str]:
    columns = (
        "result", "backbone", "precision", "epochs", "all-background accuracy", "accuracy", "highest accuracy",
        "mean IoU", "clothing mean IoU", "accuracy on clothing", "mean recall", "minutes",
    )  # fmt: skip
    alignment = ["---"] * 3 + ["---:"] * (len(columns) - 3)
    return [_line(list(cells)) for cells in (columns, alignment, *rows)]


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.-")


if __name__ == "__main__":
    entry.run(main, config_name="results")
