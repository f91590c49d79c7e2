from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
import warnings

import h5py
import keras
import numpy as np
import pytest
from small_backbone import small

from clothseg.errors import UserError
from clothseg.models import backbones
from clothseg.models.backbones import BACKBONES, STRIDES, build_encoder, check_download, check_encoder

SIZE = (32, 64)

# The module of keras.applications whose preprocess_input belongs to a builder.
MODULES = {
    "DenseNet": keras.applications.densenet,
    "MobileNetV2": keras.applications.mobilenet_v2,
    "NASNet": keras.applications.nasnet,
    "InceptionV3": keras.applications.inception_v3,
}
RESNET_MODULES = {
    "ResNet50V2": keras.applications.resnet_v2,
    "ResNet50": keras.applications.resnet,
    "ResNet101": keras.applications.resnet,
    "ResNet152": keras.applications.resnet,
}


def build(name: str, image_size=SIZE, weights=None, input_scaling="matched") -> keras.Model:
    return build_encoder(name, image_size=image_size, weights=weights, input_scaling=input_scaling)


def photos(size=SIZE, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, *size, 3)).astype("float32")


def scaled(encoder: keras.Model, photo: np.ndarray) -> keras.KerasTensor:
    """What the backbone inside the encoder is given."""
    x = photo
    for operation in encoder.operations[1:]:
        if operation.name in BACKBONES:
            return x
        x = operation(x)
    raise AssertionError("no backbone in the encoder")


@pytest.fixture(scope="module", params=BACKBONES)
def encoder(request) -> keras.Model:
    """Every row once; its backbone carries the row's name."""
    return build(request.param)


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    return build("mobilenetv2")


def backbone_of(encoder: keras.Model) -> keras.Model:
    return next(layer for layer in encoder.layers if layer.name in BACKBONES)


# The contract, for every row


