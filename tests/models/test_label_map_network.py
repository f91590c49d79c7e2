"""A network that takes photos of any size does what preparing, the network and resizing its logits do one by one."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from clothseg.data.prepared import fit_photo
from clothseg.evaluation.predictor import Member, Predictor
from clothseg.evaluation.upsample import label_map
from clothseg.models.label_maps import label_map_network

SIZE = (32, 64)
SIZES = [(32, 64), (50, 40), (7, 90), (131, 70), (20, 200)]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    photos = keras.Input((*SIZE, 3))
    mixed = keras.layers.Conv2D(8, 5, strides=2, padding="same", activation="relu")(photos / 255.0)
    return keras.Model(photos, keras.layers.Conv2D(5, 3, padding="same", dtype="float32")(mixed))


def photo(size: tuple[int, int]) -> np.ndarray:
    """Smooth, as photos are: of noise every pixel would be an edge."""
    coarse = np.random.default_rng(size[0]).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return fit_photo(coarse, size, resize="squash")


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("size", SIZES)
def test_it_labels_as_a_predictor_does(size, resize):
    original = network()
    found = label_map_network(original, resize=resize)(photo(size)[None])
    ((logits, window),) = Predictor([Member(original, SIZE, resize)], flip=False, offset=None)([photo(size)])
    labels = label_map(logits, size, window=window, allowed=None, threads=1)
    assert len(np.unique(labels)) > 1
    assert np.asarray(found["labels"]).dtype == np.uint8 and found["labels"].shape == (1, *size)
    # A grey level that is rounded the other way may decide a pixel.
    assert (np.asarray(found["labels"])[0] == labels).mean() > 0.995
    # A grey level more is much for so small a network.
    assert np.median(np.abs(np.asarray(found["logits"])[0] - logits)) < 1e-4


def test_photos_of_one_size_go_through_together():
    whole = label_map_network(network(), resize="pad")
    photos = np.stack([photo((50, 40)), photo((50, 40))[::-1]])
    both = np.asarray(whole(photos)["labels"])
    for one, labels in zip(photos, both, strict=True):
        assert np.array_equal(np.asarray(whole(one[None])["labels"])[0], labels)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_its_file_is_opened_without_this_package_in_safe_mode(precision, tmp_path):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(precision)
        whole = label_map_network(network(), resize="pad")
    finally:
        keras.config.set_dtype_policy(before)
    whole.save(tmp_path / "whole.keras")
    np.save(tmp_path / "photo.npy", photo((131, 70)))
    np.save(tmp_path / "labels.npy", np.asarray(whole(photo((131, 70))[None])["labels"]))
    code = (
        "import sys, keras, numpy as np\n"
        "sys.modules['clothseg'] = None\n"
        "whole = keras.models.load_model('whole.keras', compile=False, safe_mode=True)\n"
        "labels = np.asarray(whole(np.load('photo.npy')[None])['labels'])\n"
        "assert np.array_equal(labels, np.load('labels.npy'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_around_the_network_is_exact_whatever_the_network_computes_in():
    original = network()
    wanted = label_map_network(original, resize="squash")(photo((131, 70))[None])
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        found = label_map_network(original, resize="squash")(photo((131, 70))[None])
    finally:
        keras.config.set_dtype_policy(before)
    assert np.array_equal(found["logits"], wanted["logits"])
    assert np.array_equal(found["labels"], wanted["labels"])
