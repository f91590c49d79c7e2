"""The stage that decodes once and shows what is there, as a user starts it."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

SIZE = "image_size=[32,32]"


@pytest.fixture(scope="module")
def written(tmp_path_factory, clothseg):
    """Paperdoll, reported on and written in the Kaggle layout."""
    folder = tmp_path_factory.mktemp("prepare")
    options = ("dataset=paperdoll", "dataset.count=15", SIZE, "kaggle_output=own", "output=report")
    return folder, clothseg("prepare", *options, folder=folder)


def test_counts_classes_and_where_things_are_get_printed(written):
    folder, done = written
    assert done.returncode == 0, done.stderr
    assert "15 pairs of 32 x 32 (train 12, validation 3, test 0)" in done.stdout
    assert "background" in done.stdout and "report and figures: report" in done.stdout


def test_the_report_holds_counts_split_and_figures(written):
    folder, _ = written
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["pairs"] == 15 and report["split"] == {"train": 12, "validation": 3, "test": 0}
    names = {path.name for path in (folder / "report").glob("*.png")}
    assert names == {"samples.png", "class_frequencies.png", "duplicates.png"}
    with (folder / "report" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 59 and sum(int(row["pixels"]) for row in rows) == 15 * 32 * 32
    assert len(json.loads((folder / "report" / "split.json").read_text())["train"]) == 12


def test_what_was_written_is_read_as_a_data_set_and_doubled_photos_are_found(written, clothseg, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(written[0] / "own", own)
    shutil.copy(own / "png_images/IMAGES/img_0001.png", own / "png_images/IMAGES/img_0002.png")
    done = clothseg("prepare", "dataset=kaggle", "dataset.root=own", SIZE, "output=report", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "report" / "duplicates.csv").open() as file:
        pairs = [(row["photo"], row["other"], row["distance"]) for row in csv.DictReader(file)]
    assert any(distance == "0" for _, _, distance in pairs)


def test_wrong_files_are_named_all_at_once_and_can_be_left_out(written, clothseg, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(written[0] / "own", own)
    (own / "png_images/IMAGES/img_0003.png").write_bytes(b"")
    (own / "png_masks/MASKS/seg_0007.png").unlink()
    options = ("dataset=kaggle", "dataset.root=own", SIZE, "output=report")
    refused = clothseg("prepare", *options, folder=tmp_path)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("clothseg: ")]
    assert "3" in line and "7" in line and "prepare.skip_invalid=true" in line
    kept = clothseg("prepare", *options, "prepare.skip_invalid=true", folder=tmp_path)
    assert kept.returncode == 0, kept.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["pairs"] == 13 and len(report["skipped"]) == 2


def test_a_grouped_split_keeps_near_duplicates_on_one_side(written, clothseg, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(written[0] / "own", own)
    photos = sorted((own / "png_images/IMAGES").iterdir())
    for copy in photos[1:8]:
        shutil.copy(photos[0], copy)
    options = ("dataset=kaggle", "dataset.root=own", SIZE, "splitting=grouped", "output=report")
    done = clothseg("prepare", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["near_duplicates"] >= 28 and report["near_duplicates_across_the_split"] == 0


@pytest.mark.long
def test_training_takes_the_folder_as_it_is(written, clothseg, tmp_path):
    options = (
        "dataset=kaggle", f"dataset.root={written[0] / 'own'}", SIZE, "batch_size=4", "backbone=mobilenetv2",
        "backbone.weights=null", "schedule=one_phase", "schedule.phases.training.epochs=1", "tracking.log_model=false",
    )  # fmt: skip
    done = clothseg("train", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kaggle: 12 photos to train on, 3 to validate" in done.stdout
