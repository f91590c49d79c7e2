"""Cross-validation is one command: every photo is validated on once, and the scores are those of all of them."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from small_backbone import SMALL_BACKBONE

TINY = (
    "experiment=article", "dataset=paperdoll", "dataset.count=30", "dataset.image_size=[48,40]", "image_size=[32,32]",
    "batch_size=8", "splitting.test=0.2", *SMALL_BACKBONE,
    "backbone.batch_norm_momentum=0.9", "augmentation=light", "decoder=fpn", "optimizer=adam", "schedule=one_phase",
    "schedule.phases.training.epochs=1", "schedule.phases.training.steps_per_epoch=2",
    "evaluation.boundary=true", "tracking.log_model=false", "tracking.figures=false",
    "precision=float32", "threads=1",
)  # fmt: skip


def client(folder: Path):
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def artifacts(folder: Path, run) -> Path:
    return folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"


def table(folder: Path, run, name: str) -> list[dict[str, str]]:
    with (artifacts(folder, run) / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def runs_of(folder: Path):
    """The run of a cross-validation, and those of its folds."""
    (parent,) = client(folder).search_runs(["1"], "tags.role = 'cross_validation'")
    folds = client(folder).search_runs(["1"], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    return parent, sorted(folds, key=lambda run: run.data.tags["fold"])


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, clothseg):
    folder = tmp_path_factory.mktemp("folds")
    done = clothseg("train", *TINY, "folds=2", "tracking.figures=true", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, *runs_of(folder), done.stdout


def test_every_photo_is_validated_on_once_and_tested_on_never(crossed):
    folder, parent, folds, told = crossed
    parts = [json.loads((artifacts(folder, run) / "data" / "split.json").read_text()) for run in folds]
    assert len(parts) == 2 and all(len(part["validation"]) == 12 for part in parts)
    assert not set(parts[0]["validation"]) & set(parts[1]["validation"])
    assert parts[0]["test"] == parts[1]["test"] and len(parts[0]["test"]) == 6
    for part, other in (parts, parts[::-1]):
        assert set(part["train"]) == set(other["validation"])
    assert {row["photo"] for row in table(folder, parent, "val_native_photos")} == set(
        parts[0]["train"] + parts[0]["validation"]
    )
    assert "fold 1/2: training 1/1: loss" in told and "fold 2/2: training 1/1: loss" in told


def test_folds_are_nested_trainings_and_their_parent_is_none(clothseg, crossed):
    folder, parent, folds, _ = crossed
    assert parent.info.status == "FINISHED" and parent.data.tags["folds.done"] == "2"
    assert [run.data.tags["fold"] for run in folds] == ["1", "2"]
    assert {run.info.status for run in folds} == {"FINISHED"}
    assert {run.data.params["folds"] for run in (parent, *folds)} == {"2"}
    done = clothseg("evaluate", f"run={folds[1].info.run_id}", "figure_photos=0", "boundary=true", folder=folder)
    assert done.returncode == 0, done.stderr
    again = client(folder).get_run(folds[1].info.run_id).data.metrics
    for score in ("miou", "boundary_f"):
        assert again[f"val_native/{score}"] == pytest.approx(folds[1].data.metrics[f"val_native/{score}"], abs=1e-6)
    for given, message in (
        (parent.info.run_id, "is a cross-validation; the runs of its folds, nested in it, are trainings"),
        # The best fold had the easiest photos, and is no best training.
        ("last", "no finished training of that kind"),
        ("best:clothseg", "no finished training of that kind"),
    ):
        done = clothseg("evaluate", f"run={given}", folder=folder)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_pixels_are_added_up_over_folds_before_they_are_divided(crossed):
    folder, parent, folds, told = crossed
    metrics = parent.data.metrics
    classes = [table(folder, run, "val_native_classes") for run in (parent, *folds)]
    for whole, *of_folds in zip(*classes, strict=True):
        for column in ("pixels_labelled", "pixels_predicted"):
            assert int(whole[column]) == sum(int(row[column]) for row in of_folds)
    iou = [float(row["iou"]) for row in classes[0] if row["iou"]]
    assert metrics["val_native/miou"] == pytest.approx(np.mean(iou), abs=1e-5)
    rows = table(folder, parent, "folds")
    assert [(row["fold"], row["run"], row["photos"]) for row in rows] == [
        (str(number), run.info.run_id, "12") for number, run in enumerate(folds, 1)
    ]
    for score in ("accuracy", "miou", "clothing_miou"):
        values = [run.data.metrics[f"val_native/{score}"] for run in folds]
        assert [float(row[f"val_native/{score}"]) for row in rows] == pytest.approx(values, abs=1e-6)
        assert metrics[f"val_native/{score}_fold_mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert metrics[f"val_native/{score}_fold_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    # Photos of one size: the accuracy of all is the mean.
    assert metrics["val_native/accuracy"] == pytest.approx(metrics["val_native/accuracy_fold_mean"], abs=1e-9)
    assert "val_native, 24 photos" in told
    assert {path.name for path in (artifacts(folder, parent) / "figures").iterdir()} == {
        "folds.png", "val_native_calibration.png", "val_native_class_iou.png", "val_native_confusion.png"
    }  # fmt: skip


@pytest.mark.long
def test_a_fold_is_the_training_on_its_split_whatever_ran_before_it(clothseg, crossed):
    folder, _, folds, _ = crossed
    split = artifacts(folder, folds[1]) / "data" / "split.json"
    done = clothseg("train", *TINY, f"splitting.file={split}", "tracking.run_name=alone", folder=folder)
    assert done.returncode == 0, done.stderr
    (alone,) = client(folder).search_runs(["1"], "attributes.run_name = 'alone'")
    compared = [name for name in alone.data.metrics if name.startswith(("train/", "val/", "val_native/"))]
    assert len(compared) > 20
    for name in compared:
        assert folds[1].data.metrics[name] == alone.data.metrics[name], name


@pytest.mark.long
def test_ctrl_c_keeps_the_folds_that_are_done(clothseg, tmp_path):
    process = clothseg.start("train", *TINY, "folds=3", "evaluation.boundary=false", folder=tmp_path)
    for line in process.stdout:
        if line.startswith("fold 2/3: phase training"):
            process.send_signal(signal.SIGINT)
            break
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "clothseg: interrupted" in told.splitlines()
    parent, folds = runs_of(tmp_path)
    assert parent.info.status == "KILLED" and parent.data.tags["folds.done"] == "1"
    assert [run.info.status for run in folds] == ["FINISHED", "KILLED"]
    assert [row["run"] for row in table(tmp_path, parent, "folds")] == [folds[0].info.run_id]


@pytest.mark.long
def test_a_fold_that_fails_fails_the_whole_with_its_reason(clothseg, tmp_path):
    done = clothseg("train", *TINY, "folds=2", "optimizer.learning_rate=1e38", folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    parent, folds = runs_of(tmp_path)
    assert [run.info.status for run in (parent, *folds)] == ["FAILED", "FAILED"]
    assert parent.data.tags["failure"] == folds[0].data.tags["failure"]
    assert parent.data.tags["failure"].startswith("DivergedError")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["folds=1"], "folds=1: input should be greater than or equal to 2"),
        (["folds=half"], "folds=half: input should be a valid integer"),
        (["folds=25"], "folds=25 of 24 examples cannot be; folds may be 2 to 24"),
        (["folds=2", "evaluation.native=false"], "folds=2 pools scores at the photos' own sizes"),
        (["folds=2", "output=kept"], "output=kept and folds=2 do not go together"),
    ],
)
def test_folds_that_cannot_be_are_told_before_anything_is_trained(clothseg, tmp_path, options, told):
    done = clothseg("train", *TINY, *options, folder=tmp_path)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists()
