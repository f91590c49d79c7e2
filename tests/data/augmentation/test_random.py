"""Random augmentation, checked with photos that encode their own labels and against independent references."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.data.augmentation import colour, geometry, keyed
from clothseg.data.augmentation.paste import Donors
from clothseg.data.augmentation.random import RandomAugmentation
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import PADDING
from clothseg.errors import UserError

PRESETS = Path(entry.config_folder()) / "augmentation"
OFF = {
    name: None
    for name in (
        *("flip", "scale", "aspect", "rotation", "shift", "perspective"),
        *("brightness", "contrast", "saturation", "hue", "gamma", "blur", "blur_sigma", "noise", "noise_deviation"),
        *("jpeg", "jpeg_quality", "erasing", "erasing_area", "erasing_aspect"),
        *("copy_paste", "copy_paste_flip", "copy_paste_shift"),
    )
} | {"copy_paste_rarity": 0.5}
GEOMETRY = {
    "flip": {"flip": 1},
    "scale": {"scale": [0.7, 1.5]},
    "aspect": {"aspect": [1.1, 1.4]},
    "rotation": {"rotation": [-30, 30]},
    "shift": {"shift": [-0.3, 0.3]},
    "perspective": {"perspective": [-0.15, 0.15]},
}
LOOKS = {
    "brightness": {"brightness": [0.1, 0.2]},
    "contrast": {"contrast": [0.5, 0.8]},
    "saturation": {"saturation": [0.2, 0.5]},
    "hue": {"hue": [0.1, 0.2]},
    "gamma": {"gamma": [1.2, 1.5]},
    "blur": {"blur": 1, "blur_sigma": [0.02, 0.04]},
    "noise": {"noise": 1, "noise_deviation": [5, 10]},
    "jpeg": {"jpeg": 1, "jpeg_quality": [10, 30]},
}
ERASING = {"erasing": 1, "erasing_area": [0.1, 0.2], "erasing_aspect": [0.5, 2]}
PASTE = {"copy_paste": 1, "copy_paste_flip": 0.5, "copy_paste_shift": [-0.1, 0.1]}
STRONG = OFF | {
    key: value for part in (*GEOMETRY.values(), *LOOKS.values(), ERASING, PASTE) for key, value in part.items()
}
STRONG |= dict.fromkeys(("flip", "blur", "noise", "jpeg", "erasing", "copy_paste"), 0.5)
HEIGHT, WIDTH, BLOCK, CLASSES = 96, 72, 12, 59


def examples(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks of labels, and photos that say them: red is four times the label, green less, blue constant."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, (count, HEIGHT // BLOCK, WIDTH // BLOCK), dtype=np.uint8)
    labels = labels.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)
    photos = np.stack([4.0 * labels, 2.0 * labels + 20, np.full(labels.shape, 90.0)], axis=-1).astype(np.float32)
    return photos, labels


PHOTOS, LABELS = examples()
BYTES = PHOTOS.astype(np.uint8)  # as the pipeline has them; they are whole numbers


def read(rows):
    """As the pipeline reads them: by number, in a graph or outside."""
    photos, labels = tf.numpy_function(lambda r: (BYTES[r], LABELS[r]), [rows], (tf.uint8, tf.uint8), stateful=False)
    return tf.ensure_shape(photos, (None, *PHOTOS.shape[1:])), tf.ensure_shape(labels, (None, *LABELS.shape[1:]))


def keys(rows=range(8), number: int = 0, seed: int = 0) -> np.ndarray:
    return np.array([[seed, number, 0, row] for row in rows], np.int64)


def pixel_counts(labels: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(label.ravel(), minlength=256)[:CLASSES] for label in labels])


def augmentation(**options) -> RandomAugmentation:
    made = RandomAugmentation(**OFF | options)
    made.fit(np.arange(len(LABELS)), pixel_counts(LABELS))
    return made


def augmented(options: dict, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = keys[:, 3]
    photos, labels = augmentation(**options)(BYTES[rows], LABELS[rows], keys, read)
    assert photos.shape == (len(rows), *PHOTOS.shape[1:]) and photos.dtype == tf.float32
    assert labels.shape == (len(rows), *LABELS.shape[1:]) and labels.dtype == tf.uint8
    return photos.numpy(), labels.numpy()


def inside(labels: np.ndarray, *, reach: int = 3) -> np.ndarray:
    """Pixels whose neighbours are all seen and have the same label, where interpolation mixes nothing.

    Where a photo is enlarged, what is mixed is wider than a pixel.
    """
    how = {"size": (1, 2 * reach + 1, 2 * reach + 1), "mode": "constant", "cval": IGNORE - 1}
    return scipy.ndimage.minimum_filter(labels, **how) == scipy.ndimage.maximum_filter(labels, **how)


def assert_aligned(photos: np.ndarray, labels: np.ndarray, *, reach: int = 3) -> None:
    sure = inside(labels, reach=reach)
    known = sure & (labels != IGNORE)
    assert known.sum() > 1000
    np.testing.assert_allclose(photos[..., 0][known], 4.0 * labels[known], atol=0.02)
    np.testing.assert_allclose(photos[..., 1][known], 2.0 * labels[known] + 20, atol=0.02)
    np.testing.assert_allclose(photos[sure & (labels == IGNORE)], PADDING, atol=0.02)


# Random numbers


def test_the_generator_mixes_as_splitmix64():
    # The first numbers that the published generator gives for the seed 0.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    steps = keyed.GOLDEN * np.arange(1, 4, dtype=np.uint64)
    assert keyed._mix(steps).tolist() == published


def test_random_numbers_are_uniform_and_independent_of_each_other():
    count = 4000
    columns = [
        keyed.uniform(keys(range(count)), "one", 2),
        keyed.uniform(keys(range(count)), "two", 1),
        keyed.uniform(keys(range(count), number=1), "one", 1),
        keyed.uniform(keys(range(count), seed=1), "one", 1),
        keyed.uniform(keys(range(1, count + 1)), "one", 1),
    ]
    numbers = np.hstack(columns)
    assert numbers.min() >= 0 and numbers.max() < 1
    tenths = np.stack([np.histogram(column, 10, (0, 1))[0] for column in numbers.T])
    assert np.abs(tenths - count / 10).max() < 5 * np.sqrt(count * 0.09)
    others = np.corrcoef(numbers.T) - np.eye(numbers.shape[1])
    assert np.abs(others).max() < 5 / np.sqrt(count)


def test_random_numbers_stay_in_their_range_and_logarithms_are_symmetric():
    numbers = keyed.between(keys(range(2000)), "one", (0.5, 2), 1, nothing=1, log=True)
    assert 0.5 <= numbers.min() < 0.52 and 1.95 < numbers.max() <= 2
    assert abs((numbers < 1).mean() - 0.5) < 0.06
    assert (keyed.between(keys(), "one", None, 3, nothing=7) == np.full((8, 3), 7)).all()


# What depends on what


def test_an_example_is_augmented_the_same_in_any_batch():
    photos, labels = augmented(STRONG, keys())
    for rows in ([5], [7, 2, 0], range(7, -1, -1)):
        other_photos, other_labels = augmented(STRONG, keys(rows))
        np.testing.assert_allclose(other_photos, photos[list(rows)], atol=1e-2)
        np.testing.assert_array_equal(other_labels, labels[list(rows)])


@pytest.mark.parametrize("changes", [{"number": 1}, {"seed": 1}])
def test_other_passes_and_seeds_change_every_example_otherwise(changes):
    photos, _ = augmented(STRONG, keys())
    others, _ = augmented(STRONG, keys(**changes))
    assert (np.abs(photos - others).mean(axis=(1, 2, 3)) > 1).all()


def test_copies_of_one_photo_differ_by_their_row_alone():
    rows = keys()
    photos, labels = np.repeat(PHOTOS[:1], 8, axis=0), np.repeat(LABELS[:1], 8, axis=0)
    changed, _ = augmentation(**STRONG)(photos, labels, rows, read)
    assert len(np.unique(changed.numpy().reshape(8, -1).round(), axis=0)) == 8


def test_an_operation_turned_off_leaves_the_others_as_they_were():
    _, labels = augmented(STRONG, keys())
    photos_alone, moved = augmented({name: STRONG[name] for name in GEOMETRY}, keys())
    _, without_looks = augmented(STRONG | {name: None for name in LOOKS}, keys())
    np.testing.assert_array_equal(labels, without_looks)
    _, not_erased = augmented(STRONG | {"erasing": None}, keys())
    np.testing.assert_array_equal(labels[labels != IGNORE], not_erased[labels != IGNORE])
    assert (labels != not_erased).any()
    only_paste = {name: STRONG[name] for name in (*GEOMETRY, *PASTE)}
    pasted_photos, pasted = augmented(only_paste, keys())
    np.testing.assert_array_equal(pasted, not_erased)
    same = (pasted == moved) & inside(pasted) & inside(moved)
    assert 0.15 < same.mean() < 1
    np.testing.assert_allclose(pasted_photos[same], photos_alone[same], atol=0.02)


@pytest.mark.parametrize("name", ["off", *GEOMETRY, *LOOKS, "erasing", "copy_paste"])
def test_each_option_alone_changes_what_it_should(name):
    options = {"off": {}, "erasing": ERASING, "copy_paste": PASTE} | GEOMETRY | LOOKS
    photos, labels = augmented(options[name], keys())
    moved = (labels != LABELS).any(axis=(1, 2))
    changed = (np.abs(photos - PHOTOS) > 0.5).any(axis=(1, 2, 3))
    assert changed.all() if name != "off" else not changed.any()
    assert not moved.any() if name in (*LOOKS, "off") else moved.all()
    assert 0 <= photos.min() and photos.max() <= 255


def test_probabilities_are_those_asked_for():
    many = keys(np.arange(400) % 8)
    many[:, 1] = np.arange(400)
    photos, labels = augmented({"flip": 0.3}, many)
    flipped = (labels != LABELS[many[:, 3]]).any(axis=(1, 2))
    np.testing.assert_array_equal(labels[flipped], LABELS[many[flipped, 3], :, ::-1])
    assert abs(flipped.mean() - 0.3) < 0.1
    photos, _ = augmented({"noise": 0.2, "noise_deviation": [5, 5]}, many)
    assert abs((photos != PHOTOS[many[:, 3]]).any(axis=(1, 2, 3)).mean() - 0.2) < 0.1


# Geometry


@pytest.mark.parametrize("name", [*GEOMETRY, "all"])
def test_labels_follow_photos(name):
    options = GEOMETRY[name] if name != "all" else {key: STRONG[key] for key in GEOMETRY}
    for number in range(3):
        assert_aligned(*augmented(options, keys(number=number)))


def test_labels_follow_photos_with_pasted_clothes_too():
    photos, labels = augmented({key: STRONG[key] for key in (*GEOMETRY, *PASTE)} | {"copy_paste": 1}, keys())
    assert (augmented({key: STRONG[key] for key in GEOMETRY}, keys())[1] != labels).mean() > 0.01
    assert_aligned(photos, labels, reach=4)  # mixed once in the other photo, and once more


def test_no_label_comes_from_nowhere():
    for number in range(5):
        _, labels = augmented(STRONG | {"copy_paste": None}, keys(number=number))
        for row in range(8):
            assert set(np.unique(labels[row])) <= {*np.unique(LABELS[row]), IGNORE}
        _, labels = augmented(STRONG, keys(number=number))
        for row in range(8):
            extra = set(np.unique(labels[row])) - {*np.unique(LABELS[row]), IGNORE}
            assert len(extra) <= 1 and extra <= set(np.unique(LABELS))


def moved(**changes) -> tuple[np.ndarray, np.ndarray]:
    """The examples, cut to squares, moved by known amounts."""
    zeros = np.zeros((len(LABELS), 2))
    how = {"flip": zeros[:, 0] > 0, "scale": zeros + 1, "angle": zeros[:, 0], "shift": zeros, "perspective": zeros}
    how |= {name: np.full_like(how[name], value) for name, value in changes.items()}
    matrices = geometry.transforms((WIDTH, WIDTH), **how)
    photos, labels = geometry.warp(tf.constant(PHOTOS[:, :WIDTH]), tf.constant(LABELS[:, :WIDTH]), matrices)
    return photos.numpy(), labels.numpy()


def test_moves_are_those_of_numpy():
    photos, labels = PHOTOS[:, :WIDTH], LABELS[:, :WIDTH]
    for changes, move in (
        ({}, lambda a: a),
        ({"flip": True}, lambda a: a[:, :, ::-1]),
        ({"angle": 90}, lambda a: np.rot90(a, axes=(1, 2))),
        ({"angle": 180}, lambda a: a[:, ::-1, ::-1]),
        ({"flip": True, "angle": 90}, lambda a: np.rot90(a[:, :, ::-1], axes=(1, 2))),
    ):
        new_photos, new_labels = moved(**changes)
        np.testing.assert_array_equal(new_labels, move(labels))
        np.testing.assert_allclose(new_photos, move(photos), atol=0.02)


def test_moves_are_those_of_tensorflow():
    random = np.random.default_rng(0)
    count, size = 32, (48, 64)
    photos = random.uniform(0, 255, (count, *size, 3)).astype(np.float32)
    labels = random.integers(0, 59, (count, *size), np.uint8)
    matrices = geometry.transforms(
        size, flip=random.random(count) < 0.5, scale=random.uniform(0.5, 2, (count, 2)),
        angle=random.uniform(-30, 30, count), shift=random.uniform(-0.2, 0.2, (count, 2)),
        perspective=random.uniform(-0.3, 0.3, (count, 2)),
    )  # fmt: skip
    moved, moved_labels = geometry.warp(tf.constant(photos), tf.constant(labels), tf.constant(matrices))
    plain, plain_labels = (
        tf.raw_ops.ImageProjectiveTransformV3(
            images=images, transforms=matrices, output_shape=size, fill_value=fill, interpolation=how,
            fill_mode="CONSTANT",
        )
        for images, fill, how in ((photos, float(PADDING), "BILINEAR"), (labels[..., None], float(IGNORE), "NEAREST"))
    )  # fmt: skip
    np.testing.assert_allclose(moved, plain, atol=0.02)
    # Half-way between two pixels either is the nearest.
    assert np.mean(moved_labels.numpy() != plain_labels.numpy()[..., 0]) < 1e-4


def test_a_shift_goes_down_and_right_and_leaves_grey_that_counts_nowhere():
    photos, labels = moved(shift=[6 / WIDTH, 12 / WIDTH])
    np.testing.assert_array_equal(labels[:, 6:, 12:], LABELS[:, : WIDTH - 6, : WIDTH - 12])
    np.testing.assert_allclose(photos[:, 6:, 12:], PHOTOS[:, : WIDTH - 6, : WIDTH - 12], atol=0.02)
    for edge in (np.s_[:, :6], np.s_[:, :, :12]):
        assert (labels[edge] == IGNORE).all() and (photos[edge] == PADDING).all()


def test_scales_enlarge_the_centre_and_keep_order_with_flips():
    _, labels = moved(scale=[2, 1])
    # Which of two equally near pixels is taken makes no difference inside of them.
    np.testing.assert_array_equal(labels, LABELS[:, WIDTH // 4 : WIDTH * 3 // 4].repeat(2, axis=1))
    _, labels = moved(scale=[1, 2], flip=True)
    np.testing.assert_array_equal(labels, LABELS[:, :WIDTH, WIDTH // 4 : WIDTH * 3 // 4].repeat(2, axis=2)[:, :, ::-1])


def test_perspective_makes_the_lower_edge_smaller():
    _, labels = moved(perspective=[0.2, 0])
    seen = (labels != IGNORE).sum(axis=2)  # (examples, rows), pixels of the photo
    assert (seen[:, -12:] < WIDTH).all() and (np.diff(seen[:, -12:], axis=1) <= 0).all()
    assert (seen[:, :20] == WIDTH).all()


def test_what_is_larger_or_smaller_than_its_frame_lies_anywhere_in_it():
    many = keys(np.arange(64) % 8)
    many[:, 1] = np.arange(64)
    _, labels = augmented({"scale": [2, 2]}, many)
    assert (labels != IGNORE).mean() > 0.97  # but for the half pixel of the outermost
    _, labels = augmented({"scale": [0.5, 0.5]}, many)
    share = (labels != IGNORE).mean(axis=(1, 2))
    np.testing.assert_allclose(share, 0.25, atol=0.02)
    first_rows = (labels != IGNORE).any(axis=2).argmax(axis=1)
    assert first_rows.min() <= 3 and first_rows.max() >= HEIGHT // 2 - 3


# Looks


def test_colours_change_by_the_amounts_asked_for():
    photo = np.array([[[50.0, 100.0, 200.0], [150.0, 90.0, 51.4]]], np.float32)

    def changed(*, saturation=1.0, hue=0.0, contrast=1.0, brightness=0.0):
        (mixture,) = colour.mixtures(saturation=np.array([saturation]), hue=np.array([hue]))
        return colour.change_colours(photo, mixture=mixture, contrast=contrast, brightness=brightness)

    luma = photo @ [0.299, 0.587, 0.114]  # 96.45 and 103.54, mean 100
    np.testing.assert_allclose(luma, [[96.45, 103.54]], atol=1e-2)
    np.testing.assert_allclose(changed(), photo, atol=1e-3)
    np.testing.assert_allclose(changed(brightness=0.1), np.minimum(photo + 25.5, 255), atol=1e-3)
    np.testing.assert_allclose(changed(contrast=0.5), (photo + 100) / 2, atol=1e-2)
    np.testing.assert_allclose(changed(saturation=0.0), np.repeat(luma[..., None], 3, axis=-1), atol=1e-3)
    np.testing.assert_allclose(changed(saturation=0.5), (photo + luma[..., None]) / 2, atol=1e-3)
    np.testing.assert_allclose(changed(hue=1.0), photo, atol=1e-3)
    np.testing.assert_allclose(changed(hue=0.02) @ [0.299, 0.587, 0.114], luma, atol=1e-2)
    assert changed(brightness=1.0).max() == 255 and changed(brightness=-1.0).min() == 0


def test_hues_turn_the_way_of_tensorflow():
    # Muted, so that the plane of chroma and that of HSV nearly agree.
    photo = np.array([[[130.0, 110.0, 110.0], [110.0, 130.0, 110.0], [110.0, 110.0, 130.0]]], np.float32)
    (mixture,) = colour.mixtures(saturation=np.ones(1), hue=np.array([0.1]))
    ours = colour.change_colours(photo, mixture=mixture, contrast=1, brightness=0)
    theirs = 255 * tf.image.adjust_hue(photo / 255, 0.1).numpy()

    def chroma(colours):
        return colours - colours @ np.array([[0.299], [0.587], [0.114]])

    ours, theirs = chroma(ours), chroma(theirs)
    alike = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert alike.min() > 0.85


def test_gamma_is_that_of_tensorflow():
    for photo, gamma in zip(PHOTOS[:2], np.array([0.5, 1.7], np.float32), strict=True):
        changed = colour.change_gamma(photo, gamma=gamma)
        expected = 255 * tf.image.adjust_gamma(photo / 255, gamma)
        # The darkest value is not quite 0: 1e-6 ** 0.5 is 0.001 of the range.
        np.testing.assert_allclose(changed, expected, atol=0.3)
        assert changed.dtype == np.float32


def test_blurs_are_those_of_scipy():
    sigma = np.array([0.0, 0.8, 1.6])
    kernels = colour.blur_kernels(sigma, largest=1.6)
    blurred = colour.blur(tf.constant(PHOTOS[:3]), kernels=tf.constant(kernels))
    reach = colour.blur_reach(1.6)
    np.testing.assert_allclose(blurred[0], PHOTOS[0], atol=1e-3)
    for row in (1, 2):
        expected = scipy.ndimage.gaussian_filter(PHOTOS[row], (sigma[row], sigma[row], 0), radius=(reach, reach, 0))
        np.testing.assert_allclose(blurred[row], expected, atol=1e-2)


def test_noise_has_the_deviation_asked_for_and_a_seed_of_its_own():
    photos = tf.fill((3, HEIGHT, WIDTH, 3), 128.0)
    seeds = tf.constant([[1, 2], [1, 2], [3, 4]])
    noise = colour.add_noise(photos, seeds=seeds, deviation=tf.constant([5.0, 5.0, 12.0])).numpy() - 128
    np.testing.assert_array_equal(noise[0], noise[1])
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), [5, 5, 12], rtol=0.05)
    assert np.abs(noise.mean(axis=(1, 2, 3))).max() < 0.5
    assert abs(np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1]) < 0.05


def test_jpeg_of_a_lower_quality_is_farther_from_the_photo():
    photos = np.random.default_rng(0).uniform(0, 255, (1, HEIGHT, WIDTH, 3)).astype(np.float32)
    photos = scipy.ndimage.gaussian_filter(photos, (0, 2, 2, 0)).repeat(3, axis=0)
    written = colour.compress(tf.constant(photos), quality=tf.constant([10, 60, 100])).numpy()
    errors = np.abs(written - photos).mean(axis=(1, 2, 3))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2] and errors[2] < 2
    np.testing.assert_allclose(written, written.round())


def test_erased_rectangles_are_grey_and_count_nowhere():
    photos, labels = augmented(ERASING, keys())
    hidden = labels == IGNORE
    assert (photos[hidden] == PADDING).all()
    np.testing.assert_array_equal(photos[~hidden], PHOTOS[~hidden])
    np.testing.assert_array_equal(labels[~hidden], LABELS[~hidden])
    for one in hidden:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        # One rectangle, not several.
        assert one.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.08 < one.mean() < 0.22


# Copy-paste


def test_exactly_the_donors_pixels_are_pasted():
    photos, labels = np.full_like(PHOTOS, 10), np.zeros_like(LABELS)
    photos[3], labels[3, 20:30, 5:15] = PHOTOS[3], 7
    labels[3, :8, :8] = IGNORE

    def read(rows):
        return tf.gather(tf.constant(photos), rows), tf.gather(tf.constant(labels), rows)

    for flip in (0, 1):
        paste = RandomAugmentation(**OFF | {"copy_paste": 1, "copy_paste_flip": flip})
        paste.fit(np.arange(8), pixel_counts(labels))
        new_photos, new_labels = (part.numpy() for part in paste(photos[:3], labels[:3], keys(range(3)), read))
        donor, mask = (photos[3, :, ::-1], labels[3, :, ::-1] == 7) if flip else (photos[3], labels[3] == 7)
        assert mask.sum() == 100
        for row in range(3):
            np.testing.assert_array_equal(new_labels[row] == 7, mask)
            np.testing.assert_array_equal(new_labels[row][~mask], 0)
            np.testing.assert_allclose(new_photos[row][mask], donor[mask], atol=0.01)
            np.testing.assert_array_equal(new_photos[row][~mask], 10)


def test_rare_classes_are_drawn_more_often_and_from_photos_that_have_them():
    pixels = np.zeros((100, 4), int)
    pixels[:, 0] = 50
    pixels[:64, 1], pixels[40:56, 2], pixels[99, 3] = 1, 9, 2  # in 64, 16 and 1 of the photos
    rows = np.arange(100) + 1000
    for rarity, weights in ((0, [1, 1, 1]), (0.5, [1 / 8, 1 / 4, 1]), (1, [1 / 64, 1 / 16, 1])):
        donors, values = Donors(rows, pixels, rarity=rarity).draw(keys(range(6000)))
        assert (pixels[donors - 1000, values] > 0).all()
        shares = np.bincount(values, minlength=4)[1:] / 6000
        np.testing.assert_allclose(shares, np.divide(weights, sum(weights)), atol=0.03)
        assert len(np.unique(donors[values == 2])) == 16


def test_where_there_are_no_clothes_nothing_is_pasted():
    paste = RandomAugmentation(**OFF | PASTE)
    with pytest.raises(RuntimeError, match="fit"):
        paste(PHOTOS, LABELS, keys(), read)
    paste.fit(np.arange(8), np.eye(CLASSES, dtype=int)[[0] * 8])
    np.testing.assert_array_equal(paste(PHOTOS, LABELS, keys(), read)[1], LABELS)


# In tf.data


def test_batches_come_out_the_same_inside_tf_data():
    photos, labels = augmented(STRONG, keys())
    data = tf.data.Dataset.from_tensor_slices(keys()).batch(3)
    made = augmentation(**STRONG)
    batches = list(data.map(lambda keys: made(*read(keys[:, 3]), keys, read), num_parallel_calls=2))
    assert [len(batch[0]) for batch in batches] == [3, 3, 2]
    np.testing.assert_allclose(np.concatenate([batch[0] for batch in batches]), photos, atol=1e-2)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), labels)


def test_nothing_in_it_has_a_state():
    # Deterministic runs would make a pipeline with such an op take one batch at a time.
    made = augmentation(**STRONG)

    def both(keys):
        return made(*read(keys[:, 3]), keys, read)

    graph = tf.function(both).get_concrete_function(tf.TensorSpec((None, 4), tf.int64)).graph
    assert "StatelessWhile" in {op.type for op in graph.get_operations()}  # not "While", so its body has none either
    assert not [op.type for op in graph.get_operations() if op.op_def.is_stateful]


def test_deterministic_runs_can_use_it():
    # In a process of its own: determinism cannot be turned off again.
    code = """
