"""Pretrained encoders behind one contract: raw photos in, feature maps at strides 2, 4, 8, 16 and 32 out.

Everything that differs from one backbone of Keras to another is a row of `BACKBONES`. A user's own is a function, named
by its module and its name ("my_backbones:small"). Importing this module does not import Keras, so `check_encoder` can
refuse a run before TensorFlow loads.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import re
import socket
import textwrap
import traceback
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clothseg.errors import UserError
from clothseg.models.weight_files import check_hdf5

if TYPE_CHECKING:
    import keras

STRIDES = (2, 4, 8, 16, 32)
INPUT_SCALINGS = ("matched", "unit")
WEIGHTS_HOST = "storage.googleapis.com"  # where keras.applications downloads from
DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# RGB in 0..255 -> scale * RGB + offset, as `keras.applications.imagenet_utils.preprocess_input` names them.
SCALINGS = {
    "torch": (
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    ),
    "caffe": (1.0, [-123.68, -116.779, -103.939]),  # then the channels are reversed, to BGR
    "tf": (1 / 127.5, -1.0),
    "unit": (1 / 255, 0.0),
}


@dataclass(frozen=True)
class Backbone:
    """One network of `keras.applications` and what must be known to cut it into feature maps.

    builder: name of the function in `keras.applications`.
    layers: for every stride the layer that gives the feature map. Unnamed layers, which Keras numbers over the whole
        process, are given here by their number within the model ("activation_0" is the first).
    scaling: the input range the published weights were trained on, a key of `SCALINGS`.
    margin: pixels by which the scaled photo is padded in height and in width, because unpadded convolutions eat them.
        The maps are then cropped at their centre to exactly input / stride.
    first: the layer that takes the scaled photo where the network begins with a scaling of its own.
    """

    builder: str
    layers: Mapping[int, str]
    scaling: Literal["torch", "caffe", "tf"]
    margin: int = 0
    first: str | None = None


def _layers(*names: str) -> dict[int, str]:
    return dict(zip(STRIDES, names, strict=True))


_DENSENET = _layers("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu")
_EFFICIENTNET = _layers(
    "block2a_expand_activation",
    "block3a_expand_activation",
    "block4a_expand_activation",
    "block6a_expand_activation",
    "top_activation",
)


def _efficientnet(size: int) -> Backbone:
    # Keras puts the scaling inside EfficientNet, in the policy's precision, and builds it differently for
    # weights="imagenet" than for a file of the same weights. Cut off, all weights meet mean and deviation in float32.
    return Backbone(f"EfficientNetB{size}", _EFFICIENTNET, "torch", first="stem_conv_pad")


def _resnet(depth: int, block3: int, block4: int) -> Backbone:
    names = ("conv1_relu", "conv2_block3_out", f"conv3_block{block3}_out", f"conv4_block{block4}_out")
    return Backbone(f"ResNet{depth}", _layers(*names, "conv5_block3_out"), "caffe")


BACKBONES: Mapping[str, Backbone] = {
    "densenet121": Backbone("DenseNet121", _DENSENET, "torch"),
    "densenet169": Backbone("DenseNet169", _DENSENET, "torch"),
    "densenet201": Backbone("DenseNet201", _DENSENET, "torch"),
    "mobilenetv2": Backbone(
        "MobileNetV2",
        _layers(
            "block_1_expand_relu",
            "block_3_expand_relu",
            "block_6_expand_relu",
            "block_13_expand_relu",
            "block_16_project",
        ),
        "tf",
    ),
    **{f"efficientnetb{size}": _efficientnet(size) for size in range(8)},
    "resnet50": _resnet(50, 4, 6),
    "resnet101": _resnet(101, 4, 23),
    "resnet152": _resnet(152, 8, 36),
    # Downsamples in the last block of a stack, so the finest map of a stride is inside that block.
    "resnet50v2": Backbone(
        "ResNet50V2",
        _layers("conv1_conv", "conv2_block3_1_relu", "conv3_block4_1_relu", "conv4_block6_1_relu", "post_relu"),
        "tf",
    ),
    "nasnetmobile": Backbone(
        "NASNetMobile",
        _layers("stem_bn1", "reduction_concat_stem_1", "normal_concat_3", "normal_concat_8", "normal_concat_12"),
        "tf",
        margin=1,
    ),
    "inceptionv3": Backbone(
        "InceptionV3", _layers("activation_2", "activation_4", "mixed2", "mixed7", "mixed10"), "tf", margin=43
    ),
}


def check_encoder(name: str, *, image_size: tuple[int, int], weights: str | os.PathLike | None) -> None:
    """Raise `UserError` for what `build_encoder` would refuse and can be known without importing Keras."""
    if ":" in name:
        _check_own(name, weights)
    elif name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.5) or BACKBONES
        raise UserError(f"unknown backbone {name!r}; did you mean {', '.join(close)}?")
    _check_size(image_size)
    if weights is not None and weights != "imagenet":
        _check_file(name, Path(weights).expanduser())


def check_download(name: str) -> None:
    """Raise `UserError` where Keras would have to download the ImageNet weights of a backbone and cannot.

    Without importing Keras. Through a proxy nothing can be known beforehand; the download itself then tells.
    """
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    if any(file.name.replace("_", "").startswith(name) for file in cache.glob("*.h5")) or urllib.request.getproxies():
        return
    try:
        socket.create_connection((WEIGHTS_HOST, 443), timeout=DOWNLOAD_TIMEOUT).close()
    except OSError as error:
        raise _weights_error(
            name, "imagenet", f"{WEIGHTS_HOST}, which has them, cannot be reached ({error})"
        ) from error


def build_encoder(
    name: str,
    *,
    image_size: tuple[int, int],
    weights: str | os.PathLike | None,
    input_scaling: Literal["matched", "unit"],
) -> keras.Model:
    """Build a backbone as an encoder.

    Args:
        name: a key of `BACKBONES`, or "module:function" of a user's own. Such a function gets photos, float32
            (batch, height, width, 3), 0..255, as a `keras.KerasTensor`, scales them as it likes, and returns the five
            feature maps that the encoder has.
        image_size: (height, width) in pixels, multiples of 32.
        weights: "imagenet" for those Keras publishes (downloaded once), a file that fits the network of
            `keras.applications` without its top (`.weights.h5`, or `.h5` as Keras 2 wrote it), or None for random ones.
            Of a user's own backbone a file that `encoder.save_weights` wrote, or None.
        input_scaling: "matched" for the range the published weights were trained on, "unit" for 0..1 whatever the
            backbone, which is the article's mistake.

    Returns:
        A model named "encoder" from RGB photos (batch, height, width, 3), 0..255, to the list of five feature maps
        (batch, height / stride, width / stride, channels), finest first, for the strides 2, 4, 8, 16, 32.

    Raises:
        UserError: the name, the size or the scaling is not one of those above, the weights cannot be had, or a user's
            own function fails or gives other maps.
    """
    check_encoder(name, image_size=image_size, weights=weights)
    if input_scaling not in INPUT_SCALINGS:
        raise UserError(f"unknown input scaling {input_scaling!r}; use {' or '.join(INPUT_SCALINGS)}")
    if ":" in name:
        return _build_own(name, image_size, weights, input_scaling)
    import keras

    row = BACKBONES[name]
    height, width = image_size
    network = _load_network(name, (height + row.margin, width + row.margin, 3), weights)
    layers = _layers_by_name(network)
    start = layers[row.first].input if row.first else network.input
    backbone = keras.Model(start, [layers[row.layers[stride]].output for stride in STRIDES], name=name)

    photo = keras.Input((height, width, 3), name="photo", dtype="float32")
    scaled = _scale(photo, row.scaling if input_scaling == "matched" else "unit")
    if row.margin:
        before, after = row.margin // 2, row.margin - row.margin // 2
        scaled = keras.layers.ZeroPadding2D(((before, after), (before, after)), dtype="float32", name="margin")(scaled)
    maps = [
        _crop(features, (height // stride, width // stride), name=f"crop_{stride}")
        for features, stride in zip(backbone(scaled), STRIDES, strict=True)
    ]
    return keras.Model(photo, maps, name="encoder")


def _check_own(name: str, weights: str | os.PathLike | None) -> None:
    module, _, function = name.partition(":")
    if not (all(part.isidentifier() for part in module.split(".")) and function.isidentifier()):
        raise UserError(f"backbone.name={name} is not of the form module:function, as in my_backbones:small")
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        # Of a package that holds the module.
        found = None
    if found is None:
        raise UserError(f"backbone.name={name}: there is no module {module} in this folder, in PYTHONPATH or installed")
    if weights == "imagenet":
        raise UserError(
            f"backbone.weights=imagenet is for the backbones of Keras, not for {name}; "
            "use backbone.weights=null or a file that encoder.save_weights wrote"
        )


def _build_own(
    name: str, image_size: tuple[int, int], weights: str | os.PathLike | None, input_scaling: str
) -> keras.Model:
    import keras

    if input_scaling != "matched":
        raise UserError(f"backbone.input_scaling={input_scaling} does nothing to {name}, which scales photos itself")
    module, _, function = name.partition(":")
    height, width = image_size
    photo = keras.Input((height, width, 3), name="photo", dtype="float32")
    try:
        build = getattr(importlib.import_module(module), function)
        maps = list(build(photo))
        encoder = keras.Model(photo, maps, name="encoder")
    except Exception as error:
        # Whatever a user's code may raise, and where in it.
        spec = importlib.util.find_spec(module)
        origin = spec.origin if spec is not None else None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        place = f" in line {lines[-1]} of {Path(origin).name}" if origin is not None and lines else ""
        raise UserError(f"backbone.name={name} fails{place}: {reason}") from error
    wanted = [(height // stride, width // stride) for stride in STRIDES]
    got = [tuple(features.shape[1:-1]) for features in maps]
    if got != wanted:
        raise UserError(
            f"backbone.name={name} gives maps of {_sizes(got)} for a photo of {height}x{width}; "
            f"they must be {_sizes(wanted)}, finest first"
        )
    return encoder if weights is None else _load_file(name, encoder, Path(weights).expanduser())


def _sizes(sizes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, size)) for size in sizes)


def _check_size(image_size: tuple[int, int]) -> None:
    coarsest = STRIDES[-1]
    if len(image_size) != 2 or not all(isinstance(side, int) for side in image_size):
        raise UserError(f"image size {image_size!r} is not a height and a width in pixels; use for example (128, 128)")
    nearest = tuple(max(coarsest, (side + coarsest // 2) // coarsest * coarsest) for side in image_size)
    if tuple(image_size) != nearest:
        height, width = image_size
        raise UserError(
            f"image size {height}x{width} does not work: height and width must be multiples of {coarsest}, "
            f"at least {coarsest}; nearest: {nearest[0]}x{nearest[1]}"
        )


def _check_file(name: str, path: Path) -> None:
    if not path.is_file():
        raise _weights_error(name, path, "there is no such file")
    if path.suffix != ".h5":
        raise _weights_error(name, path, "the name must end in .weights.h5 or .h5")
    try:
        with path.open("rb") as file:
            signature = file.read(8)
    except OSError as error:
        raise _weights_error(name, path, error.strerror) from error
    if signature != b"\x89HDF\r\n\x1a\n":
        raise _weights_error(name, path, "it is not an HDF5 file")


def _weights_error(name: str, weights: str | Path, reason: object) -> UserError:
    reason = textwrap.shorten(str(reason), 200, placeholder=" ...")
    imagenet = "" if weights == "imagenet" else "backbone.weights=imagenet, "
    return UserError(
        f"no weights for {name} from {str(weights)!r}: {reason}; "
        f"use {imagenet}backbone.weights=<file of {name} without top>, backbone.weights=null or experiment=quickstart"
    )


def _load_network(name: str, input_shape: tuple[int, int, int], weights: str | os.PathLike | None) -> keras.Model:
    """The network of `keras.applications` without its top, with `weights` in it."""
    import keras

    build = partial(getattr(keras.applications, BACKBONES[name].builder), include_top=False, input_shape=input_shape)
    with warnings.catch_warnings():
        # MobileNetV2 warns that its weights were trained at another size, which is so for every backbone here.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        # Once per layer of a file that does not fit, on top of the error.
        warnings.filterwarnings("ignore", message="Skipping nested container")
        if weights is None:
            return build(weights=None)
        if weights == "imagenet":
            return _download(name, build)
        return _load_file(name, build(weights=None), Path(weights).expanduser())


def _download(name: str, build: Callable[..., keras.Model]) -> keras.Model:
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            return build(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception for a failed download
        reason = str(error).rpartition(" -- ")[-1]
        raise _weights_error(name, "imagenet", f"the download failed ({reason})") from error


def _load_file(name: str, network: keras.Model, path: Path) -> keras.Model:
    try:
        check_hdf5(path)
        network.load_weights(path)
    except Exception as error:  # of many types for a file that is damaged or of another network
        reason = str(error).partition(". ")[0]
        raise _weights_error(name, path, f"it is damaged or of another network ({reason})") from error
    return network


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let a connection fail that a firewall swallows, where Keras would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _layers_by_name(network: keras.Model) -> dict[str, keras.Layer]:
    """Layers by name, unnamed activations by their number within the network."""
    layers = {layer.name: layer for layer in network.layers}
    unnamed = [name for name in layers if re.fullmatch(r"activation(_\d+)?", name)]
    unnamed.sort(key=lambda name: int(name.partition("_")[2] or 0))
    activations = {f"activation_{number}": layers.pop(name) for number, name in enumerate(unnamed)}
    return layers | activations


def _scale(photo: keras.KerasTensor, scaling: str) -> keras.KerasTensor:
    """0..255 to the range a backbone expects, in float32: bfloat16 could not tell neighbouring grey values apart."""
    import keras

    scale, offset = SCALINGS[scaling]
    scaled = keras.layers.Rescaling(scale, offset, dtype="float32", name="scaling")(photo)
    return keras.ops.flip(scaled, axis=-1) if scaling == "caffe" else scaled


def _crop(features: keras.KerasTensor, size: tuple[int, int], *, name: str) -> keras.KerasTensor:
    """The centre of `features`, or `features` where they already have the size."""
    import keras

    excess = [have - want for have, want in zip(features.shape[1:3], size, strict=True)]
    if not any(excess):
        return features
    return keras.layers.Cropping2D([(extra // 2, extra - extra // 2) for extra in excess], name=name)(features)
