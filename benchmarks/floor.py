"""How near a step is to what the processor can do: the network's FLOPs against the rate of a plain matrix product."""

from __future__ import annotations

import json
import os
import statistics
import time

SIDE = 4096  # of the matrices


def main() -> None:
    """Tells the forward pass's FLOPs of a photo, and the FLOPs a second that matrix products reach, as JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tensorflow.python.profiler.model_analyzer import profile
    from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

    from benchmarks.step import network

    model = network("densenet121", 128).model
    shape = tf.TensorSpec((1, 128, 128, 3), tf.float32)
    graph = tf.function(lambda photos: model(photos, training=False)).get_concrete_function(shape).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output().build()
    told = {"forward_gflop": profile(graph, options=options).total_float_ops / 1e9}
    for kind in (tf.float32, tf.bfloat16):
        a = tf.cast(tf.random.normal((SIDE, SIDE)), kind)
        product = tf.function(lambda a=a: tf.matmul(a, a))
        took = []
        for _ in range(6):
            begun = time.perf_counter()
            product().numpy()
            took.append(time.perf_counter() - begun)
        told[f"{kind.name}_gflop_per_second"] = 2 * SIDE**3 / statistics.median(took[1:]) / 1e9
    print(json.dumps({"event": "end", **told}), flush=True)


if __name__ == "__main__":
    main()
