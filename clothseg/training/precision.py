"""In which number format a model computes."""

from __future__ import annotations

from typing import Literal

from clothseg import machine


def set_policy(precision: str) -> str:
    """Makes Keras compute in the format that `choose` gives for a `precision` option, and returns it."""
    import keras

    policy = choose(precision)
    keras.mixed_precision.set_dtype_policy(policy)
    return policy


def compiles(jit_compile: bool | Literal["auto"]) -> bool:
    """Whether steps are compiled with XLA. "auto" does it where it is faster: on a GPU, and under JAX."""
    if jit_compile != "auto":
        return jit_compile
    import keras

    return accelerated() or keras.backend.backend() == "jax"


def choose(precision: str) -> str:
    """The Keras dtype policy for a `precision` option.

    Args:
        precision: "float32", "mixed_bfloat16", "mixed_float16", or "auto", which takes bfloat16 where the GPU or,
            without one, the processor computes in it, and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if (_gpu_has_bfloat16() if accelerated() else machine.has_bfloat16()) else "float32"


def accelerated() -> bool:
    """Whether the Keras backend computes on something other than the CPU."""
    import keras

    return any(not device.lower().startswith("cpu") for device in keras.distribution.list_devices())


def _gpu_has_bfloat16() -> bool:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return device.platform != "gpu" or float(getattr(device, "compute_capability", 0)) >= 8
    import tensorflow as tf

    details = (tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU"))
    return all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
