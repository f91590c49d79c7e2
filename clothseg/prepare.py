"""`python -m clothseg.prepare`: decode and resize a data set once, and show what is in it."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clothseg import entry
from clothseg.data.prepared import Prepared
from clothseg.data.split import PARTS, Split
from clothseg.settings import PrepareSettings, check, options_of
from clothseg.stages import prepare_dataset, split_dataset

log = logging.getLogger(__name__)

SHOWN_CLASSES = 12
SHOWN_PAIRS = 12


def main(cfg: DictConfig) -> None:
    """Prepares what `cfg` describes, prints what is there and leaves a report with figures."""
    cfg = options_of(cfg, "prepare", PrepareSettings)
    settings: PrepareSettings = check(cfg, PrepareSettings)
    source = entry.build(cfg.dataset)
    prepared = prepare_dataset(source, settings, size=settings.size)
    parts = split_dataset(prepared, settings)
    folder = Path(settings.output or HydraConfig.get().runtime.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    parts.write(folder / "split.json")
    report(prepared, parts, folder, duplicate_distance=settings.duplicate_distance)
    if settings.kaggle_output is not None:
        from clothseg.data.paperdoll import write_kaggle

        write_kaggle(source, Path(settings.kaggle_output).expanduser())
        log.info("pairs in the Kaggle layout: %s", settings.kaggle_output)


def report(prepared: Prepared, parts: Split, folder: Path, *, duplicate_distance: int) -> None:
    """Prints and draws what a prepared data set holds.

    Args:
        prepared: the data set.
        parts: how it is split, to tell which near-duplicates a split leaks across.
        folder: gets report.json, classes.csv, duplicates.csv and the figures samples.png, class_frequencies.png and
            duplicates.png.
        duplicate_distance: Hamming distance (0..64) of perceptual hashes up to which photos count as near-duplicates.
    """
    from clothseg.data.duplicates import near_duplicates
    from clothseg.tracking import figures

    pixels, photos = prepared.pixels.sum(axis=0), (prepared.pixels > 0).sum(axis=0)
    part_of = np.empty(len(prepared.names), object)
    for part in PARTS:
        part_of[getattr(parts, part)] = part
    pairs = near_duplicates(prepared.photos, threshold=duplicate_distance)
    leaks = [(a, b, distance) for a, b, distance in pairs if part_of[a] != part_of[b]]

    share = pixels / pixels.sum()
    log.info(
        "%s: %d pairs of %d x %d (%s); %s",
        prepared.name, len(prepared.names), *prepared.photos.shape[1:3],
        ", ".join(f"{part} {len(getattr(parts, part))}" for part in PARTS),
        f"{len(prepared.skipped)} skipped" if prepared.skipped else "none skipped",
    )  # fmt: skip
    log.info("%d of %d classes occur; share of pixels and photos:", np.count_nonzero(pixels), len(pixels))
    for number in np.argsort(-pixels, kind="stable")[:SHOWN_CLASSES]:
        log.info("  %-14s %6.2f %%  %5d photos", prepared.class_names[number], 100 * share[number], photos[number])
    absent = [name for name, count in zip(prepared.class_names, pixels, strict=True) if not count]
    log.info("absent: %s", ", ".join(absent) or "none")
    log.info("%d pairs of near-duplicate photos, %d of them across the split", len(pairs), len(leaks))
    for a, b, distance in pairs[:SHOWN_PAIRS]:
        log.info("  %s, distance %d", _pair(prepared, part_of, a, b), distance)

    summary = {
        "dataset": prepared.name,
        "fingerprint": prepared.fingerprint,
        "pairs": len(prepared.names),
        "height": prepared.photos.shape[1],
        "width": prepared.photos.shape[2],
        "classes": len(prepared.class_names),
        "classes_present": int(np.count_nonzero(pixels)),
        "background_share": float(share[0]),
        "split": {part: len(getattr(parts, part)) for part in PARTS},
        "near_duplicates": len(pairs),
        "near_duplicates_across_the_split": len(leaks),
        "skipped": dict(prepared.skipped),
    }
    (folder / "report.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_table(
        folder / "classes.csv",
        ("class", "name", "pixels", "share", "photos"),
        zip(range(len(pixels)), prepared.class_names, pixels, share, photos, strict=True),
    )
    _write_table(
        folder / "duplicates.csv",
        ("photo", "other", "distance", "part", "part_of_other"),
        ((prepared.names[a], prepared.names[b], distance, part_of[a], part_of[b]) for a, b, distance in pairs),
    )
    first = parts.train[:8]
    drawn = {
        "samples": figures.sample_sheet(
            prepared.photos[first],
            prepared.labels[first],
            class_names=prepared.class_names,
            names=[prepared.names[i] for i in first],
        ),
        "class_frequencies": figures.class_frequencies(pixels, photos, class_names=prepared.class_names),
        "duplicates": figures.duplicate_pairs(
            [prepared.photos[a] for a, _, _ in pairs[:SHOWN_PAIRS]],
            [prepared.photos[b] for _, b, _ in pairs[:SHOWN_PAIRS]],
            captions=[
                f"{_pair(prepared, part_of, a, b)}, distance {distance}" for a, b, distance in pairs[:SHOWN_PAIRS]
            ],
        ),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png")
    log.info("report and figures: %s; prepared arrays: %s", folder, prepared.folder)


def _pair(prepared: Prepared, part_of: np.ndarray, a: int, b: int) -> str:
    return f"{prepared.names[a]} / {prepared.names[b]}, {part_of[a]} / {part_of[b]}"


def _write_table(path: Path, columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


if __name__ == "__main__":
    entry.run(main, config_name="prepare")
