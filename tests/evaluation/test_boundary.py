"""Boundary F scores worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.data.labels import IGNORE
from clothseg.evaluation.boundary import TOLERANCE, BoundaryScores, boundary, matching_f

# The example of docs/metrics.md, whose tolerance is below one pixel.
WORKED_TRUTH = np.array([[0, 0, 1, 1, 0, 255], [0, 1, 1, 1, 0, 255], [0, 0, 1, 1, 0, 0], [0, 0, 2, 2, 0, 0]], np.uint8)
WORKED_PREDICTED = np.array([[0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 0], [0, 0, 1, 2, 0, 0], [0, 0, 2, 2, 2, 0]], np.uint8)


def scores(*photos: tuple[np.ndarray, np.ndarray], classes: int = 3) -> np.ndarray:
    found = BoundaryScores(classes, tolerance=TOLERANCE)
    for truth, predicted in photos:
        found.add(truth, predicted)
    return found.of_classes()


def square(top: int, left: int, *, size: int = 200, side: int = 60) -> np.ndarray:
    """A square of class 1 on background. Of 200 x 200 pixels the tolerance is 2.12 pixels."""
    labels = np.zeros((size, size), np.uint8)
    labels[top : top + side, left : left + side] = 1
    return labels


def test_a_worked_example():
    # Labelled shoes are (3, 2) and (3, 3), both on the boundary. Of the predicted ones (3, 3) is not: its neighbours
    # are shoes. Of three found one is right, of two wanted one is found.
    assert scores((WORKED_TRUTH, WORKED_PREDICTED))[2] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_equal_boundaries_score_one():
    truth = square(50, 70)
    np.testing.assert_array_equal(scores((truth, truth)), [1, 1, np.nan])


def test_boundaries_off_by_less_than_the_tolerance_score_one():
    np.testing.assert_array_equal(scores((square(50, 70), square(52, 70))), [1, 1, np.nan])


def test_boundaries_off_by_more_score_what_is_near():
    # Moved down by 3: top and bottom edges are too far, of the sides all but the first pixel lies on the other's sides
    # or near them. Both squares have 4 * 60 - 4 boundary pixels.
    truth, predicted = square(50, 70), square(53, 70)
    distance = np.sqrt(((np.argwhere(_edge(truth))[:, None] - np.argwhere(_edge(predicted))[None]) ** 2).sum(-1))
    reach = 0.0075 * np.hypot(200, 200)
    precision, recall = (distance.min(axis=0) <= reach).mean(), (distance.min(axis=1) <= reach).mean()
    assert 0 < recall < 1
    assert scores((truth, predicted))[1] == pytest.approx(2 * precision * recall / (precision + recall))


def _edge(labels: np.ndarray) -> np.ndarray:
    """The outline of class 1, one pixel after the other."""
    outline = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels == 1):
        outline[y, x] = any(labels[y + dy, x + dx] != 1 for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    return outline


def test_boundaries_far_apart_score_zero():
    np.testing.assert_array_equal(scores((square(10, 10), square(120, 120))), [0, 0, np.nan])


def test_a_class_that_is_not_predicted_scores_zero_and_one_that_is_not_labelled_does_not_count():
    truth, nothing = square(50, 70), np.zeros((200, 200), np.uint8)
    np.testing.assert_array_equal(scores((truth, nothing)), [0, 0, np.nan])
    np.testing.assert_array_equal(
        scores((nothing, truth)), [np.nan] * 3
    )  # a class that fills the photo has no boundary


def test_classes_are_averaged_over_the_photos_that_have_them():
    found, missed = square(50, 70), square(10, 10)
    assert scores((found, found), (missed, square(120, 120)))[1] == 0.5
    shoes = np.where(found == 1, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(scores((found, found), (shoes, shoes)), [1, 1, 1])


def test_points_exactly_as_far_as_allowed_match():
    assert matching_f([[0, 0]], [[3, 4]], reach=5.0) == 1
    assert matching_f([[0, 0]], [[3, 4]], reach=4.999) == 0
    assert matching_f([[0, 0]], np.empty((0, 2)), reach=5.0) == 0


def test_both_sides_of_a_boundary_are_on_it_but_not_the_photos_edge_nor_that_of_ignored_pixels():
    labels = np.array([[0, 0, 0, 1, 1, IGNORE, 0]], np.uint8)
    assert boundary(labels).tolist() == [[False, False, True, True, False, False, False]]
    assert boundary(labels.T).tolist() == boundary(labels).T.tolist()


def test_what_is_predicted_on_ignored_pixels_does_not_matter():
    truth = square(50, 70)
    truth[:20] = IGNORE
    predicted = square(50, 70)
    predicted[:15, 100:] = 2
    np.testing.assert_array_equal(scores((truth, predicted)), [1, 1, np.nan])
