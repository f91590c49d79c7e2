"""Training on several GPUs of one machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from clothseg.errors import UserError


def placement(devices: int) -> Callable[[], AbstractContextManager[object]]:
    """Makes the contexts in which a model has to be built and compiled so that it uses that many devices.

    Every device gets its share of each batch (`tf.distribute.MirroredStrategy`); weights are kept equal. Logical
    devices count, so it can be tried without GPUs.

    Raises:
        UserError: there are fewer devices, or the Keras backend is not TensorFlow.
    """
    if devices == 1:
        return nullcontext
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"devices={devices} needs the TensorFlow backend, this is {keras.backend.backend()}; use devices=1"
        )
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise UserError(
            f"devices={devices}, but this machine has {len(found)} ({found[0].device_type}); use devices={len(found)}"
        )
    return tf.distribute.MirroredStrategy([device.name for device in found[:devices]]).scope
