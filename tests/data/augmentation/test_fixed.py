"""The article's seven functions, checked with photos that encode their own labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from clothseg.data.augmentation import fixed
from clothseg.data.augmentation.fixed import COPIES, FixedCopies
from clothseg.data.labels import IGNORE
from clothseg.errors import UserError

GEOMETRIC = ("crop", "flip_horizontal", "flip_vertical", "rotate")


def encoded(batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks of labels, and photos whose grey value is four times the label."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 59, (batch, height // 8, width // 8), dtype=np.uint8)
    labels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return np.repeat(4 * labels[..., None], 3, axis=-1), labels


def each(function, photos: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A function of one example done to all of a batch."""
    changed, targets = zip(*map(function, photos, labels), strict=True)
    return np.stack(changed), np.stack(targets)


def keys(variants: list[int]) -> tf.Tensor:
    return tf.constant([[0, 0, variant, row] for row, variant in enumerate(variants)], tf.int64)


def article(**changes) -> FixedCopies:
    return FixedCopies(**{"copies": COPIES, "label_resize": "nearest", "shuffle_buffer": None} | changes)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 64)])
def test_geometric_functions_keep_photo_and_labels_aligned(name, shape):
    photos, labels = encoded(*shape)
    new_photos, new_labels = each(article().function(name), photos, labels)
    assert new_photos.shape == photos.shape and new_labels.shape == labels.shape and new_labels.dtype == np.uint8
    assert not np.array_equal(new_labels, labels)
    exact = np.isclose(new_photos[..., 0], 4.0 * new_labels)
    # A bilinear photo mixes neighbours along the edges of blocks; everywhere else it must match to the number.
    assert (
        exact.mean() == 1
        if name.startswith("flip") or shape[1] == shape[2] and name == "rotate"
        else exact.mean() > 0.6
    )


@pytest.mark.parametrize("name", sorted(set(COPIES) - set(GEOMETRIC)))
def test_colour_functions_leave_labels_and_places_alone(name):
    photos, labels = encoded(2, 32, 32)
    photos = photos + np.array([0, 10, 20], np.uint8)
    new_photos, new_labels = each(article().function(name), photos, labels)
    assert np.array_equal(new_labels, labels)
    assert not np.allclose(new_photos, photos)
    # Pixels of one colour stay pixels of one colour.
    for label in np.unique(labels)[:5]:
        assert np.ptp(new_photos[np.asarray(labels) == label], axis=0).max() < 1e-2


def test_values_are_the_articles():
    label = np.zeros((1, 1), np.uint8)
    photo = np.array([[[51, 102, 204]]], np.uint8)  # 0.2, 0.4, 0.8
    np.testing.assert_allclose(fixed.gamma(photo, label)[0] / 255, [[[0.2**0.1, 0.4**0.1, 0.8**0.1]]], rtol=1e-5)
    # Grey ones, those with equal channels and those at the ends of the range among them.
    photo = np.random.default_rng(0).integers(0, 4, (64, 64, 3)).astype(np.uint8) * 85
    photo = np.concatenate([photo, np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)])
    as_article = photo.astype(np.float32) / 255
    for function, wanted in (
        (fixed.brightness, tf.image.adjust_brightness(as_article, 0.1)),
        (fixed.gamma, tf.image.adjust_gamma(as_article, 0.1)),
        (fixed.hue, tf.image.adjust_hue(as_article, -0.1)),
    ):
        changed, _ = function(photo, label)
        assert changed.dtype == np.float32
        np.testing.assert_allclose(changed / 255, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 128, 128), (2, 64, 96), (2, 96, 32)])
@pytest.mark.parametrize("label_resize", ["nearest", "bilinear"])
def test_the_crop_is_the_articles(shape, label_resize):
    random = np.random.default_rng(3)
    photos = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = random.integers(0, 59, shape, dtype=np.uint8)
    new_photos, new_labels = each(article(label_resize=label_resize).function("crop"), photos, labels)
    np.testing.assert_allclose(new_photos, tf.image.resize(tf.image.central_crop(photos, 0.7), shape[1:]), atol=2e-3)
    expected = tf.image.resize(tf.image.central_crop(labels[..., None], 0.7), shape[1:], method=label_resize)
    assert np.array_equal(new_labels, tf.cast(expected, tf.uint8)[..., 0])


