"""What scoring trainings takes, whether one, several together, or several against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from clothseg import assemble, entry
from clothseg.data.groups import group_labels
from clothseg.data.source import Source
from clothseg.errors import UserError
from clothseg.settings import ExportSettings, Scoring

if TYPE_CHECKING:
    from clothseg.evaluation.native import Evaluator, Read, Scored
    from clothseg.evaluation.predictor import Member, Predictor
    from clothseg.trained import Trained

PARTS = {"val": "validation", "test": "test", "train": "train"}
STRIDE = 32  # of the coarsest map of every encoder: what heights and widths are rounded to at other scales


@dataclass(frozen=True)
class Photos:
    """What is scored.

    Attributes:
        names: of the photos.
        read: from a place in `names` to a photo and its labels, in the classes of the network.
        what: names the part or the data set.
    """

    names: Sequence[str]
    read: Read
    what: str


def photos_of_split(settings: Scoring | ExportSettings, trained: Trained) -> Photos:
    """The photos of a part of a training's split.

    Raises:
        UserError: the part is empty, or the data cannot be had.
    """
    data = trained.data(root=settings.root)
    rows = getattr(data.parts, PARTS[settings.split])
    if not len(rows):
        filled = ", ".join(name for name, part in PARTS.items() if len(getattr(data.parts, part)))
        raise UserError(f"split={settings.split} of run {trained.found.given} is empty; it has {filled}")
    return Photos([data.final.names[row] for row in rows], lambda place: data.read(int(rows[place])), settings.split)


def photos_of_dataset(dataset: DictConfig, trained: Trained) -> Photos:
    """All photos of a data set, in the classes of a training.

    Args:
        dataset: its configuration, which may refer to that of the training.
        trained: the training.

    Raises:
        UserError: it has other classes, or cannot be had.
    """
    cfg = trained.cfg.copy()
    # There its interpolations have something to refer to.
    cfg.dataset = dataset
    source: Source = entry.build(cfg.dataset)
    problems = source.problems()
    names = tuple(name for name in source.names() if name not in problems)
    groups = trained.settings.label_groups
    class_names, table = tuple(source.class_names), None
    if groups.groups is not None:
        class_names, table = group_labels(class_names, groups.groups, rest=groups.rest)
    if class_names != trained.class_names:
        raise UserError(
            f"dataset={source.name} has {len(class_names)} classes and run {trained.found.given} "
            f"{len(trained.class_names)}, or others; the same classes in the same order can be scored"
        )

    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        photo, labels = source.read(names[place])
        return photo, labels if table is None else table[labels]

    return Photos(names, read, source.name)


def check_unseen(trainings: Sequence[Trained], photos: Photos, settings: Scoring) -> None:
    """Refuses to score a network on photos that it was trained on as if it had not seen them.

    Raises:
        UserError: names the first training that saw some.
    """
    if settings.split == "train":
        return
    wanted = set(photos.names)
    for other in trainings:
        seen = len(wanted & set(other.part("train")))
        if seen:
            raise UserError(
                f"run={other.found.given} was trained on {seen} of the {len(wanted)} photos of "
                f"split={settings.split} of {trainings[0].found.given}; runs with one split can be scored together"
            )


def scored_classes(settings: Scoring, trained: Trained) -> tuple[Sequence[str], Scored | None]:
    """Names of the classes that are scored, and how the network's become these."""
    groups = settings.label_groups
    if groups.groups is None:
        return trained.class_names, None
    from clothseg.evaluation.native import Scored

    names, table = group_labels(trained.class_names, groups.groups, rest=groups.rest)
    return names, Scored(table, classes=len(names))


def predictor(
    trainings: Sequence[Trained], *, flip: bool, scales: Sequence[float], offset: np.ndarray | None
) -> Predictor:
    """Trainings as one predictor, averaged.

    Args:
        trainings: with the same classes.
        flip: whether to average with the mirror image.
        scales: sizes relative to those of the trainings, to average over.
        offset: float (classes,), added to the logits, or None; see `offset`.
    """
    from clothseg.evaluation.predictor import Predictor

    members = [member for trained in trainings for member in _members(trained, scales)]
    return Predictor(members, flip=flip, offset=offset)


def evaluator(
    trainings: Sequence[Trained], photos: Photos, settings: Scoring, *, offset: np.ndarray | None
) -> Evaluator:
    """What scores trainings together, averaged; arguments as of `predictor`."""
    from clothseg.evaluation.native import Evaluator

    return Evaluator(
        predictor(trainings, flip=settings.flip, scales=settings.scales, offset=offset),
        photos.read,
        classes=len(trainings[0].class_names),
        scored=scored_classes(settings, trainings[0])[1],
        tags=settings.tags,
        batch_size=settings.batch_size or trainings[0].settings.evaluation.batch_size,
    )


def offset(settings: Scoring, trained: Trained) -> np.ndarray | None:
    """What is added to logits for classes that are rare in the photos that a run was trained on."""
    if settings.adjustment == 0:
        return None
    return assemble.offset(trained.data(root=settings.root), adjustment=settings.adjustment)


def name(settings: Scoring, photos: Photos) -> str:
    """What scores are called by in a run: `val_native_flip`, `test_native_tags`, `val_native_scales_1_1.5_atr18`."""
    more = {
        "_".join(["scales", *(f"{scale:g}" for scale in settings.scales)]): settings.scales != [1.0],
        settings.label_groups.name: settings.label_groups.groups is not None,
        settings.weights: settings.weights is not None,
    }
    return assemble.evaluation_name(photos.what, settings, *(str(part) for part, used in more.items() if used))


def _members(trained: Trained, scales: Sequence[float]) -> list[Member]:
    """The network of a training at every scale."""
    sizes = dict.fromkeys(_scaled(trained.size, scale) for scale in scales)
    return [assemble.member(trained.model(size=size, precision=None), trained.settings) for size in sizes]


def _scaled(size: assemble.Size, scale: float) -> assemble.Size:
    if scale == 1:
        return size
    height, width = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in size)
    return height, width
