"""Which training photos are shown how often."""

from __future__ import annotations

import numpy as np

from clothseg.checks import is_number
from clothseg.errors import UserError


def uniform(pixels: np.ndarray) -> None:
    """Every photo as often as any other, whatever its pixels int (m, classes): no weights at all."""


def repeat_factor(pixels: np.ndarray, *, threshold: float, maximum: float | None) -> np.ndarray:
    """More of the photos with rare classes: repeat factor sampling (Gupta, Dollár, Girshick 2019, LVIS).

    A class that a share f of the photos contains asks for a factor max(1, sqrt(threshold / f)); a photo gets the
    largest factor that any of its classes asks for.

    Args:
        pixels: int (m, classes), how many pixels of each class every training photo has.
        threshold: classes in a smaller share of the photos than this are rare; above 0 and up to 1.
        maximum: the largest factor, 1 or more; None for no limit.

    Returns:
        float64 (m,): how often each photo is to be shown in one pass, on average; their mean is 1.

    Raises:
        UserError: an option out of its range.
    """
    if not is_number(threshold) or not 0 < threshold <= 1:
        raise UserError(f"sampling.threshold={threshold} has to be a share of the photos, above 0 and up to 1")
    if maximum is not None and not (is_number(maximum) and maximum >= 1):
        raise UserError(f"sampling.maximum={maximum} has to be 1 or more, or null for no limit")
    present = np.asarray(pixels) > 0  # (m, classes)
    # A class that is nowhere divides by 0, and is in no photo to be asked for.
    shares = np.where(present.any(axis=0), present.mean(axis=0), 1)
    factors = np.maximum(1, np.sqrt(threshold / shares))
    if maximum is not None:
        factors = np.minimum(factors, maximum)
    repeats = np.where(present, factors, 1).max(axis=1)
    return repeats / repeats.mean()


def draw(weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """The examples of one pass, by systematic resampling, in random order.

    An example of the share s of all weights is expected `count` * s times and comes either that number rounded down or
    rounded up; with equal weights and as many draws as examples, each comes exactly once.

    Args:
        weights: float (n,), at least 0 and not all 0.
        count: how many are drawn.
        random: where random numbers come from.

    Returns:
        int64 (count,), in 0..n-1.
    """
    # In random order also before drawing, lest neighbours go together: of two with half a draw each, always just one.
    order = random.permutation(len(weights))
    ends = np.cumsum(np.asarray(weights, np.float64)[order])
    ends *= count / ends[-1]
    ends[-1] = np.inf  # whatever was rounded
    drawn = order[np.searchsorted(ends, np.arange(count) + random.random(), side="right")]
    return random.permutation(drawn)
