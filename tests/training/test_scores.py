"""Scores worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.training import scores

# Background, shirt, shoes, and a hat that is nowhere but predicted once.
#                  predicted:  bg shirt shoes hat
WORKED = np.array([[6, 1, 0, 1], [2, 4, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_a_worked_example():
    assert scores.accuracy(WORKED) == pytest.approx(11 / 16)
    assert scores.background_accuracy(WORKED) == pytest.approx(8 / 16)
    np.testing.assert_allclose(scores.class_iou(WORKED), [6 / 11, 4 / 7, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.class_recall(WORKED), [6 / 8, 4 / 6, 1 / 2, np.nan])
    assert scores.miou(WORKED) == pytest.approx((6 / 11 + 4 / 7 + 1 / 2) / 3)
    assert scores.clothing_miou(WORKED) == pytest.approx((4 / 7 + 1 / 2) / 2)
    assert scores.mean_recall(WORKED) == pytest.approx((6 / 8 + 4 / 6 + 1 / 2) / 3)
    assert scores.clothing_accuracy(WORKED) == pytest.approx(5 / 8)


def test_perfect_overlap_is_one():
    perfect = np.diag([5, 3, 0, 2])
    for score in (scores.accuracy, scores.miou, scores.clothing_miou, scores.mean_recall, scores.clothing_accuracy):
        assert score(perfect) == 1


def test_no_overlap_is_zero():
    wrong = np.array([[0, 4], [3, 0]])
    for score in (scores.accuracy, scores.miou, scores.clothing_miou, scores.mean_recall, scores.clothing_accuracy):
        assert score(wrong) == 0


def test_an_absent_class_does_not_count():
    without = WORKED[:3, :3]
    padded = np.zeros((9, 9), int)
    padded[:3, :3] = without
    assert scores.miou(padded) == scores.miou(without)
    assert np.isnan(scores.class_iou(padded)[3:]).all()


def test_painting_everything_background_has_the_background_accuracy_and_no_clothing():
    lazy = np.array([[765, 0, 0], [200, 0, 0], [35, 0, 0]])
    assert scores.accuracy(lazy) == scores.background_accuracy(lazy) == 0.765
    assert scores.clothing_miou(lazy) == scores.clothing_accuracy(lazy) == 0


def test_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 6, 500), random.integers(0, 6, 500)
    matrix = confusion_matrix(truth, predicted, labels=range(6))
    assert scores.accuracy(matrix) == pytest.approx(accuracy_score(truth, predicted))
    assert scores.miou(matrix) == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    assert scores.mean_recall(matrix) == pytest.approx(recall_score(truth, predicted, average="macro"))


def test_nothing_labelled_has_no_score():
    assert np.isnan(scores.accuracy(np.zeros((3, 3), int)))
    assert np.isnan(scores.clothing_miou(np.diag([4, 0, 0])))