def test_maps_are_exactly_input_over_stride(encoder):
    assert encoder.name == "encoder"
    assert encoder.input_shape == (None, *SIZE, 3)
    assert [shape[1:3] for shape in encoder.output_shape] == [(SIZE[0] // s, SIZE[1] // s) for s in STRIDES]


def test_forward_pass_gives_finite_maps_of_the_declared_shapes(encoder):
    maps = encoder(photos(batch=2))
    assert [tuple(x.shape) for x in maps] == [(2, *shape[1:]) for shape in encoder.output_shape]
    assert all(np.isfinite(keras.ops.convert_to_numpy(x)).all() for x in maps)
    assert any(np.ptp(keras.ops.convert_to_numpy(x)) > 0 for x in maps)


def test_freezing_reaches_every_layer_and_can_be_undone(encoder):
    trainable = len(encoder.trainable_variables)
    encoder.trainable = False
    assert not encoder.trainable_variables
    encoder.trainable = True
    assert len(encoder.trainable_variables) == trainable > 0


def test_encoder_is_made_of_keras_alone(encoder):
    assert "clothseg" not in encoder.to_json()


def test_matched_scaling_is_that_of_keras_applications(encoder):
    name = backbone_of(encoder).name
    row = BACKBONES[name]
    photo = photos()
    got = keras.ops.convert_to_numpy(scaled(encoder, photo))
    before, after = row.margin // 2, row.margin - row.margin // 2
    got = got[:, before : got.shape[1] - after, before : got.shape[2] - after]
    if row.builder.startswith("EfficientNet"):  # scaled inside the network of keras.applications
        expected = (photo / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        prefixes = [prefix for prefix in MODULES if row.builder.startswith(prefix)]
        module = MODULES[prefixes[0]] if prefixes else RESNET_MODULES[row.builder]
        expected = module.preprocess_input(photo.copy())
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["densenet121", "mobilenetv2", "efficientnetb0", "resnet50", "resnet50v2", "nasnetmobile", "inceptionv3"]
)
def test_smallest_photo_works_and_the_encoder_can_be_rebuilt_from_its_config(name):
    encoder = build(name, image_size=(32, 32))
    assert [shape[1:3] for shape in encoder.output_shape] == [(32 // s, 32 // s) for s in STRIDES]
    assert keras.models.model_from_json(encoder.to_json()).output_shape == encoder.output_shape


# Input


def test_unit_scaling_gives_0_to_1():
    encoder = build("densenet121", input_scaling="unit")
    np.testing.assert_allclose(scaled(encoder, photos()), photos() / 255, rtol=1e-6)


def test_integers_and_floats_give_equal_maps(mobilenet):
    for a, b in zip(mobilenet(photos()), mobilenet(photos().astype("uint8")), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet50", "efficientnetb0", "inceptionv3"])
def test_scaling_keeps_fractions_of_a_grey_level_under_bfloat16(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = build(name)
    finally:
        keras.config.set_dtype_policy(policy)
    a, b = (keras.ops.convert_to_numpy(scaled(encoder, np.full((1, *SIZE, 3), x, "float32"))) for x in (200, 200.1))
    assert a.dtype == "float32"
    middle = (0, a.shape[1] // 2, a.shape[2] // 2)
    assert (b[middle] > a[middle]).all()
    assert all(x.dtype == "bfloat16" for x in encoder(photos()))


@pytest.mark.parametrize("name", ["mobilenetv2", "nasnetmobile", "inceptionv3"])
def test_maps_lie_where_the_photo_shows_things(name):
    keras.utils.set_random_seed(0)
    side, row, column = 128, 36, 84
    encoder = build(name, image_size=(side, side))
    photo = photos((side, side))
    changed = photo.copy()
    thing = changed[0, row - 4 : row + 4, column - 4 : column + 4]
    thing[:] = 255 - thing
    for stride, a, b in zip(STRIDES, encoder(photo), encoder(changed), strict=True):
        change = ((keras.ops.convert_to_numpy(a) - keras.ops.convert_to_numpy(b)) ** 2).sum(axis=(0, 3))
        pixels = stride * (np.arange(side // stride) + 0.5)
        centre = np.array([change.sum(1) @ pixels, change.sum(0) @ pixels]) / change.sum()
        np.testing.assert_allclose(centre, (row, column), atol=stride, err_msg=f"stride {stride}")


# Names


def test_layers_are_found_whatever_was_built_before():
    first = build("inceptionv3")
    again = build("inceptionv3")
    assert again.output_shape == first.output_shape


def test_strides_of_every_row_are_complete():
    assert all(tuple(row.layers) == STRIDES for row in BACKBONES.values())


def test_unknown_backbone_names_the_close_ones():
    with pytest.raises(UserError, match="unknown backbone 'densenet12'; did you mean densenet121"):
        build("densenet12")
    with pytest.raises(UserError, match="inceptionv3"):
        build("vgg")


def test_unknown_scaling_is_refused():
    with pytest.raises(UserError, match="'torch'; use matched or unit"):
        build("mobilenetv2", input_scaling="torch")


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((100, 130), "96x128"), ((128, 50), "128x64"), ((0, 64), "32x64"), ((-64, 64), "32x64"), ((31, 33), "32x32")],
)
def test_size_that_does_not_work_names_the_nearest_that_does(size, nearest):
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} does not work.* 32.*nearest: {nearest}$"):
        build("mobilenetv2", image_size=size)
    height, width = map(int, nearest.split("x"))
    check_encoder("mobilenetv2", image_size=(height, width), weights=None)


@pytest.mark.parametrize("size", [(128,), (64.0, 64), (64, 64, 3), ("64", "64")])
def test_size_that_is_no_height_and_width_is_refused(size):
    with pytest.raises(UserError, match="not a height and a width"):
        build("mobilenetv2", image_size=size)


def test_checking_imports_no_keras(tmp_path):
    code = (
        "import sys\n"
        "from clothseg.models.backbones import check_encoder\n"
        "check_encoder('densenet121', image_size=(64, 64), weights='imagenet')\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Weights


@pytest.mark.parametrize("name", ["mobilenetv2", "densenet169"])
def test_published_weights_land_in_the_encoder(name, weights_folder):
    path = weights_folder / f"{name}_imagenet_notop.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = build(name, weights=path)
    stored = set()
    with h5py.File(path) as file:
        file.visititems(lambda _, item: stored.add(item[()].tobytes()) if isinstance(item, h5py.Dataset) else None)
    variables = encoder.variables
    assert len(variables) > 200
    assert all(np.asarray(keras.ops.convert_to_numpy(variable)).tobytes() in stored for variable in variables)


def test_weights_of_another_network_are_one_line(weights_folder):
    path = weights_folder / "densenet169_imagenet_notop.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as error:
            build("mobilenetv2", weights=path)
    message = str(error.value)
    assert message.startswith(f"no weights for mobilenetv2 from '{path}': it is damaged or of another network")
    assert "backbone.weights=null" in message and "experiment=quickstart" in message
    assert "\n" not in message and len(message) < 600


def reference(name: str, image_size=SIZE) -> keras.Model:
    """The network of keras.applications with every variable drawn anew."""
    network = getattr(keras.applications, BACKBONES[name].builder)(
        include_top=False, weights=None, input_shape=(*image_size, 3)
    )
    random = np.random.default_rng(1)
    for variable in network.weights:
        if variable.name.endswith("variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(random.uniform(-0.1, 0.1, variable.shape) + (variable.name == "gamma"))
    return network


def assert_encoder_computes_as(network: keras.Model, encoder: keras.Model, scaled_photo: np.ndarray) -> None:
    layers = BACKBONES[backbone_of(encoder).name].layers.values()
    expected = keras.Model(network.input, [network.get_layer(name).output for name in layers])(scaled_photo)
    for got, want in zip(encoder(photos()), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_encoder_computes_what_the_network_with_the_same_weights_computes(tmp_path, suffix):
    network = reference("mobilenetv2")
    path = tmp_path / f"mobilenet_notop{suffix}"
    (network.save_weights if suffix == ".weights.h5" else network.save)(path)
    assert_encoder_computes_as(network, build("mobilenetv2", weights=str(path)), photos() / 127.5 - 1)


def test_weights_that_keras_has_downloaded_before_need_no_network(tmp_path, deaf_proxy):
    network = reference("mobilenetv2")
    (tmp_path / "models").mkdir()
    network.save(tmp_path / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = build("mobilenetv2", weights="imagenet")
    assert_encoder_computes_as(network, encoder, photos() / 127.5 - 1)


def test_efficientnet_weights_meet_photos_scaled_as_they_were_trained(tmp_path):
    network = reference("efficientnetb0")
    scaling = next(layer for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    # The published files hold the deviation here, and Keras divides by its root once more outside the file.
    mean, deviation, count = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)
    scaling.set_weights([mean, deviation, count])
    network.save_weights(tmp_path / "b0.weights.h5")
    encoder = build("efficientnetb0", weights=tmp_path / "b0.weights.h5")

    scaling.set_weights([mean, deviation**2, count])
    scaling.finalize_state()
    assert_encoder_computes_as(network, encoder, photos())


def test_missing_file_is_named_before_keras_is_needed(tmp_path):
    with pytest.raises(UserError, match="no weights for densenet121 from '.*none.h5': there is no such file; use "):
        check_encoder("densenet121", image_size=SIZE, weights=tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.weights.h5", b"<html>not found</html>", "it is not an HDF5 file"),
        ("empty.h5", b"", "it is not an HDF5 file"),
        ("model.keras", b"PK", "the name must end in"),
    ],
)
def test_file_that_holds_no_weights_is_named_before_keras_is_needed(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        check_encoder("densenet121", image_size=SIZE, weights=tmp_path / name)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_damaged_file_is_one_line(tmp_path, mobilenet, suffix):
    whole = tmp_path / "whole.weights.h5"
    mobilenet.save_weights(whole)
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(UserError, match="it is damaged or of another network") as error:
        build("mobilenetv2", weights=damaged)
    assert "\n" not in str(error.value)


@pytest.fixture
def deaf_proxy(monkeypatch, tmp_path):
    """All downloads go to a port that takes connections and never answers; nothing is in the cache."""
    # The folder of KERAS_HOME, which Keras reads only when it is imported.
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", os.fspath(tmp_path))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


@pytest.mark.parametrize("refused", [True, False])
def test_download_that_fails_is_one_line_and_soon(deaf_proxy, monkeypatch, refused):
    monkeypatch.setattr(backbones, "DOWNLOAD_TIMEOUT", 0.2)
    if refused:
        deaf_proxy.close()
    before = socket.getdefaulttimeout()
    with pytest.raises(UserError, match=r"no weights for mobilenetv2 from 'imagenet': the download failed \(.+\); use"):
        build("mobilenetv2", weights="imagenet")
    assert socket.getdefaulttimeout() == before


def test_weights_that_cannot_be_downloaded_are_told_before_keras_is_loaded(monkeypatch, tmp_path):
    def away(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", away)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UserError, match=r"no route to host.*backbone\.weights=.*experiment=quickstart"):
        check_download("mobilenetv2")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_128_no_top.h5").touch()
    check_download("mobilenetv2")


def own(tmp_path, monkeypatch, text: str) -> str:
    """A module of a user's own, in the folder where something is started. Returns its name."""
    name = f"own_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_of_ones_own_is_an_encoder(tmp_path):
    encoder = build("small_backbone:small")
    photo = keras.Input((*SIZE, 3))
    plain = keras.Model(photo, small(photo))
    plain.set_weights(encoder.get_weights())
    for got, wanted, stride in zip(encoder(photos()), plain(photos()), STRIDES, strict=True):
        assert got.shape[1:3] == (SIZE[0] // stride, SIZE[1] // stride)
        np.testing.assert_array_equal(got, wanted)
    encoder.save_weights(tmp_path / "small.weights.h5")
    again = build("small_backbone:small", weights=tmp_path / "small.weights.h5")
    np.testing.assert_array_equal(again(photos())[-1], encoder(photos())[-1])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere:small", "there is no module nowhere in this folder"),
        ("nowhere.else:small", "there is no module nowhere.else in this folder"),
        ("small_backbone:", "not of the form module:function"),
        ("small backbone:small", "not of the form module:function"),
        (":small", "not of the form module:function"),
    ],
)
def test_what_names_no_function_is_told_before_keras_is_needed(name, told):
    with pytest.raises(UserError, match=told):
        check_encoder(name, image_size=SIZE, weights=None)


def test_a_function_of_ones_own_has_no_published_weights():
    with pytest.raises(UserError, match="weights=imagenet is for the backbones of Keras, not for small_backbone:small"):
        check_encoder("small_backbone:small", image_size=SIZE, weights="imagenet")
    with pytest.raises(UserError, match="input_scaling=unit does nothing to small_backbone:small"):
        build("small_backbone:small", input_scaling="unit")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "fails: AttributeError: .* has no attribute 'mine'"),
        ("import nothing_of_that_name", "fails in line 1 of own_.*: ModuleNotFoundError"),
        ("def mine(photo):\n    return photo.no\n", "fails in line 2 of own_.*: AttributeError"),
        ("def mine(photo):\n    return None\n", "fails: TypeError"),
        (
            "def mine(photo):\n    return [photo]\n",
            "gives maps of 32x64 for a photo of 32x64; they must be 16x32",
        ),
    ],
)
def test_a_function_that_fails_or_gives_other_maps_is_told_on_one_line(tmp_path, monkeypatch, text, told):
    name = own(tmp_path, monkeypatch, text)
    with pytest.raises(UserError, match=told) as error:
        build(f"{name}:mine")
    assert "\n" not in str(error.value)
