"""Photos of any kind get label maps, and what cannot be read is left out."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(small_run):
    """A folder with a trained run, and one with photos."""
    folder = small_run
    random = np.random.default_rng(0)
    photos = folder / "photos"
    (photos / "sub").mkdir(parents=True)
    for name, size in (("a.jpg", (90, 61)), ("b.png", (33, 70)), ("sub/c.webp", (64, 64))):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(photos / name)
    (photos / "broken.jpg").write_text("no photo")
    return folder


def test_label_maps_are_those_of_the_logged_model_in_the_photos_sizes(clothseg, trained):
    import mlflow

    done = clothseg("predict", "run=last", "photos=photos", "output=out", "batch_size=2", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "4 photos, 0 of them done before" in done.stdout and "3 label maps" in done.stdout
    assert "left out: broken.jpg" in done.stdout
    client = mlflow.MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("clothseg").experiment_id])
    (logged,) = client.search_logged_models([run.info.experiment_id])
    model = mlflow.pyfunc.load_model(logged.artifact_location)
    labels = np.asarray(Image.open(trained / "out" / "labels" / "b.png.png"))
    assert labels.shape == (33, 70)
    (answer,) = model.predict(pandas.DataFrame({"photo": [(trained / "photos" / "b.png").read_bytes()]}))
    served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["label_map"]))))
    # Ties and rounding may decide otherwise here and there.
    assert (labels == served).mean() > 0.99
    with (trained / "out" / "classes.csv").open(newline="") as file:
        areas = list(csv.DictReader(file))
    assert {row["photo"] for row in areas} == {"a.jpg", "b.png", "sub/c.webp"}
    assert sum(int(row["pixels"]) for row in areas if row["photo"] == "a.jpg") == 90 * 61
    assert (trained / "out" / "overlays" / "sub" / "c.webp.jpg").is_file()
    assert (trained / "out" / "skipped.csv").is_file()


def test_the_same_command_goes_on_where_it_stood(clothseg, trained):
    options = ["run=last", "photos=[photos/a.jpg,photos/b.png]", "output=again", "overlays=false"]
    assert clothseg("predict", *options, folder=trained).returncode == 0
    before = (trained / "again" / "labels" / "a.jpg.png").stat().st_mtime_ns
    (trained / "again" / "labels" / "b.png.png").unlink()
    done = clothseg("predict", *options, folder=trained)
    assert done.returncode == 0 and "2 photos, 1 of them done before" in done.stdout
    assert (trained / "again" / "labels" / "a.jpg.png").stat().st_mtime_ns == before
    assert (trained / "again" / "labels" / "b.png.png").is_file()
    assert not (trained / "again" / "overlays").exists()


@pytest.fixture(scope="module")
def exported(clothseg, trained):
    done = clothseg("export", "run=last", "format=onnx", "output=exported", "photos=1", folder=trained)
    assert done.returncode == 0, done.stderr
    return "exported/label_maps.onnx"


@pytest.mark.parametrize("options", [[], ["engine=onnxruntime", "flip=true", "batch_size=2"]])
def test_an_exported_file_labels_as_its_run_without_tensorflow(clothseg, trained, exported, options, tmp_path):
    common = ["photos=photos", "overlays=false", *(option for option in options if "engine" not in option)]
    assert clothseg("predict", "run=last", *common, f"output={tmp_path}/run", folder=trained).returncode == 0
    # What the process would have to import is not there.
    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow was imported')")
    (tmp_path / "keras.py").write_text("raise ImportError('Keras was imported')")
    command = ["predict", f"run={exported}", *common, *options, f"output={tmp_path}/file"]
    done = clothseg(*command, folder=trained, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}")
    assert done.returncode == 0, done.stderr
    assert ("loading onnxruntime" if options else "loading openvino") in done.stdout
    for name in ("a.jpg", "b.png", "sub/c.webp"):
        of_run, of_file = (np.asarray(Image.open(tmp_path / by / "labels" / f"{name}.png")) for by in ("run", "file"))
        assert (of_run == of_file).mean() > 0.99
    run, file = (
        json.loads((tmp_path / by / "predictions.jsonl").read_text().partition("\n")[0]) for by in ("run", "file")
    )
    assert (run["run"], run["weights"]) == (file["run"], file["weights"]) and file["file"] == ["label_maps.onnx"]
    assert file["engine"] == ("onnxruntime" if options else "openvino") and file["precision"] == "float32"


def test_exports_of_other_weights_of_a_run_do_not_go_on_with_its_label_maps(clothseg, trained, exported, tmp_path):
    options = ["run=last", "weights=best", "format=onnx", f"output={tmp_path}", "photos=1"]
    assert clothseg("export", *options, folder=trained).returncode == 0
    common = ["photos=photos/a.jpg", f"output={tmp_path}/out"]
    assert clothseg("predict", f"run={exported}", *common, folder=trained).returncode == 0
    other = clothseg("predict", f"run={tmp_path}/label_maps.onnx", *common, folder=trained)
    assert other.returncode == 2 and "has predictions made with weights=['last.weights.h5']" in other.stderr


def test_what_is_settled_in_an_exported_file_is_told_on_one_line(clothseg, trained, exported):
    for options, told in (
        ([f"run={exported}", "weights=best"], "weights=best is settled in an exported file"),
        ([f"run={exported}", "scales=[1,2]"], "scales=[1.0, 2.0] is settled in an exported file"),
        ([f"run=[{exported},last]"], "run=last is no exported file as the others are"),
        (["run=last", "engine=openvino"], "engine=openvino is for exported files"),
        (["run=last", "precision=bfloat16"], "precision=bfloat16 is for exported files"),
        ([f"run={exported}", "precision=bfloat16", "engine=onnxruntime"], "precision=bfloat16 needs engine=openvino"),
        (["run=none.onnx"], "run=none.onnx does not exist; python -m clothseg.export format=onnx writes such files"),
    ):
        done = clothseg("predict", *options, "photos=photos", "output=x", folder=trained)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert told in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["run=last", "output=x"], "photos"),
        (["run=last", "photos=none", "output=x"], "photos=none does not exist"),
        (["run=last", "photos=photos", "output=photos/x"], "output=photos/x lies in photos=photos"),
        (["run=last", "photos=photos/broken.jpg", "output=x"], "none of 1 photos could be read"),
        (["run=0123", "photos=photos", "output=x"], "run=0123 is not in sqlite"),
        (["run=last", "photos=photos", "output=x", "batch_size=0"], "batch_size=0: input should be greater than 0"),
    ],
)
def test_what_cannot_be_predicted_is_told_on_one_line(clothseg, trained, options, told):
    done = clothseg("predict", *options, folder=trained)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert told in done.stderr
