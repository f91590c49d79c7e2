"""Class groups: training and scoring on fewer classes than a data set has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clothseg.checks import suggestion
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import Prepared
from clothseg.errors import UserError

IGNORED_GROUP = "ignore"  # the group whose classes count nowhere


def group_labels(
    class_names: Sequence[str], groups: Mapping[str, Sequence[str] | None], *, rest: str | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """What every class of a data set becomes.

    Args:
        class_names: of the data set, one per label value.
        groups: names of the new classes, the background first, each with the classes that it takes in (None for none).
            The classes of a group called "ignore" become `IGNORE`.
        rest: the one of the groups that also takes every class that no group lists; None where all are listed.

    Returns:
        The names of the new classes, and a table uint8 (256,) from old label to new one. What is no class, `IGNORE`
        among them, becomes `IGNORE`.

    Raises:
        UserError: a class that is unknown, listed twice, or not at all without `rest`; a group without classes, or none
            but "ignore"; an unknown `rest`; the first class of the data set, its background, not in the first group.
    """
    listed = {group: tuple(members or ()) for group, members in groups.items()}
    if rest is not None and rest not in listed:
        raise UserError(f"label_groups.rest={rest} {_hint(rest, listed)}; it may be one of the groups {_names(listed)}")
    group_of: dict[str, str] = {}
    for group, members in listed.items():
        for name in members:
            if name not in class_names:
                raise UserError(f"label_groups.groups.{group} has {name}, {_hint(name, class_names)}")
            if name in group_of:
                raise UserError(f"label_groups has {name} in {group_of[name]} and in {group}; a class is in one group")
            group_of[name] = group
    missing = [name for name in class_names if name not in group_of]
    if missing and rest is None:
        raise UserError(
            f"label_groups has no group for {_names(missing)}; list what is missing, or name the group that takes it "
            "in label_groups.rest"
        )
    if rest is not None:
        group_of.update(dict.fromkeys(missing, rest))

    empty = [group for group in listed if group not in group_of.values()]
    if empty:
        raise UserError(f"label_groups.groups.{empty[0]} has no classes; give it some, or leave it out")
    names = tuple(group for group in listed if group != IGNORED_GROUP)
    if not names:
        raise UserError(f"label_groups.groups={_names(listed)} has no group to train on; name at least one other")
    numbers = {group: number for number, group in enumerate(names)} | {IGNORED_GROUP: IGNORE}
    table = np.full(IGNORE + 1, IGNORE, np.uint8)
    table[: len(class_names)] = [numbers[group_of[name]] for name in class_names]
    if table[0] != 0:
        raise UserError(
            f"label_groups has {class_names[0]} in {group_of[class_names[0]]}; it has to be in the first group, here "
            f"{names[0]}, which is what scores of clothes leave out"
        )
    return names, table


class Grouped:
    """Labels seen through a table, made where they are read, so that what lies on disk stays there.

    It can be indexed as the array it is of, and then gives arrays; `numpy.asarray` reads all of it.

    Args:
        labels: uint8 (n, height, width).
        table: uint8 (256,), from label to label.
    """

    def __init__(self, labels: Labels, table: np.ndarray) -> None:
        self._labels, self._table = labels, table
        self.shape: tuple[int, ...] = labels.shape
        self.dtype, self.ndim = table.dtype, len(self.shape)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._table[self._labels[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("grouped labels are no array; they can only be copied into one")
        return np.asarray(self[:], dtype)


Labels = np.ndarray | Grouped


def grouped(prepared: Prepared, groups: Mapping[str, Sequence[str] | None] | None, *, rest: str | None) -> Prepared:
    """A prepared data set with its classes put together as in `group_labels`; the same one where `groups` is None.

    Its labels are a `Grouped` view, and its fingerprint depends on the groups.

    Raises:
        UserError: as `group_labels`, and for `rest` without groups.
    """
    if groups is None:
        if rest is not None:
            raise UserError(f"label_groups.rest={rest} needs label_groups.groups; without groups it has to be null")
        return prepared
    names, table = group_labels(prepared.class_names, groups, rest=rest)
    pixels = np.zeros((len(prepared.pixels), len(names)), prepared.pixels.dtype)
    for old, new in enumerate(table[: len(prepared.class_names)]):
        if new != IGNORE:
            pixels[:, new] += prepared.pixels[:, old]
    key = json.dumps([prepared.fingerprint, names, table.tolist()])
    return replace(
        prepared,
        labels=Grouped(prepared.labels, table),
        pixels=pixels,
        class_names=names,
        fingerprint=hashlib.sha256(key.encode()).hexdigest(),
    )


def _hint(name: Any, known: Any) -> str:
    near = suggestion(name, known)
    return f"which is unknown: {near.rstrip()}" if near else "which is unknown"


def _names(names: Any) -> str:
    return ", ".join(map(str, names))
