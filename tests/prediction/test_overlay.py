"""An overlay tints clothes in the colours of their classes and leaves the rest as it is."""

from __future__ import annotations

import numpy as np

from clothseg.palette import palette
from clothseg.prediction.overlay import LONGEST, OPACITY, overlay

NAMES = ("background", "hat", "coat")


def test_clothes_are_tinted_and_the_background_is_not():
    photo = np.full((80, 60, 3), 100, np.uint8)
    labels = np.zeros((80, 60), np.uint8)
    labels[20:40] = 2
    picture = np.asarray(overlay(photo, labels, class_names=NAMES, colours=palette(3)))
    assert picture.shape[0] == 80 and picture.shape[1] > 60
    assert (picture[:20, :60] == 100).all()
    expected = (1 - OPACITY) * 100 + OPACITY * palette(3)[2]
    assert np.abs(picture[20:40, :60] - expected).max() <= 1
    # Beside it the legend has the colour itself.
    assert (picture[:, 60:] == palette(3)[2]).all(axis=-1).any()


def test_any_size_and_many_classes_fit():
    wide = overlay(
        np.zeros((50, 4000, 3), np.uint8), np.zeros((50, 4000), np.uint8), class_names=NAMES, colours=palette(3)
    )
    assert LONGEST / 2 < wide.width < LONGEST + 400
    labels = np.arange(59, dtype=np.uint8).repeat(60).reshape(59, 60)
    names = [f"class {number}" for number in range(59)]
    many = overlay(np.zeros((59, 60, 3), np.uint8), labels, class_names=names, colours=palette(59))
    assert many.height == 59 and many.width > 60 + 10 * 60
