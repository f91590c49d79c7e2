"""Predictors see the same photos, and those where two differ most are kept."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.data.labels import IGNORE
from clothseg.evaluation.native import Evaluator
from clothseg.evaluation.predictor import Member, Predictor
from clothseg.evaluation.together import evaluate_together

CLASSES, SIZE = 3, (4, 5)


class Painted:
    """A network that reads classes off a channel of the photo."""

    def __init__(self, channel: int) -> None:
        self.channel = channel

    def predict_on_batch(self, photos):
        return np.eye(CLASSES, dtype=np.float32)[photos[..., self.channel].astype(int)]


@pytest.fixture
def photos():
    """In the first channel the truth, in the second the same with more and more wrong, photo by photo."""
    truth = np.random.default_rng(0).integers(0, CLASSES, (5, *SIZE))
    other = truth.copy()
    for number, wrong in enumerate((0, 7, 2, 20, 2)):
        flat = other[number].reshape(-1)
        flat[:wrong] = (flat[:wrong] + 1) % CLASSES
    return np.stack([truth, other, 0 * truth], axis=-1).astype(np.uint8)


def evaluators(photos, ignored=()):
    def read(row):
        truth = photos[row, ..., 0].copy()
        if row in ignored:
            truth[:] = IGNORE
        return photos[row], truth

    return [
        Evaluator(
            Predictor([Member(Painted(channel), SIZE, "squash")], flip=False, offset=None), read, classes=CLASSES,
            scored=None, tags=None, batch_size=2,
        )
        for channel in (0, 1, 0)
    ]  # fmt: skip


def test_each_is_scored_as_alone_and_the_most_differing_photos_come_first(photos):
    together = evaluate_together(evaluators(photos), range(5), pair=(0, 1), most=3)
    assert len(together.confusions) == 3
    for found, alone in zip(together.confusions, evaluators(photos), strict=True):
        assert np.array_equal(found, alone.evaluate(range(5), boundary=False).photo_confusions)
    assert together.rows == [3, 1, 2]  # of equal ones the first
    assert together.differing == [1.0, 7 / 20, 2 / 20]
    first, second = together.predictions[1]
    assert np.array_equal(first.predicted, photos[1, ..., 0]) and np.array_equal(second.predicted, photos[1, ..., 1])


def test_ignored_pixels_are_no_difference_and_rows_may_be_any(photos):
    together = evaluate_together(evaluators(photos, ignored=(3,)), [3, 2, 0], pair=(0, 1), most=5)
    assert together.rows == [2, 3, 0] and together.differing == [0.1, 0, 0]
    assert evaluate_together(evaluators(photos), range(5), pair=(0, 2), most=0).rows == []
