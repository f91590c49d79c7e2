"""Steps that more than one entry point takes, from checked settings to plain calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pooch

from clothseg.data.groups import grouped
from clothseg.data.prepared import Prepared, prepare
from clothseg.data.source import Source
from clothseg.data.split import Split, split
from clothseg.settings import PrepareSettings, TrainSettings


def prepare_dataset(source: Source, settings: PrepareSettings | TrainSettings, *, size: tuple[int, int]) -> Prepared:
    """The data set decoded, resized and grouped as configured, from the cache where it was done before."""
    options = settings.prepare
    cache = Path(options.cache).expanduser() if options.cache else Path(pooch.os_cache("clothseg"))
    prepared = prepare(
        source,
        image_size=size,
        resize=options.resize,
        label_resize=options.label_resize,
        cache=cache,
        skip_invalid=options.skip_invalid,
        workers=options.workers,
    )
    return grouped(prepared, settings.label_groups.groups, rest=settings.label_groups.rest)


def split_dataset(prepared: Prepared, settings: PrepareSettings | TrainSettings) -> Split:
    """The split that the configuration asks for."""
    return _split(prepared, settings, None if settings.splitting.file is not None else _groups(prepared, settings))


def fold_dataset(prepared: Prepared, settings: TrainSettings, *, count: int) -> list[Split]:
    """The splits of cross-validation: the test part that the configuration asks for, and `count` cuts of the rest."""
    groups = _groups(prepared, settings)
    parts = _split(prepared, settings, groups)
    return parts.folds(count, random_state=settings.splitting.random_state, groups=groups)


def _groups(prepared: Prepared, settings: PrepareSettings | TrainSettings) -> np.ndarray | None:
    """A number for every photo, the same for near-duplicates, where they are to stay together."""
    distance = settings.splitting.group_distance
    if distance is None:
        return None
    from clothseg.data.duplicates import duplicate_groups, near_duplicates

    return duplicate_groups(len(prepared.names), near_duplicates(prepared.photos, threshold=distance))


def _split(prepared: Prepared, settings: PrepareSettings | TrainSettings, groups: np.ndarray | None) -> Split:
    options = settings.splitting
    if options.file is not None:
        return Split.read(Path(options.file).expanduser(), prepared.names)
    return split(
        prepared.names,
        validation=options.validation,
        test=options.test,
        random_state=options.random_state,
        groups=groups,
    )
