"""Whether an exported network does what the original does, and how fast."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from clothseg.deployment.formats import Run
from clothseg.evaluation.native import confusion_matrix
from clothseg.evaluation.predictor import Predictor
from clothseg.evaluation.upsample import label_map
from clothseg.training import scores
from clothseg.training.scores import Counts


@dataclass(frozen=True)
class Parity:
    """An exported network beside the original, on the same photos one by one.

    Attributes:
        photos: how many.
        logits: the largest difference between two logits.
        pixels: the largest share of the pixels of a photo, in 0..1, that are labelled otherwise.
        miou: mean IoU of the original and of the exported one, in 0..1.
        accuracy: pixel accuracy of the two, in 0..1.
        milliseconds: median time for a photo of the two, from the photo to its label map.
    """

    photos: int
    logits: float
    pixels: float
    miou: tuple[float, float]
    accuracy: tuple[float, float]
    milliseconds: tuple[float, float]


def parity(
    original: Predictor,
    exported: Run,
    read: Callable[[int], tuple[np.ndarray, np.ndarray]],
    rows: Sequence[int],
    *,
    classes: int,
) -> Parity:
    """Runs both.

    Args:
        original: the network that was exported.
        exported: it as its runtime runs it.
        read: from a row to a photo uint8 (own height, own width, 3) and its labels uint8 (own height, own width).
        rows: which photos, at least one.
        classes: of the network.
    """

    def of_original(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ((logits, window),) = original([photo])
        threads = os.cpu_count() or 1
        return label_map(logits, photo.shape[:2], window=window, allowed=None, threads=threads), logits

    def of_exported(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = exported(photo[None])
        return found["labels"][0], found["logits"][0]

    both = of_original, of_exported
    for run in both:
        # Whatever a runtime does at its first photo is done.
        run(read(rows[0])[0])
    confusions = np.zeros((2, classes, classes), np.int64)
    seconds: list[tuple[float, ...]] = []
    logits, pixels = [], []
    for row in tqdm(rows, desc="comparing", unit="photo", delay=2, disable=None, leave=False):
        photo, truth = read(row)
        found, times = zip(*(_timed(run, photo) for run in both), strict=True)
        seconds.append(times)
        for confusion, (labels, _) in zip(confusions, found, strict=True):
            confusion += confusion_matrix(truth, labels, classes=classes)
        logits.append(np.abs(found[0][1] - found[1][1]).max())
        pixels.append((found[0][0] != found[1][0]).mean())
    counts = Counts.of(confusions)
    return Parity(
        photos=len(rows),
        logits=float(max(logits)),
        pixels=float(max(pixels)),
        miou=_pair(scores.miou(counts)),
        accuracy=_pair(scores.accuracy(counts)),
        milliseconds=_pair(1000 * np.median(seconds, axis=0)),
    )


def _timed(run: Callable, photo: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    begun = time.perf_counter()
    found = run(photo)
    return found, time.perf_counter() - begun


def _pair(values: np.ndarray) -> tuple[float, float]:
    original, exported = (float(value) for value in values)
    return original, exported
