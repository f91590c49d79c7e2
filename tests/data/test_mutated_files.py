"""Files that were cut off, overwritten or mixed up are refused, or are read as what they were; nothing else happens."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from clothseg.data import folders, photos
from clothseg.data.ccp import read_annotation
from clothseg.data.paperdoll import draw_pair
from clothseg.data.source import DataError

# Pillow's, of what it goes on from in TIFF files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

OTHERS = (
    b"",
    b"\0",
    b"\xff\xd8",
    b"\xff\xd8\xff\xd9",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"MATLAB 5.0",
    b"PK\x03\x04" * 9,
)
PHOTO_READERS = (folders.read_photo, photos.read_photo)
# Photos by their endings, and how they are written.
PHOTOS = {
    ".jpg": {"format": "JPEG"},
    ".photo.png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".deflate.tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    ".webp": {"format": "WEBP"},
    ".lossless.webp": {"format": "WEBP", "lossless": True},
}
READERS = {
    **dict.fromkeys(PHOTOS, PHOTO_READERS),
    ".mat": (read_annotation,),
    ".plain.mat": (read_annotation,),
    ".labels.png": (folders.read_label_image,),
}
# Of which formats damage can be told by checksums.
CHECKED = (".photo.png", ".labels.png", ".mat")
LONGEST = 10  # seconds that a read may take
# By default a thousand and a half reads, and many times that under CLOTHSEG_LONG=1.
SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 20))])


class Hang(BaseException):
    """Which what reads files does not take for a fault of the file."""


@contextmanager
def alarmed(what: str) -> Iterator[None]:
    """Ends what goes on for too long, and says what it was."""

    def ring(*_: object) -> None:
        raise Hang(f"{what} takes more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pictures(photo: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    """A photo and its labels as files of every kind that data sets have, by their endings."""
    files = {}
    for ending, options in (PHOTOS | {".labels.png": {"format": "PNG"}}).items():
        file = BytesIO()
        Image.fromarray(labels if ending == ".labels.png" else photo).save(file, **options)
        files[ending] = file.getvalue()
    for ending, compressed in ((".mat", True), (".plain.mat", False)):
        file = BytesIO()
        scipy.io.savemat(file, {"groundtruth": labels}, do_compression=compressed)
        files[ending] = file.getvalue()
    return files


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, min(40, len(data)))))]


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(rng.choice((len(data), min(len(data), 300))))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 512, 4096))
    block = data[start : start + length]
    return data[:start] + rng.choice((bytes(len(block)), rng.randbytes(len(block)))) + data[start + length :]


def doubled_or_lost(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((1, 16, 512))
    return data[:start] + data[start : start + length] * rng.choice((0, 2)) + data[start + length :]


def another_header(data: bytes, rng: random.Random) -> bytes:
    length = rng.choice((4, 16, 128, 200))
    return rng.randbytes(length) + data[length:]


MUTATIONS = (cut, flipped, overwritten, doubled_or_lost, another_header)


def answer(read, path: Path) -> np.ndarray | None:
    """What was read; None where it was refused on one line that names the file."""
    try:
        with alarmed(f"{read.__module__}.{read.__name__} of {path}"):
            return read(path)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 500
        return None


def put_to_the_test(files: dict[str, bytes], folder: Path, *, rounds: int, seed: int) -> Counter:
    """Reads mutations of every file and checks what comes of it; counts reads by ending and outcome."""
    rng, counts = random.Random(seed), Counter()
    for ending, data in files.items():
        path = folder / f"0001{ending}"
        path.write_bytes(data)
        wholes = [read(path) for read in READERS[ending]]
        for mutation in MUTATIONS * rounds:
            path.write_bytes(mutated := mutation(data, rng))
            for read, whole in zip(READERS[ending], wholes, strict=True):
                found = answer(read, path)
                if found is None:
                    counts[ending, "refused"] += 1
                    continue
                assert found.dtype == np.uint8 and found.ndim == whole.ndim
                same = np.array_equal(found, whole)
                counts[ending, "whole" if same else "different"] += 1
                # Behind the last pixel a few bytes may be missing.
                assert same or mutation is not cut, f"{read} took {len(mutated)} of {len(data)} bytes of {ending}"
                if ending in CHECKED:
                    assert same or found.shape != whole.shape, f"{mutation.__name__} {ending}"
    return counts


@SEEDS
def test_mutations_of_drawn_files_are_refused_or_harmless(tmp_path, seed):
    files = pictures(*draw_pair(np.random.default_rng(seed), (120, 80)))
    counts = put_to_the_test(files, tmp_path, rounds=20, seed=seed)
    for ending in files:
        every = sum(count for (of, _), count in counts.items() if of == ending)
        assert counts[ending, "refused"] > 0.3 * every, ending


@SEEDS
def test_mutations_of_real_files_are_refused_or_harmless(ccp_root, tmp_path, seed):
    for number in (1, 500, 1004):
        photo, labels = (
            ccp_root / "photos" / f"{number:04}.jpg",
            ccp_root / "annotations/pixel-level" / f"{number:04}.mat",
        )
        files = {".jpg": photo.read_bytes(), ".mat": labels.read_bytes()}
        put_to_the_test(files, tmp_path, rounds=10, seed=number + 10_000 * seed)


def test_a_read_that_does_not_end_fails_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "LONGEST", 0.1)

    def read(path: Path) -> np.ndarray:
        while True:
            pass

    with pytest.raises(Hang, match=r"read of \S+0001\.tif takes more than 0\.1 s"):
        answer(read, tmp_path / "0001.tif")


@pytest.mark.parametrize("ending", READERS)
def test_a_file_of_another_kind_under_this_name_is_refused_or_read_as_what_it_is(tmp_path, ending):
    photo, labels = draw_pair(np.random.default_rng(1), (40, 32))
    path = tmp_path / f"0001{ending}"
    for content in (*OTHERS, *(data for own, data in pictures(photo, labels).items() if own != ending)):
        path.write_bytes(content)
        for read in READERS[ending]:
            found = answer(read, path)
            assert found is None or found.shape[:2] == labels.shape


@pytest.mark.parametrize("length", [4096, 700])
def test_labels_whose_end_a_crash_left_as_zeros_are_no_background(tmp_path, length):
    # What a file system may leave of a file that was being written.
    data = pictures(*draw_pair(np.random.default_rng(2), (300, 200)))[".labels.png"]
    path = tmp_path / "0001.png"
    path.write_bytes(data[:-length] + bytes(length))
    with pytest.raises(DataError, match=r"0001\.png cannot be read"):
        folders.read_label_image(path)
