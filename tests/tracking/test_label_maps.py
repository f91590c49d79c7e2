"""The model that MLflow keeps brings photos to its network as they were brought in training."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from clothseg.data import prepared
from clothseg.tracking import label_maps


def model() -> label_maps.LabelMaps:
    """Its network says of every other pixel which colour is the strongest there."""
    photo = keras.Input((16, 16, 3))
    found = label_maps.LabelMaps()
    found.network = keras.Model(photo, keras.layers.AveragePooling2D(2)(photo))
    return found


@pytest.mark.parametrize("resize", ["pad", "squash"])
@pytest.mark.parametrize("size", [(40, 20), (20, 40), (64, 64), (7, 31)])
def test_photos_of_any_shape_get_labels_at_their_places(size, resize):
    height, width = size
    photo = np.zeros((1, height, width, 3), np.uint8)
    expected = np.zeros((height, width), np.uint8)
    expected[: height // 2, width // 2 :], expected[height // 2 :, : width // 2] = 1, 2
    photo[0] = 200 * np.eye(3, dtype=np.uint8)[expected]
    labels = model().predict(SimpleNamespace(model_config={"resize": resize}), photo)
    assert labels.shape == (1, height, width) and labels.dtype == np.uint8
    # All but the pixels beside an edge between two colours.
    assert (labels[0] == expected).mean() > (0.6 if min(size) < 10 else 0.85)


@pytest.mark.parametrize("own", [(825, 550), (550, 825), (100, 100), (3, 700)])
def test_a_photo_is_padded_as_in_training(own):
    assert label_maps._frame(own, (96, 64), resize="pad") == prepared.frame_of(own, (96, 64), resize="pad")
    assert label_maps._frame(own, (96, 64), resize="squash") == (0, 0, 96, 64)
    assert label_maps.PADDING == prepared.PADDING


def test_photos_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 4, 3\)"):
        model().predict(SimpleNamespace(model_config={}), np.zeros((4, 4, 3), np.uint8))
