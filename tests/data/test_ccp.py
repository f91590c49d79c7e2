from __future__ import annotations

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from clothseg.data import ccp
from clothseg.data.ccp import Ccp, fit_height, read_annotation
from clothseg.data.download import DownloadError
from clothseg.data.source import DataError, Source
from clothseg.errors import UserError

WIDTH = 8


def draw_pair(root, name, height=830, width=WIDTH, value=7):
    (root / "photos").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "pixel-level").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (200, 10 * value, 90)).save(root / "photos" / f"{name}.jpg")
    labels = np.full((height, width), value, np.uint8)
    scipy.io.savemat(root / "annotations" / "pixel-level" / f"{name}.mat", {"groundtruth": labels})


def source(root, pairing="name", subset="all", download=False):
    return Ccp(root=root, pairing=pairing, subset=subset, download=download)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("CLOTHSEG_DATA", raising=False)
    folder = tmp_path / "ccp"
    for number in (3, 1, 2):
        draw_pair(folder, f"{number:04}", height=824 + number, value=number)
    return folder


def test_it_is_a_source_with_the_59_classes(root):
    assert isinstance(source(root), Source)
    assert len(source(root).class_names) == 59


def test_photo_and_labels_of_the_same_name_belong_together_and_keep_their_size(root):
    assert source(root).names() == ("0001", "0002", "0003")
    for number in (1, 2, 3):
        photo, labels = source(root).read(f"{number:04}")
        assert photo.shape == (824 + number, WIDTH, 3) and photo.dtype == np.uint8
        assert labels.shape == (824 + number, WIDTH) and labels.dtype == np.uint8
        assert (labels == number).all()


def test_the_article_s_set_is_825_high(root):
    for name in source(root, subset="article").names():
        photo, labels = source(root, subset="article").read(name)
        assert photo.shape == (825, WIDTH, 3) and labels.shape == (825, WIDTH)


def test_the_article_s_set_is_the_first_thousand(root, monkeypatch):
    monkeypatch.setattr(ccp, "ARTICLE_PAIRS", 2)
    assert source(root, subset="article").names() == ("0001", "0002")


def test_a_set_smaller_than_the_article_s_is_said_to_be(root, caplog):
    source(root, subset="article").names()
    assert "holds 3 pairs; the article's set has 1000" in caplog.text


def test_a_height_is_cropped_at_its_centre_and_padded_around_it():
    rows = np.arange(1, 8, dtype=np.uint8)[:, None]
    assert fit_height(rows, 4)[:, 0].tolist() == [2, 3, 4, 5]
    assert fit_height(rows, 7)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert fit_height(rows[:2], 5)[:, 0].tolist() == [0, 1, 2, 0, 0]
    assert fit_height(np.ones((2, 3, 3), np.uint8), 5).sum(axis=(1, 2)).tolist() == [0, 9, 9, 0, 0]


def test_photos_with_image_level_tags_only_are_left_out(root):
    shutil.copy(root / "photos" / "0001.jpg", root / "photos" / "1005.jpg")
    assert source(root).names() == ("0001", "0002", "0003")
    assert source(root).problems() == {}


def test_missing_partners_and_empty_files_are_problems_with_names(root):
    (root / "photos" / "0001.jpg").unlink()
    (root / "annotations" / "pixel-level" / "0002.mat").unlink()
    (root / "photos" / "0003.jpg").write_bytes(b"")
    found = source(root)
    assert found.names() == ("0001", "0002", "0003")
    assert found.problems() == {
        "0001": "photos/0001.jpg is missing",
        "0002": "annotations/pixel-level/0002.mat is missing",
        "0003": "photos/0003.jpg is empty",
    }


def test_walking_zips_the_lists_as_the_file_system_gives_them(root):
    walked = source(root, pairing="walk", subset="article")
    photos, mats = (
        [file.split(".")[0] for file in next(os.walk(folder))[2]]
        for folder in (root / "photos", root / "annotations" / "pixel-level")
    )
    assert walked.names() == tuple(photos)
    assert sorted(photos) == ["0001", "0002", "0003"]
    for photo, mat in zip(photos, mats, strict=True):
        image, labels = walked.read(photo)
        assert image.shape[:2] == labels.shape == (825, WIDTH)
        assert labels.max() == int(mat)


