"""Intervals are those that theory gives where it gives any, and a difference is told from chance."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.evaluation.bootstrap import bootstrap
from clothseg.training import scores
from clothseg.training.scores import Counts


def photos(rate: float, *, count: int = 200, seed: int = 0) -> np.ndarray:
    """Confusion matrices of photos of 100 pixels, half background; a photo is all right with this probability."""
    right = np.random.default_rng(seed).random(count) < rate
    return np.where(right[:, None, None], [[50, 0], [0, 50]], [[0, 50], [50, 0]])


def test_values_are_the_scores_of_all_photos_together():
    random = np.random.default_rng(3)
    confusions = random.integers(0, 50, (30, 4, 4))
    draws = bootstrap([[confusions]], draws=10, seed=0)
    for name, value in scores.every(Counts.of(confusions.sum(axis=0))).items():
        assert draws.values[name].tolist() == [pytest.approx(value)]
        assert draws.drawn[name].shape == (10, 1)


def test_the_interval_of_an_accuracy_is_that_of_a_binomial():
    confusions = photos(0.7)
    interval = bootstrap([[confusions]], draws=4000, seed=0).interval("accuracy", 0, confidence=0.95)
    half = 1.96 * np.sqrt(interval.value * (1 - interval.value) / 200)
    assert interval.low == pytest.approx(interval.value - half, abs=0.006)
    assert interval.high == pytest.approx(interval.value + half, abs=0.006)


def test_a_small_difference_on_the_same_photos_is_seen_since_they_are_drawn_together():
    base = photos(0.7)
    better = base.copy()
    better[:, 0] = np.where(base[:, :1, 0] > 0, base[:, 0], [2, 48])  # two more pixels right in every wrong photo
    difference = bootstrap([[base], [better]], draws=1000, seed=0).difference("accuracy", 1, 0, confidence=0.95)
    assert difference.real and difference.p < 0.01 and 0 < difference.low < difference.value < difference.high
    # Much less than what either accuracy varies by.
    assert difference.high - difference.low < 0.005


def test_nothing_is_no_difference():
    base = photos(0.7)
    same = bootstrap([[base], [base]], draws=200, seed=0).difference("miou", 1, 0, confidence=0.95)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1) and not same.real
    # Two networks that are right in other photos, equally often: seldom taken for different.
    found = 0
    for seed in range(40):
        pair = [[photos(0.5, seed=2 * seed)], [photos(0.5, seed=2 * seed + 1)]]
        found += bootstrap(pair, draws=400, seed=seed).difference("accuracy", 1, 0, confidence=0.95).real
    assert found <= 6


def test_seeds_that_differ_widen_the_interval():
    one, other = photos(0.6), photos(0.8)
    alone = bootstrap([[one], [other]], draws=1000, seed=0).difference("accuracy", 1, 0, confidence=0.95)
    seeds = bootstrap([[one, other], [other, one]], draws=1000, seed=0).difference("accuracy", 1, 0, confidence=0.95)
    assert alone.real and not seeds.real and seeds.value == pytest.approx(0)
    assert seeds.high - seeds.low > alone.high - alone.low


def test_the_same_seed_draws_the_same():
    confusions = photos(0.7)
    first, again, other = (bootstrap([[confusions]], draws=700, seed=seed).drawn["miou"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_classes_that_are_in_one_photo_are_in_every_draw():
    # Every fifth photo has a class of its own, of which half is found.
    confusions = np.zeros((60, 14, 14), int)
    confusions[:, 0, 0] = 100
    confusions[:, 1, 1] = np.random.default_rng(0).integers(0, 50, 60)
    for kind in range(2, 14):
        confusions[5 * (kind - 2), kind, [kind, 0]] = 20
    draws = bootstrap([[confusions], [confusions]], draws=300, seed=0)
    for score in scores.every(Counts.of(confusions.sum(axis=0))):
        interval = draws.interval(score, 0, confidence=0.9)
        assert not np.isnan(draws.drawn[score]).any()
        assert interval.low <= interval.value <= interval.high, score
    assert draws.difference("clothing_miou", 1, 0, confidence=0.9).p == 1


def test_a_score_that_nothing_is_known_of_has_no_interval():
    confusions = np.array([[[9, 0], [0, 0]], [[9, 0], [0, 0]]])
    interval = bootstrap([[confusions]], draws=10, seed=0).interval("clothing_accuracy", 0, confidence=0.9)
    assert all(np.isnan(value) for value in (interval.value, interval.low, interval.high))
