"""The tf.data pipeline: from prepared uint8 arrays to batches.

Only numbers of examples are shuffled; photos are read from the (memory-mapped) arrays batch by batch and augmented on
the way, so memory stays near the size of PARALLEL + AHEAD batches.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import tensorflow as tf

from clothseg.data.augmentation import keyed
from clothseg.data.augmentation.contract import Augmentation
from clothseg.data.groups import Labels
from clothseg.data.sampling import draw

# Nothing here decides by a tensor's value in Python; looking for that (AutoGraph) takes seconds of a start.
plainly = tf.autograph.experimental.do_not_convert
AHEAD = 2  # batches that wait for the network; TensorFlow's own choice may grow to half of the memory
PARALLEL = min(os.cpu_count() or 1, 16)  # batches that are worked on at once


def pass_order(
    count: int, *, buffer: int | None, seed: int, number: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Which examples one pass shows, and in which order.

    They depend on nothing but the arguments, so that a resumed run continues where it stood.

    Args:
        count: examples in a pass.
        buffer: None for a full shuffle. Else examples are drawn from a buffer of this many that is filled in order, as
            `tf.data.Dataset.shuffle` does it.
        seed: of the run.
        number: of the pass, from 0.
        weights: float (count,), how often examples are shown relative to each other; None shows each of them once.

    Returns:
        int64 (count,) in 0..count-1, without weights a permutation.
    """
    random = np.random.default_rng([seed, number])
    if weights is not None:
        return draw(weights, count, random)
    if buffer is None or buffer >= count:
        return random.permutation(count)
    order = np.empty(count, np.int64)
    waiting = np.arange(buffer)
    picks = random.integers(buffer, size=count - buffer)
    for place, pick in enumerate(picks):
        order[place] = waiting[pick]
        waiting[pick] = buffer + place
    order[count - buffer :] = random.permutation(waiting)
    return order


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often each entry of int (n,) has occurred before: int (n,), all 0 in a permutation."""
    places = np.argsort(order, kind="stable")
    first = np.searchsorted(order[places], order[places])  # where the run of equal entries begins
    counted = np.empty(len(order), np.int64)
    counted[places] = np.arange(len(order)) - first
    return counted


def training_batches(
    photos: np.ndarray,
    labels: Labels,
    rows: np.ndarray,
    *,
    augmentation: Augmentation,
    weights: np.ndarray | None,
    batch_size: int,
    seed: int,
    first_step: int,
    label_stride: int,
) -> tf.data.Dataset:
    """Endless batches of augmented training examples, pass after pass, each in its own order.

    Args:
        photos: uint8 (n, height, width, 3).
        labels: uint8 (n, height, width).
        rows: int (m,), which photos are trained on.
        augmentation: makes an example of every photo for each of its `variants`.
        weights: float (m,), how often each photo is shown relative to the others; None shows all equally often.
        batch_size: examples per batch; the last batch of a pass may be smaller.
        seed: of the run.
        first_step: batches to leave out at the beginning, because they were trained on already.
        label_stride: that of the logits that the labels are for; of so many labels one is taken in each direction, the
            middle one. Of an even number it is now the one before the middle and now the one after it, by the seed, the
            pass and the photo: always the same one would teach the network masks that are half a pixel off.

    Returns:
        Batches of (photos float32 (batch, height, width, 3) in 0..255, labels uint8 (batch, height / label_stride,
        width / label_stride)).
    """
    count = len(rows) * len(augmentation.variants)
    first_pass, first_step = divmod(first_step, steps_per_pass(count, batch_size))
    keys_of = partial(_keys_of_pass, rows, augmentation, weights, seed)

    @plainly
    def examples(number: tf.Tensor) -> tf.data.Dataset:
        keys = tf.ensure_shape(tf.numpy_function(keys_of, [number], tf.int64, stateful=False), (count, 4))
        # Batched within the pass and then repeated, as in the article, so every pass shows every example once.
        return tf.data.Dataset.from_tensor_slices(keys).batch(batch_size)

    @plainly
    def read_and_augment(keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        read = partial(_read, photos, labels)
        changed, targets = augmentation(*read(keys[:, 3]), keys, read)
        return tf.cast(changed, tf.float32), middle_labels(targets, keys, stride=label_stride)

    batches = tf.data.Dataset.counter(first_pass).flat_map(examples).skip(first_step)
    batches = batches.map(read_and_augment, num_parallel_calls=PARALLEL, deterministic=True)
    return _ends_at_once(batches.prefetch(AHEAD))


def training_rows(
    rows: np.ndarray,
    *,
    augmentation: Augmentation,
    weights: np.ndarray | None,
    batch_size: int,
    seed: int,
    step: int,
) -> np.ndarray:
    """Which photos are in one of the `training_batches`.

    Args:
        rows: int (m,), which photos are trained on.
        augmentation, weights, batch_size, seed: as of `training_batches`.
        step: of the batch, from 0, over all passes.

    Returns:
        int64 (batch,), of `rows`.
    """
    number, own = divmod(step, steps_per_pass(len(rows) * len(augmentation.variants), batch_size))
    keys = _keys_of_pass(rows, augmentation, weights, seed, np.int64(number))
    return keys[own * batch_size : (own + 1) * batch_size, 3]


def _keys_of_pass(
    rows: np.ndarray, augmentation: Augmentation, weights: np.ndarray | None, seed: int, number: np.ndarray
) -> np.ndarray:
    """Of every example of a pass, in order, its key; see `Augmentation`."""
    # As the article concatenates them: all originals, then all examples of the first copy, and so on.
    count = len(rows) * len(augmentation.variants)
    example_weights = None if weights is None else np.tile(weights, len(augmentation.variants))
    order = pass_order(
        count, buffer=augmentation.shuffle_buffer, seed=seed, number=int(number), weights=example_weights
    )
    # An example that a pass shows twice is not to be augmented in the same way twice.
    occasion = number + occurrences(order) * 2**32
    return np.stack([np.full(count, seed), occasion, order // len(rows), rows[order % len(rows)]], 1, dtype=np.int64)


def middle_labels(labels: tf.Tensor, keys: tf.Tensor, *, stride: int) -> tf.Tensor:
    """One of `stride` labels in each direction: the middle one, and of an even number either of the middle two.

    Args:
        labels: uint8 (batch, height, width).
        keys: int64 (batch, 4), which decide between the two for rows and for columns; see `Augmentation`.
        stride: of the logits that the labels are for.

    Returns:
        uint8 (batch, height / stride, width / stride).
    """
    if stride % 2:
        return labels[:, stride // 2 :: stride, stride // 2 :: stride]
    draws = partial(keyed.uniform, stream="middle_labels", count=2)
    late = tf.ensure_shape(tf.numpy_function(draws, [keys], tf.float64, stateful=False), (None, 2)) < 0.5
    first = stride // 2 - 1
    rows = tf.where(late[:, :1, None], labels[:, first + 1 :: stride], labels[:, first::stride])
    return tf.where(late[:, 1:, None], rows[:, :, first + 1 :: stride], rows[:, :, first::stride])


def evaluation_batches(photos: np.ndarray, labels: Labels, rows: np.ndarray, *, batch_size: int) -> tf.data.Dataset:
    """Every example once, unchanged, in the order of `rows`; the last batch may be smaller.

    Returns:
        Batches of (photos float32 (batch, height, width, 3) in 0..255, labels uint8 (batch, height, width)).
    """
    batches = tf.data.Dataset.from_tensor_slices(rows.astype(np.int64)).batch(batch_size)

    @plainly
    def read(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own, truth = _read(photos, labels, rows)
        return tf.cast(own, tf.float32), truth

    return _ends_at_once(batches.map(read, num_parallel_calls=PARALLEL).prefetch(AHEAD))


def _ends_at_once(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches without the thread in which TensorFlow works out how many to make at once.

    Whoever is done with the batches, as every validation is, waits for that thread, which may sleep for ten seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def steps_per_pass(count: int, batch_size: int) -> int:
    """Batches that show `count` examples once, the last partial one included."""
    return -(-count // batch_size)


def _read(photos: np.ndarray, labels: Labels, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Declared stateless, which reading is: of what has a state, deterministic runs would take only one batch at a time.
    read = partial(_rows_of, photos, labels)
    batch = tf.numpy_function(read, [rows], (tf.uint8, tf.uint8), stateful=False)
    shapes = ((None, *photos.shape[1:]), (None, *labels.shape[1:]))
    return tuple(tf.ensure_shape(part, shape) for part, shape in zip(batch, shapes, strict=True))


def _rows_of(photos: np.ndarray, labels: Labels, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return photos[rows], labels[rows]