def test_walking_can_put_a_photo_beside_the_labels_of_another(root, monkeypatch):
    listed = {"photos": ("0002", "0001", "0003"), "pixel-level": ("0003", "0002", "0001")}
    real = ccp.list_files

    def list_files(folder, suffix):
        files = real(folder, suffix)
        return {name: files[name] for name in listed[folder.name]}

    monkeypatch.setattr(ccp, "list_files", list_files)
    walked = source(root, pairing="walk", subset="article")
    assert walked.names() == ("0002", "0001", "0003")
    assert [walked.read(name)[1].max() for name in walked.names()] == [3, 2, 1]
    assert source(root).names() == ("0001", "0002", "0003")
    assert [source(root).read(f"000{n}")[1].max() for n in (1, 2, 3)] == [1, 2, 3]


def test_the_identity_changes_with_files_and_options_and_with_nothing_else(root, tmp_path):
    first = source(root).identity()
    assert source(root).identity() == first
    assert source(root, subset="article").identity() != first
    assert source(root, pairing="walk", subset="article").identity() != source(root, subset="article").identity()
    shutil.copytree(root, tmp_path / "moved")
    assert source(tmp_path / "moved").identity() == first
    draw_pair(root, "0002", height=826, value=9)
    assert source(root).identity() != first


def test_files_mended_after_a_first_look_count(root):
    found = source(root)
    kept = (root / "photos" / "0001.jpg").read_bytes()
    (root / "photos" / "0001.jpg").unlink()
    assert found.problems()
    (root / "photos" / "0001.jpg").write_bytes(kept)
    assert not found.problems()


def test_sizes_that_differ_are_named(root):
    draw_pair(root, "0004", height=830)
    Image.new("RGB", (WIDTH, 831)).save(root / "photos" / "0004.jpg")
    with pytest.raises(DataError, match=r"photos/0004.jpg .*0004.mat differ in size: 831 x 8 and 830 x 8"):
        source(root, subset="article").read("0004")


@pytest.mark.parametrize("kept", [0, 1, 200, 0.5, 0.95])
def test_a_photo_cut_off_anywhere_is_refused_by_name(root, kept):
    path = root / "photos" / "0001.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (825, WIDTH, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    source(root).read("0001")
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"0001\.jpg cannot be read as an image"):
        source(root).read("0001")


@pytest.mark.parametrize("kept", [0, 1, 100, 150, 0.5, 0.95])
def test_an_annotation_cut_off_anywhere_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "0001.mat"
    labels = np.random.default_rng(0).integers(0, 59, (50, 40), np.uint8)
    scipy.io.savemat(path, {"groundtruth": labels}, do_compression=True)
    np.testing.assert_array_equal(read_annotation(path), labels)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"0001\.mat cannot be read"):
        read_annotation(path)


@pytest.mark.parametrize(
    "labels", [np.full((4, 5), 300), np.full((4, 5), 0.5), np.full((4, 5), -1), "text", np.zeros(0)]
)
def test_an_annotation_without_whole_labels_is_refused(tmp_path, labels):
    scipy.io.savemat(tmp_path / "0001.mat", {"groundtruth": labels})
    with pytest.raises(DataError, match=r"0001\.mat holds"):
        read_annotation(tmp_path / "0001.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_of_a_type_that_there_is_not_are_refused_before_scipy_looks_it_up(tmp_path, monkeypatch, compressed):
    path = tmp_path / "0001.mat"
    scipy.io.savemat(path, {"groundtruth": np.ones((30, 40), np.uint8)})
    data = bytearray(path.read_bytes())
    # Flags, dimensions, name and the tag of the numbers, whose type is 2; scipy 1.17 ends the process at 16386.
    assert data[192:194] == b"\2\0"
    data[193] = 0x40
    if compressed:
        packed = zlib.compress(data[128:])
        data[128:] = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(data)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    with pytest.raises(DataError, match=r"0001\.mat cannot be read .* groundtruth is of type 16386"):
        read_annotation(path)


@pytest.mark.parametrize("first", [np.zeros((200, 101), np.uint8), {"a": 1}])
def test_of_two_variables_of_one_name_both_are_looked_at(tmp_path, monkeypatch, first):
    path, other = tmp_path / "0001.mat", tmp_path / "other.mat"
    scipy.io.savemat(path, {"groundtruth": first})
    scipy.io.savemat(other, {"groundtruth": np.ones((3, 4), np.uint8)})
    path.write_bytes(path.read_bytes() + other.read_bytes()[128:])
    monkeypatch.setattr(ccp, "MOST_PIXELS", 20_000)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    with pytest.raises(DataError, match=r"0001\.mat (cannot be read|holds groundtruth as struct)"):
        read_annotation(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (scipy.sparse.csc_array(np.eye(3)), "holds groundtruth as sparse"),
        (np.array([[np.nan, 1]]), "holds labels that are no whole numbers"),
        (np.array([[np.inf, 1]]), "holds labels that are no whole numbers"),
        (np.array([[1 + 1j]]), "cannot be read .*groundtruth has complex numbers"),
        (np.array([[[1]], 2], object), "holds groundtruth as cell"),
        ({"a": 1}, "holds groundtruth"),
    ],
    ids=["sparse", "nan", "infinite", "complex", "cells", "structure"],
)
def test_an_annotation_that_holds_another_kind_of_array_is_refused(tmp_path, labels, told):
    scipy.io.savemat(tmp_path / "0001.mat", {"groundtruth": labels})
    with pytest.raises(DataError, match=rf"0001\.mat {told}"):
        read_annotation(tmp_path / "0001.mat")


