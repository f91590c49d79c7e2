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


def encoded(batch: int, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Random blocks of labels, and photos whose grey value is four times the label."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 59, (batch, height // 8, width // 8), dtype=np.uint8)
    labels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    photos = np.repeat(4.0 * labels[..., None], 3, axis=-1).astype(np.float32)
    return tf.constant(photos), tf.constant(labels)


def keys(variants: list[int]) -> tf.Tensor:
    return tf.constant([[0, 0, variant, row] for row, variant in enumerate(variants)], tf.int64)


def article(**changes) -> FixedCopies:
    return FixedCopies(**{"copies": COPIES, "label_resize": "nearest", "shuffle_buffer": None} | changes)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 64)])
def test_geometric_functions_keep_photo_and_labels_aligned(name, shape):
    photos, labels = encoded(*shape)
    new_photos, new_labels = article().function(name)(photos, labels)
    assert new_photos.shape == photos.shape and new_labels.shape == labels.shape and new_labels.dtype == tf.uint8
    assert not np.array_equal(new_labels, labels)
    exact = np.isclose(new_photos[..., 0], 4.0 * tf.cast(new_labels, tf.float32))
    # A bilinear photo mixes neighbours along the edges of blocks; everywhere else it must match to the number.
    assert (
        exact.mean() == 1
        if name.startswith("flip") or shape[1] == shape[2] and name == "rotate"
        else exact.mean() > 0.6
    )


@pytest.mark.parametrize("name", sorted(set(COPIES) - set(GEOMETRIC)))
def test_colour_functions_leave_labels_and_places_alone(name):
    photos, labels = encoded(2, 32, 32)
    photos = photos + tf.constant([0.0, 10.0, 20.0])
    new_photos, new_labels = article().function(name)(photos, labels)
    assert np.array_equal(new_labels, labels)
    assert not np.allclose(new_photos, photos)
    # Pixels of one colour stay pixels of one colour.
    for label in np.unique(labels)[:5]:
        assert np.ptp(new_photos[np.asarray(labels) == label], axis=0).max() < 1e-2


def test_values_are_the_articles():
    photo = tf.constant([[[51.0, 102.0, 204.0]]])  # 0.2, 0.4, 0.8
    label = tf.zeros((1, 1), tf.uint8)
    np.testing.assert_allclose(fixed.brightness(photo, label)[0], tf.image.adjust_brightness(photo / 255, 0.1) * 255)
    np.testing.assert_allclose(fixed.gamma(photo, label)[0] / 255, tf.image.adjust_gamma(photo / 255, 0.1), rtol=1e-5)
    np.testing.assert_allclose(fixed.gamma(photo, label)[0] / 255, [[[0.2**0.1, 0.4**0.1, 0.8**0.1]]], rtol=1e-5)
    np.testing.assert_allclose(fixed.hue(photo, label)[0] / 255, tf.image.adjust_hue(photo / 255, -0.1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 128, 128), (2, 64, 96), (2, 96, 32)])
@pytest.mark.parametrize("label_resize", ["nearest", "bilinear"])
def test_the_crop_is_the_articles(shape, label_resize):
    photos, labels = encoded(*shape)
    new_photos, new_labels = fixed.crop(photos, labels, label_resize=label_resize)
    np.testing.assert_allclose(new_photos, tf.image.resize(tf.image.central_crop(photos, 0.7), shape[1:]), atol=1e-4)
    expected = tf.image.resize(tf.image.central_crop(labels[..., None], 0.7), shape[1:], method=label_resize)
    assert np.array_equal(new_labels, tf.cast(expected, tf.uint8)[..., 0])


def test_nothing_in_it_has_a_state():
    # Deterministic runs would make a pipeline with such an op take one batch at a time.
    shapes = [
        tf.TensorSpec((None, 64, 96, 3)),
        tf.TensorSpec((None, 64, 96), tf.uint8),
        tf.TensorSpec((None, 4), tf.int64),
    ]
    graph = tf.function(lambda *batch: article()(*batch, None)).get_concrete_function(*shapes).graph
    assert not [op.type for op in graph.get_operations() if op.op_def.is_stateful]


def test_brightness_does_not_clip():
    photo, label = tf.fill((1, 1, 3), 250.0), tf.zeros((1, 1), tf.uint8)
    np.testing.assert_allclose(fixed.brightness(photo, label)[0], 275.5)


def test_rotation_is_counter_clockwise():
    photos, squares = encoded(2, 32, 32)
    np.testing.assert_array_equal(fixed.rotate(photos, squares)[0], tf.image.rot90(photos))
    labels = tf.constant([[1, 2], [3, 4]], tf.uint8)
    assert fixed.rotate(tf.zeros((2, 2, 3)), labels)[1].numpy().tolist() == [[2, 4], [1, 3]]


def test_nearest_crop_invents_no_label_and_bilinear_does():
    photos, labels = encoded(4, 64, 64)
    labels = tf.where(labels > 30, tf.constant(58, tf.uint8), tf.constant(0, tf.uint8))
    assert set(np.unique(fixed.crop(photos, labels, label_resize="nearest")[1])) == {0, 58}
    assert len(np.unique(fixed.crop(photos, labels, label_resize="bilinear")[1])) > 2


def test_a_batch_gets_the_function_of_each_examples_variant():
    photos, labels = encoded(8, 32, 32)
    variants = [3, 0, 7, 5, 1, 2, 6, 4]
    new_photos, new_labels = article()(photos, labels, keys(variants), None)
    for row, variant in enumerate(variants):
        alone = (photos[row], labels[row])
        if variant:
            alone = article().function(COPIES[variant - 1])(*alone)
        np.testing.assert_allclose(new_photos[row], alone[0], atol=1e-3)
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
    labels = np.full((1, 10, 10), 5, np.uint8)
    labels[:, :, 5:] = IGNORE
    _, cropped = fixed.crop(np.zeros((1, 10, 10, 3), np.float32), labels, label_resize="bilinear")
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
