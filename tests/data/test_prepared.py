"""A data set is decoded once, and what is left of that is used as long as it is whole."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Harm
from filelock import FileLock

from clothseg.data import prepared as module
from clothseg.data.ccp import Ccp
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import PADDING, fit_labels, fit_photo, frame_of, prepare, resize_labels, resize_photo
from clothseg.data.source import DataError, Source
from clothseg.errors import UserError

SIZES = [(825, 550), (828, 551), (40, 30), (16, 16), (7, 3), (1, 1)]


class Drawn:
    """Pairs drawn from their numbers; `broken` are those that cannot be read, `missing` those known to be wrong."""

    name = "drawn"
    class_names = ("background", "hat", "coat")

    def __init__(self, count=5, broken=(), missing=(), labels=None, photo=None):
        self.count, self.broken, self.missing = count, broken, missing
        self.labels, self.photo = labels, photo
        self.reads = []

    def names(self):
        return tuple(f"{number:02}" for number in range(self.count))

    def identity(self):
        return {"count": self.count}

    def problems(self):
        return {name: f"{name}.jpg is missing" for name in self.missing}

    def read(self, name):
        self.reads.append(name)
        if name in self.broken:
            raise DataError(f"{name}.jpg is cut off")
        drawn = np.random.default_rng(int(name))
        photo = drawn.integers(0, 256, (20, 10, 3), np.uint8) if self.photo is None else self.photo
        labels = drawn.integers(0, 3, (20, 10), np.uint8) if self.labels is None else self.labels
        return photo, labels


def run(source, cache, *, image_size=(8, 6), resize="squash", label_resize="nearest", skip_invalid=False, workers=2):
    return prepare(
        source,
        image_size=image_size,
        resize=resize,
        label_resize=label_resize,
        cache=cache,
        skip_invalid=skip_invalid,
        workers=workers,
    )


@pytest.fixture(scope="module")
def tf_resize():
    tf = pytest.importorskip("tensorflow")
    return lambda image, size, method: tf.image.resize(image, size, method=method).numpy()


@pytest.mark.parametrize("own", SIZES, ids=str)
def test_photos_are_resized_as_tensorflow_does(tf_resize, own):
    photo = np.random.default_rng(1).integers(0, 256, (*own, 3), np.uint8)
    # The last is interpolated in several strips.
    for size in ((128, 128), (33, 57), (16, 16), (400, 300)):
        resized = resize_photo(photo, size)
        assert resized.dtype == np.uint8 and resized.shape == (*size, 3)
        # Rounding moves a value by half a grey level at most.
        assert np.abs(resized - tf_resize(photo, size, "bilinear")).max() <= 0.501


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("own", SIZES, ids=str)
def test_labels_are_resized_as_tensorflow_does(tf_resize, own, method):
    labels = np.random.default_rng(2).integers(0, 59, own, np.uint8)
    for size in ((128, 128), (33, 57), (16, 16)):
        resized = resize_labels(labels, size, how=method)
        expected = tf_resize(labels[..., None], size, method)[..., 0].astype(np.uint8)
        assert resized.dtype == np.uint8
        np.testing.assert_array_equal(resized, expected)


def test_nearest_labels_are_those_that_are_there_and_bilinear_ones_are_not():
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 3:] = 40
    assert set(np.unique(resize_labels(labels, (3, 3), how="nearest"))) == {0, 40}
    assert set(np.unique(resize_labels(labels, (3, 16), how="bilinear"))) - {0, 40}


@pytest.mark.parametrize("value", [0, 1, 37, 58, 255])
def test_one_colour_and_one_label_stay_what_they_are(value):
    for own in SIZES:
        assert (resize_photo(np.full((*own, 3), value, np.uint8), (17, 23)) == value).all()
        for how in ("nearest", "bilinear"):
            assert (resize_labels(np.full(own, value, np.uint8), (17, 23), how=how) == value).all()


def test_every_pair_is_resized_and_stands_at_its_name(tmp_path):
    source = Drawn()
    assert isinstance(source, Source)
    done = run(source, tmp_path)
    assert (done.name, done.names, done.class_names) == ("drawn", source.names(), source.class_names)
    assert done.photos.shape == (5, 8, 6, 3) and done.photos.dtype == np.uint8
    assert done.labels.shape == (5, 8, 6) and done.labels.dtype == np.uint8
    assert done.skipped == ()
    for name, photo, labels in zip(done.names, done.photos, done.labels, strict=True):
        own_photo, own_labels = source.read(name)
        np.testing.assert_array_equal(photo, resize_photo(own_photo, (8, 6)))
        np.testing.assert_array_equal(labels, resize_labels(own_labels, (8, 6), how="nearest"))


def test_more_pairs_than_are_read_ahead_keep_their_order(tmp_path):
    done = run(Drawn(count=99), tmp_path, workers=1)
    assert done.names == Drawn(count=99).names()
    np.testing.assert_array_equal(done.photos[98], resize_photo(Drawn().read("98")[0], (8, 6)))


def test_pixels_of_every_class_are_counted_in_every_photo_and_ignored_ones_nowhere(tmp_path):
    for resize in ("squash", "pad"):
        done = run(Drawn(), tmp_path, image_size=(8, 8), resize=resize)
        counted = [[(labels == number).sum() for number in range(len(done.class_names))] for labels in done.labels]
        assert done.pixels.tolist() == counted
    assert counted[0] != [0] * len(counted[0]) and sum(counted[0]) == 8 * 4


def test_few_pairs_are_read_ahead_of_what_is_written(tmp_path, monkeypatch):
    source, ahead = Drawn(count=60), []
    append = module._RowWriter.append

    def watched(self, row):
        if row.ndim == 3:
            ahead.append(len(source.reads) - len(ahead))
        append(self, row)

    monkeypatch.setattr(module._RowWriter, "append", watched)
    run(source, tmp_path, workers=2)
    assert len(ahead) == 60 and max(ahead) <= 4 * 2 + 2


def test_the_second_call_decodes_nothing_and_gives_the_same(tmp_path):
    source = Drawn()
    first = run(source, tmp_path)
    source.reads.clear()
    second = run(source, tmp_path)
    assert source.reads == []
    assert second.fingerprint == first.fingerprint and second.folder == first.folder
    np.testing.assert_array_equal(first.photos, second.photos)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_another_size_or_resizing_or_identity_is_another_cache(tmp_path):
    folders = {
        run(Drawn(), tmp_path).folder,
        run(Drawn(), tmp_path, image_size=(6, 8)).folder,
        run(Drawn(), tmp_path, label_resize="bilinear").folder,
        run(Drawn(count=6), tmp_path).folder,
    }
    assert len(folders) == 4


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(tmp_path):
    first = run(Drawn(), tmp_path / "a").fingerprint
    assert run(Drawn(), tmp_path / "b", workers=1).fingerprint == first
    assert run(Drawn(count=4), tmp_path / "a").fingerprint != first
    assert run(Drawn(labels=np.ones((20, 10), np.uint8)), tmp_path / "c").fingerprint != first
    assert run(Drawn(photo=np.ones((20, 10, 3), np.uint8)), tmp_path / "d").fingerprint != first


def test_the_arrays_are_read_from_disk_and_cannot_be_changed(tmp_path):
    done = run(Drawn(), tmp_path)
    assert isinstance(done.photos, np.memmap) and isinstance(done.labels, np.memmap)
    with pytest.raises(ValueError):
        done.photos[0, 0, 0] = 1


@pytest.mark.parametrize("file", ["photos.npy", "labels.npy", "pixels.npy", "meta.json"])
@pytest.mark.parametrize("kept", [0, 40, -1])
def test_a_cut_off_cache_is_prepared_again(tmp_path, caplog, file, kept):
    whole = run(Drawn(), tmp_path)
    path = whole.folder / file
    path.write_bytes(path.read_bytes()[:kept])
    again = run(Drawn(), tmp_path)
    assert "is damaged and will be prepared again" in caplog.text
    assert again.fingerprint == whole.fingerprint
    np.testing.assert_array_equal(
        again.photos, np.stack([resize_photo(Drawn().read(n)[0], (8, 6)) for n in again.names])
    )


@pytest.mark.parametrize("file", ["photos.npy", "meta.json"])
def test_a_cache_with_a_file_lost_is_prepared_again(tmp_path, file):
    whole = run(Drawn(), tmp_path)
    (whole.folder / file).unlink()
    assert run(Drawn(), tmp_path).fingerprint == whole.fingerprint


def test_a_cache_of_other_shapes_than_it_says_is_prepared_again(tmp_path, caplog):
    whole = run(Drawn(), tmp_path)
    meta = json.loads((whole.folder / "meta.json").read_text())
    meta["names"].append("05")
    (whole.folder / "meta.json").write_text(json.dumps(meta))
    assert run(Drawn(), tmp_path).names == Drawn().names()
    assert "damaged" in caplog.text


def test_nothing_in_the_cache_is_unpickled(tmp_path):
    whole = run(Drawn(), tmp_path)
    np.save(whole.folder / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert run(Drawn(), tmp_path).labels.dtype == np.uint8


@pytest.mark.parametrize("file", ["photos.npy", "labels.npy"])
@pytest.mark.parametrize("kind", ["array", "pickle", "archive"])
def test_a_planted_pickle_is_not_run(tmp_path, file, kind):
    whole = run(Drawn(), tmp_path)
    harm, path = Harm(tmp_path / "canary"), whole.folder / file
    if kind == "array":
        np.save(path, np.array([harm], object), allow_pickle=True)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(harm))
    else:
        with path.open("wb") as opened:
            np.savez(opened, labels=np.array([harm], object))
    assert run(Drawn(), tmp_path).fingerprint == whole.fingerprint
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("file", ["photos.npy", "labels.npy"])
@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"PK\x03\x04" * 99, b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr'", b"\0" * 500]
)
def test_what_is_no_array_is_prepared_again(tmp_path, caplog, file, content):
    whole = run(Drawn(), tmp_path)
    (whole.folder / file).write_bytes(content)
    assert run(Drawn(), tmp_path).fingerprint == whole.fingerprint
    assert "is damaged and will be prepared again" in caplog.text


@pytest.mark.parametrize("file", ["photos.npy", "labels.npy"])
def test_arrays_of_another_type_are_prepared_again(tmp_path, file):
    whole = run(Drawn(), tmp_path)
    np.save(whole.folder / file, np.load(whole.folder / file).astype(np.float32))
    again = run(Drawn(), tmp_path)
    assert again.photos.dtype == again.labels.dtype == np.uint8


@pytest.mark.parametrize("file", ["photos.npy", "labels.npy", "pixels.npy", "meta.json"])
def test_a_cache_damaged_anywhere_is_used_or_prepared_again(tmp_path, file):
    whole = run(Drawn(count=2), tmp_path)
    path, rng = whole.folder / file, np.random.default_rng(0)
    data = path.read_bytes()
    for _ in range(50):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), rng.integers(1, 4)):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        again = run(Drawn(count=2), tmp_path)
        assert again.photos.shape == (2, 8, 6, 3) and again.labels.shape == (2, 8, 6) and len(again.names) == 2


@pytest.mark.parametrize(
    "meta", ["[]", "null", "{}", '"x"', "5", "NaN", "[" * 100_000, '{"names": 5, "image_size": 5}']
)
def test_a_description_of_an_older_version_or_of_nothing_is_prepared_again(tmp_path, caplog, meta):
    whole = run(Drawn(), tmp_path)
    (whole.folder / "meta.json").write_text(meta)
    assert run(Drawn(), tmp_path).fingerprint == whole.fingerprint
    assert "is damaged and will be prepared again" in caplog.text


def test_a_description_without_what_older_versions_did_not_note_is_prepared_again(tmp_path, caplog):
    whole = run(Drawn(), tmp_path)
    meta = json.loads((whole.folder / "meta.json").read_text())
    del meta["frames"]
    (whole.folder / "meta.json").write_text(json.dumps(meta))
    assert run(Drawn(), tmp_path).frames.shape == (5, 4)
    assert "is damaged and will be prepared again" in caplog.text


def test_the_cache_of_an_older_version_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", module.FORMAT - 1)
    older = run(Drawn(), tmp_path).folder
    before = {path.name: path.read_bytes() for path in older.iterdir()}
    monkeypatch.undo()
    assert run(Drawn(), tmp_path).folder != older
    assert {path.name: path.read_bytes() for path in older.iterdir()} == before


PREPARE_DOLLS = """
import sys
from pathlib import Path
from clothseg.data.paperdoll import Paperdoll
from clothseg.data.prepared import prepare
sys.stdin.read(1)
done = prepare(
    Paperdoll(count=6, image_size=(32, 32), seed=0), image_size=(16, 16), resize="squash", label_resize="nearest",
    cache=Path(sys.argv[1]), skip_invalid=False, workers=1,
)
print(done.fingerprint, done.photos.sum(), done.labels.sum(), len(done.names))
"""


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_begin_at_once_get_the_same(tmp_path, count):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE_DOLLS, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )
        for _ in range(count)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, ended
    assert len({told for told, _ in ended}) == 1 and ended[0][0].endswith(" 6\n")
    assert "damaged" not in "".join(errors for _, errors in ended)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [ended_folder(tmp_path)]


def ended_folder(cache: Path) -> str:
    """The one folder that is no rest of a preparation."""
    (folder,) = (path.name for path in cache.glob("paperdoll-*") if path.is_dir() and not path.suffix)
    return folder


def test_a_cache_that_is_read_only_is_used_or_told_in_one_line(tmp_path, monkeypatch):
    whole = run(Drawn(), tmp_path / "cache")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    # A right to write is no hindrance to root, as which tests may run.
    for owner, name in ((Path, "mkdir"), (module, "locked"), (Path, "write_text"), (module, "_write_synced")):
        monkeypatch.setattr(owner, name, refuse)
    assert run(Drawn(), tmp_path / "cache").fingerprint == whole.fingerprint
    with pytest.raises(UserError, match="drawn cannot be prepared in .*cache: .*Read-only file system"):
        run(Drawn(count=6), tmp_path / "cache")


def test_all_that_is_wrong_is_told_in_one_line_and_one_report(tmp_path):
    source = Drawn(count=8, missing=("01", "05"), broken=("00", "06"))
    with pytest.raises(DataError) as caught:
        run(source, tmp_path)
    problems = {
        "00": "00.jpg is cut off",
        "01": "01.jpg is missing",
        "05": "05.jpg is missing",
        "06": "06.jpg is cut off",
    }
    assert caught.value.problems == problems
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("4 of 8 examples of drawn cannot be used (00: 00.jpg is cut off; 01: 01.jpg is missing; ")
    assert "and 1 more" in message and "skip_invalid=true" in message
    (report,) = tmp_path.glob("*-problems.txt")
    assert str(report) in message
    assert report.read_text() == "".join(f"{name}: {reason}\n" for name, reason in problems.items())
    # Nothing half-made is left.
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_is_wrong_can_be_left_out_and_is_remembered(tmp_path, caplog):
    source = Drawn(missing=("01",), broken=("03",))
    skipped = (("01", "01.jpg is missing"), ("03", "03.jpg is cut off"))
    done = run(source, tmp_path, skip_invalid=True)
    assert "left out: 2 of 5 examples" in caplog.text
    assert done.names == ("00", "02", "04") and done.skipped == skipped
    assert len(done.photos) == len(done.labels) == 3
    np.testing.assert_array_equal(done.photos[1], resize_photo(Drawn().read("02")[0], (8, 6)))
    assert run(source, tmp_path, skip_invalid=True).skipped == skipped
    assert "01" not in source.reads
    # Left out once is not allowed for ever.
    with pytest.raises(DataError, match="2 of 5 examples") as caught:
        run(source, tmp_path)
    assert caught.value.problems == dict(skipped)


def test_without_an_example_there_is_nothing_to_prepare(tmp_path):
    with pytest.raises(DataError, match="drawn has no examples"):
        run(Drawn(count=0), tmp_path)
    with pytest.raises(DataError, match="2 of 2 examples"):
        run(Drawn(count=2, broken=("00", "01")), tmp_path, skip_invalid=True)


def test_a_label_beyond_the_classes_is_wrong(tmp_path):
    labels = np.zeros((20, 10), np.uint8)
    labels[0, 0] = 2
    run(Drawn(labels=labels), tmp_path)
    labels[0, 0] = 3
    with pytest.raises(
        DataError, match="04 has the label 3; the highest of 3 classes is 2|00 has the label 3"
    ) as caught:
        run(Drawn(count=4, labels=labels), tmp_path)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"photo": np.zeros((20, 11, 3), np.uint8)},
        {"photo": np.zeros((20, 10), np.uint8)},
        {"photo": np.zeros((20, 10, 3), np.float32)},
        {"labels": np.zeros((20, 10), np.int64)},
        {"photo": np.zeros((0, 10, 3), np.uint8), "labels": np.zeros((0, 10), np.uint8)},
    ],
    ids=lambda wrong: " ".join(f"{kind} {array.dtype} {array.shape}" for kind, array in wrong.items()),
)
def test_arrays_that_do_not_fit_together_are_wrong(tmp_path, wrong):
    with pytest.raises(DataError, match="they have to be uint8"):
        run(Drawn(**wrong), tmp_path)


def test_another_process_is_waited_for_and_its_result_used(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = run(Drawn(), tmp_path).folder
    aside = folder.rename(tmp_path / "aside")
    source, done = Drawn(), []
    with FileLock(tmp_path / f"{folder.name}.lock"):
        waiting = threading.Thread(target=lambda: done.append(run(source, tmp_path)))
        waiting.start()
        for _ in range(500):
            if "waiting for another process" in caplog.text:
                break
            waiting.join(0.01)
        assert "waiting for another process" in caplog.text and not done
        aside.rename(folder)
    waiting.join(10)
    assert len(done) == 1 and source.reads == []


def test_what_a_killed_process_left_is_no_hindrance(tmp_path):
    folder = run(Drawn(), tmp_path / "a").folder
    partial = tmp_path / "b" / f"{folder.name}.partial"
    partial.mkdir(parents=True)
    (partial / "photos.npy").write_bytes(b"half")
    assert sorted(path.name for path in run(Drawn(), tmp_path / "b").folder.iterdir()) == [
        "labels.npy",
        "meta.json",
        "photos.npy",
        "pixels.npy",
    ]
    assert not partial.exists()


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    def full(self, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._RowWriter, "append", full)
    with pytest.raises(UserError, match="drawn cannot be prepared in .*No space left"):
        run(Drawn(), tmp_path)


def test_a_cache_that_cannot_be_a_folder_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be prepared in .*file"):
        run(Drawn(), tmp_path / "file")


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 8)},
        {"image_size": (8,)},
        {"image_size": 8},
        {"image_size": (8.5, 8)},
        {"label_resize": "cubic"},
        {"workers": 0},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_by_name(tmp_path, options):
    (name,) = options
    with pytest.raises(UserError, match=f"{name} is "):
        run(Drawn(), tmp_path, **options)


def test_real_photos_are_prepared(ccp_root, tmp_path, monkeypatch):
    source = Ccp(root=ccp_root, pairing="name", subset="article", download=False)
    some = source.names()[:20]
    monkeypatch.setattr(source, "names", lambda: some)
    done = run(source, Path(tmp_path), image_size=(128, 128))
    assert done.names == some and done.photos.shape == (20, 128, 128, 3)
    assert 0.5 < (np.asarray(done.labels) == 0).mean() < 0.95


@pytest.mark.parametrize(
    ("own", "size", "frame"),
    [
        # twice as high as wide: as high as the picture, half as wide, in the middle
        ((20, 10), (8, 8), (0, 2, 8, 4)),
        ((10, 20), (8, 8), (2, 0, 4, 8)),
        ((825, 550), (288, 192), (0, 0, 288, 192)),
        ((1000, 1), (8, 8), (0, 3, 8, 1)),
    ],
)
def test_a_padded_photo_keeps_its_shape_and_lies_in_the_middle(own, size, frame):
    assert frame_of(own, size, resize="pad") == frame
    assert frame_of(own, size, resize="squash") == (0, 0, *size)


def test_padding_is_grey_and_counts_nowhere_and_what_it_frames_is_the_photo():
    drawn = np.random.default_rng(0)
    photo, labels = drawn.integers(0, 256, (20, 10, 3), np.uint8), drawn.integers(0, 3, (20, 10), np.uint8)
    padded, around = fit_photo(photo, (8, 8), resize="pad"), fit_labels(labels, (8, 8), resize="pad", how="nearest")
    assert (padded[:, [0, 1, 6, 7]] == PADDING).all() and (around[:, [0, 1, 6, 7]] == IGNORE).all()
    assert np.array_equal(padded[:, 2:6], resize_photo(photo, (8, 4)))
    assert np.array_equal(around[:, 2:6], resize_labels(labels, (8, 4), how="nearest"))


def test_padded_and_squashed_photos_are_kept_apart_with_their_frames(tmp_path):
    squashed, padded = (run(Drawn(), tmp_path, image_size=(8, 8), resize=resize) for resize in ("squash", "pad"))
    assert squashed.folder != padded.folder
    assert squashed.frames.tolist() == [[0, 0, 8, 8]] * 5 and padded.frames.tolist() == [[0, 2, 8, 4]] * 5
    assert not (squashed.labels[:] == IGNORE).any() and (padded.labels[:] == IGNORE).sum() == 5 * 8 * 4
    with pytest.raises(UserError, match='resize is .crop.; it can be "squash" or "pad"'):
        run(Drawn(), tmp_path, resize="crop")