@pytest.mark.parametrize("content", ["another variable", "huge", "hdf5"])
def test_an_annotation_without_a_photo_s_labels_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "0001.mat"
    if content == "another variable":
        scipy.io.savemat(path, {"labels": np.ones((3, 4), np.uint8)})
    elif content == "huge":
        # It is not unpacked before its size is known.
        scipy.io.savemat(path, {"groundtruth": np.zeros((200, 101), np.uint8)}, do_compression=True)
        monkeypatch.setattr(ccp, "MOST_PIXELS", 20_000)
        monkeypatch.setattr(scipy.io, "loadmat", None)
    else:
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(DataError, match=r"0001\.mat cannot be read as an annotation"):
        read_annotation(path)


def test_a_name_that_is_not_there_is_refused(root):
    with pytest.raises(DataError, match="'9999' is no pair"):
        source(root).read("9999")


def test_the_copy_is_found_by_variable_and_as_a_folder_inside(root, monkeypatch):
    for where in (root, root.parent):
        monkeypatch.setenv("CLOTHSEG_DATA", str(where))
        assert len(source(None).names()) == 3
        monkeypatch.delenv("CLOTHSEG_DATA")
        assert len(source(where).names()) == 3


def test_without_a_word_the_copy_is_data_ccp_in_the_working_folder(root, tmp_path, monkeypatch):
    found = source(None)
    (tmp_path / "data").mkdir()
    root.rename(tmp_path / "data" / "ccp")
    monkeypatch.chdir(tmp_path)
    assert len(found.names()) == 3


def test_a_folder_with_other_things_is_refused_and_not_downloaded_into(tmp_path, monkeypatch):
    monkeypatch.setattr(ccp, "fetch_ccp", lambda target: pytest.fail("nothing may be downloaded"))
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="does not hold the ccp photos .*CLOTHSEG_DATA.*experiment=quickstart"):
        source(tmp_path, download=True).names()
    with pytest.raises(DataError, match="does not hold the ccp photos"):
        source(tmp_path / "holiday.jpg", download=True).names()


def test_nothing_is_downloaded_unless_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(ccp, "fetch_ccp", lambda target: pytest.fail("nothing may be downloaded"))
    with pytest.raises(DataError, match="not in .*absent and download is off"):
        source(tmp_path / "absent").names()


@pytest.mark.parametrize("exists", [True, False])
def test_an_absent_or_empty_folder_is_downloaded_into(tmp_path, monkeypatch, exists):
    target = tmp_path / "data"
    if exists:
        target.mkdir()
    monkeypatch.setattr(ccp, "fetch_ccp", lambda asked: draw_pair(asked, "0001"))
    assert source(target, download=True).names() == ("0001",)


def test_a_download_that_fails_ends_in_one_line_that_says_what_helps(tmp_path, monkeypatch):
    def fail(target):
        raise DownloadError("no connection to\nthe server")

    monkeypatch.setattr(ccp, "fetch_ccp", fail)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLOTHSEG_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        source(None, download=True).names()
    assert str(caught.value) == (
        f"the ccp photos are not in {os.path.join('data', 'ccp')} and could not be downloaded (no connection to the "
        "server); set CLOTHSEG_DATA or dataset.root to a copy, or run experiment=quickstart, which needs none"
    )


@pytest.mark.parametrize(
    "options", [{"pairing": "sorted"}, {"subset": "first"}, {"pairing": "walk", "subset": "all"}], ids=str
)
def test_options_that_cannot_be_are_refused(tmp_path, options):
    with pytest.raises(UserError, match="subset|pairing"):
        source(tmp_path, **options)


def test_the_real_data_set_is_whole(ccp_root):
    real = source(ccp_root)
    assert real.names() == tuple(f"{number:04}" for number in range(1, 1005))
    assert real.problems() == {}
    assert len(source(ccp_root, subset="article").names()) == 1000
    photo, labels = source(ccp_root, subset="article").read("0001")
    assert photo.shape == (825, 550, 3) and labels.shape == (825, 550)
    assert not source(ccp_root, subset="article").read("0536")[1].any()  # known to be empty
