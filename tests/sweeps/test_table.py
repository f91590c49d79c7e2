"""A study as a table."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from clothseg.sweeps import table

SPACE = {"rate": FloatDistribution(0, 1)}


@pytest.fixture
def study():
    made = optuna.create_study(direction="maximize")

    def add(state, value=None, attributes=None, system=None, rate=0.5):
        made.add_trial(
            create_trial(
                state=state, values=None if value is None else [value], params={"rate": rate}, distributions=SPACE,
                user_attrs=attributes or {}, system_attrs=system or {},
            )
        )  # fmt: skip

    add(TrialState.FAIL, attributes={"baseline": True, "lost": "its process was killed", "epochs": 1})
    add(TrialState.COMPLETE, 0.25, {"baseline": True, "epochs": 3}, {"retry_history": [0]})
    add(TrialState.PRUNED, 0.125, {"epochs": 1})
    add(TrialState.FAIL, attributes={"failure": "DivergedError: the loss is nan"})
    add(TrialState.FAIL, attributes={"surplus": True})
    add(TrialState.COMPLETE, 1 / 3, {"epochs": 3}, rate=0.123456789)
    add(TrialState.WAITING)
    return made


def test_a_row_for_every_trial_that_was_begun_with_its_distance_from_the_baseline(study):
    columns, rows = table.rows(study, objectives=["val/miou"])
    assert columns == [
        "trial", "state", "val/miou", "val/miou - baseline", "rate", "epochs", "seconds", "remark", "mlflow_run_id",
    ]  # fmt: skip
    assert [row[:4] for row in rows] == [
        [0, "FAIL", "", ""],
        [1, "COMPLETE", 0.25, 0.0],
        [2, "PRUNED", 0.125, ""],
        [3, "FAIL", "", ""],
        [5, "COMPLETE", 0.333333, 0.083333],
    ]
    assert [row[7] for row in rows] == [
        "baseline; its process was killed, run again as trial 1", "baseline", "", "DivergedError: the loss is nan", "",
    ]  # fmt: skip


def test_without_a_complete_baseline_there_are_no_distances():
    made = optuna.create_study()
    made.add_trial(create_trial(value=0.5, params={"rate": 0.5}, distributions=SPACE))
    assert table.rows(made, objectives=["val/loss"])[1][0][:4] == [0, "COMPLETE", 0.5, ""]


def test_a_trial_on_one_line_and_the_best(study):
    line = table.line(study, study.trials[5], objectives=["val/miou"])
    assert line.startswith("trial 5 COMPLETE  val/miou 0.3333 (+0.0833 from the baseline)  rate=0.1235")
    assert table.best_line(study, objectives=["val/miou"]) == "best: trial 5 with val/miou 0.3333"
    assert "no trial has come to its end" in table.best_line(optuna.create_study(), objectives=["val/miou"])


def test_the_best_of_what_is_minimised_is_the_lowest():
    made = optuna.create_study(direction="minimize")
    for value in (0.5, 0.25, 0.75):
        made.add_trial(create_trial(value=value))
    assert "trial 1 with" in table.best_line(made, objectives=["val/loss"])


def test_written_and_shown_without_a_trace_of_an_unfinished_file(study, tmp_path):
    columns, rows = table.rows(study, objectives=["val/miou"])
    table.write(tmp_path / "trials.csv", columns, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]
    assert (tmp_path / "trials.csv").read_text().splitlines()[2].startswith("1,COMPLETE,0.25,0.0,0.5,3,")
    shown = table.text(columns, rows).splitlines()
    assert len(shown) == 6 and "mlflow_run_id" not in shown[0]
