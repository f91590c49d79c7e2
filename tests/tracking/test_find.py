"""A training is found by every name that it has."""

from __future__ import annotations

import mlflow
import pytest

from clothseg.errors import UserError
from clothseg.tracking.find import find


def training(client, name, *, miou=None, experiment="clothseg", status="FINISHED", **tags):
    known = client.get_experiment_by_name(experiment)
    number = known.experiment_id if known else client.create_experiment(experiment)
    run = client.create_run(number, run_name=name, tags={"preset": "article"} | tags).info.run_id
    if miou is not None:
        client.log_metric(run, "val_best/miou", miou)
    client.set_terminated(run, status)
    return run


def test_last_and_best_are_of_the_trainings_that_finished(store):
    first = training(store, "first", miou=0.1)
    best = training(store, "best", miou=0.3, preset="strong")
    last = training(store, "last", miou=0.2)
    training(store, "killed", miou=0.9, status="KILLED")
    elsewhere = training(store, "elsewhere", miou=0.8, experiment="other")
    sweep = store.create_run("1", tags={"role": "sweep"}).info.run_id
    store.set_terminated(sweep)
    assert find("last").run_id == elsewhere
    assert find("best:clothseg").run_id == best and find("best:other").run_id == elsewhere
    # No MLflow experiment is called so, but a preset is.
    assert find("best:strong").run_id == best and find("best:article").run_id == elsewhere
    assert find(first).name == "first" and find(last).status == "FINISHED"
    with pytest.raises(UserError, match=rf"run={sweep} was not made by clothseg.train"):
        find(sweep)
    with pytest.raises(UserError, match="run=best:none: no finished training of that kind"):
        find("best:none")
    with pytest.raises(UserError, match="run=best:' OR '1: no finished training"):
        find("best:' OR '1")


def test_an_empty_store_has_nothing(store):
    with pytest.raises(UserError, match="run=last: no finished training"):
        find("last")
    with pytest.raises(UserError, match=r"run=0123 is not in .* a run can be called an MLflow run id, last, best:EXP"):
        find("0123")
    with pytest.raises(UserError, match="run=a b is none of what a run can be called"):
        find("a b")


def test_registered_models_lead_to_their_run(store, tmp_path):
    run = training(store, "registered")
    store.create_registered_model("dress")
    (tmp_path / "model").mkdir()
    version = store.create_model_version("dress", str(tmp_path / "model"), run_id=run).version
    store.create_model_version("dress", str(tmp_path / "model"))
    store.set_registered_model_alias("dress", "champion", version)
    assert find(f"models:/dress/{version}").run_id == run and find("models:/dress@champion").run_id == run
    for given, told in (
        ("models:/dress/2", "was registered without the run"),
        ("models:/dress/3", "is not in"),
        ("models:/dress@none", "is not in"),
        ("models:/dress", "is no registered model; models:/NAME/VERSION and models:/NAME@ALIAS are"),
    ):
        with pytest.raises(UserError, match=told):
            find(given)


def test_files_come_from_the_store_or_from_a_folder(store, tmp_path):
    run = training(store, "logged", **{"git.commit": "abc"})
    for path in ("config/config.yaml", "tables/b.csv", "tables/a.csv"):
        store.log_text(run, path, path)
    found = find(run)
    assert found.file("config/config.yaml").read_text() == "config/config.yaml" and found.commit == "abc"
    assert found.files("tables") == ["tables/a.csv", "tables/b.csv"] and found.files("none") == []
    with pytest.raises(UserError, match=rf"run={run} \(FINISHED\) has no weights/last.weights.h5"):
        found.file("weights/last.weights.h5")

    kept = tmp_path / "kept"
    mlflow.artifacts.download_artifacts(run_id=run, dst_path=str(kept))
    copy = find(str(kept))
    assert copy.run_id is None and copy.name == "kept" and copy.commit == "unknown"
    assert copy.file("tables/a.csv").read_text() == "tables/a.csv"
    assert copy.files("tables") == ["tables/a.csv", "tables/b.csv"]
    with pytest.raises(UserError, match="has no tables/c.csv"):
        copy.file("tables/c.csv")
