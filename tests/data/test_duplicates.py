from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from clothseg.data import duplicates
from clothseg.data.duplicates import duplicate_groups, near_duplicates, perceptual_hash


def photo(seed: int, side: int = 64) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))


def retouched(original: np.ndarray) -> np.ndarray:
    noisy = original + np.random.default_rng(0).normal(0, 6, original.shape)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return np.asarray(ImageEnhance.Brightness(image.crop((1, 1, 64, 64)).resize((64, 64))).enhance(1.1))


def test_hash_has_64_bits_and_ignores_scale():
    assert perceptual_hash(photo(1)).shape == (64,)
    small, large = perceptual_hash(photo(1, 64)), perceptual_hash(photo(1, 160))
    assert np.count_nonzero(small != large) <= 4


def test_a_copy_is_at_distance_zero():
    photos = np.stack([photo(1), photo(2), photo(1)])
    assert near_duplicates(photos, threshold=0) == [(0, 2, 0)]


def test_a_retouched_photo_is_found_among_others():
    photos = np.stack([*(photo(seed) for seed in range(12)), retouched(photo(5))])
    [(i, j, distance)] = near_duplicates(photos, threshold=10)
    assert (i, j) == (5, 12) and 0 <= distance <= 10


def test_the_same_shapes_in_other_colours_are_not_the_same_photo():
    original = photo(3)
    grey = original.mean(axis=2)
    red, blue = np.zeros_like(original), np.zeros_like(original)
    red[..., 0], blue[..., 2] = grey, grey
    assert near_duplicates(np.stack([red, red]), threshold=10) == [(0, 1, 0)]
    assert near_duplicates(np.stack([red, blue]), threshold=10) == []


def test_blocks_change_nothing(monkeypatch):
    photos = np.stack([photo(seed % 7) for seed in range(20)])
    whole = near_duplicates(photos, threshold=6)
    assert len(whole) >= 19
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 60)
    assert near_duplicates(photos, threshold=6) == whole


def test_closest_pairs_come_first():
    photos = np.stack([photo(5), retouched(photo(5)), photo(9), photo(9)])
    found = near_duplicates(photos, threshold=12)
    assert found[0] == (2, 3, 0)
    assert [distance for *_, distance in found] == sorted(distance for *_, distance in found)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare_gives_no_pairs(count):
    assert near_duplicates(np.zeros((count, 32, 32, 3), np.uint8), threshold=64) == []


def test_groups_are_connected_components():
    groups = duplicate_groups(6, [(0, 3, 2), (3, 5, 8), (1, 2, 0)])
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2]
    assert len({groups[0], groups[1], groups[4]}) == 3


def test_without_pairs_every_photo_is_its_own_group():
    assert sorted(duplicate_groups(4, [])) == [0, 1, 2, 3]


def test_known_pairs_of_the_real_data_are_found(ccp_root):
    numbers = (183, 730, 594, 722, 78, 984, 223, 616, 907, 990, 197, 671, 692, 732, *range(1, 30))
    photos = np.stack([
        np.asarray(Image.open(ccp_root / "photos" / f"{n:04d}.jpg").convert("RGB").resize((128, 128))) for n in numbers
    ])  # fmt: skip
    found = {(i, j) for i, j, _ in near_duplicates(photos, threshold=10)}
    assert found == {(k, k + 1) for k in range(0, 14, 2)}
