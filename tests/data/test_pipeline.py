"""Which examples come in which order, and as what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from clothseg.data.augmentation.fixed import FixedCopies
from clothseg.data.pipeline import (
    evaluation_batches,
    middle_labels,
    occurrences,
    pass_order,
    steps_per_pass,
    training_batches,
    training_rows,
)
from clothseg.evaluation.upsample import resize

PHOTOS = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None], 3, axis=-1) * np.ones((1, 8, 8, 1), np.uint8)
LABELS = PHOTOS[..., 0]
ROWS = np.array([3, 5, 7, 11, 13, 17, 19])


def batches(*, copies=(), buffer=None, batch_size=4, seed=0, first_step=0, count=None, weights=None, stride=1):
    augmentation = FixedCopies(copies=list(copies), label_resize="nearest", shuffle_buffer=buffer)
    data = training_batches(
        PHOTOS, LABELS, ROWS, augmentation=augmentation, weights=weights, batch_size=batch_size, seed=seed,
        first_step=first_step, label_stride=stride,
    )  # fmt: skip
    return [(photos.numpy(), labels.numpy()) for photos, labels in itertools.islice(data, count)]


@pytest.mark.parametrize("buffer", [None, 1, 10, 99, 100, 1000])
def test_a_pass_shows_every_example_once(buffer):
    assert sorted(pass_order(100, buffer=buffer, seed=0, number=3)) == list(range(100))


def test_nobody_waits_for_a_thread_when_batches_are_done_with():
    augmentation = FixedCopies(copies=["brightness"], label_resize="nearest", shuffle_buffer=None)
    training = training_batches(
        PHOTOS, LABELS, ROWS, augmentation=augmentation, weights=None, batch_size=3, seed=0, first_step=0,
        label_stride=1,
    )  # fmt: skip
    for batches in (training, evaluation_batches(PHOTOS, LABELS, ROWS, batch_size=3)):
        # With it TensorFlow has a thread that works out how many to make at once, and sleeps for seconds in between.
        assert batches.options().autotune.enabled is False


def test_a_buffer_of_one_does_not_shuffle():
    assert pass_order(10, buffer=1, seed=0, number=0).tolist() == list(range(10))


def test_a_small_buffer_leaves_examples_in_blocks_and_a_full_shuffle_does_not():
    # The article: 5,600 examples, buffer 1,000. No example comes more than 1,000 places early.
    order = pass_order(5600, buffer=1000, seed=0, number=0)
    assert (order - np.arange(5600)).max() < 1000
    assert order[:768].max() < 1768
    full = pass_order(5600, buffer=None, seed=0, number=0)
    assert full[:768].max() > 5000


def test_order_depends_on_seed_and_pass_alone():
    same = [pass_order(50, buffer=None, seed=1, number=2) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], pass_order(50, buffer=None, seed=2, number=2))
    assert not np.array_equal(same[0], pass_order(50, buffer=None, seed=1, number=3))


def test_passes_follow_each_other_and_the_last_partial_batch_counts():
    steps = steps_per_pass(len(ROWS), 4)
    assert steps == 2
    got = batches(count=3 * steps)
    assert [len(labels) for _, labels in got] == [4, 3] * 3
    for first in range(0, 6, 2):
        seen = np.concatenate([labels[:, 0, 0] for _, labels in got[first : first + 2]])
        assert sorted(seen) == sorted(ROWS)


def test_every_photo_comes_once_in_every_variant():
    got = batches(copies=["brightness", "flip_horizontal"], count=steps_per_pass(21, 4))
    labels = np.concatenate([labels[:, 0, 0] for _, labels in got])
    brighter = np.concatenate([photos[:, 0, 0, 0] for photos, _ in got]) - labels
    assert all((labels == row).sum() == 3 for row in ROWS)
    assert np.isclose(brighter, 25.5).sum() == len(ROWS)


def test_photos_are_shown_as_often_as_they_weigh_and_a_pass_stays_as_long():
    weights = np.array([3, 0, 1, 1, 1, 1, 0.0])
    for first in range(0, 6, 2):
        seen = np.concatenate([labels[:, 0, 0] for _, labels in batches(count=6, weights=weights)[first : first + 2]])
        assert sorted(seen) == [3, 3, 3, 7, 11, 13, 17]
    assert len(pass_order(7, buffer=None, seed=0, number=0, weights=np.ones(7))) == 7


def test_an_example_that_comes_again_in_a_pass_is_another_occasion():
    assert occurrences(np.array([4, 2, 4, 4, 2, 7])).tolist() == [0, 0, 1, 2, 1, 0]
    assert not occurrences(np.random.default_rng(0).permutation(50)).any()
    seen = []

    class Recorder:
        variants, shuffle_buffer = ("random",), None

        def __call__(self, photos, labels, keys, read):
            tf.py_function(lambda k: seen.extend(map(tuple, k.numpy().tolist())), [keys], [])
            return photos, labels

    weights = np.array([3, 0, 1, 1, 1, 1, 0.0])
    data = training_batches(
        PHOTOS, LABELS, ROWS, augmentation=Recorder(), weights=weights, batch_size=7, seed=5, first_step=1,
        label_stride=1,
    )  # fmt: skip
    next(iter(data))
    assert {key[1] for key in seen if key[3] == ROWS[0]} >= {1, 1 + 2**32, 1 + 2 * 2**32}
    assert len(set(seen)) == len(seen) and {key[0] for key in seen} == {5}


def coarse_labels(labels, *, stride, keys=None):
    if keys is None:
        keys = np.stack([np.zeros(len(labels)), np.arange(len(labels)), *[np.zeros(len(labels))] * 2], 1)
    return middle_labels(tf.constant(labels), tf.constant(keys.astype(np.int64)), stride=stride).numpy()


@pytest.mark.parametrize("stride", [2, 4])
def test_labels_for_coarse_logits_are_not_shifted(stride):
    # An edge at every place, in both directions: resized back bilinearly it is where it was, on average.
    size, many = 32, 2000
    edges = np.random.default_rng(0).integers(8, 24, (many, 2))
    pixels = np.arange(size)
    for axis, other in ((0, 1), (1, 0)):
        labels = (pixels[None] >= edges[:, axis, None]).astype(np.uint8)
        labels = np.expand_dims(labels, 2 - other).repeat(size, axis=2 - other)
        coarse = coarse_labels(labels, stride=stride)
        assert coarse.shape == (many, size // stride, size // stride)
        logits = np.eye(2, dtype=np.float32)[coarse]
        found = np.stack([resize(one, (size, size), window=(0, 0, *one.shape[:2])) for one in logits])[..., 1]
        # Where the ramp has its middle, from how much of the line is on its far side.
        middle = size - found.mean(axis=1 + other).sum(axis=1)
        assert abs((middle - edges[:, axis]).mean()) < 0.1


def test_labels_for_coarse_logits_are_those_in_the_middle_and_depend_on_the_key_alone():
    row, column = np.mgrid[:8, :8]
    labels = np.repeat((row * 8 + column)[None].astype(np.uint8), 100, axis=0)
    four = coarse_labels(labels, stride=4)
    middle = {
        (r, c): [[r * 8 + c, r * 8 + c + 4], [(r + 4) * 8 + c, (r + 4) * 8 + c + 4]] for r in (1, 2) for c in (1, 2)
    }
    found = [next(place for place, values in middle.items() if values == one.tolist()) for one in four]
    assert all(found.count(place) > 10 for place in middle)
    assert np.array_equal(four, coarse_labels(labels, stride=4))
    assert coarse_labels(labels, stride=3)[0].tolist() == [[9, 12, 15], [33, 36, 39], [57, 60, 63]]
    assert np.array_equal(coarse_labels(labels, stride=1), labels)


class Marking:
    """An augmentation that writes into every photo the key that its random numbers come from."""

    variants, shuffle_buffer = ("random", "again"), None

    def __call__(self, photos, labels, keys, read):
        own = tf.cast(tf.reduce_sum(keys[:, :3], axis=1) % 1000, tf.float32)[:, None, None, None]
        return tf.cast(photos, tf.float32) + own, labels


@pytest.mark.parametrize("first_step", [1, 2, 5])
@pytest.mark.parametrize("weights", [None, np.array([3, 0, 1, 1, 1, 1, 0.0])])
def test_training_goes_on_where_it_stood(first_step, weights):
    def part(first, count):
        data = training_batches(
            PHOTOS, LABELS, ROWS, augmentation=Marking(), weights=weights, batch_size=4, seed=1, first_step=first,
            label_stride=2,
        )  # fmt: skip
        return [(photos.numpy(), labels.numpy()) for photos, labels in itertools.islice(data, count)]

    whole, later = part(0, first_step + 5), part(first_step, 5)
    for expected, got in zip(whole[first_step:], later, strict=True):
        assert all(map(np.array_equal, expected, got))
    # Passes are told apart.
    assert not np.array_equal(whole[0][0] - whole[0][1][:, :1, :1, None], whole[4][0] - whole[4][1][:, :1, :1, None])


@pytest.mark.parametrize("weights", [None, np.array([5.0, 1, 1, 1, 1, 1, 1])])
def test_which_photos_are_in_a_batch_can_be_told_without_reading_them(weights):
    augmentation = FixedCopies(copies=["flip_horizontal"], label_resize="nearest", shuffle_buffer=None)
    shown = batches(copies=["flip_horizontal"], seed=7, count=9, weights=weights)
    for step, (photos, _) in enumerate(shown):
        rows = training_rows(ROWS, augmentation=augmentation, weights=weights, batch_size=4, seed=7, step=step)
        np.testing.assert_array_equal(photos[:, 0, 0, 0], rows)


def test_photos_arrive_as_floats_with_their_own_labels():
    for photos, labels in batches(count=2):
        assert photos.dtype == np.float32 and labels.dtype == np.uint8
        assert np.array_equal(photos[..., 0], labels)


def test_evaluation_shows_the_rows_in_order_and_once():
    got = list(evaluation_batches(PHOTOS, LABELS, ROWS, batch_size=3))
    assert [len(labels) for _, labels in got] == [3, 3, 1]
    assert np.concatenate([labels[:, 0, 0] for _, labels in got]).tolist() == ROWS.tolist()


def test_shapes_are_known_to_the_graph():
    spec = evaluation_batches(PHOTOS, LABELS, ROWS, batch_size=3).element_spec
    assert spec == (tf.TensorSpec((None, 8, 8, 3), tf.float32), tf.TensorSpec((None, 8, 8), tf.uint8))
