"""Unusual pictures are read as they are meant, the same in training and in `predict`, or refused by name."""

from __future__ import annotations

import os
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from clothseg.data import folders, photos
from clothseg.data.source import DataError

PHOTO_READERS = pytest.mark.parametrize("read", [folders.read_photo, photos.read_photo], ids=["training", "predict"])
EVERY_READER = pytest.mark.parametrize(
    "read", [folders.read_photo, photos.read_photo, folders.read_label_image], ids=["training", "predict", "labels"]
)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, *, bits: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG file with what Pillow does not write; `rows` begin with their filter each."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@PHOTO_READERS
def test_of_16_bit_grey_the_upper_bits_are_taken(tmp_path, read):
    Image.fromarray(np.array([[0, 0x0100, 0x80FF, 0xFFFF]], np.uint16)).save(tmp_path / "p.png")
    assert read(tmp_path / "p.png")[0, :, 0].tolist() == [0, 1, 0x80, 0xFF]


@PHOTO_READERS
def test_of_16_bit_colours_the_upper_bits_are_taken(tmp_path, read):
    (tmp_path / "p.png").write_bytes(png(1, 1, b"\0" + struct.pack(">HHH", 0x1234, 0x80FF, 0xFFFF), bits=16, colour=2))
    assert read(tmp_path / "p.png")[0, 0].tolist() == [0x12, 0x80, 0xFF]


@PHOTO_READERS
def test_of_a_palette_photo_the_colours_are_taken(tmp_path, read):
    colours = chunk(b"PLTE", bytes((200, 30, 40, 1, 2, 3)))
    (tmp_path / "p.png").write_bytes(png(2, 1, b"\0\1\0", colour=3, more=colours))
    assert read(tmp_path / "p.png").tolist() == [[[1, 2, 3], [200, 30, 40]]]


def test_transparency_is_dropped_in_training_and_white_in_predict(tmp_path):
    Image.new("RGBA", (2, 2), (9, 8, 7, 0)).save(tmp_path / "p.png")
    assert (folders.read_photo(tmp_path / "p.png") == (9, 8, 7)).all()
    assert (photos.read_photo(tmp_path / "p.png") == 255).all()


@PHOTO_READERS
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_photo_is_turned_as_the_camera_was_held(tmp_path, read, suffix):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / f"p{suffix}", exif=exif, quality=95)
    found = read(tmp_path / f"p{suffix}")
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 3


def test_a_label_image_is_not_turned_and_of_a_palette_the_indices_count(tmp_path):
    labels = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    indexed = Image.fromarray(labels)
    indexed.putpalette(bytes(range(60, 120)))
    indexed.save(tmp_path / "l.png", exif=exif)
    assert np.array_equal(folders.read_label_image(tmp_path / "l.png"), labels)


def test_a_label_image_with_a_transparent_class_keeps_its_indices(tmp_path):
    Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P").save(tmp_path / "l.png", transparency=0)
    assert folders.read_label_image(tmp_path / "l.png").tolist() == [[0, 1]]


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA", "I;16"])
def test_a_label_image_of_another_depth_is_refused_by_its_mode(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "l.png")
    with pytest.raises(DataError, match=rf"l\.png is of mode {mode}; labels need one 8-bit channel"):
        folders.read_label_image(tmp_path / "l.png")


@pytest.mark.parametrize("bits", [2, 4])
def test_a_label_image_of_few_bits_is_refused_instead_of_read_as_other_classes(tmp_path, bits):
    # Class 1 of 4 bits would be read as 17.
    (tmp_path / "l.png").write_bytes(png(4, 1, b"\0\x01\x23", bits=bits))
    with pytest.raises(DataError, match=rf"l\.png has {bits} bits a pixel; labels need one 8-bit channel"):
        folders.read_label_image(tmp_path / "l.png")


@PHOTO_READERS
def test_grey_levels_of_no_known_range_are_refused(tmp_path, read):
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "p.tif")
    with pytest.raises(DataError, match=r"p\.tif has floating-point grey levels"):
        read(tmp_path / "p.tif")


@EVERY_READER
def test_a_few_bytes_that_claim_to_be_a_huge_picture_are_refused_at_once(tmp_path, read):
    (tmp_path / "p.png").write_bytes(png(30_000, 30_000, b"\0"))
    begun = time.process_time()
    with pytest.raises(DataError, match=r"p\.png cannot be read as .*900000000 pixels"):
        read(tmp_path / "p.png")
    assert time.process_time() - begun < 1


@EVERY_READER
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_pillow_only_warns_of_is_refused_before_it_is_decoded(tmp_path, read):
    (tmp_path / "p.png").write_bytes(png(10_001, 10_000, b"\0"))
    with pytest.raises(DataError, match=r"p\.png has 10001 x 10000 pixels; up to 100000000 are read"):
        read(tmp_path / "p.png")


@EVERY_READER
def test_a_png_that_unpacks_to_more_than_its_picture_is_no_burden(tmp_path, read):
    resource = pytest.importorskip("resource")
    (tmp_path / "p.png").write_bytes(png(4, 4, bytes(200_000_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert read(tmp_path / "p.png").shape[:2] == (4, 4)
    except DataError:
        pass
    # In kilobytes on Linux, in bytes on a Mac.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000 * (1024 if sys.platform == "darwin" else 1)


@EVERY_READER
@pytest.mark.parametrize("name", ["p.eps", "p.jpg", "p.png"])
def test_a_picture_that_is_a_program_is_not_run(tmp_path, read, name, monkeypatch):
    # Pillow would give it to Ghostscript, whatever the file is called.
    canary = tmp_path / "canary"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{canary}'\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=rf"{name} is EPS, which is not opened; JPEG, PNG"):
        read(tmp_path / name)
    assert not canary.exists()


def test_programs_are_no_pictures_of_a_folder(tmp_path):
    for name in ("a.eps", "b.ps", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    assert [photo.name for photo in photos.find_photos([str(tmp_path)])] == ["c.png"]


@EVERY_READER
def test_a_symlink_is_read_as_what_it_leads_to(tmp_path, read):
    Image.new("L", (3, 2), 7).save(tmp_path / "original.png")
    (tmp_path / "link.png").symlink_to("original.png")
    assert (read(tmp_path / "link.png") == 7).all()


@EVERY_READER
@pytest.mark.parametrize("target", ["nowhere.png", "link.png", "."])
def test_a_symlink_that_leads_nowhere_is_refused_by_name(tmp_path, read, target):
    (tmp_path / "link.png").symlink_to(target)
    with pytest.raises(DataError, match=r"link\.png cannot be read as"):
        read(tmp_path / "link.png")


@EVERY_READER
@pytest.mark.parametrize("name", ["a photo.png", "Kleid – été ÄÖ 服.png", "two\nlines.png", "%s{}$[x].png", "-rf.png"])
def test_any_name_will_do(tmp_path, read, name):
    Image.new("L", (3, 2), 7).save(tmp_path / name)
    assert (read(tmp_path / name) == 7).all()
    (tmp_path / name).write_bytes(b"none")
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
