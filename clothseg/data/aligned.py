"""Arrays that TensorFlow takes over as they are: of those that begin anywhere it makes a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_BYTES = 64  # of which the address is a multiple; TensorFlow's EIGEN_MAX_ALIGN_BYTES is at most that


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """`numpy.empty` of an address that suits a tensor, for what a `tf.numpy_function` returns."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(count + _BYTES, np.uint8)
    first = -room.ctypes.data % _BYTES
    return room[first : first + count].view(dtype).reshape(shape)
