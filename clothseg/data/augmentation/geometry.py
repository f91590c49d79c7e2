"""Moving photos and labels: however much is done to an example, it is resampled once."""

from __future__ import annotations

import cv2
import numpy as np
import tensorflow as tf

from clothseg.data import aligned
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import PADDING


def transforms(
    size: tuple[int, int],
    *,
    flip: np.ndarray,
    scale: np.ndarray,
    angle: np.ndarray,
    shift: np.ndarray,
    perspective: np.ndarray,
) -> np.ndarray:
    """Projective transforms that flip, scale, turn, shift and tilt photos about their centre, in this order.

    Args:
        size: height and width of the photos in pixels.
        flip: bool (batch,), whether left and right are swapped.
        scale: (batch, 2), how much larger they become, vertically and horizontally.
        angle: (batch,), degrees counter-clockwise.
        shift: (batch, 2), down and to the right, in heights and widths.
        perspective: (batch, 2), how much smaller the lower and the right edge become, and the opposite ones larger:
            0.1 by about a tenth. The sizes of the two together have to be below 1.

    Returns:
        float32 (batch, 8), 3 x 3 matrices without their last entry, 1: from the places (x, y, 1) of a new picture
        to those of the old one.
    """
    height, width = size
    # What is done last is undone first. Products of 3 x 3 matrices for (x, y, 1), centre at (0, 0).
    turn = np.deg2rad(angle)
    sine, cosine = np.sin(turn), np.cos(turn)
    mirror = np.where(flip, -1.0, 1.0)
    undone = (
        _matrices(len(flip), {(0, 2): (width - 1) / 2, (1, 2): (height - 1) / 2})
        @ _matrices(len(flip), {(0, 0): mirror / scale[:, 1], (1, 1): 1 / scale[:, 0]})
        @ _matrices(len(flip), {(0, 0): cosine, (0, 1): -sine, (1, 0): sine, (1, 1): cosine})
        @ _matrices(len(flip), {(0, 2): -width * shift[:, 1], (1, 2): -height * shift[:, 0]})
        @ _matrices(len(flip), {(2, 0): perspective[:, 1] * -2 / width, (2, 1): perspective[:, 0] * -2 / height})
        @ _matrices(len(flip), {(0, 2): (1 - width) / 2, (1, 2): (1 - height) / 2})
    )
    undone /= undone[:, 2:, 2:]
    return undone.reshape(-1, 9)[:, :8].astype(np.float32)


def warp(photos: tf.Tensor, labels: tf.Tensor, transforms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Photos and labels moved alike.

    Outside of a photo its labels are `IGNORE` and it is grey, as prepared photos are around their edges. Repeating the
    edge instead would draw stripes into the background that no photo has.

    Args:
        photos: float32 (batch, height, width, 3) in 0..255, interpolated linearly.
        labels: uint8 (batch, height, width), taken from the nearest pixel.
        transforms: float32 (batch, 8), from `transforms`.
    """
    # Of OpenCV 5, whose interpolation is exact to a hundredth of a level, in a quarter of the time that
    # `ImageProjectiveTransformV3` takes. Stateless, so that deterministic runs may take many batches at once.
    new_photos, new_labels = tf.numpy_function(
        _warped, [photos, labels, transforms], [tf.float32, tf.uint8], stateful=False
    )
    return tf.ensure_shape(new_photos, photos.shape), tf.ensure_shape(new_labels, labels.shape)


def _warped(photos: np.ndarray, labels: np.ndarray, transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`warp` of arrays."""
    new_photos, new_labels = aligned.empty(photos.shape, photos.dtype), aligned.empty(labels.shape, labels.dtype)
    for example in zip(new_photos, new_labels, photos, labels, transforms, strict=True):
        warp_into(*example)
    return new_photos, new_labels


def warp_into(
    new_photo: np.ndarray, new_labels: np.ndarray, photo: np.ndarray, labels: np.ndarray, transform: np.ndarray
) -> None:
    """`warp` of one photo and its labels, which is written into arrays of the same shapes."""
    matrix, (height, width) = np.append(transform, 1).reshape(3, 3), labels.shape
    grey, hidden = (float(PADDING),) * 3, float(IGNORE)
    linear, nearest = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    cv2.warpPerspective(photo, matrix, (width, height), new_photo, linear, borderValue=grey)
    cv2.warpPerspective(labels, matrix, (width, height), new_labels, nearest, borderValue=hidden)


def _matrices(count: int, entries: dict[tuple[int, int], np.ndarray | float]) -> np.ndarray:
    """(count, 3, 3), identity but for the entries."""
    matrices = np.tile(np.eye(3), (count, 1, 1))
    for (row, column), values in entries.items():
        matrices[:, row, column] = values
    return matrices
