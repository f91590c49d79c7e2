"""How long a step takes at least: its operations at the rate of a plain matrix product; tells seconds as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.step import network

SIDES = {"cpu": 4096, "gpu": 16384}  # of the matrices


def convolutions(model: Any) -> Iterator[tuple[str, int]]:
    """Name and floating-point operations, a product and a sum each, of every convolution for one photo.

    Args:
        model: a Keras model; those within it are gone through too.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from convolutions(layer)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.DepthwiseConv2D)):
            # Every pixel of the smaller map meets every weight once.
            small = layer.input if isinstance(layer, keras.layers.Conv2DTranspose) else layer.output
            yield layer.name, 2 * math.prod(small.shape[1:3]) * math.prod(layer.kernel.shape)


def operations(mode: str, backbone: str, size: int) -> float:
    """Floating-point operations of a step for one photo.

    Training takes every product three times: forward, for the gradient of the weights, and for that of the input. A
    frozen encoder takes it forward alone, and of the first convolution that is trained the input needs no gradient.

    Args:
        mode: predict, frozen or fine_tuning.
        backbone: name of the encoder.
        size: height and width of the photo in pixels.
    """
    made = network(backbone, size)
    encoder = [count for _, count in convolutions(made.encoder)]
    decoder = [count for _, count in convolutions(made.model)][len(encoder) :]
    return {
        "predict": sum(encoder) + sum(decoder),
        "frozen": sum(encoder) + 3 * sum(decoder) - decoder[0],
        "fine_tuning": 3 * (sum(encoder) + sum(decoder)) - encoder[0],
    }[mode]


def rate(precision: str) -> float:
    """Floating-point operations a second of a product of large matrices, the median of some, by Keras's backend."""
    import keras
    import numpy as np

    jax = keras.backend.backend() == "jax"
    side = SIDES["cpu" if not jax or keras.distribution.list_devices()[0].startswith("cpu") else "gpu"]
    values = np.random.default_rng(0).standard_normal((side, side), np.float32)
    a = keras.ops.cast(keras.ops.convert_to_tensor(values), precision)
    product: Callable[[], Any]
    if jax:
        import jax.numpy as jnp

        product = lambda: jnp.matmul(a, a).block_until_ready()  # noqa: E731
    else:
        import tensorflow as tf

        product = tf.function(lambda: tf.matmul(a, a))
    product()
    took = []
    for _ in range(7):
        begun = time.perf_counter()
        product()
        took.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(took)


def main() -> None:
    """Tells the seconds that the operations of a step take at least, and what they come from."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("mode", choices=["predict", "frozen", "fine_tuning"])
    arguments.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments.add_argument("--backbone", default="densenet121")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--batch", type=int, default=64)
    given = arguments.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as clothseg does
    one, second = operations(given.mode, given.backbone, given.size), rate(given.precision)
    told = {"gflop": one / 1e9, "gflop_per_second": second / 1e9, "took": one * given.batch / second}
    print(json.dumps({"event": "end", **told}), flush=True)


if __name__ == "__main__":
    main()
