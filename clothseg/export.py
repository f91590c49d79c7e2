"""`python -m clothseg.export`: a trained run as a file for other runtimes, proved on real photos."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from clothseg import assemble, entry, scoring, trained
from clothseg.deployment import formats
from clothseg.errors import UserError
from clothseg.palette import palette
from clothseg.settings import ExportSettings, check

if TYPE_CHECKING:
    from clothseg.deployment.parity import Parity

log = logging.getLogger(__name__)

MOST_OTHERWISE = 0.001  # of the pixels of a photo, in an export that is not quantized: what rounding does


def main(cfg: DictConfig) -> None:
    """Writes the run that `cfg` names in a format, and tells how far it is the same."""
    settings: ExportSettings = check(cfg, ExportSettings)
    formats.check(settings.format, quantize=settings.quantize)
    folder = Path(settings.output).expanduser()
    path = folder / formats.file_name(settings.format, quantize=settings.quantize)
    if path.exists():
        raise UserError(f"output={settings.output} has {path.name} already; name another folder, or remove it")
    (training,) = trained.opened_together([settings.run], weights=settings.weights)
    photos = scoring.photos_of_split(settings, training)
    _make(folder)
    log.info("%d photos of %s to compare on; loading Keras", min(settings.photos, len(photos.names)), photos.what)
    # Other runtimes compute in float32, whatever was trained in.
    training.load_keras(precision="float32")

    from clothseg.deployment.parity import parity
    from clothseg.evaluation.predictor import Predictor
    from clothseg.models.label_maps import label_map_network

    formats.check_backend(settings.format)
    original = training.model(size=training.size, precision="float32")
    network = label_map_network(original, resize=training.settings.prepare.resize)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as aside:
        made = Path(aside, path.name)
        log.info("writing %s", path)
        formats.write(
            network,
            made,
            name=settings.format,
            quantize=settings.quantize,
            calibration=lambda: _calibration(training, settings),
        )
        found = parity(
            Predictor([assemble.member(original, training.settings)], flip=False, offset=None),
            formats.opened(made, name=settings.format, threads=None),
            photos.read,
            _spread(len(photos.names), settings.photos),
            classes=len(training.class_names),
        )
        if settings.quantize is None and found.pixels > MOST_OTHERWISE:
            raise UserError(
                f"format={settings.format} labels {found.pixels:.2%} of the pixels of a photo otherwise than "
                f"run={settings.run} does, which is more than rounding; nothing was written"
            )
        size = formats.size_of(made)
        described = _described(training, settings, found, size=size)
        shutil.move(made, path)
    path.with_name(f"{path.name}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    _tell(found, path, size=size)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be made: {error}") from error


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly spread."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, most)).round()]


def _calibration(training: trained.Trained, settings: ExportSettings) -> Iterator[np.ndarray]:
    """Photos that the run was trained on, uint8 (1, own height, own width, 3)."""
    data = training.data(root=settings.root)
    rows = data.parts.train[_spread(len(data.parts.train), settings.calibration)]
    for row in tqdm(rows, desc="calibrating", unit="photo", delay=2, disable=None, leave=False):
        yield data.read(int(row))[0][None]


def _described(training: trained.Trained, settings: ExportSettings, found: Parity, *, size: int) -> dict:
    """What whoever takes the file away has to know."""
    return {
        "run": training.found.run_id or training.found.name,
        "weights": training.weights.name,
        "commit": training.found.commit,
        "format": settings.format,
        "quantize": settings.quantize,
        "size": list(training.size),
        "resize": training.settings.prepare.resize,
        "input": "photos: uint8 (batch, height, width, 3), RGB in 0..255, of any size",
        "outputs": {
            "labels": "uint8 (batch, height, width), the class of every pixel",
            "logits": "float32 (batch, rows, columns, classes), at the resolution of the network",
        },
        "classes": list(training.class_names),
        "colours": palette(len(training.class_names)).tolist(),
        "bytes": size,
        "compared": asdict(found),
    }


def _tell(found: Parity, path: Path, *, size: int) -> None:
    log.info("%s: %.1f MB", path, size / 1e6)
    log.info("compared with the original in float32 on %d photos, one by one:", found.photos)
    log.info("  largest difference of a logit       %.2g", found.logits)
    log.info("  most pixels of a photo otherwise    %.4f %%", 100 * found.pixels)
    for name, (original, exported) in (("mean IoU", found.miou), ("accuracy", found.accuracy)):
        log.info("  %-35s %.4f, original %.4f (%+.4f)", name, exported, original, exported - original)
    original, exported = found.milliseconds
    log.info("  %-35s %.0f, original %.0f", "milliseconds for a photo, median", exported, original)


if __name__ == "__main__":
    entry.run(main, config_name="export")
