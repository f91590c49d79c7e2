"""Evaluation at the photo's own size: the network's logits are resized to the annotation, not the other way round.

What a network scores on labels that were resized to its own resolution depends on that resolution; what it scores
against the annotation as it is can be compared with anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix
from tqdm import tqdm

from clothseg.data.labels import BACKGROUND, IGNORE
from clothseg.evaluation.boundary import TOLERANCE, BoundaryScores

_AT_ONCE = 2**16  # pixels that are interpolated together, so that all classes of them fit into memory


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
    offset: np.ndarray | None,
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
        flip: whether to average the logits with those of the mirror image, mirrored back. Of the probabilities this is
            the geometric mean, normalized, by which a class has to be likely in both.
        offset: float (classes,), added to the logits of every pixel, or None; see `prior_offset`.
        tags: "given" allows as predictions of a photo only the classes that its annotation has, and the background: the
            setting of the Clothing Co-Parsing paper (Yang, Luo, Lin, CVPR 2014), which is given each photo's tags.
        boundary: whether to score boundaries too.
        batch_size: photos that go through the network together.
    """
    rows, size = np.asarray(rows, int), photos.shape[1:3]
    confusions = np.zeros((len(rows), classes, classes), np.int64)
    network_confusion = np.zeros((classes, classes), np.int64)
    boundaries = BoundaryScores(classes, tolerance=TOLERANCE) if boundary else None
    with tqdm(desc="evaluating", total=len(rows), unit="photo", delay=2, disable=None, leave=False) as progress:
        for place, (row, logits) in enumerate(_all_logits(model, photos, rows, flip=flip, batch_size=batch_size)):
            truth = original_labels(row)
            if offset is not None:
                logits = logits + offset
            allowed = _tags(truth) if tags == "given" else None
            window = _window(frames[row], size, logits.shape[:2])
            predicted = label_map(logits, truth.shape, window=window, allowed=allowed)
            confusions[place] = confusion_matrix(truth, predicted, classes=classes)
            everything = (0, 0, *logits.shape[:2])
            at_network = label_map(logits, size, window=everything, allowed=allowed)
            network_confusion += confusion_matrix(labels[row], at_network, classes=classes)
            if boundaries is not None:
                boundaries.add(truth, predicted)
            progress.update()
    return Evaluation(
        confusion=confusions.sum(axis=0),
        network_confusion=network_confusion,
        photo_confusions=confusions,
        boundary_f=boundaries.of_classes() if boundaries is not None else None,
    )


