from __future__ import annotations

import numpy as np
import pytest

from clothseg.data.labels import CLASS_NAMES
from clothseg.errors import UserError
from clothseg.palette import PALETTE, colorize, lab, palette


def closest(colours):
    points = lab(colours)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return distances[np.triu_indices(len(points), 1)].min()


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20))],
)
def test_lab_of_known_colours(rgb, expected):
    np.testing.assert_allclose(lab(np.array(rgb)), expected, atol=0.02)


def test_one_colour_per_class_and_all_differ_to_the_eye():
    assert PALETTE.shape == (len(CLASS_NAMES), 3) and PALETTE.dtype == np.uint8
    assert closest(PALETTE) > 28.4


def test_background_is_a_quiet_grey():
    lightness, *chroma = lab(PALETTE[0])
    assert 80 < lightness < 95
    assert np.hypot(*chroma) < 3


def test_the_palette_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        PALETTE[0] = 0


def test_59_classes_get_the_fixed_palette():
    np.testing.assert_array_equal(palette(59), PALETTE)


@pytest.mark.parametrize("classes", [1, 2, 18, 58])
def test_fewer_classes_get_colours_of_the_palette_at_least_as_far_apart(classes):
    colours = palette(classes)
    assert colours.shape == (classes, 3) and colours.dtype == np.uint8
    assert {tuple(colour) for colour in colours} <= {tuple(colour) for colour in PALETTE}
    assert tuple(colours[0]) == tuple(PALETTE[0])
    if 1 < classes < 20:
        assert closest(colours) > 38


def test_more_classes_extend_the_palette_always_the_same_way():
    colours = palette(150)
    np.testing.assert_array_equal(colours[:59], PALETTE)
    np.testing.assert_array_equal(colours[:100], palette(100))
    assert colours.shape == (150, 3) and colours.dtype == np.uint8
    assert closest(colours) > 10
    assert len(np.unique(palette(255), axis=0)) == 255


@pytest.mark.parametrize("classes", [0, 257])
def test_an_impossible_number_of_classes_is_named(classes):
    with pytest.raises(UserError, match=f"palette of {classes} colours.*1 to 255"):
        palette(classes)


def test_colorize_gives_every_label_its_colour():
    labels = np.array([[0, 58, 3], [3, 0, 1]], np.uint8)
    picture = colorize(labels)
    assert picture.shape == (2, 3, 3) and picture.dtype == np.uint8
    for place in np.ndindex(labels.shape):
        np.testing.assert_array_equal(picture[place], PALETTE[labels[place]])


def test_colorize_takes_another_palette_and_refuses_a_label_without_colour():
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    np.testing.assert_array_equal(colorize(np.array([[1]]), colours), [[[4, 5, 6]]])
    with pytest.raises(IndexError):
        colorize(np.array([[2]]), colours)