def test_nothing_in_it_has_a_state():
    # Deterministic runs would make a pipeline with such an op take one batch at a time.
    shapes = [
        tf.TensorSpec((None, 64, 96, 3), tf.uint8),
        tf.TensorSpec((None, 64, 96), tf.uint8),
        tf.TensorSpec((None, 4), tf.int64),
    ]
    graph = tf.function(lambda *batch: article()(*batch, None)).get_concrete_function(*shapes).graph
    assert not [op.type for op in graph.get_operations() if op.op_def.is_stateful]


def test_brightness_does_not_clip():
    photo, label = np.full((1, 1, 3), 250, np.uint8), np.zeros((1, 1), np.uint8)
    np.testing.assert_allclose(fixed.brightness(photo, label)[0], 275.5)


def test_rotation_is_counter_clockwise():
    photos, squares = encoded(2, 32, 32)
    np.testing.assert_array_equal(each(fixed.rotate, photos, squares)[0], tf.image.rot90(photos))
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    assert fixed.rotate(np.zeros((2, 2, 3), np.uint8), labels)[1].tolist() == [[2, 4], [1, 3]]


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_rotated_photos_that_are_not_square_are_resized_as_tensorflow_does(size):
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = random.integers(0, 59, size, dtype=np.uint8)
    found, found_labels = fixed.rotate(photo, labels)
    np.testing.assert_allclose(found, tf.image.resize(tf.image.rot90(photo), size), atol=2e-3)
    nearest = tf.image.resize(tf.image.rot90(labels[..., None]), size, method="nearest")
    np.testing.assert_array_equal(found_labels, nearest[..., 0])


def test_nearest_crop_invents_no_label_and_bilinear_does():
    photos, labels = encoded(4, 64, 64)
    labels = np.where(labels > 30, 58, 0).astype(np.uint8)
    assert set(np.unique(each(article().function("crop"), photos, labels)[1])) == {0, 58}
    assert len(np.unique(each(article(label_resize="bilinear").function("crop"), photos, labels)[1])) > 2


def test_a_batch_gets_the_function_of_each_examples_variant():
    photos, labels = encoded(8, 32, 32)
    variants = [3, 0, 7, 5, 1, 2, 6, 4]
    new_photos, new_labels = article()(photos, labels, keys(variants), None)
    for row, variant in enumerate(variants):
        alone = (photos[row], labels[row])
        if variant:
            alone = article().function(COPIES[variant - 1])(*alone)
        np.testing.assert_array_equal(new_photos[row], alone[0])
        assert np.array_equal(new_labels[row], alone[1])


def test_batches_come_out_the_same_inside_tf_data():
    photos, labels = encoded(8, 32, 32)
    augmentation = article()
    eager = augmentation(photos, labels, keys(list(range(8))), None)
    data = tf.data.Dataset.from_tensors((photos, labels, keys(list(range(8))))).map(
        lambda photos, labels, keys: augmentation(photos, labels, keys, None)
    )
    inside = next(iter(data))
    np.testing.assert_allclose(inside[0], eager[0], atol=1e-3)
    assert np.array_equal(inside[1], eager[1])


def test_seven_copies_make_eight_examples_of_a_photo():
    assert len(article().variants) == 8
    assert article(copies=[]).variants == ("original",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"copies": ["rotat"]}, "did you mean rotate"),
        ({"label_resize": "cubic"}, "nearest or bilinear"),
        ({"shuffle_buffer": 0}, "positive whole number"),
    ],
)
def test_wrong_options_are_named(changes, told):
    with pytest.raises(UserError, match=told):
        article(**changes)


def test_bilinear_labels_mixed_with_ignored_ones_are_ignored():
    labels = np.full((10, 10), 5, np.uint8)
    labels[:, 5:] = IGNORE
    _, cropped = fixed.crop(np.zeros((10, 10, 3), np.uint8), labels, label_resize="bilinear")
    assert set(np.unique(cropped)) == {5, IGNORE}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"copies": "crop"}, "augmentation.copies=crop has to be a list"),
        ({"copies": None}, "augmentation.copies=None has to be a list"),
        ({"copies": ["crop", "hue", "crop"]}, "augmentation.copies has crop twice"),
        ({"shuffle_buffer": True}, "augmentation.shuffle_buffer=True may be null or"),
    ],
)
def test_lists_and_numbers_are_checked(changes, told):
    with pytest.raises(UserError, match=told):
        article(**changes)
