"""Label maps at a photo's own size are those of resizing all logits."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from clothseg.evaluation.upsample import label_map, resize


def smooth_logits(seed: int, height: int, width: int, classes: int = 9) -> np.ndarray:
    """Few classes win, in patches, and many neighbours agree."""
    coarse = np.random.default_rng(seed).normal(size=(1, 4, 3, classes)).astype(np.float32)
    noise = np.random.default_rng(seed + 1).normal(scale=0.1, size=(height, width, classes))
    return (np.asarray(keras.ops.image.resize(coarse, (height, width)))[0] + noise).astype(np.float32)


def reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(keras.ops.image.resize(logits[None], size, interpolation="bilinear"))[0]


def assert_highest(predicted: np.ndarray, values: np.ndarray) -> None:
    """Every pixel has the class of the highest value, or of one that rounding makes equal."""
    assert predicted.shape == values.shape[:2] and predicted.dtype == np.uint8
    chosen = np.take_along_axis(values, predicted[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_array_less(values.max(axis=-1) - chosen, 1e-5)
    assert (predicted == values.argmax(axis=-1)).mean() > 0.999


@pytest.mark.parametrize("own", [(24, 16), (7, 30), (1, 9), (40, 1)])
@pytest.mark.parametrize("size", [(131, 86), (24, 16), (300, 11), (9, 5)])
@pytest.mark.parametrize("rough", [True, False])
def test_a_map_is_the_highest_of_all_resized_logits(own, size, rough):
    logits = np.random.default_rng(3).normal(size=(*own, 9)).astype(np.float32) if rough else smooth_logits(3, *own)
    assert_highest(label_map(logits, size, window=(0, 0, *own), allowed=None, threads=1), reference(logits, size))


def test_a_class_that_is_highest_at_no_corner_wins_between_them():
    logits = np.array([[[5, 0, 4]], [[0, 5, 4]]], np.float32)
    predicted = label_map(logits, (9, 1), window=(0, 0, 2, 1), allowed=None, threads=1)
    assert set(predicted.ravel()) == {0, 1, 2}
    assert_highest(predicted, reference(logits, (9, 1)))


def test_more_pixels_than_are_interpolated_at_once():
    logits = np.random.default_rng(4).normal(size=(20, 20, 3)).astype(np.float32)
    size, how = (400, 500), {"window": (0, 0, 20, 20), "allowed": None}
    alone = label_map(logits, size, **how, threads=1)
    assert_highest(alone, reference(logits, size))
    assert np.array_equal(label_map(logits, size, **how, threads=3), alone)


def test_a_window_is_cropped_before_it_is_resized():
    logits = smooth_logits(5, 24, 16)
    predicted = label_map(logits, (90, 70), window=(3, 2, 18, 13), allowed=None, threads=1)
    assert_highest(predicted, reference(logits[3:21, 2:15], (90, 70)))


def test_coarse_logits_outside_of_a_window_have_no_influence_and_those_inside_stay_where_they_are():
    # A column of logits is 4 pixels wide; the photo begins and ends amid one, at 6 and 26 of 32 pixels.
    logits = np.zeros((1, 8, 3), np.float32)
    logits[0, :, 0] = 1
    logits[0, 4:, 1] = 2
    logits[0, [0, 7], 2] = 1000
    predicted = label_map(logits, (1, 200), window=(0, 1.5, 1, 5), allowed=None, threads=1)[0]
    # Class 1 is above 0 in the logit at 4.5 (2 to 1), below it at 3.5 (0 to 1), equal in the middle, at 4; of the 200
    # pixels from 1.5 to 6.5 that is the 100th.
    assert predicted.tolist() == [0] * 100 + [1] * 100


def test_a_window_narrower_than_a_logit_takes_the_nearest():
    logits = np.zeros((1, 4, 4), np.float32)
    logits[0, np.arange(4), np.arange(4)] = 1
    assert label_map(logits, (1, 3), window=(0, 2.6, 1, 0.3), allowed=None, threads=1).tolist() == [[3, 3, 3]]


def test_only_allowed_classes_win_and_the_highest_of_them():
    logits, allowed = smooth_logits(6, 24, 16), np.array([0, 3, 4, 7])
    masked = np.full_like(logits, -1e6)
    masked[..., allowed] = logits[..., allowed]
    predicted = label_map(logits, (99, 66), window=(0, 0, 24, 16), allowed=allowed, threads=1)
    assert set(predicted.ravel()) <= set(allowed)
    assert_highest(predicted, reference(masked, (99, 66)))


@pytest.mark.parametrize("size", [(50, 33), (5, 40)])
def test_resized_logits_are_those_of_keras(size):
    logits = smooth_logits(8, 24, 16)
    np.testing.assert_allclose(resize(logits, size, window=(0, 0, 24, 16)), reference(logits, size), atol=1e-5)
    cropped = resize(logits, size, window=(3, 2, 18, 13))
    np.testing.assert_allclose(cropped, reference(logits[3:21, 2:15], size), atol=1e-5)
