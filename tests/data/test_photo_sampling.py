"""Rare classes are shown more often, by how much is told, and a pass stays as long as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.data.sampling import draw, repeat_factor, uniform
from clothseg.errors import UserError

# Shares of the photos: 1, 1/4, 1/2, and a class that is nowhere.
PIXELS = np.array([[9, 0, 0, 0], [8, 1, 0, 0], [7, 0, 2, 0], [5, 0, 4, 0]])


def test_uniform_has_no_weights():
    assert uniform(PIXELS) is None


def test_repeat_factors_are_those_of_the_paper():
    # Factors of the classes at threshold 1: 1, 2, sqrt(2).
    expected = np.array([1, 2, np.sqrt(2), np.sqrt(2)])
    weights = repeat_factor(PIXELS, threshold=1.0, maximum=None)
    np.testing.assert_allclose(weights, expected / expected.mean())
    assert weights.mean() == pytest.approx(1)
    # At 1/2 the second class alone is rare: sqrt(1/2 / 1/4).
    expected = np.array([1, np.sqrt(2), 1, 1])
    np.testing.assert_allclose(
        repeat_factor(PIXELS, threshold=0.5, maximum=None), expected / expected.mean(), rtol=1e-12
    )


def test_factors_end_at_their_maximum():
    expected = np.array([1, 1.5, np.sqrt(2), np.sqrt(2)])
    np.testing.assert_allclose(repeat_factor(PIXELS, threshold=1.0, maximum=1.5), expected / expected.mean())
    np.testing.assert_array_equal(repeat_factor(PIXELS, threshold=1.0, maximum=1), np.ones(4))


def test_where_no_class_is_rare_photos_are_equal():
    np.testing.assert_array_equal(repeat_factor(PIXELS, threshold=0.25, maximum=None), np.ones(4))


def test_a_photo_without_any_class_counts_as_one_without_rare_ones():
    weights = repeat_factor(np.array([[0, 0], [1, 0], [1, 1]]), threshold=1.0, maximum=None)
    # Shares 2/3 and 1/3.
    np.testing.assert_allclose(weights / weights[0], [1, np.sqrt(3 / 2), np.sqrt(3)])


def test_options_out_of_their_range_are_told():
    for threshold in (0, 1.1, float("nan"), "half"):
        with pytest.raises(UserError, match=f"sampling.threshold={threshold} "):
            repeat_factor(PIXELS, threshold=threshold, maximum=None)
    for maximum in (0.5, "all"):
        with pytest.raises(UserError, match=f"sampling.maximum={maximum} "):
            repeat_factor(PIXELS, threshold=0.1, maximum=maximum)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_equal_weights_draw_everything_once_in_random_order(weight):
    drawn = draw(np.full(500, weight), 500, np.random.default_rng(0))
    assert sorted(drawn) == list(range(500))
    assert not np.array_equal(drawn, np.arange(500))
    assert drawn.dtype == np.int64


def test_every_example_is_drawn_its_share_rounded_down_or_up():
    weights = np.array([0, 0.5, 1, 2.25, 1.25, 3])
    expected = weights / weights.sum() * 20  # 0, 1.25, 2.5, 5.625, 3.125, 7.5
    counts = np.array(
        [np.bincount(draw(weights, 20, np.random.default_rng(seed)), minlength=6) for seed in range(2000)]
    )
    assert (counts.sum(axis=1) == 20).all()
    assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.06)


def test_neighbours_are_drawn_independently():
    # Without a random order before drawing it would always be one of each pair.
    drawn = [set(draw(np.ones(4), 2, np.random.default_rng(seed)).tolist()) for seed in range(300)]
    assert {frozenset(pair) for pair in drawn} == {frozenset((a, b)) for a in range(4) for b in range(a)}


def test_draws_depend_on_nothing_but_the_generator():
    weights = np.random.default_rng(1).random(50)
    first, again, other = (draw(weights, 70, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_can_be_chosen_works():
    def chosen(name):
        with execution_whitelist(entry.TARGETS):
            return entry.build(OmegaConf.load(entry.config_folder() / "sampling" / f"{name}.yaml"))

    assert chosen("uniform")(PIXELS) is None
    np.testing.assert_allclose(chosen("repeat_factor")(np.eye(20, dtype=int)), np.ones(20))
