"""The article's augmentation: fixed copies of every photo.

A photo is uint8 (height, width, 3) in 0..255, its labels are uint8 (height, width). Every function takes and gives
both, so that they stay aligned; where colours are changed, or pixels mixed, the photo it gives is float32. TensorFlow
has the same functions for whole batches of floats, most of whose time goes into moving floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import tensorflow as tf

from clothseg.checks import is_count, suggestion
from clothseg.data import aligned
from clothseg.data.augmentation.contract import Read
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import LabelResize, bilinear, resize_labels
from clothseg.errors import UserError

Function = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# What the article's functions make of every value. It works on photos in 0..1 and never clips them; neither do these.
_LEVELS = np.arange(256, dtype=np.float32)
_BRIGHTER = _LEVELS + np.float32(0.1 * 255)
_NEARLY_WHITE = 255 * (_LEVELS / 255) ** np.float32(0.1)


def brightness(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds 0.1 of the value range to every channel (article)."""
    return cv2.LUT(photo, _BRIGHTER), labels


def gamma(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raises photos to the power 0.1 (article), which makes them nearly white."""
    return cv2.LUT(photo, _NEARLY_WHITE), labels


def hue(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns the hue by -0.1 of a full circle (article)."""
    colours = cv2.cvtColor(cv2.LUT(photo, _LEVELS / 255), cv2.COLOR_RGB2HSV)
    degrees = colours[..., 0]
    degrees -= 36
    degrees += np.float32(360) * (degrees < 0)
    return cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * np.float32(255), labels


def crop(photo: np.ndarray, labels: np.ndarray, *, label_resize: LabelResize) -> tuple[np.ndarray, np.ndarray]:
    """Takes the central 0.7 of height and width and resizes it back (article)."""
    height, width = labels.shape
    # As `tf.image.central_crop` rounds.
    top, left = (int((size - size * 0.7) / 2) for size in (height, width))
    photo, labels = (part[top : height - top, left : width - left] for part in (photo, labels))
    return _resized(photo, (height, width)), _resized_labels(labels, (height, width), label_resize)


def flip_horizontal(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swaps left and right (article)."""
    return cv2.flip(photo, 1), cv2.flip(labels, 1)


def flip_vertical(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swaps top and bottom (article)."""
    return photo[::-1], labels[::-1]


def rotate(photo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns by 90 degrees counter-clockwise (article's code; its text says clockwise).

    Photos that are not square are resized back to their shape, labels by nearest neighbour.
    """
    size = height, width = labels.shape
    photo, labels = (cv2.rotate(part, cv2.ROTATE_90_COUNTERCLOCKWISE) for part in (photo, labels))
    if height == width:
        return photo, labels
    return _resized(photo, size), _resized_labels(labels, size, "nearest")


def _resized(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # Of bytes OpenCV would make bytes.
    return cv2.resize(photo.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def _resized_labels(labels: np.ndarray, size: tuple[int, int], how: LabelResize) -> np.ndarray:
    resized = resize_labels(labels, size, how=how)
    if how == "bilinear":
        # What is mixed with pixels that count nowhere counts nowhere: their number is no class.
        resized[bilinear(labels == IGNORE, size) > 0] = IGNORE
    return resized


COPIES = ("brightness", "gamma", "hue", "crop", "flip_horizontal", "flip_vertical", "rotate")


class FixedCopies:
    """The article's augmentation: beside every original, one copy by each of some fixed functions.

    Args:
        copies: names out of `COPIES`, in the order in which the copies follow the originals.
        label_resize: how `crop` resizes labels; "bilinear" is the article's defect.
        shuffle_buffer: examples the shuffle chooses from, or None for all of them; the article's is 1,000.

    Raises:
        UserError: an unknown name, method or buffer.
    """

    def __init__(self, *, copies: Sequence[str], label_resize: LabelResize, shuffle_buffer: int | None) -> None:
        if isinstance(copies, str) or not isinstance(copies, Sequence):
            raise UserError(f"augmentation.copies={copies} has to be a list; it may hold {', '.join(COPIES)}")
        for place, name in enumerate(copies):
            if name in copies[:place]:
                raise UserError(f"augmentation.copies has {name} twice; each copy is made once")
            if name not in COPIES:
                hint = suggestion(name, COPIES)
                raise UserError(f"augmentation.copies has {name}: {hint}it may hold {', '.join(COPIES)}")
        if label_resize not in ("nearest", "bilinear"):
            raise UserError(f"augmentation.label_resize={label_resize} may be nearest or bilinear")
        if shuffle_buffer is not None and not is_count(shuffle_buffer):
            raise UserError(f"augmentation.shuffle_buffer={shuffle_buffer} may be null or a positive whole number")
        self.copies = tuple(copies)
        self.label_resize = label_resize
        self.shuffle_buffer = shuffle_buffer
        self.variants = ("original", *self.copies)

    def function(self, name: str) -> Function:
        """The function of that name out of `COPIES`."""
        return partial(crop, label_resize=self.label_resize) if name == "crop" else globals()[name]

    def fit(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Nothing: the copies are the same whatever is in the photos."""

    def __call__(
        self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor, read: Read
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies to each example the function that its variant names; variant 0 is the original."""
        if not self.copies:
            return photos, labels
        # Declared stateless, which it is: of what has a state, deterministic runs would take only one batch at a time.
        changed, targets = tf.numpy_function(
            self._changed, [photos, labels, keys[:, 2]], (tf.float32, tf.uint8), stateful=False
        )
        return tf.ensure_shape(changed, photos.shape), tf.ensure_shape(targets, labels.shape)

    def _changed(self, photos: np.ndarray, labels: np.ndarray, variants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        changed, targets = aligned.empty(photos.shape, np.float32), aligned.empty(labels.shape, np.uint8)
        functions = [None, *map(self.function, self.copies)]
        for row, variant in enumerate(variants):
            function = functions[variant]
            example = photos[row], labels[row]
            changed[row], targets[row] = example if function is None else function(*example)
        return changed, targets
