"""A series of experiments, each in several seeds: what every step changes, as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from matplotlib.figure import Figure

from clothseg.errors import UserError
from clothseg.text import as_csv, portable
from clothseg.tracking.canvas import BLUE, INK, ORANGE, QUIET, SMALL, blank, tidy
from clothseg.tracking.store import open_store

# Metrics of a run, and their names in tables. The last is what the training itself reports of its last epoch, on labels
# and photos as it prepared them.
SCORES = {
    "val_native/accuracy": "accuracy",
    "val_native/miou": "mean IoU",
    "val_native/clothing_miou": "clothing mean IoU",
    "val/accuracy": "accuracy as reported in training",
}
CLOTHING = "val_native/clothing_miou"


@dataclass(frozen=True)
class Step:
    """One step of a series.

    Attributes:
        name: of the step.
        seeds: of its runs, in rising order.
        scores: float (seeds,) of every score in `SCORES`.
        minutes: float (seeds,), how long the runs took.
        commands: of every seed's run.
        commits: of the code of every seed's run, empty where it was in no repository.
    """

    name: str
    seeds: tuple[int, ...]
    scores: Mapping[str, np.ndarray]
    minutes: np.ndarray
    commands: tuple[str, ...]
    commits: tuple[str, ...]


def collect(series: str) -> list[Step]:
    """The finished runs that carry the tag `series`, by their tag `step`, of each step and seed the latest.

    Steps are in the order in which their first runs began.

    Raises:
        UserError: there are none, one was not scored at the photos' own size, or the store cannot be reached.
    """
    open_store()
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.series = '{series}' and attributes.status = 'FINISHED'"
    runs = client.search_runs(experiments, filter_string=wanted, order_by=["attributes.start_time"], max_results=5000)
    if not runs:
        raise UserError(f"series={series}: no finished run in {mlflow.get_tracking_uri()} has that tag")
    found: dict[str, dict[int, mlflow.entities.Run]] = {}
    for run in runs:
        if run.data.tags.get("role") == "cross_validation" or "fold" in run.data.tags:
            raise UserError(f"run {run.info.run_id} of series {series} is of a cross-validation, which no series takes")
        if "step" not in run.data.tags:
            raise UserError(
                f"run {run.info.run_id} of series {series} has no tag step, which +tracking.tags.step=NAME gives: "
                "what it is called in the series"
            )
        if "val_native/miou" not in run.data.metrics:
            others = [
                name.removesuffix("/miou") for name in run.data.metrics if name.endswith("/miou") and "_native_" in name
            ]
            has = f", but has {', '.join(others)}" if others else ""
            raise UserError(
                f"run {run.info.run_id} of series {series} has no val_native, scores of the plain prediction at the "
                f"photos' own sizes{has}; python -m clothseg.evaluate run={run.info.run_id} adds them"
            )
        found.setdefault(run.data.tags["step"], {})[int(run.data.params["seed"])] = run
    return [
        Step(
            name=name,
            seeds=tuple(sorted(by_seed)),
            scores={
                score: np.array([by_seed[seed].data.metrics[score] for seed in sorted(by_seed)]) for score in SCORES
            },
            minutes=np.array([by_seed[seed].data.metrics["duration_seconds"] / 60 for seed in sorted(by_seed)]),
            commands=tuple(portable(by_seed[seed].data.tags.get("command", "")) for seed in sorted(by_seed)),
            commits=tuple(by_seed[seed].data.tags.get("git.commit", "") for seed in sorted(by_seed)),
        )
        for name, by_seed in found.items()
    ]


def write(steps: Sequence[Step], folder: Path, *, title: str, cumulative: bool) -> None:
    """Writes `README.md`, `runs.csv` and `scores.png` into a folder, which is made where it is missing.

    Args:
        steps: in their order.
        folder: gets the files.
        title: of the series.
        cumulative: whether each step stands on the one before it; else all are compared with the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        [
            step.name,
            seed,
            *(f"{step.scores[score][place]:.6f}" for score in SCORES),
            f"{step.minutes[place]:.2f}",
            step.commits[place],
            step.commands[place],
        ]
        for step in steps
        for place, seed in enumerate(step.seeds)
    ]
    (folder / "runs.csv").write_text(
        as_csv(["step", "seed", *SCORES, "minutes", "commit", "command"], rows), encoding="utf-8"
    )
    (folder / "README.md").write_text(table(steps, title=title, cumulative=cumulative), encoding="utf-8")
    scores_figure(steps, title=title, cumulative=cumulative).savefig(folder / "scores.png", dpi=110)


def table(steps: Sequence[Step], *, title: str, cumulative: bool) -> str:
    """The series in Markdown: mean and standard deviation over the seeds, and what each step adds."""
    compared = "the step before" if cumulative else f"`{steps[0].name}`"
    columns = ["step", "seeds", *SCORES.values(), f"clothing mean IoU against {compared}", "minutes"]
    lines = [
        f"# {title[0].upper()}{title[1:]}",
        "",
        "Scores at the photos' own sizes on the validation photos, mean and standard deviation over the seeds, and the "
        "accuracy that training itself reported, on photos and labels as it prepared them; minutes are the mean of a "
        "run, whatever else the machine did. Made by `python -m clothseg.results`; `runs.csv` has the single runs with "
        "their commits and commands.",
        "",
        _line(columns),
        _line(["---", *["---:"] * (len(columns) - 1)]),
    ]
    for place, step in enumerate(steps):
        before = steps[place - 1 if cumulative else 0] if place else None
        added = step.scores[CLOTHING].mean() - before.scores[CLOTHING].mean() if before else None
        lines.append(
            _line(
                [
                    step.name,
                    ", ".join(map(str, step.seeds)),
                    *(_mean_and_deviation(step.scores[score]) for score in SCORES),
                    f"{added:+.4f}" if added is not None else "",
                    f"{step.minutes.mean():.1f}",
                ]
            )
        )
    return "\n".join([*lines, "", "![scores of every step](scores.png)", ""])


def scores_figure(steps: Sequence[Step], *, title: str, cumulative: bool) -> Figure:
    """Accuracy and clothing mean IoU of every step: a dot for each seed, and if they are cumulative a line."""
    figure = blank(9.0, 1.2 + 0.32 * len(steps))
    axes = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(steps))
    for panel, score, colour in zip(axes, ("val_native/accuracy", CLOTHING), (BLUE, ORANGE), strict=True):
        means = [step.scores[score].mean() for step in steps]
        if cumulative:
            panel.plot(means, places, color=colour, linewidth=1.2, alpha=0.5)
        for place, step in enumerate(steps):
            panel.scatter(step.scores[score], [place] * len(step.seeds), s=16, color=colour, alpha=0.6, linewidths=0)
            panel.scatter(means[place], place, s=60, marker="|", color=INK)
        panel.set_title(SCORES[score], fontsize=SMALL + 1, color=INK, loc="left")
        panel.tick_params(labelsize=SMALL)
        tidy(panel, grid="x")
    axes[0].set_yticks(places, [step.name for step in steps])
    axes[0].invert_yaxis()
    figure.suptitle(title[0].upper() + title[1:], fontsize=SMALL + 3, color=INK, x=0.01, ha="left")
    figure.text(0.01, 0.01, "dots: seeds; bars: their means; at the photos' own sizes", fontsize=SMALL, color=QUIET)
    figure.tight_layout(rect=(0, 0.04, 1, 0.98))
    return figure


def _mean_and_deviation(values: np.ndarray) -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" if len(values) > 1 else f"{values.mean():.4f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
