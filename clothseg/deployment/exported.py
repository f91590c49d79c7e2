"""An exported ONNX file as the network it was made of, run by ONNX Runtime or OpenVINO.

Neither TensorFlow nor Keras is imported: what labels one photo begins seconds earlier.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from clothseg.errors import UserError
from clothseg.evaluation.predictor import Member

ENDING = ".onnx"
Engine = Literal["openvino", "onnxruntime"]


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

    def member(self, engine: Engine) -> Member:
        """The network in a predictor.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return Member(_Network(self.path, engine), size=self.size, resize=self.resize)
        except Exception as error:  # of types of the engines' own
            reason = " ".join(str(error).split())
            raise UserError(f"run={self.path} cannot be opened by {engine}: {reason[:200]}") from error


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


class _Network:
    """Photos that have the network's size already to its logits, as a Keras model gives them."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._run = {"openvino": _openvino, "onnxruntime": _onnxruntime}[engine](path)

    def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
        """Logits float32 (batch, rows, columns, classes) of photos in whole numbers of 0..255."""
        return self._run(photos.astype(np.uint8))


# Both compute nothing that only the labels need: they are found faster outside, where classes meet.


def _openvino(path: Path) -> Any:
    import openvino

    core = openvino.Core()
    whole = core.read_model(path)
    (logits,) = (output for output in whole.outputs if "logits" in output.names)
    # In float32, as the file was compared with the original, whatever the processor would rather compute in.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(openvino.Model([logits], whole.get_parameters()), "CPU", options)
    return lambda photos: compiled(photos)[0]


def _onnxruntime(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return lambda photos: session.run(["logits"], {"photos": photos}, options)[0]
