"""A series of runs becomes a table that says what every step changes."""

from __future__ import annotations

import csv

import mlflow
import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.tracking.series import Step, collect, scores_figure, table, write


def step(name: str, *clothing: float) -> Step:
    values = np.array(clothing)
    native = {"accuracy": values + 0.7, "miou": values + 0.01, "clothing_miou": values}
    scores = {f"val_native/{name}": value for name, value in native.items()} | {"val/accuracy": values + 0.71}
    return Step(
        name, tuple(range(len(clothing))), scores, values * 0 + 3, ("run it",) * len(clothing), ("",) * len(clothing)
    )


STEPS = [step("0 base", 0.1, 0.12), step("1 loss", 0.15, 0.17), step("2 size", 0.14)]


def tracked(series: str, name: str, seed: int, value: float | None) -> None:
    with mlflow.start_run(
        experiment_id="0", tags={"series": series, "step": name, "command": "train root=/mnt/disk/photos"}
    ):
        mlflow.log_param("seed", seed)
        mlflow.log_metric("duration_seconds", 90)
        if value is not None:
            for score in ("accuracy", "miou", "clothing_miou"):
                mlflow.log_metric(f"val_native/{score}", value)
            mlflow.log_metric("val/accuracy", value)


def test_each_step_is_compared_with_the_one_before_or_with_the_first():
    rows = [line.split(" | ") for line in table(STEPS, title="ablation", cumulative=True).splitlines() if "±" in line]
    assert rows[0][0] == "| 0 base" and rows[0][1] == "0, 1"
    # mean of 0.1 and 0.12, and their standard deviation 0.02 / sqrt(2)
    assert rows[0][4] == "0.1100 ± 0.0141" and rows[0][6] == ""
    assert rows[1][6] == "+0.0500"
    cumulative, flat = (table(STEPS, title="a", cumulative=how).splitlines() for how in (True, False))
    (last,) = (line for line in cumulative if line.startswith("| 2 size"))
    assert "-0.0200" in last and "| 3.0 |" in last
    assert any("+0.0300" in line for line in flat)


def test_runs_are_found_by_their_tags_the_latest_of_each_seed(store):
    tracked("mine", "b", 0, 0.1)
    tracked("mine", "a", 1, 0.3)
    tracked("mine", "b", 0, 0.2)
    tracked("other", "c", 0, 0.9)
    first, second = collect("mine")
    assert (first.name, first.seeds, second.name, second.seeds) == ("b", (0,), "a", (1,))
    assert first.scores["val_native/miou"].tolist() == [0.2] and second.minutes.tolist() == [1.5]
    # neither the folders of the machine nor a commit where there is none
    assert first.commands == ("train root=photos",) and first.commits == ("",)


def test_what_cannot_be_compared_is_told(store):
    with pytest.raises(UserError, match="series=mine: no finished run"):
        collect("mine")
    tracked("mine", "a", 0, None)
    with pytest.raises(UserError, match=r"has no val_native, scores of .* own sizes; python -m clothseg.evaluate run="):
        collect("mine")
    with mlflow.start_run(experiment_id="0", tags={"series": "flipped", "step": "a"}):
        mlflow.log_metric("val_native_flip/miou", 0.1)
    with pytest.raises(UserError, match="but has val_native_flip; python"):
        collect("flipped")
    with mlflow.start_run(experiment_id="0", tags={"series": "stepless"}):
        pass
    with pytest.raises(UserError, match=r"of series stepless has no tag step, which \+tracking\.tags\.step=NAME gives"):
        collect("stepless")


def test_files_hold_every_run_and_every_step(tmp_path):
    write(STEPS, tmp_path / "series", title="ablation", cumulative=True)
    with (tmp_path / "series" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["seed"]) for row in rows] == [
        ("0 base", "0"), ("0 base", "1"), ("1 loss", "0"), ("1 loss", "1"), ("2 size", "0")
    ]  # fmt: skip
    assert {row["command"] for row in rows} == {"run it"}
    assert (tmp_path / "series" / "scores.png").stat().st_size > 5000
    axes = scores_figure(STEPS, title="ablation", cumulative=True).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [step.name for step in STEPS]
    assert axes[1].lines[0].get_xdata().tolist() == pytest.approx([0.11, 0.16, 0.14])
    assert not scores_figure(STEPS, title="defects", cumulative=False).axes[1].lines
