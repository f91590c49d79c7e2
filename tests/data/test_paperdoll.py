from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clothseg.data.labels import BACKGROUND, CLASS_NAMES
from clothseg.data.paperdoll import Paperdoll, write_kaggle
from clothseg.data.source import DataError, Source
from clothseg.errors import UserError


def dolls(count: int = 3, size: tuple[int, int] = (64, 64), seed: int = 0) -> Paperdoll:
    return Paperdoll(count=count, image_size=size, seed=seed)


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    source = dolls(400, (32, 32))
    photos, labels = zip(*(source.read(name) for name in source.names()), strict=True)
    return np.stack(photos), np.stack(labels)


def test_it_is_a_source():
    source = dolls()
    assert isinstance(source, Source)
    assert source.names() == ("000001", "000002", "000003")
    assert source.problems() == {}
    assert source.class_names == CLASS_NAMES


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (40, 90), (97, 33), (32, 400)])
def test_any_size_is_drawn(size):
    photo, labels = dolls(1, size).read("000001")
    assert photo.shape == (*size, 3) and photo.dtype == np.uint8
    assert labels.shape == size and labels.dtype == np.uint8
    assert labels.max() < len(CLASS_NAMES)
    assert len(np.unique(labels)) > 3


def test_a_photo_depends_on_seed_number_and_size_alone():
    one, other = dolls(2), dolls(50)
    other.read("000001")
    for first, second in zip(one.read("000002"), other.read("000002"), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (one.read("000001")[0] != one.read("000002")[0]).any()
    assert (one.read("000001")[0] != dolls(seed=1).read("000001")[0]).any()


def test_a_larger_picture_shows_the_same_figure():
    small, large = dolls(1, (64, 64)).read("000001")[1], dolls(1, (192, 192)).read("000001")[1]
    assert np.mean(small == large[1::3, 1::3]) > 0.97


def test_identity_tells_data_sets_apart():
    variants = [dolls(), dolls(4), dolls(size=(64, 65)), dolls(seed=1)]
    assert len({json.dumps(source.identity()) for source in variants}) == 4
    assert dolls().identity() == dolls().identity()


def test_background_is_about_three_quarters(many):
    assert 0.72 < np.mean(many[1] == BACKGROUND) < 0.80


@pytest.mark.parametrize("size", [(48, 32), (64, 64)])
def test_background_share_holds_for_other_sizes(size):
    source = dolls(60, size)
    assert 0.70 < np.mean([np.mean(source.read(name)[1] == BACKGROUND) for name in source.names()]) < 0.82


def test_classes_are_as_uneven_as_in_the_real_data(many):
    present = np.mean([np.isin(range(len(CLASS_NAMES)), labels) for labels in many[1]], axis=0)
    share = dict(zip(CLASS_NAMES, present, strict=True))
    assert np.count_nonzero(present) >= 30
    assert min(share["skin"], share["hair"]) > 0.8
    for label in ("shoes", "pants", "jeans", "skirt", "dress", "top", "shirt", "coat", "jacket", "bag"):
        assert share[label] > 0.02, label
    assert np.count_nonzero((present > 0) & (present < 0.03)) >= 5


def test_clothes_go_together(many):
    bottoms = [CLASS_NAMES.index(label) for label in ("pants", "jeans", "skirt", "shorts", "leggings", "suit")]
    dress = CLASS_NAMES.index("dress")
    for labels in many[1]:
        worn = set(np.unique(labels).tolist())
        assert len(worn & set(bottoms[:4])) <= 1
        assert not (dress in worn and worn & set(bottoms[:4]))


def test_every_photo_shows_a_different_figure(many):
    assert len({labels.tobytes() for labels in many[1]}) == len(many[1])


def test_photo_and_labels_are_aligned():
    # Where the label changes the photo changes: edges of the labels are edges of the photo.
    source = dolls(20)
    on, off = [], []
    for name in source.names():
        photo, labels = source.read(name)
        step = np.abs(np.diff(photo.astype(float), axis=1)).mean(axis=2)
        edge = np.diff(labels.astype(int), axis=1) != 0
        on.append(step[edge].mean())
        off.append(step[~edge].mean())
    assert np.mean(on) > 3 * np.mean(off)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"count": 0}, "count=0"),
        ({"count": 1_000_000}, "count=1000000"),
        ({"size": (31, 64)}, r"image_size=\[31, 64\]"),
        ({"size": (64,)}, r"image_size=\[64\]"),
        ({"size": (8193, 64)}, r"image_size=\[8193, 64\]"),
        ({"size": (64.5, 64)}, r"image_size=\[64\.5, 64\]"),
        ({"size": ("64", "64")}, r"image_size=\['64', '64'\]"),
        ({"size": (float("inf"), 64)}, r"image_size=\[inf, 64\]"),
        ({"size": (True, 64)}, r"image_size=\[True, 64\]"),
        ({"size": 64}, "image_size=64"),
        ({"size": None}, "image_size=None"),
        ({"count": True}, "count=True"),
        ({"count": 3.0}, "count=3.0"),
        ({"count": "3"}, "count=3"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"seed": None}, "seed=None"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_wrong_arguments_are_named(wrong, named):
    with pytest.raises(UserError, match=named):
        dolls(**wrong)


@pytest.mark.parametrize("name", ["000000", "000004", "1", "photo"])
def test_an_unknown_name_is_an_error(name):
    with pytest.raises(DataError, match=f"'{name}'"):
        dolls(3).read(name)


def test_kaggle_layout_holds_the_same_pairs(tmp_path):
    source = dolls(2, (40, 32))
    write_kaggle(source, tmp_path / "set")
    for number, name in enumerate(source.names(), start=1):
        photo, labels = source.read(name)
        with Image.open(tmp_path / f"set/png_images/IMAGES/img_{number:04d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), photo)
        with Image.open(tmp_path / f"set/png_masks/MASKS/seg_{number:04d}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), labels)
    with (tmp_path / "set/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label_list"] for row in rows] == list(CLASS_NAMES)
    assert [int(row["index"]) for row in rows] == list(range(len(CLASS_NAMES)))


@pytest.mark.parametrize("there", ["labels.csv", "png_masks/MASKS/seg_0002.png"])
def test_kaggle_layout_overwrites_nothing(tmp_path, there):
    path = tmp_path / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(UserError, match="not overwritten"):
        write_kaggle(dolls(2), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


def test_kaggle_layout_in_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write to .*file"):
        write_kaggle(dolls(1), tmp_path / "file")


def test_importing_loads_no_heavy_library():
    heavy = ("tensorflow", "keras", "mlflow", "sklearn", "matplotlib")
    modules = "clothseg.data.paperdoll, clothseg.data.duplicates"
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
