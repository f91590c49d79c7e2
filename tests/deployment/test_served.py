"""The model that MLflow keeps: files of photos in, label maps and areas out, and reasons for what it refuses."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from clothseg.data.photos import read_photo
from clothseg.deployment import served


def model() -> served.LabelMaps:
    """Its network says of every pixel which colour is the strongest there."""
    found = served.LabelMaps()
    found.network = lambda photos, training: {"labels": photos.argmax(axis=-1).astype(np.uint8)}
    found.classes = ["red", "green", "blue"]
    found.colours = np.uint8([[200, 0, 0], [0, 200, 0], [0, 0, 200]])
    return found


def file(picture: Image.Image, **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, **options)
    return content.getvalue()


def answers(*contents: bytes) -> list[dict]:
    return model().predict(None, pandas.DataFrame({"photo": contents}))


def answer(content: bytes) -> dict:
    (found,) = answers(content)
    return found


def test_it_answers_with_a_label_map_that_is_a_picture_and_with_areas():
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[:, :4, 1], photo[:, 4:, 2] = 255, 255
    found = answer(file(Image.fromarray(photo), format="PNG"))
    with Image.open(io.BytesIO(base64.b64decode(found["label_map"]))) as picture:
        assert np.array_equal(np.asarray(picture), photo.argmax(axis=-1))
        assert np.array_equal(np.asarray(picture.convert("RGB"))[0, 0], [0, 200, 0])
    assert (found["height"], found["width"]) == (4, 6)
    assert found["classes"] == [
        {"class": 1, "name": "green", "pixels": 16, "share": pytest.approx(2 / 3)},
        {"class": 2, "name": "blue", "pixels": 8, "share": pytest.approx(1 / 3)},
    ]


def test_photos_are_read_as_everywhere_else(tmp_path):
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[274] = 6
    colours = Image.fromarray(random.integers(0, 256, (5, 8, 3), dtype=np.uint8))
    pictures = {
        "turned.jpg": (colours, {"exif": turned}),
        "clear.png": (Image.fromarray(random.integers(0, 256, (5, 8, 4), dtype=np.uint8)), {}),
        "grey.png": (Image.fromarray(random.integers(0, 65536, (5, 8), dtype=np.uint16)), {}),
        "palette.gif": (colours.quantize(16), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(tmp_path / name, **options)
        content = (tmp_path / name).read_bytes()
        assert np.array_equal(served._photo(content, 0), read_photo(tmp_path / name)), name


@pytest.mark.parametrize("content", [b"no photo", b"", None, 5])
def test_what_is_no_photo_is_refused_with_the_reason(content):
    with pytest.raises(MlflowException, match="photo 0 cannot be read") as refused:
        answer(content)
    assert refused.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "photo 0 is EPS, which is not opened"),
        (file(Image.new("F", (3, 2), 0.5), format="TIFF"), "photo 0 has floating-point grey levels"),
    ],
    ids=["program", "floats"],
)
def test_what_would_run_a_program_or_be_black_is_refused(content, told, monkeypatch):
    def run(*_, **__):
        raise AssertionError("a program was run")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    with pytest.raises(MlflowException, match=told) as refused:
        answer(content)
    assert refused.value.get_http_status_code() == 400


def test_photos_that_would_not_fit_into_memory_are_refused():
    with pytest.raises(MlflowException, match="6000 x 5000 pixels"):
        answer(file(Image.new("1", (6000, 5000)), format="PNG"))


SMALL = file(Image.new("L", (3, 2)), format="PNG")


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ([SMALL] * 257, "257 photos of .* bytes; up to 256 of 200000000 bytes work in a request"),
        ([SMALL + bytes(70_000_000)] * 3, "3 photos of 21.* bytes; up to 256 of 200000000 bytes work"),
        (
            [file(Image.new("1", (5000, 5000)), format="PNG")] * 11,
            "photos of 275000000 pixels together; up to",
        ),
        ([SMALL] * 9 + [b"none"], "photo 9 cannot be read"),
    ],
    ids=["photos", "bytes", "pixels", "none"],
)
def test_a_request_for_too_much_is_refused_before_a_photo_is_decoded(contents, told, monkeypatch):
    def decode(*_):
        raise AssertionError("a photo was decoded")

    monkeypatch.setattr(served, "_photo", decode)
    with pytest.raises(MlflowException, match=told) as refused:
        answers(*contents)
    assert refused.value.get_http_status_code() == 400


def test_photos_are_decoded_one_at_a_time(monkeypatch):
    done, labelled, read = [], served.LabelMaps._labelled, served._photo
    monkeypatch.setattr(served, "_photo", lambda content, place: done.append("decoded") or read(content, place))
    monkeypatch.setattr(
        served.LabelMaps, "_labelled", lambda self, photo: done.append("labelled") or labelled(self, photo)
    )
    assert len(answers(SMALL, SMALL, SMALL)) == 3
    assert done == ["decoded", "labelled"] * 3
