"""Scores worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from clothseg.training import scores
from clothseg.training.scores import Counts

# Background, shirt, shoes, and a hat that is nowhere but predicted once.
#                  predicted:  bg shirt shoes hat
WORKED = np.array([[6, 1, 0, 1], [2, 4, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])

ALL_SCORES = {
    name: (lambda confusion, score=score: score(Counts.of(confusion))) for name, score in scores.SCORES.items()
}
EARNED = [score for name, score in ALL_SCORES.items() if name != "background_accuracy"]


def test_a_worked_example():
    assert scores.accuracy(Counts.of(WORKED)) == pytest.approx(11 / 16)
    assert scores.background_accuracy(Counts.of(WORKED)) == pytest.approx(8 / 16)
    np.testing.assert_allclose(scores.class_iou(Counts.of(WORKED)), [6 / 11, 4 / 7, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.class_recall(Counts.of(WORKED)), [6 / 8, 4 / 6, 1 / 2, np.nan])
    assert scores.miou(Counts.of(WORKED)) == pytest.approx((6 / 11 + 4 / 7 + 1 / 2) / 3)
    assert scores.clothing_miou(Counts.of(WORKED)) == pytest.approx((4 / 7 + 1 / 2) / 2)
    assert scores.mean_recall(Counts.of(WORKED)) == pytest.approx((6 / 8 + 4 / 6 + 1 / 2) / 3)
    assert scores.clothing_accuracy(Counts.of(WORKED)) == pytest.approx(5 / 8)
    np.testing.assert_allclose(scores.class_dice(Counts.of(WORKED)), [12 / 17, 8 / 11, 2 / 3, np.nan])
    assert scores.dice(Counts.of(WORKED)) == pytest.approx((12 / 17 + 8 / 11 + 2 / 3) / 3)
    assert scores.frequency_weighted_iou(Counts.of(WORKED)) == pytest.approx((8 * 6 / 11 + 6 * 4 / 7 + 2 * 1 / 2) / 16)


def test_the_example_of_the_documentation():
    docs = Path(__file__).parents[2] / "docs" / "metrics.md"
    if not docs.exists():
        pytest.skip("the documentation comes with a checkout only")
    lines = docs.read_text("utf-8").splitlines()
    # Labelled and predicted pixels, side by side.
    pixels = np.array([line.replace("-", "255").split() for line in lines if line.startswith("    0 ")], int)
    truth, predicted = pixels[:, :6].ravel(), pixels[:, 6:].ravel()
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    confusion = np.array([row[1:] for row in cells if row[0] in ("background", "shirt", "shoes")], int)
    assert np.array_equal(confusion_matrix(truth, predicted, labels=range(3)), confusion)
    printed = {row[0]: row[-1] for row in cells if row[0] in ALL_SCORES and len(row) == 3}
    assert printed == {name: f"{score(confusion):.4f}" for name, score in ALL_SCORES.items()}
    by_hand = {row[0]: eval(row[1].replace("·", "*")) for row in cells if row[0] in printed and len(row) == 3}
    assert by_hand == pytest.approx({name: score(confusion) for name, score in ALL_SCORES.items()})


def test_perfect_overlap_is_one():
    perfect = np.diag([5, 3, 0, 2])
    for score in EARNED:
        assert score(perfect) == 1


def test_no_overlap_is_zero():
    wrong = np.array([[0, 4], [3, 0]])
    for score in EARNED:
        assert score(wrong) == 0


def test_an_absent_class_does_not_count():
    without = WORKED[:3, :3]
    padded = np.zeros((9, 9), int)
    padded[:3, :3] = without
    for score in ALL_SCORES.values():
        assert score(padded) == score(without)
    for classes in (scores.class_iou, scores.class_recall, scores.class_dice):
        assert np.isnan(classes(Counts.of(padded))[3:]).all() and not np.isnan(classes(Counts.of(padded))[:3]).any()


def test_predicting_an_absent_class_costs():
    right, wrong = np.array([[6, 0, 0], [0, 4, 0], [0, 0, 0]]), np.array([[6, 0, 0], [0, 2, 2], [0, 0, 0]])
    for score in EARNED:
        assert score(wrong) < score(right) == 1


def test_painting_everything_background_has_the_background_accuracy_and_no_clothing():
    lazy = np.array([[765, 0, 0], [200, 0, 0], [35, 0, 0]])
    assert scores.accuracy(Counts.of(lazy)) == scores.background_accuracy(Counts.of(lazy)) == 0.765
    assert scores.clothing_miou(Counts.of(lazy)) == scores.clothing_accuracy(Counts.of(lazy)) == 0


@pytest.mark.parametrize("ignored", [0, 0.3])
def test_agrees_with_scikit_learn(ignored):
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 6, 500), random.integers(0, 6, 500)
    weights = (random.random(500) >= ignored).astype(int)
    matrix = confusion_matrix(truth, predicted, labels=range(6), sample_weight=weights)
    counted = {"sample_weight": weights}
    classes = {**counted, "average": None}
    np.testing.assert_allclose(scores.class_iou(Counts.of(matrix)), jaccard_score(truth, predicted, **classes))
    np.testing.assert_allclose(scores.class_recall(Counts.of(matrix)), recall_score(truth, predicted, **classes))
    np.testing.assert_allclose(scores.class_dice(Counts.of(matrix)), f1_score(truth, predicted, **classes))
    assert scores.accuracy(Counts.of(matrix)) == pytest.approx(accuracy_score(truth, predicted, **counted))
    macro = {**counted, "average": "macro"}
    assert scores.miou(Counts.of(matrix)) == pytest.approx(jaccard_score(truth, predicted, **macro))
    assert scores.clothing_miou(Counts.of(matrix)) == pytest.approx(
        jaccard_score(truth, predicted, labels=range(1, 6), **macro)
    )
    assert scores.mean_recall(Counts.of(matrix)) == pytest.approx(recall_score(truth, predicted, **macro))
    assert scores.dice(Counts.of(matrix)) == pytest.approx(f1_score(truth, predicted, **macro))
    weighted = jaccard_score(truth, predicted, average="weighted", **counted)
    assert scores.frequency_weighted_iou(Counts.of(matrix)) == pytest.approx(weighted)


def test_nothing_labelled_has_no_score():
    for score in ALL_SCORES.values():
        assert np.isnan(score(np.zeros((3, 3), int)))
    assert np.isnan(scores.clothing_miou(Counts.of(np.diag([4, 0, 0]))))


def test_many_matrices_are_scored_as_one_by_one():
    many = np.random.default_rng(1).integers(0, 9, (4, 3, 5, 5))
    many[1, 2] = 0
    many[0, 0, 3] = 0
    for score in scores.SCORES.values():
        together = score(Counts.of(many))
        assert together.shape == (4, 3)
        np.testing.assert_allclose(together, [[score(Counts.of(one)) for one in row] for row in many])
    assert scores.class_iou(Counts.of(many)).shape == (4, 3, 5)
    assert scores.every(Counts.of(WORKED)).keys() == ALL_SCORES.keys()
