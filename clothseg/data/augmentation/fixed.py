"""The article's augmentation: fixed copies of every photo.

Photos are float32 (batch, height, width, 3) in 0..255, labels uint8 (batch, height, width). Every function takes and
gives both, so that they stay aligned; a single example without the batch axis works as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from clothseg.checks import is_count, suggestion
from clothseg.data.augmentation.contract import Read
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import LabelResize
from clothseg.errors import UserError

Function = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


# The article's functions. It works on photos in 0..1 and never clips them; neither do these.


def brightness(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds 0.1 of the value range to every channel (article)."""
    return photos + 0.1 * 255, labels


def gamma(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Raises photos to the power 0.1 (article), which makes them nearly white."""
    # Without the assertion of `tf.image.adjust_gamma`: an op with a state is run one batch at a time when
    # deterministic.
    return 255 * (photos / 255) ** 0.1, labels


def hue(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns the hue by -0.1 of a full circle (article)."""
    return 255 * tf.image.adjust_hue(photos / 255, -0.1), labels


def crop(photos: tf.Tensor, labels: tf.Tensor, *, label_resize: LabelResize) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the central 0.7 of height and width and resizes it back (article)."""
    height, width = labels.shape[-2:]
    # As `tf.image.central_crop` rounds, whose assertions are ops with a state.
    top, left = (int((size - size * 0.7) / 2) for size in (height, width))
    photos = photos[..., top : height - top, left : width - left, :]
    labels = labels[..., top : height - top, left : width - left, None]
    return tf.image.resize(photos, (height, width)), _resize_labels(labels, (height, width), label_resize)


def flip_horizontal(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Swaps left and right (article)."""
    return tf.reverse(photos, [-2]), tf.reverse(labels, [-1])


def flip_vertical(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Swaps top and bottom (article)."""
    return tf.reverse(photos, [-3]), tf.reverse(labels, [-2])


def rotate(photos: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns by 90 degrees counter-clockwise (article's code; its text says clockwise).

    Photos that are not square are resized back to their shape, labels by nearest neighbour.
    """
    height, width = labels.shape[-2:]
    # Mirrored left to right, then rows and columns swapped.
    batch = list(range(len(photos.shape) - 3))
    photos, labels = flip_horizontal(photos, labels)
    photos = tf.transpose(photos, [*batch, len(batch) + 1, len(batch), len(batch) + 2])
    labels = tf.linalg.matrix_transpose(labels)
    if height == width:
        return photos, labels
    return tf.image.resize(photos, (height, width)), _resize_labels(labels[..., None], (height, width), "nearest")


def _resize_labels(labels: tf.Tensor, size: tuple[int, int], method: LabelResize) -> tf.Tensor:
    # Bilinear is the article's: it mixes class numbers into classes that are not there, then truncates.
    resized = tf.cast(tf.image.resize(labels, size, method=method), tf.uint8)
    if method == "bilinear":
        # What is mixed with pixels that count nowhere counts nowhere: their number is no class.
        ignored = tf.image.resize(tf.cast(labels == IGNORE, tf.float32), size, method=method) > 0
        resized = tf.where(ignored, tf.constant(IGNORE, tf.uint8), resized)
    return resized[..., 0]


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
        if name == "crop":
            return lambda photos, labels: crop(photos, labels, label_resize=self.label_resize)
        return globals()[name]

    def fit(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Nothing: the copies are the same whatever is in the photos."""

    def __call__(
        self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor, read: Read
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies to each example the function that its variant names; variant 0 is the original."""
        if not self.copies:
            return photos, labels
        variant = tf.cast(keys[:, 2], tf.int32)
        # Examples of one variant are gathered, changed in one op each, and put back into their places.
        places = tf.dynamic_partition(tf.range(tf.shape(variant)[0]), variant, len(self.variants))
        parts = []
        for number, place in enumerate(places):
            part = tf.gather(photos, place), tf.gather(labels, place)
            parts.append(self.function(self.copies[number - 1])(*part) if number else part)
        return (
            tf.ensure_shape(tf.dynamic_stitch(places, [part[0] for part in parts]), photos.shape),
            tf.ensure_shape(tf.dynamic_stitch(places, [part[1] for part in parts]), labels.shape),
        )
