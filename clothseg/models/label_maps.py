"""A trained network and what is before and behind it as one: photos of any size in, label maps of their size out.

It is made of Keras' own layers and ops, so that its file is opened without this package, in Keras' safe mode, and its
graph can be exported. Resizing is done by matrices, since Keras' own takes no size that is known only later: a row of
such a matrix has the weights that bilinear interpolation gives the pixels of one line.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from clothseg.data.prepared import PADDING

Frame = tuple[Any, Any]

STEPS = 2.0**16  # that a logit is divided into; they are some tens at most


def label_map_network(network: keras.Model, *, resize: Literal["squash", "pad"]) -> keras.Model:
    """Puts preparation and the choice of classes around a network.

    Args:
        network: photos float32 (batch, height, width, 3) in 0..255 to logits (batch, height / stride, width / stride,
            classes).
        resize: whether photos are squashed into its size or padded to it, as in its training.

    Returns:
        A network of photos uint8 (batch, own height, own width, 3) to a dictionary: `labels`, uint8 (batch, own height,
        own width), the class with the highest logit, logits resized bilinearly; and `logits`, float32 (batch, height /
        stride, width / stride, classes), of the network itself.
    """
    height, width = network.input_shape[1:3]
    photos = keras.Input((None, None, 3), dtype="uint8", name="photos")
    colours = ops.cast(photos, "float32")
    own = _numbers(colours[:, :, 0, 0]), _numbers(colours[:, 0, :, 0])
    frame = _frames(own, (height, width), resize=resize)
    rows, columns = (_down(*parts) for parts in zip(own, frame, (height, width), strict=True))
    # (batch, own height, width, 3), and then (batch, height, width, 3).
    narrow = ops.matmul(ops.expand_dims(columns, 1), colours)
    fitted = ops.matmul(rows, _reshaped(narrow, (-1, width * 3)))
    fitted = ops.round(_reshaped(fitted, (height, width, 3)))
    if resize == "pad":
        inside = ops.expand_dims(_inside(frame[0], height), 2) * ops.expand_dims(_inside(frame[1], width), 1)
        fitted = PADDING + (fitted - PADDING) * ops.expand_dims(inside, -1)
    logits = ops.cast(network(fitted), "float32")
    _, tall, wide, classes = logits.shape
    rows = _up(own[0], frame[0], cells=tall, side=height)
    columns = _up(own[1], frame[1], cells=wide, side=width)
    high = ops.matmul(rows, _reshaped(logits, (tall, wide * classes)))
    high = _reshaped(high, (-1, wide, classes))
    high = ops.matmul(ops.expand_dims(columns, 1), high)
    # Of whole numbers: the highest of real ones Keras finds with ops that neither ONNX nor LiteRT have.
    labels = ops.cast(ops.argmax(ops.cast(high * STEPS, "int32"), axis=-1), "uint8")
    return keras.Model(photos, {"labels": labels, "logits": logits}, name="label_maps")


def _reshaped(values: Any, shape: tuple[int, ...]) -> Any:
    # In float32 whatever policy is in force: bfloat16 has no 256 grey levels and their fractions.
    return keras.layers.Reshape(shape, dtype="float32")(values)


def _numbers(line: Any) -> Any:
    """The numbers of the pixels of a line, float32 (batch, own): as many as there are in photos of whatever size."""
    return ops.cumsum(ops.ones_like(line), axis=1) - 1


def _frames(own: tuple[Any, Any], size: tuple[int, int], *, resize: str) -> tuple[Frame, Frame]:
    """Where a photo lies in what the network is shown, top and height, left and width, float32 (batch, 1) each."""
    have = [ops.max(numbers, axis=1, keepdims=True) + 1 for numbers in own]
    if resize == "squash":
        down, across = (
            (ops.zeros_like(side), ops.zeros_like(side) + wanted) for side, wanted in zip(have, size, strict=True)
        )
        return down, across
    scale = ops.minimum(size[0] / have[0], size[1] / have[1])
    sides = [_between(ops.round(side * scale), 1, wanted) for side, wanted in zip(have, size, strict=True)]
    down, across = ((ops.floor((wanted - side) / 2), side) for side, wanted in zip(sides, size, strict=True))
    return down, across


def _line(side: int) -> np.ndarray:
    """The numbers of the pixels of a line of known length, float32 (1, side)."""
    # A constant of NumPy's: one of the backend's would become an input of the graph that is exported.
    return np.arange(side, dtype=np.float32)[None]


def _inside(frame: Frame, side: int) -> Any:
    """1 for pixels of a line of the network's that show the photo, 0 for padding, float32 (batch, side)."""
    start, length = frame
    line = _line(side)
    return ops.cast(ops.logical_and(ops.less_equal(start, line), ops.greater(start + length, line)), "float32")


def _down(own: Any, frame: Frame, side: int) -> Any:
    """From a line of a photo to one of the network's, float32 (batch, side, own)."""
    start, length = frame
    have = ops.max(own, axis=1, keepdims=True) + 1
    centres = _between((ops.subtract(_line(side), start) + 0.5) * (have / length) - 0.5, 0, have - 1)
    return _weights(centres, own)


def _up(own: Any, frame: Frame, *, cells: int, side: int) -> Any:
    """From a line of logits to one of a photo, float32 (batch, own, cells)."""
    start, length = (part * (cells / side) for part in frame)
    have = ops.max(own, axis=1, keepdims=True) + 1
    # Of logits only those whose centres show the photo have a say.
    first = _between(ops.ceil(start - 0.5), 0, cells - 1)
    last = ops.maximum(ops.minimum(ops.floor(start + length - 0.5), cells - 1), first)
    centres = _between(start + (own + 0.5) * length / have - 0.5, first, last)
    return _weights(centres, _line(cells))


def _weights(centres: Any, line: Any) -> Any:
    """Bilinear weights float32 (batch, wanted, own) of the numbered pixels of a line around centres (batch, wanted)."""
    return ops.relu(1 - ops.abs(ops.subtract(ops.expand_dims(centres, 2), line[:, None])))


def _between(values: Any, low: Any, high: Any) -> Any:
    # `ops.clip` with bounds that are computed could not be saved.
    return ops.minimum(ops.maximum(values, low), high)