def prior_offset(pixels: np.ndarray, *, adjustment: float) -> np.ndarray | None:
    """What is added to logits so that rare classes are found more often (Menon et al., ICLR 2021, post hoc).

    Of a network that was trained with plain cross entropy, -log(prior) makes the classes with the highest mean recall
    win instead of those with the highest accuracy.

    Args:
        pixels: int (classes,), of every class in the training photos.
        adjustment: how much of it, at least 0; 1 is all of it.

    Returns:
        float32 (classes,), 0 for classes that do not occur; None where nothing is added.
    """
    if adjustment == 0:
        return None
    shares = pixels / pixels.sum()
    return (-adjustment * np.log(np.where(shares > 0, shares, 1))).astype(np.float32)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    """int64 (classes, classes) of labels and predictions of one shape: rows labels, columns predictions."""
    counted = truth != IGNORE
    cells = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def label_map(
    logits: np.ndarray, size: tuple[int, int], *, window: Sequence[float], allowed: np.ndarray | None
) -> np.ndarray:
    """The class with the highest logit at every pixel, logits resized bilinearly to a size.

    The result is that of cropping, of `keras.ops.image.resize` and of argmax, but for the order of equal values. Of the
    pixels of a photo most lie between four logits with the same highest class, which is then theirs too; interpolated
    are the others alone.

    Args:
        logits: float (own height, own width, classes).
        size: height and width wanted.
        window: top, left, height and width, counted in logits, of the part that is resized. Logits whose centres lie
            outside of it have no influence.
        allowed: int (k,), ascending, the only classes that may win; None for all.

    Returns:
        uint8 (height, width).
    """
    top, left, tall, wide = window
    rows, columns = _inside(top, tall, logits.shape[0]), _inside(left, wide, logits.shape[1])
    logits = logits[rows, columns] if allowed is None else logits[rows, columns, allowed]
    above, below, down = _neighbours(size[0], top - rows.start, tall, logits.shape[0])
    before, behind, across = _neighbours(size[1], left - columns.start, wide, logits.shape[1])

    highest = logits.argmax(axis=-1)
    places = highest.take(above, axis=0).take(before, axis=1)
    row, column = np.nonzero(_disagree(highest).take(above, axis=0).take(before, axis=1))
    width, flat = logits.shape[1], logits.reshape(-1, logits.shape[-1])
    for start in range(0, len(row), _AT_ONCE):
        r, c = row[start : start + _AT_ONCE], column[start : start + _AT_ONCE]
        corners = [
            (above[r] * width + before[c], (1 - down[r]) * (1 - across[c])),
            (above[r] * width + behind[c], (1 - down[r]) * across[c]),
            (below[r] * width + before[c], down[r] * (1 - across[c])),
            (below[r] * width + behind[c], down[r] * across[c]),
        ]
        cells, weights = (np.stack(part, axis=1).ravel() for part in zip(*corners, strict=True))
        # One row for each pixel, with the weights of its four neighbours.
        mixed = csr_matrix((weights, cells, np.arange(0, len(cells) + 1, 4)), shape=(len(r), len(flat)))
        places[r, c] = (mixed @ flat).argmax(axis=-1)
    return places.astype(np.uint8) if allowed is None else allowed.astype(np.uint8)[places]


def _inside(start: float, side: float, own: int) -> slice:
    """Which of `own` logits have their centre between start and start + side; the nearest one where none has."""
    first = min(max(math.ceil(start - 0.5), 0), own - 1)
    return slice(first, min(max(math.floor(start + side - 0.5), first), own - 1) + 1)


def _neighbours(count: int, start: float, side: float, own: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Between which two of `own` logits each of `count` pixels lies that fill start to start + side evenly.

    Returns:
        Numbers of the two, and the weight of the second in 0..1, float32; (count,) each.
    """
    centres = np.clip(start + (np.arange(count) + 0.5) * side / count - 0.5, 0, own - 1)
    first = np.minimum(centres.astype(np.intp), max(own - 2, 0))
    return first, np.minimum(first + 1, own - 1), (centres - first).astype(np.float32)


def _disagree(highest: np.ndarray) -> np.ndarray:
    """Whether a logit and its neighbours to the right, below, and right below have different highest classes."""
    padded = np.pad(highest, ((0, 1), (0, 1)), mode="edge")
    return (highest != padded[:-1, 1:]) | (highest != padded[1:, :-1]) | (highest != padded[1:, 1:])


def _all_logits(
    model: Any, photos: np.ndarray, rows: np.ndarray, *, flip: bool, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Every row and its logits, float32 (height / stride, width / stride, classes)."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        batch = photos[part].astype(np.float32)
        logits = np.asarray(model.predict_on_batch(batch), np.float32)
        if flip:
            mirrored = np.asarray(model.predict_on_batch(batch[:, :, ::-1]), np.float32)
            logits = (logits + mirrored[:, :, ::-1]) / 2
        yield from zip(part.tolist(), logits, strict=True)


def _window(frame: Sequence[int], size: tuple[int, int], logits: tuple[int, int]) -> tuple[float, ...]:
    """A frame (top, left, height, width) in pixels of a picture of a size, counted in as many logits as it has."""
    return tuple(int(side) * own / full for side, own, full in zip(frame, logits * 2, size * 2, strict=True))


def _tags(truth: np.ndarray) -> np.ndarray:
    return np.union1d([BACKGROUND], np.unique(truth[truth != IGNORE]))
