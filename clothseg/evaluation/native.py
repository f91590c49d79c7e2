"""Evaluation at the photo's own size: the network's logits are resized to the annotation, not the other way round.

What a network scores on labels that were resized to its own resolution depends on that resolution; what it scores
against the annotation as it is can be compared with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from clothseg.data.labels import BACKGROUND, IGNORE
from clothseg.data.prepared import Frame
from clothseg.evaluation.boundary import BoundaryScores


@dataclass(frozen=True)
class Evaluation:
    """What a network came to on some photos.

    Attributes:
        confusion: int64 (classes, classes) over all photos at their own sizes: rows labels, columns predictions.
        network_confusion: the same at the network's resolution, labels resized by nearest neighbour.
        photo_confusions: int64 (n, classes, classes), `confusion` photo by photo.
        boundary_f: float (classes,), boundary F score of every class, NaN where a class is in no photo; None where it
            was not asked for.
    """

    confusion: np.ndarray
    network_confusion: np.ndarray
    photo_confusions: np.ndarray
    boundary_f: np.ndarray | None


def evaluate(
    model: Any,
    *,
    photos: np.ndarray,
    labels: np.ndarray,
    frames: np.ndarray,
    rows: Sequence[int],
    original_labels: Callable[[int], np.ndarray],
    classes: int,
    flip: bool,
    tags: Literal["given"] | None,
    boundary: bool,
    batch_size: int,
) -> Evaluation:
    """Scores a network at the photos' own sizes, and at its own resolution beside it.

    Args:
        model: a Keras model, photos float32 (batch, height, width, 3) in 0..255 to logits (batch, height / stride,
            width / stride, classes).
        photos: uint8 (n, height, width, 3), prepared for the network.
        labels: uint8 (n, height, width), theirs.
        frames: int (n, 4), top, left, height and width of what of each prepared photo is photo and not padding.
        rows: which of them are scored.
        original_labels: from a row to labels uint8 (own height, own width) as annotated; `IGNORE` counts nowhere.
        classes: how many.
        flip: whether to average logits with those of the mirror image, mirrored back.
        tags: "given" allows as predictions of a photo only the classes that its annotation has, and the background: the
            setting of the Clothing Co-Parsing paper (Yang, Luo, Lin, CVPR 2014), which is given each photo's tags.
        boundary: whether to score boundaries too.
        batch_size: photos that go through the network together.
    """
    height, width = photos.shape[1:3]
    confusions, network_confusion = [], np.zeros((classes, classes), np.int64)
    boundaries = BoundaryScores(classes) if boundary else None
    with tqdm(desc="evaluating", total=len(rows), unit="photo", disable=None, leave=False) as progress:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            for row, logits in zip(part, _logits(model, photos[part], flip=flip), strict=True):
                truth = original_labels(row)
                allowed = _tags(truth) if tags == "given" else None
                predicted = label_map(crop(logits, frames[row], (height, width)), truth.shape, allowed=allowed)
                confusions.append(confusion_matrix(truth, predicted, classes=classes))
                at_network = label_map(logits, (height, width), allowed=allowed)
                network_confusion += confusion_matrix(labels[row], at_network, classes=classes)
                if boundaries is not None:
                    boundaries.add(truth, predicted)
                progress.update()
    photo_confusions = np.array(confusions)
    return Evaluation(
        confusion=photo_confusions.sum(axis=0),
        network_confusion=network_confusion,
        photo_confusions=photo_confusions,
        boundary_f=boundaries.of_classes() if boundaries is not None else None,
    )


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    """int64 (classes, classes) of labels and predictions of one shape: rows labels, columns predictions."""
    counted = truth != IGNORE
    cells = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def crop(logits: np.ndarray, frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """The logits of what is photo and not padding.

    Args:
        logits: float (own height, own width, classes), of a prepared photo.
        frame: top, left, height and width in pixels of the photo in it.
        size: height and width of the prepared photo.
    """
    top, left, height, width = (int(side) for side in frame)
    if (height, width) == tuple(size):
        return logits
    full = resize(logits, size)
    return full[top : top + height, left : left + width]


def label_map(logits: np.ndarray, size: tuple[int, int], *, allowed: np.ndarray | None) -> np.ndarray:
    """The class with the highest logit at every pixel, logits resized bilinearly to a size.

    Resizing 59 classes to the size of a photo takes longer than the network itself, so only those are resized that win
    somewhere. Bilinear interpolation weighs four neighbours: a class that another one is not below in any of the four
    does not win between them. The result is that of resizing all.

    Args:
        logits: float (own height, own width, classes).
        size: height and width wanted.
        allowed: int (k,), the only classes that may win; None for all.

    Returns:
        uint8 (height, width).
    """
    numbers = np.arange(logits.shape[-1]) if allowed is None else allowed
    if allowed is not None:
        logits = logits[..., allowed]
    winning = _may_win(logits)
    numbers, logits = numbers[winning], logits[..., winning]
    if len(numbers) == 1:
        return np.full(size, numbers[0], np.uint8)
    return numbers.astype(np.uint8)[resize(logits, size).argmax(axis=-1)]


def resize(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes float (own height, own width, classes) bilinearly, as `keras.ops.image.resize` does."""
    for axis, wanted in enumerate(size):
        own = logits.shape[axis]
        if own == wanted:
            continue
        centres = np.clip((np.arange(wanted) + 0.5) * own / wanted - 0.5, 0, own - 1)
        first = np.minimum(centres.astype(np.intp), max(own - 2, 0))
        across = (centres - first).astype(logits.dtype).reshape([-1 if axis == a else 1 for a in range(3)])
        lower, upper = logits.take(first, axis), logits.take(np.minimum(first + 1, own - 1), axis)
        upper -= lower
        upper *= across
        upper += lower
        logits = upper
    return logits


def _may_win(logits: np.ndarray) -> np.ndarray:
    """Which classes may have the highest value somewhere between the pixels: bool (classes,)."""
    padded = np.pad(logits, ((0, 1), (0, 1), (0, 0)), mode="edge")
    corners = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]
    alive = np.ones(logits.shape, bool)
    for corner in corners:
        winner = corner.argmax(axis=-1)[..., None]
        below = np.ones(logits.shape, bool)
        for other in corners:
            below &= other <= np.take_along_axis(other, winner, axis=-1)
        np.put_along_axis(below, winner, False, axis=-1)  # it is not below itself
        alive &= ~below
    return alive.any(axis=(0, 1))


def _logits(model: Any, photos: np.ndarray, *, flip: bool) -> np.ndarray:
    photos = photos.astype(np.float32)
    logits = np.asarray(model.predict_on_batch(photos), np.float32)
    if flip:
        mirrored = np.asarray(model.predict_on_batch(photos[:, :, ::-1]), np.float32)
        logits = (logits + mirrored[:, :, ::-1]) / 2
    return logits


def _tags(truth: np.ndarray) -> np.ndarray:
    return np.union1d([BACKGROUND], np.unique(truth[truth != IGNORE]))
