"""An exported file predicts as the run that it was made of, by either engine and without TensorFlow."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from clothseg import machine
from clothseg.deployment import exported
from clothseg.errors import UserError


@pytest.fixture
def file(tmp_path):
    """A file of an exported network, for what does not run it."""
    path = tmp_path / "label_maps.onnx"
    path.write_bytes(b"no network")
    described = {
        "run": "abc", "weights": "best.weights.h5", "classes": ["background", "hat"], "size": [64, 32], "resize": "pad",
    }  # fmt: skip
    path.with_name("label_maps.onnx.json").write_text(json.dumps(described))
    return path


def test_it_says_what_is_written_beside_it(file):
    found = exported.opened(str(file))
    assert (found.run, found.weights, found.class_names) == ("abc", "best.weights.h5", ("background", "hat"))
    assert (found.size, found.resize) == ((64, 32), "pad")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_damaged_file_is_told_on_one_line(file, engine):
    with pytest.raises(UserError, match=rf"label_maps.onnx cannot be opened by {engine}: \S") as told:
        exported.opened(str(file)).member(engine, precision="float32")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": [64]}, "label_maps.onnx.json that does not say what it is"),
        ({"resize": "crop"}, "resize is crop"),
        ({"classes": None}, "label_maps.onnx.json that does not say what it is"),
    ],
)
def test_what_does_not_say_what_it_is_is_refused(file, change, told):
    beside = file.with_name("label_maps.onnx.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | change))
    with pytest.raises(UserError, match=told):
        exported.opened(str(file))


def test_what_does_not_go_together_is_refused(file, tmp_path):
    with pytest.raises(UserError, match="run=last is no exported file as the others are"):
        exported.opened_together([str(file), "last"])
    other = tmp_path / "other.onnx"
    shutil.copy(file, other)
    with pytest.raises(UserError, match=r"needs other.onnx.json beside it \(No such file"):
        exported.opened_together([str(file), str(other)])
    beside = json.loads(file.with_name("label_maps.onnx.json").read_text()) | {"classes": ["background"]}
    other.with_name("other.onnx.json").write_text(json.dumps(beside))
    with pytest.raises(UserError, match="has 1 classes and .*label_maps.onnx 2, or others"):
        exported.opened_together([str(file), str(other)])


def test_the_engine_that_is_installed_is_taken_or_the_extra_named(monkeypatch):
    assert exported.engine("onnxruntime") == "onnxruntime"
    installed = {"onnxruntime"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    assert exported.engine(None) == "onnxruntime"
    with pytest.raises(UserError, match=r"engine=openvino needs openvino: pip install -e '.\[openvino\]'"):
        exported.engine("openvino")
    installed.clear()
    with pytest.raises(UserError, match="an exported file needs openvino or onnxruntime: pip install"):
        exported.engine(None)


def test_a_precision_that_cannot_be_computed_in_is_refused(monkeypatch):
    exported.check_precision("float32", "onnxruntime")
    with pytest.raises(UserError, match="precision=bfloat16 needs engine=openvino, and this is onnxruntime"):
        exported.check_precision("bfloat16", "onnxruntime")
    monkeypatch.setattr(machine, "processor", lambda: "EPYC avx2")
    with pytest.raises(UserError, match=r"processor that computes in it .*, and this is EPYC avx2; precision=float32"):
        exported.check_precision("bfloat16", "openvino")
    monkeypatch.setattr(machine, "processor", lambda: "Xeon avx2 avx512f amx_bf16")
    exported.check_precision("bfloat16", "openvino")


BFLOAT16 = pytest.mark.skipif(not machine.has_bfloat16(), reason="this processor does not compute in bfloat16")


@pytest.mark.parametrize(
    ("engine", "precision", "near"),
    [
        ("openvino", "float32", 1e-4),
        ("onnxruntime", "float32", 1e-4),
        pytest.param("openvino", "bfloat16", 3e-2, marks=BFLOAT16),
    ],
)
def test_it_has_the_logits_of_the_network_in_any_batch(engine, precision, near, tmp_path):
    network, file = _exported(tmp_path)
    member = file.member(engine, precision=precision)
    for count in (3, 1, 2):
        batch = np.random.default_rng(count).integers(0, 256, (count, 32, 48, 3)).astype(np.float32)
        found = member.logits(batch)
        assert found.dtype == np.float32 and found.shape == (count, 32, 48, 5)
        np.testing.assert_allclose(found, network.predict_on_batch(batch), atol=near)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_logits_stay_as_they_are_when_others_follow(engine, tmp_path):
    network, file = _exported(tmp_path)
    member = file.member(engine, precision="float32")
    # Of the same sizes in turns, then of others; and photos cut out of batches of which the rest is gone.
    batches = [
        np.random.default_rng(n).integers(0, 256, (1 + n % 2 + n // 8, 32, 48, 3)).astype(np.float32) for n in range(12)
    ]
    found = [member.logits(batch)[-1:] for batch in batches]
    for batch, logits in zip(batches, found, strict=True):
        np.testing.assert_allclose(logits, network.predict_on_batch(batch)[-1:], atol=1e-4)


def test_what_openvino_cannot_compile_is_told_on_one_line(tmp_path, monkeypatch):
    _, file = _exported(tmp_path)
    member = file.member("openvino", precision="float32")

    def fail(*_):
        raise RuntimeError("no such layer\nfrom a plugin")

    monkeypatch.setattr(exported, "compiled", fail)
    with pytest.raises(UserError, match="cannot be opened by openvino: no such layer from a plugin$"):
        member.logits(np.zeros((1, 32, 48, 3), np.float32))


def test_openvino_uses_its_memory_again_once_an_answer_is_gone(tmp_path):
    member = _exported(tmp_path)[1].member("openvino", precision="float32")
    photos = np.zeros((2, 32, 48, 3), np.float32)
    kept = member.logits(photos)[0]
    places = {member.logits(photos).ctypes.data for _ in range(5)}
    assert len(places) == 1 and kept.base.ctypes.data not in places


@BFLOAT16
def test_all_convolutions_are_computed_in_the_precision_asked_for(tmp_path):
    _, file = _exported(tmp_path)
    for precision, name in (("float32", "f32"), ("bfloat16", "bf16")):
        network = exported.logits_network(file.path, file.size, precision)
        layers = exported.compiled(network, precision).get_runtime_model().get_ops()
        found = {
            about["layerType"]: about["runtimePrecision"]
            for about in (layer.get_rt_info() for layer in layers)
            if about["layerType"] in ("Convolution", "Deconvolution")
        }
        assert found == {"Convolution": name, "Deconvolution": name}


@pytest.mark.parametrize(("width", "stride", "refused"), [(2, 2, True), (4, 2, False), (16, 4, True)])
def test_what_would_be_computed_wrongly_in_bfloat16_is_refused(width, stride, refused, tmp_path):
    _, file = _exported(tmp_path, width=width, stride=stride)
    file.member("openvino", precision="float32")
    if refused:
        with pytest.raises(UserError, match="wrongly in bfloat16; precision=float32 works"):
            file.member("openvino", precision="bfloat16")
    else:
        file.member("openvino", precision="bfloat16")


def _exported(folder, *, width=48, stride=2):
    """A network whose last layer is a transposed convolution, as the decoder's is, and its exported file."""
    import keras

    from clothseg.deployment import formats
    from clothseg.models.label_maps import label_map_network

    keras.utils.set_random_seed(0)
    photos = keras.Input((32, width, 3))
    mixed = keras.layers.Conv2D(16, 5, strides=stride, padding="same", activation="relu")(photos / 255.0)
    network = keras.Model(photos, keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same")(mixed))
    path = folder / "label_maps.onnx"
    formats.write(label_map_network(network, resize="pad"), path, name="onnx", quantize=None, calibration=list)
    about = {"run": "abc", "weights": "last.weights.h5", "class_names": tuple("abcde"), "size": (32, width)}
    return network, exported.Exported(path=path, resize="pad", **about)
