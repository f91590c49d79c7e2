"""What people see who open `mlflow ui`: runs with their scores, curves, two runs compared, figures, nested trials."""

from __future__ import annotations

import json
from collections.abc import Iterator

import mlflow
import pytest
from mlflow_pages import cells, charts, columns, mlflow_ui, search_charts, shows, unfold, until
from small_backbone import SMALL_BACKBONE

from clothseg.tracking.store import SHOWN_METRICS, SHOWN_PARAMS, where_all

# Two trials, of which the second is pruned after its first epoch.
SWEEP = (
    "sweep=lr_batch", "sweep.n_trials=2", "sweep/pruner=none", "sweep.presets=presets",
    "sweep.pruner._target_=optuna.pruners.ThresholdPruner", "+sweep.pruner.lower=2.0",
    "experiment=article", "dataset=paperdoll", "dataset.count=40", "image_size=[32,32]", *SMALL_BACKBONE,
    "augmentation=none", "augmentation.copies=[brightness,flip_horizontal,flip_vertical]", "decoder=fpn",
    "schedule=one_phase", "schedule.phases.training.epochs=2",
    "schedule.phases.training.steps_per_epoch=1", "evaluation.native=false", "precision=float32",
    "tracking.log_model=false", "tracking.figures=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(three_runs, clothseg) -> Iterator[list]:
    """The run of a sweep in the store of the three runs, and those of its trials in their order."""
    done = clothseg("train", "-m", *SWEEP, folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    client = three_runs.client()
    trials = client.search_runs(["1"], "tags.mlflow.parentRunId LIKE '%'", order_by=["attributes.start_time"])
    parent = client.get_run(trials[0].data.tags["mlflow.parentRunId"])
    yield [parent, *trials]
    # Others use the store of the three runs, too.
    for run in (*trials, parent):
        client.delete_run(run.info.run_id)


@pytest.fixture(scope="module")
def address(browser, three_runs, study) -> Iterator[str]:
    """Of MLflow's UI, with the three runs and the study."""
    before = mlflow.get_tracking_uri()
    with mlflow_ui(three_runs.folder) as found:
        mlflow.set_tracking_uri(found)
        # Wide enough for all columns; those outside of the window are not drawn.
        browser.set_window_size(2000, 1000)
        yield found
    mlflow.set_tracking_uri(before)


def test_the_list_of_runs_has_the_scores_and_options_that_tell_trainings_apart(browser, three_runs, address):
    browser.get(where_all("1"))
    shows(browser, "long", "short", "Metrics", "Parameters", "Sort: Created")
    wanted = {*(f"metrics.`{name}`" for name in SHOWN_METRICS), *(f"params.`{name}`" for name in SHOWN_PARAMS)}
    until(browser, lambda own: wanted <= set(columns(own)), str(wanted))
    for name in ("long", "short"):
        data, row = three_runs.runs[name].data, cells(browser, three_runs.id(name))
        assert [row[f"params.`{each}`"] for each in SHOWN_PARAMS] == [data.params[each] for each in SHOWN_PARAMS]
        shown = [float(row[f"metrics.`{each}`"]) for each in SHOWN_METRICS]
        assert shown == pytest.approx([data.metrics[each] for each in SHOWN_METRICS])


def test_the_curves_of_several_runs_are_drawn_in_one_chart(browser, address):
    browser.get(f"{where_all('1')}&compareRunsMode=CHART")
    search_charts(browser, "^val/accuracy$")

    def drawn(own) -> bool:
        curves = charts(own).get("val/accuracy", {})
        return (curves.get("long"), curves.get("short")) == (2, 1)

    until(browser, drawn, "curves of both runs")


def test_two_runs_side_by_side_have_charts_and_what_differs_is_highlighted(browser, three_runs, address):
    runs = json.dumps([three_runs.id("short"), three_runs.id("long")]).replace(" ", "")
    browser.get(f"{address}/#/compare-runs?runs={runs}&experiments=[%221%22]&workflowType=machine_learning")
    text = shows(browser, "Comparing 2 Runs", "Parallel Coordinates Plot", "Show diff only", "image_size", "[64, 32]")
    assert "short" in text and "long" in text
    kinds = "return [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data.map(each => each.type))"
    assert until(browser, lambda own: own.execute_script(kinds)) == ["parcoords"]
    rows = browser.execute_script(
        """
        const behind = cell => getComputedStyle(cell).backgroundColor;
        return [...document.querySelectorAll("tr")].filter(row => row.cells.length == 3).map(
            row => [row.cells[0].textContent.trim(), row.className, [...row.cells].slice(1).map(behind)])
        """
    )
    marked = {name: "diff-row" in classes for name, classes, _ in rows}
    behind = {name: set(colours) for name, _, colours in rows}
    changed, same = ("image_size", "optimizer.learning_rate", "threads"), ("batch_size", "backbone.name", "seed")
    assert all(marked[name] for name in changed) and not any(marked[name] for name in same)
    highlighted, plain = (set().union(*(behind[name] for name in names)) for names in (changed, same))
    assert len(highlighted) == len(plain) == 1 and highlighted != plain


def test_figures_are_shown_among_the_artifacts(browser, three_runs, address):
    run = three_runs.id("long")
    browser.get(f"{address}/#/experiments/1/runs/{run}/artifacts/figures/curves.png?workflowType=machine_learning")
    shows(browser, "figures/curves.png", "confusion.png", "predictions_1_training.png")
    drawn = "return [...document.images].some(image => image.naturalWidth > 800)"
    assert until(browser, lambda own: own.execute_script(drawn))


def test_trials_are_nested_in_their_study_with_their_scores_and_options(browser, study, address):
    parent, *trials = study
    browser.get(where_all("1"))
    shows(browser, "lr_batch_article")
    assert "trial 00" not in browser.find_element("tag name", "body").text
    unfold(browser, parent.info.run_id)
    shows(browser, "trial 00", "trial 01")
    rows = [cells(browser, run.info.run_id) for run in trials]
    for run, row in zip(trials, rows, strict=True):
        assert run.info.run_name in row["attributes.`Run Name`"]
        assert [row[f"params.`{each}`"] for each in SHOWN_PARAMS] == [run.data.params[each] for each in SHOWN_PARAMS]
    assert len({row["params.`optimizer.learning_rate`"] for row in rows}) == 2
    # What was pruned has no best epoch, and another sign before its time.
    score = "val_best/clothing_miou"
    assert float(rows[0][f"metrics.`{score}`"]) == pytest.approx(trials[0].data.metrics[score])
    assert trials[1].info.status == "KILLED" and rows[1][f"metrics.`{score}`"] == "-"
    sign = "[row-id='{}'] [col-id='runDateAndNestInfo'] svg path"
    signs = [browser.find_element("css selector", sign.format(run.info.run_id)) for run in trials]
    assert signs[0].get_attribute("d") != signs[1].get_attribute("d")
