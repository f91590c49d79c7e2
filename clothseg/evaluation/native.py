"""Evaluation at the photo's own size: the network's logits are resized to the annotation, not the other way round.

What a network scores on labels that were resized to its own resolution depends on that resolution; what it scores
against the annotation as it is can be compared with anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from clothseg.data.labels import BACKGROUND, IGNORE
from clothseg.data.prepared import frame_of, resize_labels
from clothseg.evaluation.boundary import TOLERANCE, BoundaryScores
from clothseg.evaluation.calibration import Calibration, CalibrationCounts
from clothseg.evaluation.predictor import Predictor, Window
from clothseg.evaluation.upsample import Upsampled, label_map

Read = Callable[[int], tuple[np.ndarray, np.ndarray]]

EVERY = 4  # rows and columns between the pixels whose calibration is counted: a sixteenth of all


@dataclass(frozen=True)
class Scored:
    """The classes that are scored, where they are not those of the network.

    Attributes:
        table: uint8 (256,), from a class of the network to the one that it is scored as, or to `IGNORE`, for classes
            that count nowhere and are not predicted.
        classes: how many are scored.
    """

    table: np.ndarray
    classes: int


@dataclass(frozen=True)
class Evaluation:
    """What a predictor came to on some photos.

    Attributes:
        confusion: int64 (classes, classes) over all photos at their own sizes: rows labels, columns predictions.
        network_confusion: the same at the resolution of the first network, labels resized by nearest neighbour.
        photo_confusions: int64 (n, classes, classes), `confusion` photo by photo.
        boundary_f: float (classes,), boundary F score of every class, NaN where a class is in no photo; None where it
            was not asked for.
        boundary_photos: int (classes,), of how many photos that is the mean.
        calibration: of the network's own classes, on a regular sixteenth of the pixels at the photos' own sizes; None
            where classes were put together, not allowed, or shifted by an offset, which leaves no probabilities.
    """

    confusion: np.ndarray
    network_confusion: np.ndarray
    photo_confusions: np.ndarray
    boundary_f: np.ndarray | None
    boundary_photos: np.ndarray | None
    calibration: Calibration | None

    @classmethod
    def pooled(cls, parts: Sequence[Evaluation]) -> Evaluation:
        """That of all photos together, of evaluations of the same kind on different photos, in their order."""
        photos, boundary_f, calibration = None, None, None
        counted = [part.boundary_photos for part in parts if part.boundary_photos is not None]
        scored = [part.boundary_f for part in parts if part.boundary_f is not None]
        if scored:
            photos = np.sum(counted, axis=0)
            total = np.nansum([own * count for own, count in zip(scored, counted, strict=True)], axis=0)
            boundary_f = np.divide(total, photos, out=np.full(len(photos), np.nan), where=photos > 0)
        if parts[0].calibration is not None:
            calibration = Calibration(
                *(
                    np.sum([getattr(part.calibration, field.name) for part in parts], axis=0)
                    for field in fields(Calibration)
                )
            )
        return cls(
            confusion=np.sum([part.confusion for part in parts], axis=0),
            network_confusion=np.sum([part.network_confusion for part in parts], axis=0),
            photo_confusions=np.concatenate([part.photo_confusions for part in parts]),
            boundary_f=boundary_f,
            boundary_photos=photos,
            calibration=calibration,
        )


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one photo, in the classes that are scored.

    Attributes:
        photo: uint8 (own height, own width, 3) in 0..255.
        truth: uint8 (own height, own width), as annotated.
        predicted: uint8 (own height, own width).
        network_truth: uint8 (height, width), as annotated, at the resolution of the first network.
        network_predicted: uint8 (height, width), at that resolution.
    """

    photo: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    network_truth: np.ndarray
    network_predicted: np.ndarray


