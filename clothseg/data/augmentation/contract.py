"""What the input pipeline asks of an augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

Read = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Augmentation(Protocol):
    """What the input pipeline asks of an augmentation.

    Attributes:
        variants: what every photo is made into in one pass over the training set, one example each.
        shuffle_buffer: examples a shuffle chooses from, or None for all of them.
    """

    variants: tuple[str, ...]
    shuffle_buffer: int | None

    def fit(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Learns what is in the training photos, once before they are augmented.

        Args:
            rows: int (m,), numbers of the photos that are trained on.
            pixels: int (m, classes), how many pixels of each class every one of them has.
        """
        ...

    def __call__(
        self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor, read: Read
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One augmented batch.

        Called to make a graph, without AutoGraph: what depends on the values of tensors takes `tf.where` or `tf.cond`.

        Args:
            photos: uint8 (batch, height, width, 3) in 0..255.
            labels: uint8 (batch, height, width).
            keys: int64 (batch, 4): seed, pass over the data (plus 2**32 for each time that the pass has shown the
                example before), number of the variant and photo of each example. Random numbers are to be drawn from
                these alone, so that a run can be repeated and resumed.
            read: gives other photos and their labels by their numbers, int64 (k,).

        Returns:
            Photos of the same shape, uint8 or float32, which need not stay within 0..255; labels of the same shape.
        """
        ...
