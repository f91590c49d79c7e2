"""Arrays that TensorFlow takes over without a copy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from clothseg.data import aligned


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(3, 5, 7), (0, 4), (64, 32, 32, 3)])
def test_they_are_arrays_like_any_other(shape, dtype):
    made = aligned.empty(shape, dtype)
    assert made.shape == shape and made.dtype == dtype and made.flags.c_contiguous and made.flags.writeable
    made[...] = 7
    np.testing.assert_array_equal(made, np.full(shape, 7, dtype))


def test_tensorflow_keeps_them_where_they_are():
    places = []

    def make() -> np.ndarray:
        made = aligned.empty((64, 128), np.float32)
        made[...] = np.arange(128)
        places.append(made.ctypes.data)
        return made

    made = tf.function(lambda: tf.numpy_function(make, [], tf.float32))
    for _ in range(20):
        tensor = made()
        # What NumPy sees of a tensor is its own memory.
        assert np.asarray(memoryview(tensor)).ctypes.data == places[-1]
        np.testing.assert_array_equal(tensor, np.tile(np.arange(128, dtype=np.float32), (64, 1)))
