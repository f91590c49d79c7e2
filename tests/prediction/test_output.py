"""Predictions are kept whole, can be gone on with, and never mix with photos or with others' predictions."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from clothseg.data.photos import PhotoFile
from clothseg.errors import UserError
from clothseg.palette import palette
from clothseg.prediction.output import Output, check_apart

NAMES = ("background", "hat", "coat")


def photo(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")
    return PhotoFile(path, name)


def output(folder, *, run="abc", overlays=False):
    return Output(folder, made_by={"run": [run], "scales": [1.0]}, class_names=NAMES, overlays=overlays)


def done(to, one, labels):
    to.record(to.write(one, np.zeros((*labels.shape, 3), np.uint8), labels))


LABELS = np.array([[0, 0, 1], [2, 2, 2]], np.uint8)


def test_a_label_map_is_a_picture_whose_values_are_the_classes(tmp_path):
    to, one = output(tmp_path / "out", overlays=True), photo(tmp_path, "sub/a.jpg")
    done(to, one, LABELS)
    with Image.open(tmp_path / "out" / "labels" / "sub" / "a.jpg.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), LABELS)
        assert np.array_equal(np.asarray(image.convert("RGB")), palette(3)[LABELS])
    with Image.open(tmp_path / "out" / "overlays" / "sub" / "a.jpg.jpg") as image:
        assert image.width > 3 and image.height >= 2


def test_tables_have_the_area_of_every_class_in_the_photos_asked_for(tmp_path):
    to, one, other = output(tmp_path / "out"), photo(tmp_path, "a.jpg"), photo(tmp_path, "b.jpg")
    done(to, one, LABELS)
    done(to, other, np.zeros((4, 4), np.uint8))
    to.skipped["c.jpg"] = "broken"
    to.tables([one])
    with (tmp_path / "out" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["pixels"], row["share"]) for row in rows] == [
        ("coat", "3", "0.500000"), ("background", "2", "0.333333"), ("hat", "1", "0.166667"),
    ]  # fmt: skip
    assert {row["photo"] for row in rows} == {"a.jpg"} and rows[0]["class"] == "2"
    assert (tmp_path / "out" / "skipped.csv").read_text() == "photo,reason\nc.jpg,broken\n"
    to.skipped.clear()
    to.tables([one])
    assert not (tmp_path / "out" / "skipped.csv").exists()


def test_what_is_done_is_not_done_again_unless_the_photo_changed(tmp_path):
    one, other = photo(tmp_path, "a.jpg"), photo(tmp_path, "b.jpg")
    done(output(tmp_path / "out"), one, LABELS)
    # A process was killed while it wrote a line.
    with (tmp_path / "out" / "predictions.jsonl").open("a") as journal:
        journal.write('{"photo": "b.j')
    again = output(tmp_path / "out")
    assert again.done(one) and not again.done(other)
    done(again, other, LABELS)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line).get("photo") for line in lines] == [None, "a.jpg", "b.jpg"]
    assert json.loads(lines[1])["pixels"] == {"background": 2, "hat": 1, "coat": 3}
    one.path.write_bytes(b"another photo")
    assert not again.done(one)
    again.label_path(other).unlink()
    assert not again.done(other)


def test_predictions_of_something_else_are_refused(tmp_path):
    output(tmp_path / "out")
    with pytest.raises(UserError, match=r"has predictions made with run=\['abc'\] instead of \['other'\]"):
        output(tmp_path / "out", run="other")
    file = {"run": ["abc"], "scales": [1.0], "file": ["label_maps.onnx"]}
    Output(tmp_path / "of_file", made_by=file, class_names=NAMES, overlays=False)
    with pytest.raises(UserError, match=r"has predictions made with file=\['label_maps.onnx'\] instead of None"):
        output(tmp_path / "of_file")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output=.*file cannot be used"):
        output(tmp_path / "file")


def test_results_and_photos_stay_apart(tmp_path):
    one = photo(tmp_path / "in", "a.jpg")
    check_apart(tmp_path / "out", [one], [str(tmp_path / "in")])
    for where, told in ((tmp_path / "in", "lies in photos="), (tmp_path / "in" / "out", "lies in photos=")):
        with pytest.raises(UserError, match=told):
            check_apart(where, [one], [str(tmp_path / "in")])
    with pytest.raises(UserError, match="results are not photos"):
        check_apart(tmp_path / "in", [one], [str(one.path)])


@pytest.mark.parametrize("name", ["a photo.jpg", "Kleid – été 服.jpg", "two\nlines.jpg", 'quote",comma.jpg'])
def test_any_name_will_do(tmp_path, name):
    to, one = output(tmp_path / "out", overlays=True), photo(tmp_path, name)
    done(to, one, LABELS)
    to.skipped[name] = "broken"
    to.tables([one])
    assert output(tmp_path / "out").done(one)
    for table in ("classes.csv", "skipped.csv"):
        with (tmp_path / "out" / table).open(newline="", encoding="utf-8") as file:
            assert {row["photo"] for row in csv.DictReader(file)} == {name}


def test_what_cannot_be_written_is_told_on_one_line(tmp_path, monkeypatch):
    to, long = output(tmp_path / "out"), photo(tmp_path, "a" * 250 + ".jpg")
    with pytest.raises(UserError, match=r"output=.*out cannot be written: .*name too long"):
        done(to, long, LABELS)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    one = photo(tmp_path, "a.jpg")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="No space left on device; the same command goes on"):
        done(to, one, LABELS)
    monkeypatch.undo()
    (tmp_path / "out" / "classes.csv").mkdir()
    with pytest.raises(UserError, match=r"classes\.csv"):
        to.tables([one])


def test_a_journal_that_a_crash_damaged_is_read_as_far_as_it_goes(tmp_path):
    to, one, other = output(tmp_path / "out"), photo(tmp_path, "a.jpg"), photo(tmp_path, "b.jpg")
    done(to, one, LABELS)
    done(to, other, LABELS)
    journal = tmp_path / "out" / "predictions.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + bytes(50) + b"\xff\xfe" + lines[2][:20])
    again = output(tmp_path / "out")
    assert again.done(one) and not again.done(other)
