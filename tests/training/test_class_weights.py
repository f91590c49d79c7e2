"""Class weights are the published ones, tempered as asked, and 1 on average over the training set's pixels."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.training.class_weights import ClassFrequencies, effective_number, median_frequency, weights_by_name

# Three photos of 100 pixels: the background and skirts are in all of them, a belt in one; nobody wears a cape.
PIXELS = np.array([240, 50, 10, 0])
FREQUENCIES = ClassFrequencies(PIXELS, photo_pixels=np.array([300, 300, 100, 0]))
PLAIN = {"beta": 0.99, "power": 1.0, "maximum": None}


def ratios(weights: np.ndarray) -> np.ndarray:
    return weights[:3] / weights[0]


def test_median_frequency_is_the_inverse_share_in_the_photos_that_have_the_class():
    # Shares 0.8, 1/6 and 0.1; their median over each is 1/6 / 0.8, 1 and 1/6 / 0.1.
    assert ratios(median_frequency(PIXELS, FREQUENCIES.photo_pixels)) == pytest.approx([1, 0.8 * 6, 8], rel=1e-6)


def test_effective_number_is_the_published_formula():
    expected = np.array([(1 - 0.99) / (1 - 0.99**n) for n in (240, 50, 10)])
    assert ratios(effective_number(PIXELS, beta=0.99)) == pytest.approx(expected / expected[0], rel=1e-6)


@pytest.mark.parametrize(("beta", "expected"), [(0, [1, 1, 1]), (1, [1, 4.8, 24]), (1 - 1e-12, [1, 4.8, 24])])
def test_effective_number_goes_from_equal_to_inverse_weights(beta, expected):
    assert ratios(effective_number(PIXELS, beta=beta)) == pytest.approx(expected, rel=1e-6)


def test_effective_number_keeps_its_digits_where_pixels_are_many():
    # There 1 - beta**5 is a difference in the last digits of 1.
    weights = effective_number(np.array([10**9, 5, 10]), beta=1 - 1e-15)
    assert weights[1] / weights[2] == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("name", ["effective_number", "median_frequency"])
@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("maximum", [None, 2.0])
def test_weights_are_1_on_average_over_pixels_and_0_for_absent_classes(name, power, maximum):
    weights = weights_by_name(FREQUENCIES, name, beta=0.99, power=power, maximum=maximum)
    assert weights.dtype == np.float32 and weights.shape == (4,)
    assert (weights * PIXELS).sum() / PIXELS.sum() == pytest.approx(1)
    assert weights[3] == 0 and weights[2] >= weights[1] > weights[0] > 0


def test_power_tempers():
    weights = weights_by_name(FREQUENCIES, "median_frequency", **{**PLAIN, "power": 0.5})
    assert ratios(weights) == pytest.approx([1, 4.8**0.5, 8**0.5], rel=1e-6)
    assert weights_by_name(FREQUENCIES, "median_frequency", **{**PLAIN, "power": 0})[:3] == pytest.approx([1, 1, 1])


def test_maximum_caps_how_many_times_the_lightest_a_class_weighs():
    weights = weights_by_name(FREQUENCIES, "median_frequency", **{**PLAIN, "maximum": 5})
    assert ratios(weights) == pytest.approx([1, 4.8, 5], rel=1e-6)


def test_no_name_is_no_weights():
    assert weights_by_name(FREQUENCIES, None, **PLAIN) is None


def test_a_set_without_labelled_pixels_weighs_nothing():
    none = ClassFrequencies(*[np.zeros(4, np.int64)] * 2)
    for name in ("effective_number", "median_frequency"):
        assert weights_by_name(none, name, **{**PLAIN, "maximum": 5}).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("median_freq", {}, "class_weights=median_freq does not exist: did you mean median_frequency?"),
        (3, {}, "class_weights=3 does not exist: it may be null, effective_number or median_frequency"),
        ("median_frequency", {"power": 2}, "power=2 of a loss does not work: it may be a number of 0 to 1"),
        ("median_frequency", {"maximum": 0.5}, "maximum=0.5 of a loss does not work: it may be a number of at least 1"),
        ("effective_number", {"beta": "high"}, "beta=high of a loss does not work: it may be a number of 0 to 1"),
        ("effective_number", {"beta": float("nan")}, "beta=nan"),
        ("median_frequency", {"beta": 2}, "beta=2 of a loss does not work"),
        (None, {"maximum": "much"}, "maximum=much of a loss does not work"),
    ],
)
def test_wrong_options_are_named(name, change, message):
    with pytest.raises(UserError) as told:
        weights_by_name(FREQUENCIES, name, **{**PLAIN, **change})
    assert message in str(told.value)
