"""Cutting a data set into training, validation and test."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clothseg.errors import UserError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Which example belongs to which part.

    Attributes:
        of: the names of all examples; the indices below point into it.
        train: int (n,), in the order in which the split drew them.
        validation: int (n,).
        test: int (n,), empty where no test part was asked for.
    """

    of: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def names(self) -> dict[str, tuple[str, ...]]:
        """Names of the examples by part, in the order of the indices."""
        return {part: tuple(self.of[i] for i in getattr(self, part)) for part in PARTS}

    def folds(self, count: int, *, random_state: int, groups: np.ndarray | None) -> list[Split]:
        """Cuts for cross-validation: what is not in the test part is validated on once, and trained on otherwise.

        Which examples are in a fold depends on the test part, `count`, `random_state` and the groups alone
        (`sklearn.model_selection.KFold`, shuffled), whatever was trained and validated on here. The folds have as many
        examples each, or groups, give or take one.

        Args:
            count: how many folds, 2 or more.
            random_state: 0..2**32 - 1; the same gives the same folds.
            groups: int (len(of),); examples with the same number stay in one fold. None: each example on its own.

        Raises:
            UserError: there are fewer examples, or groups, than folds.
        """
        # scikit-learn takes a second to import.
        from sklearn.model_selection import KFold

        rows = np.sort(np.concatenate([self.train, self.validation]))
        own = rows if groups is None else np.asarray(groups)[rows]
        units = np.unique(own)
        if count > len(units):
            unit = "examples" if groups is None else "groups"
            raise UserError(f"folds={count} of {len(units)} {unit} cannot be; folds may be 2 to {len(units)}")
        drawn = KFold(count, shuffle=True, random_state=random_state).split(units)
        held_out = [np.isin(own, units[places]) for _, places in drawn]
        return [Split(self.of, rows[~held], rows[held], self.test) for held in held_out]

    def to_json(self) -> str:
        """The names by part, one on a line: two splits can be compared with diff."""
        return json.dumps(self.names(), indent=1, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write `to_json` to `path`; its folder is made where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> Split:
        """The split that `write` left in `path`, for the examples `names`.

        Raises:
            UserError: the file is not such a split, or it does not name every example of the data exactly once.
        """
        parts = parts_of(path)
        index = {name: i for i, name in enumerate(names)}
        seen: set[str] = set()
        for name in (name for part in PARTS for name in parts[part]):
            if name not in index:
                raise UserError(f"split {path} names {name!r}, which the data set of {len(names)} examples lacks")
            if name in seen:
                raise UserError(f"split {path} names {name!r} twice; every example belongs to one part")
            seen.add(name)
        missing = next((name for name in names if name not in seen), None)
        if missing is not None:
            raise UserError(
                f"split {path} lacks {len(names) - len(seen)} of {len(names)} examples, {missing!r} the first; "
                "use a split written for this data set, or leave it out to draw a new one"
            )
        return cls(tuple(names), *(np.array([index[name] for name in parts[part]], dtype=int) for part in PARTS))


def split(
    names: Sequence[str], *, validation: float, test: float, random_state: int, groups: np.ndarray | None
) -> Split:
    """Cut the examples at random.

    Without test part and groups this is `sklearn.model_selection.train_test_split(indices, test_size=validation,
    random_state=random_state)`, the article's split, in its order. A test part is cut off first and depends on `test`
    and `random_state` alone, so that changing the validation fraction never moves an example in or out of it; the
    rest is then cut into training and validation. With groups, whole groups are drawn
    (`sklearn.model_selection.GroupShuffleSplit`) and the fractions count groups.

    Args:
        names: the names of all examples.
        validation: fraction of all examples (or groups) for validation, above 0.
        test: fraction of all examples (or groups) for test; 0 cuts none.
        random_state: 0..2**32 - 1; the same gives the same split.
        groups: int (len(names),); examples with the same number stay in one part. None: each example on its own.

    Raises:
        UserError: fractions that cannot be, or that leave a part empty.
    """
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise UserError(
            f"cannot split into validation={validation} and test={test}: validation has to be above 0, test 0 or more, "
            "both together below 1"
        )
    if not 0 <= random_state < 2**32:
        raise UserError(f"random_state={random_state} is no seed; it has to be 0..{2**32 - 1}")
    if groups is not None and len(groups) != len(names):
        raise ValueError(f"{len(groups)} groups for {len(names)} examples")

    units = len(names) if groups is None else len(np.unique(groups))
    # Rounded up as scikit-learn does; both are counted on the whole, so that the order of cutting changes no size.
    validation_units, test_units = math.ceil(validation * units), math.ceil(test * units)
    if units - validation_units - test_units < 1:
        unit = "examples" if groups is None else "groups"
        raise UserError(
            f"validation={validation} and test={test} leave nothing to train on of {units} {unit}; "
            "ask for smaller fractions or use more data"
        )
    rest, test_part = np.arange(len(names)), np.empty(0, dtype=int)
    if test_units:
        rest, test_part = _cut(rest, test_units, random_state, groups)
    train, validation_part = _cut(rest, validation_units, random_state, groups)
    return Split(tuple(names), train, validation_part, test_part)


def _cut(
    indices: np.ndarray, units: int, random_state: int, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What stays, and `units` examples or groups drawn from `indices`."""
    if groups is None:
        # As scikit-learn draws them, which takes seconds to import.
        order = np.random.RandomState(random_state).permutation(len(indices))
        return indices[order[units:]], indices[order[:units]]
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(n_splits=1, test_size=units, random_state=random_state)
    kept, drawn = next(splitter.split(indices, groups=np.asarray(groups)[indices]))
    return indices[kept], indices[drawn]


def parts_of(path: Path) -> dict[str, list[str]]:
    """The names by part in a file that `Split.write` left.

    Raises:
        UserError: it is no such file.
    """
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read split {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"split {path} is not JSON: {error}") from error
    lists = parts.values() if isinstance(parts, dict) and set(parts) == set(PARTS) else ()
    if not lists or not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists):
        raise UserError(f"split {path} has to be a JSON object with lists of names under {', '.join(PARTS)}")
    for part in ("train", "validation"):
        if not parts[part]:
            raise UserError(f"split {path} has no examples under {part}; every run needs some to train and validate on")
    return parts
