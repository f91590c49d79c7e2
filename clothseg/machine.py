"""What a training computes on: another processor, or another number of threads, rounds otherwise."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# By which oneDNN and Eigen choose their kernels.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# With one of which TensorFlow computes by oneDNN unless it is told otherwise.
_FOR_ONEDNN = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # the variable that tells it, when it is loaded


def description(*, threads: int | None) -> str:
    """GPUs that the backend of Keras computes on, or else the processor with its instructions and threads, in words.

    Args:
        threads: of the processor that are computed with; None for one on every core.
    """
    import keras

    gpus = [device for device in keras.distribution.list_devices() if not device.lower().startswith("cpu")]
    if gpus:
        return ", ".join(_names(gpus))
    plain = keras.backend.backend() == "tensorflow" and not with_onednn(os.environ.get(ONEDNN))
    return f"{processor()}, {threads or os.cpu_count()} threads{', without oneDNN' if plain else ''}"


def with_onednn(variable: str | None) -> bool:
    """Whether TensorFlow computes by oneDNN where `ONEDNN` had this value when it was loaded."""
    if variable in ("0", "1"):
        return variable == "1"
    _, flags = _processor()
    # What other processors than x86 have is not told apart.
    return "avx" not in flags or not flags.isdisjoint(_FOR_ONEDNN)


def processor() -> str:
    """Name and relevant instructions of the processor, as far as the system tells."""
    name, flags = _processor()
    return " ".join([name, *(instruction for instruction in INSTRUCTIONS if instruction in flags)])


def _processor() -> tuple[str, set[str]]:
    """Its name, and all of its instructions."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    except OSError:
        pass  # there is no such file elsewhere than on Linux
    return name, flags


def tensorflow_on_processor() -> bool:
    """Whether Keras computes by TensorFlow, and on no GPU."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16. Where the system does not tell, it is taken to lack it."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(processor().split())


def wrong_in_16_bits(stride: int, *, width: int | None) -> bool:
    """Whether oneDNN computes a convolution to maps of a width wrongly in 16 bits; see `models/strided.py`."""
    return stride >= 4 or (stride > 1 and width == 1)


def _names(devices: list[str]) -> list[str]:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
        return [str(detail.get("device_name", "GPU")) for detail in details] or devices
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices()]
    return devices
