"""Random numbers that depend on nothing but the example they are for.

A counter-based generator (Salmon et al. 2011) with the mixing function of SplitMix64 (Steele, Lea, Flood 2014): every
number is a hash of the example's key, the name of the stream and its place in that stream. So an example gets the same
numbers in whatever batch it is, a resumed run goes on as if it had never stopped, and what one operation draws does not
move what another one gets.
"""

from __future__ import annotations

import zlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def words(keys: np.ndarray, stream: str, count: int) -> np.ndarray:
    """Random 64-bit words.

    Args:
        keys: int64 (batch, parts), one row per example.
        stream: name of what they are for; streams are independent of each other.
        count: words per example.

    Returns:
        uint64 (batch, count).
    """
    state = np.full(len(keys), zlib.crc32(stream.encode()), np.uint64)
    for part in keys.astype(np.uint64).T:
        # One after the other, so that keys whose parts only change places differ.
        state = _mix((state ^ part) + GOLDEN)
    return _mix(state[:, None] + GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def uniform(keys: np.ndarray, stream: str, count: int) -> np.ndarray:
    """Random numbers at least 0 and below 1: float64 (batch, count); see `words` for the arguments."""
    return (words(keys, stream, count) >> np.uint64(11)) * 2.0**-53


def chosen(keys: np.ndarray, stream: str, probability: float) -> np.ndarray:
    """Which examples something is done to: bool (batch,), true with the given probability."""
    return uniform(keys, stream, 1)[:, 0] < probability


def between(
    keys: np.ndarray, stream: str, bounds: tuple[float, float] | None, count: int, *, nothing: float, log: bool = False
) -> np.ndarray:
    """Random numbers in a range: float64 (batch, count).

    Args:
        keys: int64 (batch, parts), one row per example.
        stream: name of what they are for.
        bounds: lowest and highest; None for no random number but `nothing`.
        count: numbers per example.
        nothing: what changes nothing.
        log: whether their logarithm is uniform, so that 1/2 is as likely as 2; else they are.
    """
    if bounds is None:
        return np.full((len(keys), count), nothing)
    low, high = np.log(bounds) if log else bounds
    numbers = low + (high - low) * uniform(keys, stream, count)
    return np.exp(numbers) if log else numbers


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
