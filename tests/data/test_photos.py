"""Photos are found where they are named, and read as they are meant to be looked at."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

from clothseg.data.photos import find_photos, read_photo
from clothseg.data.source import DataError
from clothseg.errors import UserError


def picture(path, mode="RGB", size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


def test_a_folder_gives_its_pictures_and_those_below_it_in_order(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.png", ".cache/d.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [photo.name for photo in find_photos([str(tmp_path)])] == ["a.png", "b.JPG", "sub/c.webp"]


def test_files_are_taken_whatever_their_ending(tmp_path):
    path = picture(tmp_path / "photo.data", format="PNG")
    (photo,) = find_photos([str(path)])
    assert photo.name == "photo.data" and read_photo(photo.path).shape == (4, 6, 3)


def test_what_is_not_there_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "b" / "x.png")
    for given, told in (
        (["none"], "photos=none does not exist"),
        ([str(tmp_path / "empty")], "has no pictures in it; .jpg, "),
        ([str(tmp_path / "a"), str(tmp_path / "b")], "whose results would have one name"),
    ):
        with pytest.raises(UserError, match=told):
            find_photos(given)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("asked", ["", os.fsdecode(b"caf\xe9.png")], ids=["folder", "file"])
def test_a_name_that_is_not_utf_8_is_told_before_a_table_cannot_be_written(tmp_path, asked):
    picture(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(UserError, match=r"caf\\udce9\.png' has a name that is not UTF-8; rename it"):
        find_photos([str(tmp_path / asked)])


def test_symlinks_are_photos_and_those_that_lead_nowhere_are_none(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in").mkdir()
    for name, target in (("b.png", "../elsewhere/a.png"), ("c.png", "nowhere"), ("d.png", "d.png"), ("e", "../in")):
        (tmp_path / "in" / name).symlink_to(target)
    assert [photo.name for photo in find_photos([str(tmp_path / "in")])] == ["b.png"]
    with pytest.raises(UserError, match="c.png does not exist"):
        find_photos([str(tmp_path / "in" / "c.png")])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_the_camera_was_held(tmp_path, orientation):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255  # white in the upper left corner
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright[::-1]), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned[orientation])).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "p.png"), upright)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)), ("1", 1, (255, 255, 255)), ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)), ("RGBA", (9, 8, 7, 255), (9, 8, 7)), ("LA", (50, 255), (50, 50, 50)),
        ("I;16", 0x8012, (0x80, 0x80, 0x80)),
    ],
)  # fmt: skip
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (3, 2), value).save(tmp_path / "p.png")
    photo = read_photo(tmp_path / "p.png")
    assert photo.dtype == np.uint8 and photo.shape == (2, 3, 3) and (photo == expected).all()


def test_palettes_cmyk_and_first_frames(tmp_path):
    Image.new("RGB", (3, 2), (200, 30, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    assert np.abs(read_photo(tmp_path / "p.gif").astype(int) - (200, 30, 30)).max() < 8
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "p.jpg")
    assert read_photo(tmp_path / "p.jpg").max() < 8
    frames = [Image.new("L", (3, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "p.tif", save_all=True, append_images=frames[1:])
    assert (read_photo(tmp_path / "p.tif") == 10).all()


def test_broken_photos_are_named(tmp_path):
    (tmp_path / "bad.jpg").write_text("no photo")
    whole = picture(tmp_path / "whole.png", size=(300, 300)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name in ("bad.jpg", "half.png"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as a photo: \w+"):
            read_photo(tmp_path / name)
