"""Near-duplicate photos, found by a perceptual hash."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
from PIL import Image
from tqdm import tqdm

SIDE, KEPT = 32, 8
# Two photos of one scene agree in colour, too. Measured on Clothing Co-Parsing: the seven pairs that are the same
# scene reach 0.915 or more, all others with up to 16 bits of difference stay below 0.9.
LEAST_CORRELATION = 0.9
# Pairs compared at a time: a table over them takes 16 MB.
PAIRS_AT_ONCE = 1 << 22


def perceptual_hash(photo: np.ndarray) -> np.ndarray:
    """64 bits that change little when a photo is scaled, brightened or compressed again, bool (64,).

    pHash (Zauner, 2010), as the library imagehash computes it: the photo in grey is scaled to 32 x 32; of its
    discrete cosine transform the 8 x 8 lowest frequencies are compared with their median.

    Args:
        photo: uint8 (h, w, 3).
    """
    from scipy.fft import dctn

    grey = Image.fromarray(photo).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    waves = dctn(np.asarray(grey, np.float64))[:KEPT, :KEPT].ravel()
    return waves > np.median(waves)


def near_duplicates(photos: np.ndarray, *, threshold: int) -> list[tuple[int, int, int]]:
    """Pairs of photos of the same scene: near in `perceptual_hash` and alike in colour.

    On the 1,000 photos of the article at 128 x 128, thresholds 8 to 16 give the seven pairs that an eye finds among
    the nearest, and no other.

    Args:
        photos: uint8 (n, h, w, 3); may be memory mapped, one photo is read at a time.
        threshold: the greatest number of hash bits that differ, 0..64.

    Returns:
        (i, j, distance) with i < j, the closest first.
    """
    logging.getLogger(__name__).info("comparing %d photos with each other", len(photos))
    # As signs, the product of two hashes is 64 less twice the number of bits that differ: exact, and one BLAS call.
    signs = np.empty((len(photos), KEPT * KEPT), np.float32)
    colours = np.empty((len(photos), KEPT * KEPT * 3), np.float32)
    for i, photo in enumerate(tqdm(photos, desc="hashing", unit="photo", disable=None)):
        signs[i] = np.where(perceptual_hash(photo), 1, -1)
        colours[i] = _colours(photo)

    rows = max(1, PAIRS_AT_ONCE // max(len(signs), 1))
    pairs: list[tuple[int, int, int]] = []
    for start in tqdm(range(0, len(signs), rows), desc="comparing", unit="block", disable=None):
        distances = (signs.shape[1] - signs[start : start + rows] @ signs[start:].T) / 2
        correlations = colours[start : start + rows] @ colours[start:].T
        left, right = np.nonzero((distances <= threshold) & (correlations >= LEAST_CORRELATION))
        left, right = left[right > left], right[right > left]
        found = distances[left, right].astype(int)
        pairs += zip((left + start).tolist(), (right + start).tolist(), found.tolist(), strict=True)
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


def _colours(photo: np.ndarray) -> np.ndarray:
    """The photo at 8 x 8, so that the product of two is their correlation, float32 (192,); 0 where it is one grey."""
    small = Image.fromarray(photo).resize((KEPT, KEPT), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)
