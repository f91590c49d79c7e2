"""Class groups send every class where they say, and each mistake in them is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.data.groups import Grouped, group_labels, grouped
from clothseg.data.labels import CLASS_NAMES, IGNORE
from clothseg.data.prepared import Prepared
from clothseg.errors import UserError

CLASSES = ("background", "hat", "coat", "shoes", "ring")
GROUPS = {"background": ["background"], "clothes": ["coat", "shoes"], "ignore": ["ring"], "head": ["hat"]}
LABELS = np.array([[[0, 1], [2, 3]], [[4, 255], [1, 1]], [[0, 0], [3, 4]]], np.uint8)
SEEN = np.array([[[0, 2], [1, 1]], [[255, 255], [2, 2]], [[0, 0], [1, 255]]], np.uint8)


def prepared() -> Prepared:
    return Prepared(
        name="three photos",
        photos=np.zeros((3, 2, 2, 3), np.uint8),
        labels=LABELS,
        pixels=np.array([[1, 1, 1, 1, 0], [0, 2, 0, 0, 1], [2, 0, 0, 1, 1]]),
        frames=np.array([[0, 0, 2, 2]] * 3),
        names=("a", "b", "c"),
        class_names=CLASSES,
        fingerprint="fingerprint",
        folder=Path("folder"),
        skipped=(),
    )


def test_groups_are_numbered_in_order_and_ignored_ones_are_not():
    names, table = group_labels(CLASSES, GROUPS, rest=None)
    assert names == ("background", "clothes", "head")
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert table[:5].tolist() == [0, 2, 1, 1, IGNORE]
    assert (table[5:] == IGNORE).all()


def test_the_rest_goes_where_it_is_told_to():
    names, table = group_labels(CLASSES, {"background": ["background"], "person": None}, rest="person")
    assert names == ("background", "person")
    assert table[:5].tolist() == [0, 1, 1, 1, 1]
    groups = {"background": ["background"], "all": ["hat", "coat"], "ignore": []}
    _, table = group_labels(CLASSES, groups, rest="ignore")
    assert table[:5].tolist() == [0, 1, 1, IGNORE, IGNORE]


@pytest.mark.parametrize(
    ("groups", "rest", "message"),
    [
        (GROUPS | {"head": ["hatt"]}, None, r"groups\.head has hatt, which is unknown: did you mean hat\?"),
        (GROUPS | {"head": ["hat", "coat"]}, None, "has coat in clothes and in head"),
        ({"background": ["background", "hat"]}, None, "no group for coat, shoes, ring; list what is missing"),
        (GROUPS, "cloths", "rest=cloths which is unknown: did you mean clothes"),
        (GROUPS | {"shoe": []}, None, r"groups\.shoe has no classes"),
        ({"ignore": []}, "ignore", "no group to train on"),
        ({"coat": ["coat"], "none": []}, "none", "has background in none; it has to be in the first group, here coat"),
        ({"ignore": ["background"], "all": []}, "all", "has background in ignore; it has to be in the first group"),
    ],
)
def test_mistakes_are_named(groups, rest, message):
    with pytest.raises(UserError, match=message):
        group_labels(CLASSES, groups, rest=rest)


def test_the_view_reads_as_an_array_of_new_labels():
    view = Grouped(LABELS, group_labels(CLASSES, GROUPS, rest=None)[1])
    assert (view.shape, view.dtype, view.ndim, len(view)) == (LABELS.shape, np.uint8, 3, 3)
    for index in (1, np.int64(2), slice(1, None), [2, 0], np.array([2, 2, 1]), np.array([True, False, True]), (0, 1)):
        np.testing.assert_array_equal(view[index], SEEN[index])
    np.testing.assert_array_equal(np.asarray(view), SEEN)
    np.testing.assert_array_equal(np.stack(list(view)), SEEN)


def test_labels_on_disk_stay_there(tmp_path):
    np.save(tmp_path / "labels.npy", LABELS)
    on_disk = np.load(tmp_path / "labels.npy", mmap_mode="r")
    view = Grouped(on_disk, group_labels(CLASSES, GROUPS, rest=None)[1])
    np.testing.assert_array_equal(view[[1]], SEEN[[1]])
    assert type(view[0]) is np.ndarray
    np.testing.assert_array_equal(on_disk, LABELS)


def test_a_prepared_data_set_is_grouped_and_known_by_it():
    whole = prepared()
    few = grouped(whole, GROUPS, rest=None)
    assert few.class_names == ("background", "clothes", "head")
    np.testing.assert_array_equal(few.labels[:], SEEN)
    assert few.pixels.tolist() == [[(seen == number).sum() for number in range(3)] for seen in SEEN]
    assert few.photos is whole.photos and few.names == whole.names
    other = grouped(whole, {"background": ["background"], "person": []}, rest="person")
    assert len({whole.fingerprint, few.fingerprint, other.fingerprint}) == 3
    assert grouped(prepared(), GROUPS, rest=None).fingerprint == few.fingerprint


def test_without_groups_nothing_changes():
    whole = prepared()
    assert grouped(whole, None, rest=None) is whole
    with pytest.raises(UserError, match="rest=person needs"):
        grouped(whole, None, rest="person")


@pytest.mark.parametrize(
    ("name", "count", "examples"),
    [
        ("atr18", 13, {"jeans": "pants", "coat": "upper-clothes", "heels": "shoe", "glasses": "sunglasses"}),
        ("nine", 9, {"skirt": "bottoms", "coat": "outerwear", "hat": "accessories", "romper": "dresses"}),
        ("three", 3, {"skin": "person", "hair": "person", "ring": "clothes", "wedges": "clothes"}),
        ("person", 2, {"skin": "person", "coat": "person"}),
    ],
)
def test_what_can_be_chosen_holds_every_class_of_ccp(name, count, examples):
    options = OmegaConf.to_container(OmegaConf.load(entry.config_folder() / "label_groups" / f"{name}.yaml"))
    assert options["name"] == name
    names, table = group_labels(CLASS_NAMES, options["groups"], rest=options["rest"])
    assert len(names) == count
    assert names[0] == "background" and table[0] == 0
    assert set(table[: len(CLASS_NAMES)].tolist()) - {IGNORE} == set(range(count))
    assert (IGNORE in table[: len(CLASS_NAMES)]) == (name == "atr18")
    for class_name, group in examples.items():
        assert names[table[CLASS_NAMES.index(class_name)]] == group
