from __future__ import annotations

import numpy as np

from clothseg.data.survey import class_counts


def test_pixels_and_photos_of_every_class_are_counted_in_the_rows_asked_for():
    labels = np.array([[[0, 0], [1, 2]], [[0, 1], [1, 1]], [[3, 3], [3, 3]]], np.uint8)
    pixels, photos = class_counts(labels, [0, 1], classes=5)
    assert pixels.tolist() == [3, 4, 1, 0, 0]
    assert photos.tolist() == [2, 2, 1, 0, 0]
