"""Near-duplicate photos, found by a perceptual hash."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
from PIL import Image
from tqdm import tqdm

SIDE, KEPT = 32, 8
# Pairs compared at a time: their distances take 16 MB.
PAIRS_AT_ONCE = 1 << 22


def perceptual_hashes(photos: np.ndarray) -> np.ndarray:
    """64 bits for each photo, bool (n, 64): pHash (Zauner, 2010), as the library imagehash computes it.

    The photo in grey is scaled to 32 x 32; of its discrete cosine transform the 8 x 8 lowest frequencies are compared
    with their median.

    Args:
        photos: uint8 (n, h, w, 3); may be memory mapped, one photo is read at a time.
    """
    from scipy.fft import dctn

    hashes = np.empty((len(photos), KEPT * KEPT), bool)
    for i, photo in enumerate(tqdm(photos, desc="hashing", unit="photo", disable=None)):
        grey = Image.fromarray(photo).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        waves = dctn(np.asarray(grey, np.float64))[:KEPT, :KEPT].ravel()
        hashes[i] = waves > np.median(waves)
    return hashes


def near_duplicates(photos: np.ndarray, *, threshold: int) -> list[tuple[int, int, int]]:
    """Pairs of photos that look the same.

    Args:
        photos: uint8 (n, h, w, 3).
        threshold: the greatest number of differing bits of `perceptual_hashes`, 0..64.

    Returns:
        (i, j, distance) with i < j, the closest first.
    """
    logging.getLogger(__name__).info("comparing %d photos with each other", len(photos))
    # As signs, the product of two hashes is 64 less twice the number of differing bits: exact, and one BLAS call.
    signs = np.where(perceptual_hashes(photos), np.float32(1), np.float32(-1))
    rows = max(1, PAIRS_AT_ONCE // max(len(signs), 1))
    pairs = []
    for start in tqdm(range(0, len(signs), rows), desc="comparing", unit="block", disable=None):
        likeness = signs[start : start + rows] @ signs[start:].T
        left, right = np.nonzero(likeness >= signs.shape[1] - 2 * threshold)
        left, right = left[right > left], right[right > left]
        distances = (signs.shape[1] - likeness[left, right]) / 2
        pairs += zip((start + left).tolist(), (start + right).tolist(), distances.astype(int).tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (pair[2], pair[:2]))


def duplicate_groups(count: int, pairs: Iterable[tuple[int, ...]]) -> np.ndarray:
    """A group number for each of `count` photos, int (count,): photos linked by pairs, however far, share theirs.

    Args:
        count: number of photos.
        pairs: (i, j, ...) as `near_duplicates` gives them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.array([pair[:2] for pair in pairs], dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(int)
