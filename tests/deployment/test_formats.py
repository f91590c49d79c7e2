"""A network written in any format labels photos of any size as before."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from clothseg.data.prepared import fit_photo
from clothseg.deployment import formats
from clothseg.errors import UserError
from clothseg.models.label_maps import label_map_network


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    photos = keras.Input((32, 32, 3))
    mixed = keras.layers.Conv2D(16, 5, strides=2, padding="same", activation="relu")(photos / 255.0)
    logits = keras.layers.Conv2D(5, 3, padding="same")(mixed)
    return label_map_network(keras.Model(photos, logits), resize="pad")


def photo(size: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(size[0]).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return fit_photo(coarse, size, resize="squash")[None]


def calibration():
    return (photo((40 + place, 50)) for place in range(4))


@pytest.mark.parametrize(
    ("name", "quantize", "least"),
    [
        ("keras", None, 1.0), ("saved_model", None, 0.999), ("onnx", None, 0.999), ("litert", None, 0.999),
        ("onnx", "float16", 0.99), ("litert", "float16", 0.99), ("onnx", "int8", 0.95), ("litert", "int8", 0.9),
    ],
)  # fmt: skip
def test_it_labels_photos_of_any_size_as_before(network, name, quantize, least, tmp_path, caplog):
    path = tmp_path / formats.file_name(name, quantize=quantize)
    formats.write(network, path, name=name, quantize=quantize, calibration=calibration)
    assert formats.size_of(path) > 1000 and not caplog.records
    run = formats.opened(path, name=name, threads=1)
    for size in ((32, 32), (300, 41), (20, 77)):
        wanted = {key: np.asarray(value) for key, value in network(photo(size)).items()}
        found = run(photo(size))
        assert found["labels"].dtype == np.uint8 and len(np.unique(wanted["labels"])) > 1
        assert (found["labels"] == wanted["labels"]).mean() >= least
        assert np.abs(found["logits"] - wanted["logits"]).max() < (1e-4 if quantize is None else 0.2)
    # Quantized means something: neither the same numbers nor the same size.
    assert (quantize is None) == bool(np.allclose(found["logits"], wanted["logits"], atol=1e-5))


@pytest.mark.parametrize("name", ["saved_model", "keras"])
def test_formats_without_small_numbers_say_which_have_them(name):
    with pytest.raises(UserError, match=f"format={name} cannot be written with quantize=int8; onnx, litert can"):
        formats.check(name, quantize="int8")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"format=onnx needs tf2onnx and onnxruntime: pip install -e '.\[onnx\]'"):
        formats.check("onnx", quantize=None)
