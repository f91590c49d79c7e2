"""Logits of several networks are averaged where they show the same place of a photo."""

from __future__ import annotations

import numpy as np
import pytest

from clothseg.evaluation.predictor import Member, Predictor
from clothseg.evaluation.upsample import label_map, resize


class Places:
    """A network whose logits are a smooth function of the place in the photo, read off the photo's channels."""

    def __init__(self, weights, *, stride: int = 1) -> None:
        self.weights, self.stride = np.asarray(weights, np.float32), stride

    def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
        assert photos.dtype == np.float32
        return photos[:, :: self.stride, :: self.stride] @ self.weights


@pytest.fixture
def photo() -> np.ndarray:
    rows, columns = np.mgrid[0:60, 0:40]
    return np.stack([rows * 4, columns * 6, 120 + 0 * rows], axis=-1).astype(np.uint8)


RED, GREEN = [[1, 0], [0, 0], [0, 1]], [[0, 0], [1, 0], [0, 1]]


def test_members_of_one_size_are_averaged_as_they_are(photo):
    members = [Member(Places(weights), (30, 20), "squash") for weights in (RED, GREEN)]
    ((both, window),) = Predictor(members, flip=False, offset=None)([photo])
    (((red, _),), ((green, _),)) = (Predictor([member], flip=False, offset=None)([photo]) for member in members)
    assert window == (0, 0, 30, 20)
    np.testing.assert_allclose(both, (red + green) / 2)


def test_members_of_other_sizes_meet_on_the_finest_grid_and_padding_stays_out(photo):
    fine, padded = Member(Places(RED), (30, 20), "squash"), Member(Places(RED), (24, 24), "pad")
    ((mean, window),) = Predictor([padded, fine], flip=False, offset=None)([photo])
    ((alone, _),) = Predictor([fine], flip=False, offset=None)([photo])
    assert mean.shape == (30, 20, 2) and window == (0, 0, 30, 20)
    # Both see the same photo: red rises from top to bottom, by 8 from row to row.
    assert abs(mean - alone)[2:-2].max() < 1.5
    labels = label_map(mean, (60, 40), window=window, allowed=None, threads=1)
    assert np.array_equal(labels[:, 7] == 0, photo[:, 7, 0] > 118)


def test_a_mirror_image_is_mirrored_back(photo):
    member = Member(Places(GREEN), (30, 20), "squash")
    ((plain, _),), ((both, _),) = (Predictor([member], flip=flip, offset=None)([photo]) for flip in (False, True))
    # It reads green off the photo itself, which is mirrored twice.
    np.testing.assert_allclose(both, plain)


def test_photos_of_any_size_go_through_together_and_an_offset_is_added_to_each(photo):
    member = Member(Places(RED, stride=2), (30, 20), "squash")
    photos = [photo, photo[:31, :17], photo[:1, :1]]
    offset = np.array([0, 1000], np.float32)
    together = Predictor([member], flip=False, offset=offset)(photos)
    for one, (logits, window) in zip(photos, together, strict=True):
        ((alone, _),) = Predictor([member], flip=False, offset=offset)([one])
        assert logits.shape == (15, 10, 2) and window == (0, 0, 15, 10)
        np.testing.assert_allclose(logits, alone)
        assert (label_map(logits, one.shape[:2], window=window, allowed=None, threads=1) == 1).all()
    assert resize(together[0][0], (4, 4), window=(0, 0, 15, 10)).shape == (4, 4, 2)


def test_a_network_that_is_to_see_two_photos_at_least_sees_one_twice():
    seen = []

    class Counting(Places):
        def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
            seen.append(len(photos))
            return super().predict_on_batch(photos)

    batch = np.random.default_rng(0).uniform(0, 255, (3, 6, 4, 3)).astype(np.float32)
    plain, pairs = Member(Places(RED), (6, 4), "squash"), Member(Counting(RED), (6, 4), "squash", least_batch=2)
    for count in (1, 2, 3):
        np.testing.assert_array_equal(pairs.logits(batch[:count]), plain.logits(batch[:count]))
    assert seen == [2, 2, 3]