import numpy as np, tensorflow as tf
tf.config.experimental.enable_op_determinism()
from tests.data.augmentation import test_random as t
made = t.augmentation(**t.STRONG)
data = tf.data.Dataset.from_tensors(t.keys()).repeat(2)
first, second = data.map(lambda keys: made(*t.read(keys[:, 3]), keys, t.read), num_parallel_calls=2)
assert all(np.array_equal(a, b) for a, b in zip(first, second))
"""
    folder = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Options


@pytest.mark.parametrize("name", ["light", "strong"])
def test_presets_build_and_run(name):
    with execution_whitelist(entry.TARGETS):
        made = entry.build(OmegaConf.load(PRESETS / f"{name}.yaml"))
    made.fit(np.arange(8), pixel_counts(LABELS))
    photos, labels = (part.numpy() for part in made(PHOTOS, LABELS, keys(), read))
    assert (photos != PHOTOS).any(axis=(1, 2, 3)).all() and (labels != LABELS).any(axis=(1, 2)).all()
    # Most of each photo is still to be seen.
    assert (labels != IGNORE).mean(axis=(1, 2)).min() > 0.4
    assert made.variants == ("random",) and made.shuffle_buffer is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scale": [1.2, 0.8]}, r"augmentation.scale=\[1.2,0.8\]: .*from 0.25 to 4, the lower one first, or null"),
        ({"scale": [0, 1]}, "from 0.25 to 4"),
        ({"rotation": 10}, "augmentation.rotation=10: .*two numbers from -180 to 180"),
        ({"hue": [-0.1, 0.1, 0.2]}, "augmentation.hue="),
        ({"gamma": ["a", 2]}, "augmentation.gamma="),
        ({"brightness": [float("nan"), 1]}, "augmentation.brightness="),
        ({"flip": 1.5}, "augmentation.flip=1.5: .*probability from 0 to 1"),
        ({"flip": True}, "augmentation.flip=True"),
        ({"blur": 0.5}, "augmentation.blur_sigma=null: .*first$"),
        ({"jpeg": 0.5, "jpeg_quality": [0, 50]}, "augmentation.jpeg_quality=.*from 1 to 100"),
        ({"erasing": 0.5, "erasing_area": [0.1, 2]}, "augmentation.erasing_area="),
        ({"copy_paste_rarity": -1}, "augmentation.copy_paste_rarity=-1"),
    ],
)
def test_wrong_options_are_named(changes, told):
    with pytest.raises(UserError, match=told):
        RandomAugmentation(**OFF | changes)
