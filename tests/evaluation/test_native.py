"""Predictions at the photo's own size are those of resizing all logits, and are counted against the annotation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion

from clothseg.data.labels import IGNORE
from clothseg.data.prepared import frame_of
from clothseg.evaluation.native import Evaluation, Evaluator, Scored
from clothseg.evaluation.predictor import Member, Predictor, prior_offset
from clothseg.training.metrics import ConfusionMatrix

CLASSES = 5


class Network:
    """Stands in for a trained network: logits are a function of the photos."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.function = function

    def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
        return self.function(photos)


def seen(photos: np.ndarray) -> np.ndarray:
    """Logits of a network that reads classes off the red channel."""
    return np.eye(CLASSES, dtype=np.float32)[photos[..., 0].astype(int)]


def painted(labels: np.ndarray) -> np.ndarray:
    """Photos that show their labels; in the other channels there is something else."""
    return np.stack([labels, labels[..., ::-1] // 2, np.full_like(labels, 9)], axis=-1)


def run(model, photos, original, **options) -> Evaluation:
    """Photos already have the size of the network, unless they are padded."""
    plain = {"size": photos[0].shape[:2], "resize": "squash", "flip": False, "offset": None, "rows": range(len(photos))}
    plain |= {"boundary": False, "scored": None, "tags": None, "batch_size": 2} | options
    size, resize, flip, offset, rows, boundary = (plain.pop(name) for name in list(plain)[:5] + ["boundary"])
    predictor = Predictor([Member(model, size, resize)], flip=flip, offset=offset)
    evaluator = Evaluator(predictor, lambda row: (photos[row], original[row]), classes=CLASSES, **plain)
    return evaluator.evaluate(rows, boundary=boundary)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CLASSES, (5, 12, 8), dtype=np.uint8)


def reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(keras.ops.image.resize(logits[None], size, interpolation="bilinear"))[0]


def test_a_perfect_network_is_perfect_at_both_sizes(labels):
    # Between four one-hot logits the nearest has more than half the weight when sizes are doubled.
    original = labels.repeat(2, axis=1).repeat(2, axis=2)
    found = run(Network(seen), painted(labels), original)
    assert np.array_equal(found.confusion, np.diag(np.bincount(original.ravel(), minlength=CLASSES)))
    assert np.array_equal(found.network_confusion, np.diag(np.bincount(labels.ravel(), minlength=CLASSES)))
    assert found.boundary_f is None


def test_counts_agree_with_scikit_learn_photo_by_photo_without_ignored_pixels(labels):
    random = np.random.default_rng(1)
    original = [random.integers(0, CLASSES, (30 + n, 21 + 3 * n), dtype=np.uint8) for n in range(len(labels))]
    for truth in original:
        truth[random.random(truth.shape) < 0.2] = IGNORE
    noisy = Network(lambda photos: seen(photos) + np.sin(np.arange(CLASSES) + photos[..., :1]))
    found = run(noisy, painted(labels), original)
    total = np.zeros((CLASSES, CLASSES), int)
    for number, truth in enumerate(original):
        logits = noisy.predict_on_batch(painted(labels[number]).astype(np.float32)).astype(np.float32)
        predicted = reference(logits, truth.shape).argmax(axis=-1)
        counted = truth != IGNORE
        expected = sklearn_confusion(truth[counted], predicted[counted], labels=range(CLASSES))
        assert np.array_equal(found.photo_confusions[number], expected)
        total += expected
    assert found.confusion.dtype == np.int64 and np.array_equal(found.confusion, total)


def test_coarse_logits_of_a_keras_model_count_as_in_its_metrics(labels):
    random = np.random.default_rng(2)
    model = keras.Sequential([keras.Input((12, 8, 3)), keras.layers.Conv2D(CLASSES, 3, strides=4, padding="same")])
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    photos = random.integers(0, 256, (5, 12, 8, 3), dtype=np.uint8)
    labels[:, :2] = IGNORE
    found = run(model, photos, labels)
    metric = ConfusionMatrix(classes=CLASSES, name="accuracy")
    metric.update_state(labels, model(photos.astype(np.float32)))
    assert np.array_equal(found.network_confusion, metric.counts())
    assert found.network_confusion.sum() == 5 * 10 * 8
    assert np.array_equal(found.confusion, found.network_confusion)  # these photos' own size is the network's


def test_rows_are_scored_in_their_order_whatever_the_batch_size(labels):
    original = labels.repeat(2, axis=1).repeat(2, axis=2)
    blunt = Network(lambda photos: seen(np.minimum(photos, 3)))
    every = run(blunt, painted(labels), original).photo_confusions
    for batch_size in (1, 2, 16):
        some = run(blunt, painted(labels), original, rows=(4, 0, 3), batch_size=batch_size)
        assert np.array_equal(some.photo_confusions, every[[4, 0, 3]])
        assert np.array_equal(some.confusion, every[[4, 0, 3]].sum(axis=0))
    nothing = run(blunt, painted(labels), original, rows=[])
    assert nothing.confusion.shape == (CLASSES, CLASSES) and not nothing.confusion.any()


def test_flip_changes_nothing_for_a_network_that_treats_both_sides_alike(labels):
    plain, flipped = (
        run(Network(lambda photos: seen(np.minimum(photos, 3))), painted(labels), labels, flip=flip)
        for flip in (False, True)
    )
    assert np.array_equal(plain.photo_confusions, flipped.photo_confusions)
    assert plain.confusion[4, 3] > 0


def test_flip_averages_logits_of_a_network_that_does_not(labels):
    tilt = np.random.default_rng(7).normal(size=(8, CLASSES)).astype(np.float32)
    lopsided = Network(lambda photos: seen(photos) + tilt)
    mean = Network(lambda photos: seen(photos) + (tilt + tilt[::-1]) / 2)
    original = labels.repeat(3, axis=1).repeat(3, axis=2)
    flipped = run(lopsided, painted(labels), original, flip=True)
    expected = run(mean, painted(labels), original)
    plain = run(lopsided, painted(labels), original)
    # Sums in another order round otherwise, which may decide between equals.
    assert abs(flipped.confusion - expected.confusion).sum() < 0.002 * expected.confusion.sum()
    assert abs(flipped.network_confusion - expected.network_confusion).sum() == 0
    assert abs(plain.confusion - expected.confusion).sum() > 0.02 * expected.confusion.sum()


def test_given_tags_are_the_only_classes_predicted_beside_the_background(labels):
    random = np.random.default_rng(8)
    has = [(1, 2), (0, 3), (4,), (2, 3), (1,)]
    original = [random.choice(classes, (24, 16)).astype(np.uint8) for classes in has]
    original[0][0, 0] = IGNORE
    scatter = Network(lambda photos: seen(photos) + random.normal(size=(*photos.shape[:3], CLASSES)))
    found = run(scatter, painted(labels), original, tags="given")
    for counts, classes in zip(found.photo_confusions, has, strict=True):
        predicted = set(np.flatnonzero(counts.sum(axis=0)))
        assert predicted == {0, *classes}
    free = run(scatter, painted(labels), original)
    assert np.flatnonzero(free.photo_confusions[4].sum(axis=0)).tolist() == [0, 1, 2, 3, 4]


def test_padding_is_cut_off_before_resizing():
    # Photos of 32 x 16 lie in the middle of 16 x 16, and the network says class 4 beside them, very loudly.
    size = (16, 16)
    assert frame_of((32, 16), size, resize="pad") == (0, 4, 16, 8)
    small = np.random.default_rng(9).integers(0, 4, (3, 16, 8), dtype=np.uint8)
    original = small.repeat(2, axis=1).repeat(2, axis=2)

    def loud(photos: np.ndarray) -> np.ndarray:
        logits = np.zeros((*photos.shape[:3], CLASSES), np.float32)
        logits[..., 4] = 1000
        logits[:, :, 4:12] = seen(photos[:, :, 4:12])
        return logits

    for flip in (False, True):
        found = run(Network(loud), painted(original), original, size=size, resize="pad", flip=flip)
        assert np.array_equal(found.confusion, np.diag(np.bincount(original.ravel(), minlength=CLASSES)))
        assert found.confusion.sum() == 3 * 32 * 16
        assert np.array_equal(found.network_confusion, np.diag(np.bincount(small.ravel(), minlength=CLASSES)))


def test_boundaries_are_scored_on_request():
    labels = np.zeros((2, 12, 8), np.uint8)
    labels[:, 4:8, 2:6] = 1
    labels[1, 4:8, 2:6] = 2
    original = labels.repeat(2, axis=1).repeat(2, axis=2)
    blind_to_2 = Network(lambda photos: seen(np.where(photos == 2, 0, photos)))
    found = run(blind_to_2, painted(labels), original, boundary=True)
    # Background: right in the one photo, without a boundary and so 0 in the other.
    np.testing.assert_allclose(found.boundary_f, [0.5, 1, 0, np.nan, np.nan])


def test_importing_needs_no_tensorflow():
    code = "import sys, clothseg.evaluation.native; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_adjusting_for_how_frequent_classes_are_lets_rare_ones_win(labels):
    # Shares 1/2, 1/4, 1/4, and two classes that do not occur.
    offset = prior_offset(np.array([50, 25, 25, 0, 0]), adjustment=0.5)
    np.testing.assert_allclose(offset, [0.5 * np.log(2), 0.5 * np.log(4), 0.5 * np.log(4), 0, 0], rtol=1e-6)
    assert prior_offset(np.array([1, 2]), adjustment=0) is None
    # A network that slightly prefers the first class everywhere.
    network = Network(lambda photos: np.tile(np.float32([0.3, 0, -9, -9, -9]), (len(photos), 12, 8, 1)))
    plain, adjusted = (run(network, painted(labels), labels, offset=how) for how in (None, offset))
    assert plain.confusion.sum(axis=0)[0] == labels.size and adjusted.confusion.sum(axis=0)[1] == labels.size


def test_classes_are_scored_in_groups_and_those_that_count_nowhere_are_not_predicted():
    # 0 stays, 1 and 2 are one, 3 counts nowhere, 4 becomes 2.
    table = np.full(256, IGNORE, np.uint8)
    table[[0, 1, 2, 4]] = [0, 1, 1, 2]
    truth = np.array([[[0, 1, 2, 3, 4, IGNORE, 2, 2]]], np.uint8)
    photos = np.zeros((1, 1, 8, 3), np.uint8)
    # The last pixel is taken for 3, and after that for 4.
    logits = np.eye(CLASSES, dtype=np.float32)[[0, 2, 1, 3, 4, 0, 0, 3]][None, None]
    logits[..., -1, 4] = 0.5
    found = run(Network(lambda photos: logits), photos, truth, scored=Scored(table, classes=3))
    assert found.confusion.tolist() == [[1, 0, 0], [1, 2, 1], [0, 0, 1]]
    assert found.calibration is None


def test_calibration_is_of_a_regular_part_of_the_pixels():
    truth = np.zeros((1, 16, 16), np.uint8)
    truth[0, :, 8:] = 1
    sure = Network(lambda photos: np.tile(np.float32([np.log(3), 0, -99, -99, -99]), (len(photos), 16, 16, 1)))
    calibration = run(sure, painted(truth), truth).calibration
    # Says 0 with 3/4 everywhere, and is right in half of 4 x 4 pixels.
    assert calibration.pixels.sum() == 16 and calibration.correct.sum() == 8
    assert calibration.error == pytest.approx(0.25)
