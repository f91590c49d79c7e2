"""A data set of one's own is two folders and a list of classes, and what does not fit together is told by name."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

from clothseg.data.paired import PairedFolders
from clothseg.data.prepared import prepare
from clothseg.data.source import DataError, Source
from clothseg.data.split import Split, split

CLASSES = ["background", "coat", "hat"]


def draw(root, name: str, *, value: int = 1, labels: np.ndarray | None = None, suffix: str = ".png") -> None:
    for folder in ("photos", "labels"):
        (root / folder).mkdir(exist_ok=True)
    Image.new("RGB", (4, 6), (10 * value, 20, 30)).save(root / "photos" / f"{name}{suffix}")
    labels = np.full((6, 4), value, np.uint8) if labels is None else labels
    Image.fromarray(labels).save(root / "labels" / f"{name}.png")


def source(root, **options) -> PairedFolders:
    return PairedFolders(
        **{"name": "own", "root": root, "photos": "photos", "labels": "labels", "classes": CLASSES} | options
    )


@pytest.fixture
def root(tmp_path):
    draw(tmp_path, "b 2", value=2)
    draw(tmp_path, "a.1", value=1)
    return tmp_path


def test_photos_and_label_images_of_one_name_belong_together(root):
    made = source(root)
    assert isinstance(made, Source)
    assert made.names() == ("a.1", "b 2") and made.problems() == {}
    assert made.class_names == ("background", "coat", "hat")
    for name, value in (("a.1", 1), ("b 2", 2)):
        photo, labels = made.read(name)
        assert photo.shape == (6, 4, 3) and (photo == (10 * value, 20, 30)).all()
        assert labels.dtype == np.uint8 and (labels == value).all()


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp", ".bmp", ".TIF"])
def test_photos_are_of_any_usual_format(root, suffix):
    draw(root, "c", suffix=suffix)
    (root / "photos" / "notes.txt").write_text("no photo")
    (root / "photos" / ".c.jpg").write_text("hidden")
    assert source(root).names() == ("a.1", "b 2", "c")
    assert source(root).read("c")[0].shape == (6, 4, 3)


def test_classes_may_be_in_a_file(root):
    (root / "classes.txt").write_text("background\n coat \n\nhat\n", encoding="utf-8-sig")
    assert source(root, classes="classes.txt").class_names == ("background", "coat", "hat")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["background"], "needs 2 to 255 class names.*; it has 1 of them"),
        (["background", "coat", "coat"], "it has coat twice"),
        ([f"class {number}" for number in range(256)], "it has 256 of them"),
        ("nowhere.txt", r"dataset.classes=nowhere.txt: .*nowhere.txt cannot be read as text"),
    ],
)
def test_class_names_that_cannot_be_are_told(root, classes, told):
    with pytest.raises(DataError, match=told):
        _ = source(root, classes=classes).class_names


def test_what_lacks_its_partner_or_is_there_twice_is_a_problem_with_its_name(root):
    draw(root, "c")
    draw(root, "d")
    (root / "labels" / "c.png").unlink()
    (root / "photos" / "d.png").unlink()
    Image.new("RGB", (4, 6)).save(root / "photos" / "a.1.jpg")
    (root / "labels" / "b 2.png").write_bytes(b"")
    assert source(root).problems() == {
        "a.1": "a.1.jpg and a.1.png are two photos of one name",
        "b 2": "b 2.png is empty",
        "c": "c.png is missing",
        "d": "d.jpg is missing",
    }


def test_folders_without_pairs_are_told_with_what_is_in_them(root, tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be listed"):
        source(root, photos="nowhere").names()
    (root / "more").mkdir()
    with pytest.raises(DataError, match=r"first: a.1.png\) has a label image in .*more \(first: none\)"):
        source(root, labels="more").names()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros((6, 5), np.uint8), "c.png and c.png differ in size: 6 x 4 and 6 x 5"),
        (np.zeros((6, 4, 3), np.uint8), "c.png is of mode RGB; labels need one 8-bit channel"),
    ],
)
def test_labels_that_do_not_fit_are_refused_by_name(root, labels, told):
    draw(root, "c", labels=labels)
    with pytest.raises(DataError, match=told):
        source(root).read("c")


def test_a_changed_file_is_another_state(root):
    before = source(root).identity()
    assert before == source(root).identity()
    draw(root, "a.1", labels=np.random.default_rng(0).integers(0, 3, (6, 4), np.uint8))
    assert source(root).identity() != before


@pytest.mark.parametrize("name", ["a photo", "Kleid – été 服", "two\nlines", "%s{}$[x]", "-rf", "a" * 200])
def test_any_file_name_goes_through_preparation_and_split(root, tmp_path, name):
    draw(root, name)
    done = prepare(
        source(root), image_size=(8, 8), resize="squash", label_resize="nearest", cache=tmp_path / "cache",
        skip_invalid=False, workers=1,
    )  # fmt: skip
    assert name in done.names
    parts = split(done.names, validation=0.3, test=0, random_state=0, groups=None)
    parts.write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json", done.names).names() == parts.names()
    (root / "photos" / f"{name}.png").write_bytes(b"no photo")
    with pytest.raises(DataError) as caught:
        prepare(
            source(root), image_size=(8, 8), resize="squash", label_resize="nearest", cache=tmp_path / "cache",
            skip_invalid=False, workers=1,
        )  # fmt: skip
    assert "\n" not in str(caught.value) and "1 of 3 examples" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_told_before_a_report_cannot_be_written(root):
    draw(root, os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"'.*caf\\udce9\.png' has a name that is not UTF-8; rename it"):
        source(root).names()


def test_photos_and_labels_may_be_symlinks_and_dangling_ones_are_missing(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in ("photos", "labels"):
        (root / folder / "a.1.png").rename(elsewhere / f"{folder}.png")
        (root / folder / "a.1.png").symlink_to(elsewhere / f"{folder}.png")
    assert source(root).problems() == {} and (source(root).read("a.1")[1] == 1).all()
    (elsewhere / "labels.png").unlink()
    assert source(root).problems() == {"a.1": "a.1.png is missing"}


def test_a_symlink_to_itself_is_told(root):
    (root / "labels" / "a.1.png").unlink()
    (root / "labels" / "a.1.png").symlink_to("a.1.png")
    with pytest.raises(DataError, match=r"labels cannot be listed: .*a\.1\.png"):
        source(root).names()


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_a_name_that_no_folder_can_have_is_refused(root, name):
    with pytest.raises(DataError, match="dataset.name="):
        source(root, name=name)
