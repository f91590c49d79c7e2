from __future__ import annotations

import numpy as np

from clothseg.data.labels import IGNORE
from clothseg.data.survey import pixels_by_photo


def test_pixels_of_every_class_are_counted_in_the_rows_asked_for_and_ignored_ones_nowhere():
    labels = np.array([[[0, 0], [1, 2]], [[3, 3], [3, 3]], [[0, 1], [1, IGNORE]]], np.uint8)
    pixels = pixels_by_photo(labels, [2, 0], classes=5)
    assert pixels.tolist() == [[1, 2, 0, 0, 0], [2, 1, 1, 0, 0]]
