"""Files of networks for other runtimes: how they are written, and how they are run."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from clothseg.errors import UserError

if TYPE_CHECKING:
    import keras

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Quantization = Literal["float16", "int8"]


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        ending: of its files; none for a folder.
        packages: that have to be installed, besides this package's own.
        quantized: the kinds of small numbers that it can be written in.
    """

    ending: str
    packages: tuple[str, ...]
    quantized: tuple[Quantization, ...]


FORMATS = {
    "saved_model": Format("", (), ()),
    "onnx": Format(".onnx", ("tf2onnx", "onnxruntime"), ("float16", "int8")),
    "litert": Format(".tflite", (), ("float16", "int8")),
    "keras": Format(".keras", (), ()),
}


_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}  # of LiteRT


def file_name(name: str, *, quantize: Quantization | None) -> str:
    """What a file of a format is called."""
    return "_".join(["label_maps", *([quantize] if quantize else [])]) + FORMATS[name].ending


def check(name: str, *, quantize: Quantization | None) -> None:
    """Refuses what cannot be written here.

    Raises:
        UserError: the format has no such numbers, or a package is missing.
    """
    form = FORMATS[name]
    if quantize is not None and quantize not in form.quantized:
        can = ", ".join(other for other, known in FORMATS.items() if quantize in known.quantized)
        raise UserError(f"format={name} cannot be written with quantize={quantize}; {can} can")
    if missing := [package for package in form.packages if importlib.util.find_spec(package) is None]:
        raise UserError(f"format={name} needs {' and '.join(missing)}: pip install -e '.[{name}]'")


def check_backend(name: str) -> None:
    """Refuses what Keras' backend cannot write.

    Raises:
        UserError: names it.
    """
    import keras

    backend = keras.backend.backend()
    if name != "keras" and backend != "tensorflow":
        raise UserError(f"format={name} is not written under KERAS_BACKEND={backend}; KERAS_BACKEND=tensorflow works")


def write(
    network: keras.Model,
    path: Path,
    *,
    name: str,
    quantize: Quantization | None,
    calibration: Callable[[], Iterable[np.ndarray]],
) -> None:
    """Writes a network of photos to label maps; see `label_map_network`.

    With float16 the weights are halved and computed with as before. With int8 the convolutions alone compute in whole
    numbers, weights by channel; what brings photos to the network's size and logits back to theirs does not, since
    places of pixels do not fit into 8 bits.

    Args:
        network: it, in float32.
        path: of the file or folder, which does not exist.
        name: of the format.
        quantize: the numbers of weights, or of weights and activations; None for those of the network.
        calibration: photos uint8 (1, own height, own width, 3) on which the ranges of activations are found for int8;
            called more than once.
    """
    # Converters talk of every pass over the graph.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "keras":
                network.save(path)
            elif name == "saved_model":
                network.export(str(path), format="tf_saved_model", verbose=False)
            elif name == "onnx":
                _write_onnx(network, path, quantize, calibration)
            else:
                _write_litert(network, path, quantize, calibration)
    finally:
        logging.disable(before)


def opened(path: Path, *, name: str, threads: int | None) -> Run:
    """A file as its runtime runs it.

    Args:
        path: of the file or folder.
        name: of the format.
        threads: that it may use, where that is for the runtime to say; None for its own choice.

    Returns:
        From photos uint8 (batch, own height, own width, 3) to `labels` and `logits`; see `label_map_network`.
    """
    if name == "keras":
        import keras

        network = keras.models.load_model(path, compile=False, safe_mode=True)
        return lambda photos: _arrays(network(photos, training=False))
    if name == "saved_model":
        import tensorflow as tf

        served = tf.saved_model.load(str(path))
        return lambda photos: _arrays(served.serve(photos))
    if name == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        return lambda photos: dict(zip(outputs, session.run(outputs, {"photos": photos}), strict=True))
    import tensorflow as tf

    with warnings.catch_warnings():
        # TensorFlow's interpreter is moving to a package of its own.
        warnings.simplefilter("ignore")
        runner = tf.lite.Interpreter(str(path), num_threads=threads).get_signature_runner()
    return lambda photos: runner(photos=photos)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _arrays(found: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


def _write_onnx(network: keras.Model, path: Path, quantize: Quantization | None, calibration: Callable) -> None:
    network.export(str(path), format="onnx", verbose=False, input_signature=[network.inputs[0]])
    if quantize == "float16":
        _halve_weights(path)
    elif quantize == "int8":
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Photos(CalibrationDataReader):
            def __init__(self, photos: Iterable[np.ndarray]) -> None:
                self.rest = iter(photos)

            def get_next(self) -> dict[str, np.ndarray] | None:
                photo = next(self.rest, None)
                return None if photo is None else {"photos": photo}

        quantize_static(
            path,
            path,
            Photos(calibration()),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: with 8, sums overflow on processors without VNNI, which then label otherwise.
            reduce_range=True,
        )


def _halve_weights(path: Path) -> None:
    """Stores weights in float16, and has them made into float32 where they are used: once, when they are loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        # Of short ones, which are biases, constants and sizes, nothing would be saved.
        if weight.data_type != TensorProto.FLOAT or values.size < 256 or np.abs(values).max() > 60_000:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    onnx.save(model, path)


def _write_litert(network: keras.Model, path: Path, quantize: Quantization | None, calibration: Callable) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", verbose=False)

        def converter() -> tf.lite.TFLiteConverter:
            return tf.lite.TFLiteConverter.from_saved_model(folder)

        made = converter()
        if quantize is not None:
            made.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            made.target_spec.supported_types = [tf.float16]
        if quantize != "int8":
            path.write_bytes(made.convert())
            return
        made.representative_dataset = lambda: ([photo] for photo in calibration())
        plain = tf.lite.Interpreter(model_content=converter().convert())
        made_with = {operation["op_name"] for operation in plain._get_ops_details()}
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=sorted(made_with - _CONVOLUTIONS))
        chosen = tf.lite.experimental.QuantizationDebugger(
            converter=made, debug_dataset=made.representative_dataset, debug_options=options
        )
        path.write_bytes(chosen.get_nondebug_quantized_model())
