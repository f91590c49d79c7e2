"""How much each class weighs in a loss, worked out from how often it occurs in the training set. In NumPy.

All weights here are float32 (classes,), scaled so that their mean over the pixels of the training set is 1: a weighted
loss is then about as large as one without weights, which matters where losses are added up. Classes that do not occur
in the training set weigh 0: where another set has them, their pixels count for nothing in a weighted loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from clothseg.checks import is_number, suggestion
from clothseg.errors import UserError


@dataclass(frozen=True)
class ClassFrequencies:
    """How often the classes occur in the training set; pixels labelled IGNORE are counted nowhere.

    Attributes:
        pixels: int64 (classes,): pixels of each class.
        photo_pixels: int64 (classes,): labelled pixels, of whatever class, in all photos that have the class.
    """

    pixels: np.ndarray
    photo_pixels: np.ndarray


WEIGHTINGS = ("effective_number", "median_frequency")


def weights_by_name(
    frequencies: ClassFrequencies, name: str | None, *, beta: float, power: float, maximum: float | None
) -> np.ndarray | None:
    """The weights by name, tempered.

    Args:
        frequencies: of the training set.
        name: one of `WEIGHTINGS`, or None for no weights.
        beta: of `effective_number`.
        power: the weights are raised to it, 0..1: 1 leaves them as published, 0 makes all equal. Clothes differ by
            1:10,000 in pixels, and weights that do so too let a few pixels drown all others.
        maximum: how many times as much as the lightest class any other may weigh, at least 1, or None for no limit.

    Returns:
        float32 (classes,), or None without a name.

    Raises:
        UserError: an unknown name, or a number out of its range.
    """
    # Also those that this weighting, or none, has no use for: they may be what was meant.
    number("power", power, 0, 1)
    number("beta", beta, 0, 1)
    if maximum is not None:
        number("maximum", maximum, 1)
    if name is None:
        return None
    if name not in WEIGHTINGS:
        hint = suggestion(name, WEIGHTINGS)
        raise UserError(f"class_weights={name} does not exist: {hint}it may be null, {' or '.join(WEIGHTINGS)}")
    if name == "effective_number":
        weights = effective_number(frequencies.pixels, beta=beta)
    else:
        weights = median_frequency(frequencies.pixels, frequencies.photo_pixels)
    present = frequencies.pixels > 0
    weights[present] **= power
    if maximum is not None and present.any():
        weights = np.minimum(weights, maximum * weights[present].min())
    return _scaled(weights, frequencies.pixels)


def effective_number(pixels: np.ndarray, *, beta: float) -> np.ndarray:
    """(1 - beta) / (1 - beta**n) for a class of n pixels (Cui et al., CVPR 2019).

    Args:
        pixels: int (classes,) of the training set.
        beta: 0..1. Classes of far more than 1 / (1 - beta) pixels weigh the same, classes of far fewer the inverse of
            their number; so do all at 1, and at 0 all weigh the same.

    Returns:
        float32 (classes,), mean 1 over the pixels.

    Raises:
        UserError: `beta` is out of its range.
    """
    if number("beta", beta, 0, 1) == 1:
        effective = pixels
    else:
        # In the form that stays exact for a beta close to 1, where 1 - beta**n is a difference of almost equal numbers.
        effective = -np.expm1(pixels * np.log(beta)) if beta > 0 else np.ones(len(pixels))
    return _scaled(np.divide(1.0, effective, out=np.zeros(len(pixels)), where=pixels > 0), pixels)


def median_frequency(pixels: np.ndarray, photo_pixels: np.ndarray) -> np.ndarray:
    """median(f) / f, where f is a class's share of the pixels of the photos that have it (Eigen and Fergus, ICCV 2015).

    Args:
        pixels: int (classes,) of the training set.
        photo_pixels: int (classes,): pixels, of whatever class, in all photos that have the class.

    Returns:
        float32 (classes,), mean 1 over the pixels.
    """
    # The median would be lost in the scaling, and is left out.
    return _scaled(np.divide(photo_pixels, pixels, out=np.zeros(len(pixels)), where=pixels > 0), pixels)


def _scaled(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return (weights * pixels.sum() / max((weights * pixels).sum(), np.finfo(float).tiny)).astype(np.float32)


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value`, which is an option of a loss.

    Raises:
        UserError: it is no number from `low` to `high`; names the option, the value and what would work.
    """
    if not (is_number(value) and low <= value <= high):
        span = f"at least {low}" if high == math.inf else f"{low} to {high}"
        raise UserError(f"{name}={value} of a loss does not work: it may be a number of {span}")
    return value
