"""`python -m clothseg.evaluate`: what trained runs score on photos at their own size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from clothseg import assemble, entry, trained
from clothseg.data.groups import group_labels
from clothseg.data.source import Source
from clothseg.errors import UserError
from clothseg.settings import EvaluateSettings, check

if TYPE_CHECKING:
    from clothseg.evaluation.native import Read, Scored
    from clothseg.evaluation.predictor import Member
    from clothseg.trained import Trained

log = logging.getLogger(__name__)

PARTS = {"val": "validation", "test": "test", "train": "train"}
STRIDE = 32  # of the coarsest map of every encoder: what heights and widths are rounded to at other scales


@dataclass(frozen=True)
class Photos:
    """What is scored.

    Attributes:
        names: of the photos.
        read: from a place in `names` to a photo and its labels, in the classes of the network.
        what: names the part or the data set.
        offset: float (classes,), added to logits, or None.
    """

    names: Sequence[str]
    read: Read
    what: str
    offset: np.ndarray | None


def main(cfg: DictConfig) -> None:
    """Scores the runs that `cfg` names together, and logs the scores to the run, or to a new one of several."""
    settings: EvaluateSettings = check(
        OmegaConf.masked_copy(cfg, [key for key in cfg if key != "dataset"]), EvaluateSettings
    )
    dataset = cfg.get("dataset")
    from clothseg.tracking.find import find

    members = [trained.opened(find(run), weights=settings.weights) for run in settings.runs]
    first = members[0]
    _check_classes(members)
    photos = _photos(settings, first) if dataset is None else _other_photos(dataset, settings, first)
    if dataset is None:
        _check_unseen(members, photos, settings)
    class_names, scored = _scored(settings, first)
    log.info("%s: %d photos; loading Keras", photos.what, len(photos.names))

    from clothseg.training import backend, precision

    options = first.settings
    backend.load(seed=options.seed, deterministic=options.deterministic, threads=options.threads)
    precision.set_policy(options.precision)

    from clothseg.evaluation.native import Evaluator
    from clothseg.evaluation.predictor import Predictor
    from clothseg.tracking import evaluation as tracking

    networks = [network for member in members for network in _networks(member, settings.scales)]
    evaluator = Evaluator(
        Predictor(networks, flip=settings.flip, offset=photos.offset),
        photos.read,
        classes=len(first.class_names),
        scored=scored,
        tags=settings.tags,
        batch_size=settings.batch_size,
    )
    rows = range(len(photos.names))
    evaluation = evaluator.evaluate(rows, boundary=settings.boundary)
    what = _name(settings, photos)
    with tracking.destinations([member.found for member in members], what, output=settings.output) as logs:
        tracking.log_evaluation(logs, evaluation, class_names, names=photos.names, what=what, step=0)
        if settings.figure_photos:
            shown = tracking.extremes(evaluation, most=settings.figure_photos)
            predictions = list(evaluator.predictions(shown))
            names = [photos.names[row] for row in shown]
            tracking.log_mistakes(logs, predictions, class_names, names=names, what=what)


def _check_classes(members: Sequence[Trained]) -> None:
    first = members[0]
    for other in members[1:]:
        if other.class_names != first.class_names:
            raise UserError(
                f"run={other.found.given} has {len(other.class_names)} classes and {first.found.given} "
                f"{len(first.class_names)}, or others; only networks with the same classes can be averaged"
            )


def _photos(settings: EvaluateSettings, first: Trained) -> Photos:
    """Those of a part of the run's split."""
    data = first.data(dataset={} if settings.root is None else {"root": settings.root})
    rows = getattr(data.parts, PARTS[settings.split])
    if not len(rows):
        filled = ", ".join(name for name, part in PARTS.items() if len(getattr(data.parts, part)))
        raise UserError(f"split={settings.split} of run {first.found.given} is empty; it has {filled}")
    return Photos(
        names=[data.final.names[row] for row in rows],
        read=lambda place: data.read(int(rows[place])),
        what=settings.split,
        offset=assemble.offset(data, adjustment=settings.adjustment),
    )


def _other_photos(dataset: DictConfig, settings: EvaluateSettings, first: Trained) -> Photos:
    """All photos of a data set that the run was not trained on."""
    if settings.adjustment > 0:
        raise UserError(
            f"adjustment={settings.adjustment:g} needs the photos that the run was trained on; leave dataset= out"
        )
    cfg = first.cfg.copy()
    # There its interpolations have something to refer to.
    cfg.dataset = dataset
    source: Source = entry.build(cfg.dataset)
    names = source.names()
    problems = source.problems()
    groups = first.settings.label_groups
    class_names, table = tuple(source.class_names), None
    if groups.groups is not None:
        class_names, table = group_labels(class_names, groups.groups, rest=groups.rest)
    if class_names != first.class_names:
        raise UserError(
            f"dataset={source.name} has {len(class_names)} classes and run {first.found.given} "
            f"{len(first.class_names)}, or others; the same classes in the same order can be scored"
        )
    names = tuple(name for name in names if name not in problems)

    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        photo, labels = source.read(names[place])
        return photo, labels if table is None else table[labels]

    return Photos(names=names, read=read, what=source.name, offset=None)


def _check_unseen(members: Sequence[Trained], photos: Photos, settings: EvaluateSettings) -> None:
    """Refuses to score a network of several on photos that it was trained on as if it had not seen them."""
    if settings.split == "train":
        return
    wanted = set(photos.names)
    for other in members[1:]:
        seen = len(wanted & set(other.part("train")))
        if seen:
            raise UserError(
                f"run={other.found.given} was trained on {seen} of the {len(wanted)} photos of "
                f"split={settings.split} of {members[0].found.given}; runs with one split can be scored together"
            )


def _scored(settings: EvaluateSettings, first: Trained) -> tuple[Sequence[str], Scored | None]:
    """Names of the classes that are scored, and how the network's become these."""
    groups = settings.label_groups
    if groups.groups is None:
        return first.class_names, None
    from clothseg.evaluation.native import Scored

    names, table = group_labels(first.class_names, groups.groups, rest=groups.rest)
    return names, Scored(table, classes=len(names))


def _networks(member: Trained, scales: Sequence[float]) -> list[Member]:
    """The network of a training at every scale."""
    sizes = dict.fromkeys(_scaled(member.size, scale) for scale in scales)
    return [assemble.member(member.model(size=size), member.settings) for size in sizes]


def _scaled(size: assemble.Size, scale: float) -> assemble.Size:
    if scale == 1:
        return size
    height, width = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in size)
    return height, width


def _name(settings: EvaluateSettings, photos: Photos) -> str:
    more: list[Any] = []
    if settings.scales != [1.0]:
        more.append("scales")
    if settings.label_groups.groups is not None:
        more.append(Path(settings.label_groups.name).name)
    return assemble.evaluation_name(photos.what, settings, *more)


if __name__ == "__main__":
    entry.run(main, config_name="evaluate")
