"""A trained run becomes a file for another runtime, with a proof that it does the same."""

from __future__ import annotations

import json

import numpy as np
import pytest


def test_an_export_tells_how_far_it_is_the_original(clothseg, small_run):
    options = ["run=last", "format=onnx", "output=export", "photos=3"]
    done = clothseg("export", *options, folder=small_run)
    assert done.returncode == 0, done.stderr
    assert "3 photos, one by one" in done.stdout and "Optimizing" not in done.stdout + done.stderr
    described = json.loads((small_run / "export" / "label_maps.onnx.json").read_text())
    assert described["bytes"] == (small_run / "export" / "label_maps.onnx").stat().st_size
    assert described["compared"]["photos"] == 3 and described["compared"]["pixels"] <= 0.001
    assert described["classes"][0] == "background" and len(described["colours"]) == 59
    assert sorted(path.name for path in (small_run / "export").iterdir()) == [
        "label_maps.onnx", "label_maps.onnx.json",
    ]  # fmt: skip
    import onnxruntime

    session = onnxruntime.InferenceSession(small_run / "export" / "label_maps.onnx")
    (labels,) = session.run(["labels"], {"photos": np.zeros((2, 50, 70, 3), np.uint8)})
    assert labels.shape == (2, 50, 70)
    again = clothseg("export", *options, folder=small_run)
    assert again.returncode == 2 and "output=export has label_maps.onnx already" in again.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["run=last", "output=x"], "format"),
        (["run=last", "format=torch", "output=x"], "format=torch: input should be 'saved_model', 'onnx'"),
        (
            ["run=last", "format=keras", "quantize=int8", "output=x"],
            "format=keras cannot be written with quantize=int8",
        ),
        (["run=last", "format=onnx", "output=x", "photos=0"], "photos=0: input should be greater than 0"),
        (["run=last", "format=onnx", "output=x", "split=test"], "split=test of run last is empty"),
        (["run=none", "format=onnx", "output=x"], "run=none is not in sqlite"),
        (["run=last", "format=onnx", "output=mlflow.db"], "output=mlflow.db cannot be made"),
    ],
)
def test_what_cannot_be_exported_is_told_on_one_line(clothseg, small_run, options, told):
    done = clothseg("export", *options, folder=small_run)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert told in done.stderr