class Evaluator:
    """A predictor and the way its predictions are made into classes and scored.

    Args:
        predictor: photos to logits.
        read: from a row to a photo uint8 (own height, own width, 3) and its labels uint8 (own height, own width) as
            annotated; `IGNORE` counts nowhere. Called in several threads.
        classes: of the network.
        scored: the classes that are scored instead of these; None for these.
        tags: "given" allows as predictions of a photo only the classes that its annotation has, and the background: the
            setting of the Clothing Co-Parsing paper (Yang, Luo, Lin, CVPR 2014), which is given each photo's tags.
        batch_size: photos that go through the network together.
    """

    def __init__(
        self,
        predictor: Predictor,
        read: Read,
        *,
        classes: int,
        scored: Scored | None,
        tags: Literal["given"] | None,
        batch_size: int,
    ) -> None:
        self.predictor, self.read, self.tags, self.batch_size = predictor, read, tags, batch_size
        self.table = None if scored is None else scored.table
        self.classes = classes if scored is None else scored.classes
        self._known = np.arange(classes) if scored is None else np.flatnonzero(scored.table[:classes] != IGNORE)

    def predictions(self, rows: Sequence[int] | np.ndarray, *, shown: bool) -> Iterator[Prediction]:
        """What is predicted of every row, in their order.

        Args:
            rows: which photos.
            shown: whether to show progress.
        """
        return (self._prediction(*found) for found in self._logits(rows, shown=shown))

    def evaluate(self, rows: Sequence[int] | np.ndarray, *, boundary: bool) -> Evaluation:
        """Scores the predictions at the photos' own sizes, and at the network's resolution beside it.

        Args:
            rows: which photos are scored.
            boundary: whether to score boundaries too.
        """
        confusions = np.zeros((len(rows), self.classes, self.classes), np.int64)
        network_confusion = np.zeros((self.classes, self.classes), np.int64)
        boundaries = BoundaryScores(self.classes, tolerance=TOLERANCE) if boundary else None
        plain = self.table is None and self.tags is None and self.predictor.offset is None
        calibration = CalibrationCounts() if plain else None
        for place, (photo, truth, logits, window) in enumerate(self._logits(rows, shown=True)):
            if calibration is not None:
                _count(calibration, truth, Upsampled(logits, truth.shape, window=window))
            found = self._prediction(photo, truth, logits, window)
            confusions[place] = confusion_matrix(found.truth, found.predicted, classes=self.classes)
            network_confusion += confusion_matrix(found.network_truth, found.network_predicted, classes=self.classes)
            if boundaries is not None:
                boundaries.add(found.truth, found.predicted)
        return Evaluation(
            confusion=confusions.sum(axis=0),
            network_confusion=network_confusion,
            photo_confusions=confusions,
            boundary_f=boundaries.of_classes() if boundaries is not None else None,
            boundary_photos=boundaries.photos if boundaries is not None else None,
            calibration=calibration.result() if calibration is not None else None,
        )

    def _logits(
        self, rows: Sequence[int] | np.ndarray, *, shown: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Window]]:
        """Of every row the photo, its labels, its logits and where in them the photo lies."""
        size = self.batch_size
        batches = [[int(row) for row in rows[start : start + size]] for start in range(0, len(rows), size)]
        with (
            ThreadPoolExecutor() as pool,
            tqdm(
                desc="evaluating", total=len(rows), unit="photo", delay=2, disable=None if shown else True, leave=False
            ) as progress,
        ):
            # The next batch is decoded while the network works on this one.
            coming = [pool.submit(self.read, row) for row in batches[0]] if batches else []
            for following in [*batches[1:], []] if batches else []:
                pairs = [future.result() for future in coming]
                coming = [pool.submit(self.read, row) for row in following]
                for found in self._of_batch(pairs):
                    yield found
                    progress.update()

    def _of_batch(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Window]]:
        found = self.predictor([photo for photo, _ in pairs])
        for (photo, truth), (logits, window) in zip(pairs, found, strict=True):
            # A copy: a part of the batch's would keep them all until those of the next batch are there.
            yield photo, truth, logits.copy(), window

    def _prediction(self, photo: np.ndarray, truth: np.ndarray, logits: np.ndarray, window: Window) -> Prediction:
        allowed = None if self.table is None else self._known
        if self.tags == "given":
            allowed = np.intersect1d(np.union1d([BACKGROUND], np.unique(truth)), self._known)
        first = self.predictor.members[0]
        small = frame_of(truth.shape, first.size, resize=first.resize)[2:]
        how: dict[str, Any] = {"window": window, "allowed": allowed, "threads": os.cpu_count() or 1}
        maps = (
            truth,
            label_map(logits, truth.shape, **how),
            resize_labels(truth, small, how="nearest"),
            label_map(logits, small, **how),
        )
        return Prediction(photo, *(maps if self.table is None else (self.table[labels] for labels in maps)))


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    """int64 (classes, classes) of labels and predictions of one shape: rows labels, columns predictions."""
    counted = truth != IGNORE
    cells = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _count(calibration: CalibrationCounts, truth: np.ndarray, logits: Upsampled) -> None:
    rows, columns = np.mgrid[EVERY // 2 : truth.shape[0] : EVERY, EVERY // 2 : truth.shape[1] : EVERY].reshape(2, -1)
    calibration.add(logits.at(rows, columns), truth[rows, columns])
