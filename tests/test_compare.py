"""Runs are compared on the same photos, and only real differences are called so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

TINY = (
    "experiment=article", "dataset=paperdoll", "dataset.count=60", "image_size=[32,32]", "batch_size=8",
    "backbone=mobilenetv2", "backbone.weights=null", "backbone.batch_norm_momentum=0.9", "augmentation=none",
    "decoder=fpn", "optimizer=adam", "schedule=one_phase", "schedule.phases.training.steps_per_epoch=null",
    "evaluation.native=false", "tracking.log_model=false", "precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, clothseg):
    """Two seeds of a training that has hardly begun, and one that got further. Returns their folder and run ids."""
    import mlflow

    folder = tmp_path_factory.mktemp("compare")
    for name, options in (
        ("short", ["schedule.phases.training.epochs=1"]),
        ("short_again", ["schedule.phases.training.epochs=1", "seed=1"]),
        ("long", ["schedule.phases.training.epochs=8"]),
    ):
        done = clothseg("train", *TINY, *options, f"tracking.run_name={name}", folder=folder)
        assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("clothseg").experiment_id])
    return folder, {run.info.run_name: run.info.run_id for run in found}


def table(folder, name):
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_better_run_is_called_better_and_in_what(clothseg, runs):
    import mlflow

    folder, ids = runs
    done = clothseg("compare", f"runs=[{ids['short']},{ids['long']}]", "draws=500", "output=better", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "long against short: better in accuracy" in done.stdout and "another seed" in done.stdout
    assert "schedule.phases.training.epochs: 1 | 8" in done.stdout
    rows = {(row["score"], row["configuration"]): row for row in table(folder / "better", "comparison")}
    short, long = rows["accuracy", "short"], rows["accuracy", "long"]
    assert float(long["difference"]) == pytest.approx(float(long["value"]) - float(short["value"]), abs=2e-6)
    assert 0 < float(long["difference_low"]) < float(long["difference"]) < float(long["difference_high"])
    assert short["difference"] == ""
    assert table(folder / "better", "configuration") == [
        {"option": "schedule.phases.training.epochs", "short": "1", "long": "8"}
    ]
    classes = table(folder / "better", "class_iou")
    assert len(classes) == 59 and classes[0]["name"] == "background"
    drawn = {path.name for path in (folder / "better" / "figures").iterdir()}
    assert drawn == {"scores.png", "classes.png", "curves.png", "differing_photos.png"}
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (logged,) = client.search_runs(["1"], "tags.role = 'comparison'")
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["difference/accuracy"] == pytest.approx(float(long["difference"]), abs=1e-5)


def test_seeds_of_one_configuration_are_no_difference(clothseg, runs):
    folder, ids = runs
    done = clothseg("compare", f"runs=[{ids['short']},{ids['short_again']}]", "draws=200", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "no difference: short (2 seeds) is one configuration" in done.stdout
    assert "deviation" in done.stdout and "better" not in done.stdout


def test_seeds_are_taken_together(clothseg, runs):
    folder, ids = runs
    given = f"runs=[{ids['short']},{ids['long']},{ids['short_again']}]"
    done = clothseg("compare", given, "draws=200", "figure_photos=0", "output=seeds", folder=folder)
    assert done.returncode == 0, done.stderr
    seeds = {row["configuration"]: row["seeds"] for row in table(folder / "seeds", "comparison")}
    assert seeds == {"short (2 seeds)": "2", "long": "1"}
    assert not (folder / "seeds" / "figures" / "differing_photos.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "runs"),
        (["runs=[last]"], "runs=['last']: list should have at least 2 items after validation, not 1"),
        (["runs=[best:clothseg,LONG]"], "runs has best:clothseg and LONG, which are one run"),
        (["runs=[last,0123]"], "run=0123 is not in sqlite"),
        (["runs=[SHORT,LONG]", "draws=5"], "draws=5: input should be greater than or equal to 100"),
        (["runs=[SHORT,OTHER]"], "run=OTHER has 2 classes and SHORT 59"),
        (["runs=[SHORT,MOVED]"], "run=MOVED was trained on"),
    ],
)
def test_what_cannot_be_compared_is_told_on_one_line(clothseg, runs, options, told, others):
    folder, ids = runs
    names = {"LONG": ids["long"], "SHORT": ids["short"]} | others

    def real(text: str) -> str:
        for name, run in names.items():
            text = text.replace(name, run)
        return text

    done = clothseg("compare", *map(real, options), folder=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert real(told) in done.stderr


@pytest.fixture(scope="module")
def others(tmp_path_factory, runs):
    """Artifacts of the short run, changed into those of a run with other classes, and of one with another split."""
    folder, ids = runs
    kept = {}
    for name in ("OTHER", "MOVED"):
        copy = tmp_path_factory.mktemp("others") / name.lower()
        shutil.copytree(next((folder / "mlruns").glob(f"*/{ids['short']}/artifacts")), copy)
        kept[name] = str(copy)
    classes = Path(kept["OTHER"]) / "tables" / "classes.csv"
    classes.write_text("".join(classes.read_text().splitlines(keepends=True)[:3]))
    split = Path(kept["MOVED"]) / "data" / "split.json"
    parts = json.loads(split.read_text())
    split.write_text(json.dumps(parts | {"train": parts["validation"], "validation": parts["train"]}))
    return kept
