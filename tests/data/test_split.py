from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from clothseg.data.split import PARTS, Split, split
from clothseg.errors import UserError

NAMES = tuple(f"{i:04d}" for i in range(1, 101))


def cut(names=NAMES, *, validation=0.2, test=0.0, random_state=0, groups=None) -> Split:
    return split(names, validation=validation, test=test, random_state=random_state, groups=groups)


def parts(drawn: Split) -> list[np.ndarray]:
    return [getattr(drawn, part) for part in PARTS]


@pytest.mark.parametrize("count", [1000, 7, 2])
@pytest.mark.parametrize("validation", [0.2, 0.07, 1 / 3])
def test_without_test_part_it_is_scikit_learns_split_in_its_order(count, validation):
    train, held_out = train_test_split(np.arange(count), test_size=validation, random_state=3)
    drawn = cut(tuple(map(str, range(count))), validation=validation, random_state=3)
    np.testing.assert_array_equal(drawn.train, train)
    np.testing.assert_array_equal(drawn.validation, held_out)
    assert len(drawn.test) == 0


@pytest.mark.parametrize("groups", [None, np.arange(100) // 2])
def test_parts_cover_every_example_once(groups):
    drawn = cut(validation=0.2, test=0.1, groups=groups)
    assert [len(part) for part in parts(drawn)] == [70, 20, 10]
    assert sorted(np.concatenate(parts(drawn))) == list(range(100))


def test_test_part_does_not_move_with_the_validation_fraction():
    few, many = cut(validation=0.1, test=0.2), cut(validation=0.4, test=0.2)
    np.testing.assert_array_equal(few.test, many.test)
    assert len(few.validation) == 10 and len(many.validation) == 40


def test_random_state_decides():
    np.testing.assert_array_equal(cut(random_state=1).train, cut(random_state=1).train)
    assert set(cut(random_state=1).validation) != set(cut(random_state=2).validation)


def test_a_group_stays_on_one_side():
    groups = np.random.default_rng(0).integers(0, 30, size=100)
    drawn = cut(validation=0.2, test=0.2, groups=groups)
    sides = [set(groups[part]) for part in parts(drawn)]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@pytest.mark.parametrize("validation, test", [(0, 0), (1, 0), (0.2, 1.0), (0.5, 0.5), (-0.1, 0), (0.2, -0.1)])
def test_impossible_fractions_are_named(validation, test):
    with pytest.raises(UserError, match=f"validation={validation}.*test={test}"):
        cut(validation=validation, test=test)


@pytest.mark.parametrize("names", [(), ("only",)])
def test_nothing_left_to_train_on_is_an_error(names):
    with pytest.raises(UserError, match="nothing to train on"):
        cut(names)


def test_one_group_cannot_be_split():
    with pytest.raises(UserError, match="1 groups"):
        cut(groups=np.zeros(100, dtype=int))


def test_a_seed_out_of_range_is_named():
    with pytest.raises(UserError, match="random_state=-1"):
        cut(random_state=-1)


def test_what_is_written_is_read_back(tmp_path):
    drawn, path = cut(test=0.1), tmp_path / "splits" / "split.json"
    drawn.write(path)
    back = Split.read(path, NAMES)
    assert back.names() == drawn.names()
    for part, other in zip(parts(back), parts(drawn), strict=True):
        np.testing.assert_array_equal(part, other)


def test_the_file_has_one_name_on_a_line_and_fits_data_in_another_order(tmp_path):
    path = tmp_path / "split.json"
    cut().write(path)
    assert all(path.read_text().count(f'  "{name}"') == 1 for name in NAMES)
    assert all(line.count('"') <= 2 for line in path.read_text().splitlines())
    back = Split.read(path, NAMES[::-1])
    assert back.names() == cut().names()


def test_names_that_do_not_fit_the_data_are_reported(tmp_path):
    path = tmp_path / "split.json"
    cut().write(path)
    with pytest.raises(UserError, match="names '0100'"):
        Split.read(path, NAMES[:-1])
    with pytest.raises(UserError, match="lacks 2 of 102 examples, 'new_a' the first"):
        Split.read(path, (*NAMES, "new_a", "new_b"))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        (json.dumps({"train": ["a"], "validation": ["b"]}), "JSON object"),
        (json.dumps({"train": ["a"], "validation": "b", "test": []}), "JSON object"),
        (json.dumps({"train": ["a"], "validation": [2], "test": []}), "JSON object"),
        (json.dumps({"train": ["a", "b"], "validation": [], "test": []}), "no examples under validation"),
        (json.dumps({"train": ["a"], "validation": ["b"], "test": ["a"]}), "'a' twice"),
    ],
)
def test_a_broken_file_is_a_user_error_naming_it(tmp_path, text, reason):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"split.json.*{reason}"):
        Split.read(path, ("a", "b"))


def test_a_file_that_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot read split .*none.json"):
        Split.read(tmp_path / "none.json", NAMES)


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, clothseg.data.split; sys.exit(any(m in sys.modules for m in ('sklearn', 'tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipes_are_chosen_on_other_photos_than_those_that_the_article_validates_on():
    article, development = cut(), cut(validation=0.1, test=0.2)
    assert set(development.test) == set(article.validation)
    assert len(development.validation) == len(NAMES) // 10 and set(development.validation) <= set(article.train)


@pytest.mark.parametrize("groups", [None, np.random.default_rng(0).integers(0, 30, size=100)])
def test_folds_hold_every_example_that_is_not_for_testing_out_once(groups):
    drawn = cut(test=0.2, groups=groups)
    folds = drawn.folds(4, random_state=0, groups=groups)
    assert sorted(np.concatenate([fold.validation for fold in folds])) == sorted({*range(100)} - {*drawn.test})
    for fold in folds:
        np.testing.assert_array_equal(fold.test, drawn.test)
        assert sorted(np.concatenate(parts(fold))) == list(range(100))
        if groups is not None:
            assert not set(groups[fold.validation]) & set(groups[fold.train])


def test_folds_are_of_one_size_and_are_scikit_learns():
    from sklearn.model_selection import KFold

    folds = cut().folds(3, random_state=5, groups=None)
    assert sorted(len(fold.validation) for fold in folds) == [33, 33, 34]
    for fold, (train, held_out) in zip(folds, KFold(3, shuffle=True, random_state=5).split(NAMES), strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.validation, held_out)


def test_folds_do_not_depend_on_what_was_validated_on_before():
    few, many = (cut(validation=validation, test=0.1) for validation in (0.1, 0.5))
    for one, other in zip(*(drawn.folds(5, random_state=0, groups=None) for drawn in (few, many)), strict=True):
        assert one.names() == other.names()
    assert few.folds(5, random_state=1, groups=None)[0].names() != few.folds(5, random_state=0, groups=None)[0].names()


def test_more_folds_than_examples_or_groups_cannot_be():
    with pytest.raises(UserError, match="folds=101 of 100 examples cannot be; folds may be 2 to 100"):
        cut().folds(101, random_state=0, groups=None)
    groups = np.arange(100) // 50
    with pytest.raises(UserError, match="folds=3 of 2 groups"):
        cut(validation=0.5, groups=groups).folds(3, random_state=0, groups=groups)
