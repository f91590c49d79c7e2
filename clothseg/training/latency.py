"""How long a network takes for a photo."""

from __future__ import annotations

import time

import keras
import numpy as np

from clothseg.models.fused import least_batch


def milliseconds_per_photo(model: keras.Model, *, image_size: tuple[int, int], repeats: int) -> float:
    """Median time from one photo to its logits, in milliseconds, one photo at a time.

    It is what somebody waits who hands in a single photo on this machine, with whatever else the machine does
    meanwhile; decoding and resizing the photo are not in it. As in prediction, the network is shown it twice where that
    is faster.

    Args:
        model: photos (batch, height, width, 3) to logits.
        image_size: height and width in pixels.
        repeats: how many times are measured, after the first few that build the graph.
    """
    photo = np.random.default_rng(0).uniform(0, 255, (least_batch(), *image_size, 3)).astype(np.float32)
    times = []
    for _ in range(3 + repeats):
        begun = time.perf_counter()
        model.predict_on_batch(photo)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times[3:]))


# What it is called among the scores of a run.
LATENCY = "inference/milliseconds_per_photo"
