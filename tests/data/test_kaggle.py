from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clothseg.data.kaggle import Kaggle
from clothseg.data.labels import CLASS_NAMES
from clothseg.data.source import DataError, Source


def draw_pair(root, number, labels=None, mode="RGB"):
    photos, masks = root / "png_images" / "IMAGES", root / "png_masks" / "MASKS"
    photos.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    labels = np.full((6, 4), number, np.uint8) if labels is None else labels
    Image.new("RGB", (4, 6), (number, 20, 30)).convert(mode).save(photos / f"img_{number:04}.png")
    Image.fromarray(labels).save(masks / f"seg_{number:04}.png")
    return photos / f"img_{number:04}.png", masks / f"seg_{number:04}.png"


@pytest.fixture
def root(tmp_path):
    for number in (2, 1):
        draw_pair(tmp_path, number)
    return tmp_path


def test_photos_and_masks_of_the_same_number_belong_together(root):
    source = Kaggle(root=root)
    assert isinstance(source, Source)
    assert source.names() == ("0001", "0002")
    assert source.problems() == {}
    for name in source.names():
        photo, labels = source.read(name)
        assert photo.shape == (6, 4, 3) and photo.dtype == np.uint8
        assert (photo == (int(name), 20, 30)).all()
        assert labels.dtype == np.uint8 and (labels == int(name)).all()


def test_a_photo_with_transparency_becomes_rgb(root):
    draw_pair(root, 3, mode="RGBA")
    assert (Kaggle(root=root).read("0003")[0] == (3, 20, 30)).all()


def test_of_a_palette_mask_the_indices_count(root):
    _, mask = draw_pair(root, 3)
    labels = np.array([[0, 1], [58, 3]], np.uint8).repeat(3, axis=0).repeat(2, axis=1)
    image = Image.fromarray(labels).convert("P")
    image.putpalette([255 - value // 3 for value in range(768)])
    image.save(mask)
    np.testing.assert_array_equal(Kaggle(root=root).read("0003")[1], labels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_a_mask_of_another_mode_is_refused_by_name(root, mode):
    _, mask = draw_pair(root, 3)
    Image.new(mode, (4, 6)).save(mask)
    with pytest.raises(DataError, match=r"seg_0003\.png is of mode .*one 8-bit channel"):
        Kaggle(root=root).read("0003")


def test_a_cut_off_mask_is_refused_by_name(root):
    _, mask = draw_pair(root, 3, labels=np.random.default_rng(0).integers(0, 59, (60, 40), np.uint8))
    mask.write_bytes(mask.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"seg_0003\.png cannot be read"):
        Kaggle(root=root).read("0003")


def test_sizes_that_differ_are_named(root):
    draw_pair(root, 3, labels=np.zeros((6, 5), np.uint8))
    with pytest.raises(DataError, match=r"img_0003.png and .*seg_0003.png differ in size: 6 x 4 and 6 x 5"):
        Kaggle(root=root).read("0003")


def test_missing_partners_and_empty_files_are_problems_with_names(root):
    (root / "png_images" / "IMAGES" / "img_0001.png").unlink()
    (root / "png_masks" / "MASKS" / "seg_0002.png").write_bytes(b"")
    assert Kaggle(root=root).problems() == {
        "0001": "png_images/IMAGES/img_0001.png is missing",
        "0002": "png_masks/MASKS/seg_0002.png is empty",
    }
    assert Kaggle(root=root).names() == ("0001", "0002")


def test_the_identity_changes_with_the_files(root):
    first = Kaggle(root=root).identity()
    assert Kaggle(root=root).identity() == first
    draw_pair(root, 3)
    assert Kaggle(root=root).identity() != first


def test_class_names_are_those_of_the_csv_file(root):
    assert Kaggle(root=root).class_names == CLASS_NAMES
    (root / "labels.csv").write_text("i,label_list\n0,\n1,hat\n2,t-shirt\n")
    assert Kaggle(root=root).class_names == ("background", "hat", "t-shirt")
    (root / "labels.csv").write_text("\ufefflabel_list\nnull\nhat\n", encoding="utf-8")
    assert Kaggle(root=root).class_names == ("background", "hat")


@pytest.mark.parametrize("text", ["", "name\na\nb\n", "i,label_list\n0,null\n1,\n2,hat\n", "label_list\nnull\n"])
def test_a_csv_file_without_class_names_is_refused(root, text):
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=r"labels\.csv needs a column label_list"):
        _ = Kaggle(root=root).class_names


def test_there_are_no_more_classes_than_label_values(root):
    # 255 is what is not labelled, which counts nowhere.
    (root / "labels.csv").write_text("label_list\n" + "".join(f"{place}\n" for place in range(255)))
    assert len(Kaggle(root=root).class_names) == 255
    (root / "labels.csv").write_text("label_list\n" + "".join(f"{place}\n" for place in range(256)))
    with pytest.raises(DataError, match="with 2 to 255 class names, .* it has 256"):
        _ = Kaggle(root=root).class_names


def test_a_folder_of_another_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not hold png_images/IMAGES/.*quickstart"):
        Kaggle(root=tmp_path / "absent").names()
