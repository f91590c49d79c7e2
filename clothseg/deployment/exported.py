"""An exported ONNX file as the network it was made of, run by ONNX Runtime or OpenVINO.

Neither TensorFlow nor Keras is imported: what labels one photo begins seconds earlier.
"""

from __future__ import annotations

import importlib.util
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from clothseg import machine
from clothseg.errors import UserError
from clothseg.evaluation.predictor import Member

ENDING = ".onnx"
Engine = Literal["openvino", "onnxruntime"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that `clothseg.export` wrote, and what is written beside it.

    Attributes:
        path: of the file.
        run: that it was made of.
        weights: of that run, by the name of their file.
        class_names: one per class.
        size: height and width that the network was trained for, in pixels.
        resize: whether it is shown photos squashed into that size or padded to it.
    """

    path: Path
    run: str
    weights: str
    class_names: tuple[str, ...]
    size: tuple[int, int]
    resize: Literal["squash", "pad"]

    def member(self, engine: Engine, *, precision: Precision) -> Member:
        """The network in a predictor.

        Args:
            engine: that runs it.
            precision: that it is computed in; see `check_precision`.

        Raises:
            UserError: the file is damaged, or has a convolution that would be computed wrongly.
        """
        try:
            network = _Network(_ENGINES[engine](self.path, self.size, precision))
        except UserError:
            raise
        except Exception as error:  # of types of the engines' own
            raise _cannot_open(self.path, engine, error) from error
        return Member(network, size=self.size, resize=self.resize)


def is_exported(name: str) -> bool:
    """Whether what a run is called is an exported file."""
    return name.endswith(ENDING)


def opened(name: str) -> Exported:
    """An exported file, by its path.

    Raises:
        UserError: it is not there, or has nothing beside it that says what it is.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"run={name} does not exist; python -m clothseg.export format=onnx writes such files")
    beside = path.with_name(f"{path.name}.json")
    again = "python -m clothseg.export format=onnx writes both anew"
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
        height, width = map(int, told["size"])
        resize: Any = told["resize"]
        if resize not in ("squash", "pad"):
            raise ValueError(f"resize is {resize}")
        return Exported(
            path=path,
            run=str(told["run"]),
            weights=str(told["weights"]),
            class_names=tuple(map(str, told["classes"])),
            size=(height, width),
            resize=resize,
        )
    except OSError as error:
        raise UserError(f"run={name} needs {beside.name} beside it ({error.strerror}); {again}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"run={name} has a {beside.name} that does not say what it is ({error!r}); {again}") from error


def opened_together(names: Sequence[str]) -> list[Exported]:
    """Exported files that go together: their classes are the same.

    Raises:
        UserError: one cannot be had, is no exported file, or has other classes than the first.
    """
    if other := next((name for name in names if not is_exported(name)), None):
        raise UserError(f"run={other} is no exported file as the others are; export it too, or name their runs instead")
    files = [opened(name) for name in names]
    for file in files[1:]:
        if file.class_names != files[0].class_names:
            raise UserError(
                f"run={file.path} has {len(file.class_names)} classes and {files[0].path} "
                f"{len(files[0].class_names)}, or others; only networks with the same classes go together"
            )
    return files


def engine(given: Engine | None) -> Engine:
    """The engine asked for, or else the faster one of those that are installed.

    Raises:
        UserError: none is.
    """
    wanted: tuple[Engine, ...] = get_args(Engine) if given is None else (given,)
    for name in wanted:
        if importlib.util.find_spec(name) is not None:
            return name
    asked = "an exported file" if given is None else f"engine={given}"
    extra = "onnx" if given == "onnxruntime" else "openvino"
    raise UserError(f"{asked} needs {' or '.join(wanted)}: pip install -e '.[{extra}]'")


def check_precision(given: Precision, engine: Engine) -> None:
    """Raise `UserError` if an engine cannot compute in it, or the processor would have to emulate it."""
    if given == "float32":
        return
    if engine != "openvino":
        raise UserError(f"precision={given} needs engine=openvino, and this is {engine}; float32 works with both")
    if not machine.has_bfloat16():
        raise UserError(
            f"precision={given} needs a processor that computes in it (AVX-512 BF16 or AMX), and this is "
            f"{machine.processor()}; precision=float32 works"
        )


def _cannot_open(path: Path, engine: Engine, error: Exception) -> UserError:
    return UserError(f"run={path} cannot be opened by {engine}: {' '.join(str(error).split())[:200]}")


class _Network:
    """Photos that have the network's size already to its logits, as a Keras model gives them.

    Args:
        run: the same, of uint8.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray]) -> None:
        self._run = run

    def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
        """Logits float32 (batch, rows, columns, classes) of photos in whole numbers of 0..255."""
        return self._run(photos.astype(np.uint8))


# Both compute nothing that only the labels need: they are found faster outside, where classes meet.


def _openvino(path: Path, size: tuple[int, int], precision: Precision) -> Callable[[np.ndarray], np.ndarray]:
    network = logits_network(path, size, precision)

    # For as many photos as come at once: compiling takes half a second, and a network for any number of them computes a
    # fifteenth to a third longer. Two, since the last batch of a folder is a smaller one.
    @lru_cache(maxsize=2)
    def for_batches(photos: int) -> _Requests:
        network.reshape([photos, *size, 3])
        try:
            return _Requests(compiled(network, precision).create_infer_request)
        except Exception as error:  # of types of OpenVINO's own
            raise _cannot_open(path, "openvino", error) from error

    return lambda photos: for_batches(len(photos))(photos)


class _Requests:
    """Inference requests, each used again once nothing is left of its last answer.

    So answers are neither copied nor new memory each time, which took a twelfth to a third of the time of a batch of 64
    photos. Their logits are 250 MB.

    Args:
        new: makes a request of OpenVINO.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._made = list[tuple[Any, weakref.ref[np.ndarray]]]()

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        place = next((at for at, (_, answer) in enumerate(self._made) if answer() is None), None)
        request = self._new() if place is None else self._made.pop(place)[0]
        # What is cut out of an array keeps the array, as that does not own its memory: the request does.
        answer = request.infer(photos, share_inputs=True, share_outputs=True)[0]
        self._made.append((request, weakref.ref(answer)))
        return answer


def logits_network(path: Path, size: tuple[int, int], precision: Precision) -> Any:
    """The part of an exported file that makes logits of photos of its size, as OpenVINO reads it.

    Raises:
        UserError: it has a convolution that would be computed wrongly in this precision.
    """
    import openvino

    whole = openvino.Core().read_model(path)
    (logits,) = (result.input_value(0) for result in whole.get_results() if "logits" in result.output(0).names)
    if precision == "bfloat16":
        logits = _ending_with_convolution(logits)
    network = openvino.Model([logits], whole.get_parameters())
    network.reshape([-1, *size, 3])
    if precision == "bfloat16" and any(map(_wrong, network.get_ops())):
        raise UserError(
            f"run={path} has convolutions with a stride to maps one pixel wide, or with one of 4 or more, and such "
            f"oneDNN computes wrongly in {precision}; precision=float32 works"
        )
    return network


def compiled(network: Any, precision: Precision) -> Any:
    """A network as OpenVINO reads it, for its shapes and in a precision."""
    import openvino

    # Told in any case: left alone, OpenVINO computes in what the processor is fastest in.
    numbers = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": numbers, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(network, "CPU", options)


def _wrong(operation: Any) -> bool:
    """Whether it is a convolution of the kinds that `models/strided.py` is about: OpenVINO has oneDNN's too."""
    if operation.get_type_name() not in ("Convolution", "GroupConvolution"):
        return False
    stride, width = max(operation.get_attributes()["strides"]), operation.output(0).partial_shape[3].get_length()
    return machine.wrong_in_16_bits(stride, width=width)


def _ending_with_convolution(logits: Any) -> Any:
    """The same logits by one more layer, which changes nothing.

    What comes after the last convolution OpenVINO takes for post-processing and leaves in float32, and by convolution
    it does not mean a transposed one: that would be the whole decoder, two thirds of the time.
    """
    from openvino import opset13

    classes = logits.partial_shape[3].get_length()
    same = np.eye(classes, dtype=np.float32)[:, :, None, None]
    maps = opset13.transpose(logits, [0, 3, 1, 2])
    convolved = opset13.convolution(maps, same, [1, 1], [0, 0], [0, 0], [1, 1])
    return opset13.transpose(convolved, [0, 2, 3, 1]).output(0)


def _onnxruntime(path: Path, *_: Any) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return lambda photos: session.run(["logits"], {"photos": photos}, options)[0]


_ENGINES = {"openvino": _openvino, "onnxruntime": _onnxruntime}
