"""Logits at a photo's own size, and the classes that win there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_matrix

_AT_ONCE = 2**15  # pixels that are interpolated together, so that all classes of them fit into memory


class Upsampled:
    """Logits resized bilinearly, computed where they are asked for.

    Every value is that of cropping and of `keras.ops.image.resize`.

    Args:
        logits: float (own height, own width, classes).
        size: height and width wanted.
        window: top, left, height and width, counted in logits, of the part that is resized. Logits whose centres lie
            outside of it have no influence.
    """

    def __init__(self, logits: np.ndarray, size: tuple[int, int], *, window: Sequence[float]) -> None:
        top, left, tall, wide = window
        rows, columns = _inside(top, tall, logits.shape[0]), _inside(left, wide, logits.shape[1])
        self.logits, self.size = logits[rows, columns], size
        self._above, self._below, self._down = _neighbours(size[0], top - rows.start, tall, self.logits.shape[0])
        self._before, self._behind, self._across = _neighbours(
            size[1], left - columns.start, wide, self.logits.shape[1]
        )

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Logits float32 (k, classes) at k pixels, int (k,) their rows and columns."""
        width, flat = self.logits.shape[1], self.logits.reshape(-1, self.logits.shape[-1])
        above, below, down = self._above[rows] * width, self._below[rows] * width, self._down[rows]
        before, behind, across = self._before[columns], self._behind[columns], self._across[columns]
        cells = np.stack([above + before, above + behind, below + before, below + behind], axis=1)
        up, back = 1 - down, 1 - across
        weights = np.stack([up * back, up * across, down * back, down * across], axis=1)
        # One row for each pixel, with the weights of its four neighbours.
        mixed = csr_matrix((weights.ravel(), cells.ravel(), np.arange(0, cells.size + 1, 4)), (len(rows), len(flat)))
        return mixed @ flat

    def winners(self, *, threads: int) -> np.ndarray:
        """The class with the highest logit at every pixel, uint8 (height, width), but for the order of equal values.

        Of the pixels of a photo most lie between four logits with the same highest class, which is then theirs too;
        interpolated are the others alone, where they are many in several threads.
        """
        highest = self.logits.argmax(axis=-1).astype(np.uint8)
        classes = highest.take(self._above, axis=0).take(self._before, axis=1)
        rows, columns = np.nonzero(_disagree(highest).take(self._above, axis=0).take(self._before, axis=1))

        def interpolate(start: int) -> None:
            part = rows[start : start + _AT_ONCE], columns[start : start + _AT_ONCE]
            classes[part] = self.at(*part).argmax(axis=-1)

        starts = range(0, len(rows), _AT_ONCE)
        if min(threads, len(starts)) <= 1:
            for start in starts:
                interpolate(start)
        else:
            with ThreadPoolExecutor(min(threads, len(starts))) as pool:
                list(pool.map(interpolate, starts))
        return classes


def label_map(
    logits: np.ndarray, size: tuple[int, int], *, window: Sequence[float], allowed: np.ndarray | None, threads: int
) -> np.ndarray:
    """The class with the highest logit at every pixel, logits resized bilinearly to a size.

    Args:
        logits: float (own height, own width, classes).
        size: height and width wanted.
        window: as of `Upsampled`.
        allowed: int (k,), ascending, the only classes that may win; None for all.
        threads: as many as may work on it, in which others do not work on other photos.

    Returns:
        uint8 (height, width).
    """
    if allowed is None:
        return Upsampled(logits, size, window=window).winners(threads=threads)
    return allowed.astype(np.uint8)[Upsampled(logits[..., allowed], size, window=window).winners(threads=threads)]


def resize(logits: np.ndarray, size: tuple[int, int], *, window: Sequence[float]) -> np.ndarray:
    """Logits resized bilinearly, float32 (height, width, classes); arguments as of `Upsampled`."""
    rows, columns = (places.ravel() for places in np.indices(size))
    return Upsampled(logits, size, window=window).at(rows, columns).reshape(*size, -1)


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
