"""`python -m clothseg.predict`: label maps of photos."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from clothseg import entry, scoring, trained
from clothseg.data.photos import PhotoFile, find_photos, read_photo
from clothseg.data.source import DataError
from clothseg.deployment.exported import is_exported
from clothseg.errors import UserError
from clothseg.prediction.output import Output, check_apart
from clothseg.settings import PredictSettings, check

if TYPE_CHECKING:
    from clothseg.evaluation.predictor import Predictor

log = logging.getLogger(__name__)

PIXELS_AT_ONCE = 48_000_000  # of the photos that are in memory at one stage: two of a good camera


def main(cfg: DictConfig) -> None:
    """Predicts the photos that `cfg` names and that its output does not have yet."""
    settings: PredictSettings = check(cfg, PredictSettings)
    photos = find_photos(settings.files)
    folder = Path(settings.output).expanduser()
    check_apart(folder, photos, settings.files)
    networks = _exported(settings) if any(map(is_exported, settings.runs)) else _trainings(settings)
    made_by = {**networks.made_by, "flip": settings.flip, "scales": settings.scales}
    output = Output(folder, made_by=made_by, class_names=networks.class_names, overlays=settings.overlays)
    waiting = [photo for photo in photos if not output.done(photo)]
    log.info("%d photos, %d of them done before", len(photos), len(photos) - len(waiting))
    if waiting:
        predictor = networks.load()
        begun = time.monotonic()
        _predict(waiting, predictor, output, batch_size=settings.batch_size)
        done = len(waiting) - len(output.skipped)
        if done:
            log.info("%.1f photos per second", done / (time.monotonic() - begun))
    output.tables(photos)
    for name, reason in output.skipped.items():
        log.warning("left out: %s: %s", name, reason)
    if len(output.skipped) == len(photos):
        raise UserError(f"none of {len(photos)} photos could be read; {folder / 'skipped.csv'} has the reasons")
    log.info("%d label maps and tables: %s", len(photos) - len(output.skipped), folder)


@dataclass(frozen=True)
class _Networks:
    """What predicts.

    Attributes:
        class_names: one per class.
        made_by: what tells its predictions from those of others, fit for JSON.
        load: gets it ready.
    """

    class_names: Sequence[str]
    made_by: Mapping[str, Any]
    load: Callable[[], Predictor]


def _trainings(settings: PredictSettings) -> _Networks:
    for option, given in (("engine", settings.engine), ("precision", settings.precision)):
        if given is not None:
            raise UserError(
                f"{option}={given} is for exported files (run=FOLDER/label_maps.onnx); "
                f"run={settings.runs[0]} is computed by Keras, in the precision of its training"
            )
    trainings = trained.opened_together(settings.runs, weights=settings.weights)

    def load() -> Predictor:
        trainings[0].load_keras(precision=None)
        return scoring.predictor(trainings, flip=settings.flip, scales=settings.scales, offset=None)

    made_by = {
        "run": [training.found.run_id or str(training.found.folder) for training in trainings],
        "weights": [training.weights.name for training in trainings],
    }
    return _Networks(trainings[0].class_names, made_by, load)


def _exported(settings: PredictSettings) -> _Networks:
    from clothseg.deployment import exported
    from clothseg.evaluation.predictor import Predictor

    files, engine = exported.opened_together(settings.runs), exported.engine(settings.engine)
    precision = settings.precision or "float32"
    exported.check_precision(precision, engine)
    for option, given, free in (("weights", settings.weights, None), ("scales", settings.scales, [1.0])):
        if given != free:
            raise UserError(f"{option}={given} is settled in an exported file; predict with its run to choose")

    def load() -> Predictor:
        log.info("loading %s", engine)
        return Predictor([file.member(engine, precision=precision) for file in files], flip=settings.flip, offset=None)

    made_by = {
        "run": [file.run for file in files],
        "weights": [file.weights for file in files],
        "file": [file.path.name for file in files],
        "engine": engine,
        "precision": precision,
    }
    return _Networks(files[0].class_names, made_by, load)


def _predict(photos: Sequence[PhotoFile], predictor: Predictor, output: Output, *, batch_size: int) -> None:
    """Reads, predicts and writes, each while the others go on."""
    from clothseg.evaluation.upsample import label_map

    # Of many photos some are written at the same time anyway.
    threads = (os.cpu_count() or 1) if len(photos) == 1 else 1

    def written(photo: PhotoFile, image: np.ndarray, logits: np.ndarray, window: tuple[float, ...]) -> dict:
        labels = label_map(logits, image.shape[:2], window=window, allowed=None, threads=threads)
        return output.write(photo, image, labels)

    with (
        ThreadPoolExecutor() as readers,
        ThreadPoolExecutor() as writers,
        tqdm(desc="predicting", total=len(photos), unit="photo", delay=2, disable=None, leave=False) as progress,
    ):
        writing: deque[Future] = deque()
        for batch in _batches(photos, readers, output, batch_size=batch_size):
            found = predictor([image for _, image in batch])
            # Those of the batch before have been written while the network worked on this one.
            _note(writing, output, progress)
            for (photo, image), (logits, window) in zip(batch, found, strict=True):
                writing.append(writers.submit(written, photo, image, logits, window))
        _note(writing, output, progress)


def _note(writing: deque[Future], output: Output, progress: tqdm) -> None:
    while writing:
        output.record(writing.popleft().result())
        progress.update()


def _batches(
    photos: Sequence[PhotoFile], readers: ThreadPoolExecutor, output: Output, *, batch_size: int
) -> Iterator[list[tuple[PhotoFile, np.ndarray]]]:
    """Photos that can be read, in batches that fit into memory; the next are read while one is worked on."""
    coming: deque[tuple[PhotoFile, Future]] = deque()
    rest = iter(photos)
    batch: list[tuple[PhotoFile, np.ndarray]] = []
    pixels = 0
    ahead = batch_size
    while True:
        while len(coming) < ahead and (photo := next(rest, None)) is not None:
            coming.append((photo, readers.submit(read_photo, photo.path)))
        if not coming:
            break
        photo, future = coming.popleft()
        try:
            image = future.result()
        except DataError as error:
            output.skipped[photo.name] = str(error)
            continue
        batch.append((photo, image))
        area = image.shape[0] * image.shape[1]
        pixels += area
        # As many of such photos are read ahead as may be in memory.
        ahead = int(np.clip(PIXELS_AT_ONCE // max(area, 1), 1, batch_size))
        if len(batch) == batch_size or pixels + area > PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


if __name__ == "__main__":
    entry.run(main, config_name="predict")
