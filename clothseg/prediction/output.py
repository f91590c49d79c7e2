"""What a prediction leaves: label maps, overlays and tables, in a folder that can be gone on with."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clothseg.data.photos import PhotoFile
from clothseg.errors import UserError
from clothseg.palette import palette
from clothseg.prediction.overlay import overlay

JOURNAL = "predictions.jsonl"
LABELS, OVERLAYS = "labels", "overlays"


class Output:
    """A folder of predictions.

    `labels/NAME.png` are label maps at the photos' own sizes, one byte a pixel, its value the class, with the palette
    inside; `overlays/NAME.jpg` show them; `predictions.jsonl` has a line for every photo, written when it is done; and
    `classes.csv` the area of every class in every photo, `skipped.csv` what could not be read.

    Args:
        folder: made where it is missing.
        made_by: what makes the predictions, fit for JSON. A folder that something else has begun is refused.
        class_names: one per class.
        overlays: whether to draw overlays.

    Raises:
        UserError: the folder cannot be used, or holds predictions that were made otherwise.
    """

    def __init__(self, folder: Path, *, made_by: Mapping[str, Any], class_names: Sequence[str], overlays: bool) -> None:
        self.folder, self.class_names, self.overlays = folder, tuple(class_names), overlays
        self.colours = palette(len(class_names))
        self.skipped: dict[str, str] = {}
        self._records: dict[str, dict[str, Any]] = {}
        try:
            (folder / LABELS).mkdir(parents=True, exist_ok=True)
            self._open(json.loads(json.dumps(dict(made_by))))
        except OSError as error:
            raise UserError(f"output={folder} cannot be used: {error}") from error

    def _open(self, made_by: dict[str, Any]) -> None:
        path = self.folder / JOURNAL
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        known = [record for record in map(_parsed, lines) if record is not None]
        if known and known[0] != made_by:
            differing = next(key for key in {**made_by, **known[0]} if known[0].get(key) != made_by.get(key))
            raise UserError(
                f"output={self.folder} has predictions made with {differing}={known[0].get(differing)} instead of "
                f"{made_by.get(differing)}; name another folder, or remove this one"
            )
        self._records = {record["photo"]: record for record in known[1:]}
        if len(known) < len(lines) or not known:
            # Begun anew without a line that a killed process has left half written.
            everything = [made_by, *self._records.values()]
            path.write_text("".join(json.dumps(record) + "\n" for record in everything), encoding="utf-8")

    def done(self, photo: PhotoFile) -> bool:
        """Whether a photo has been predicted and has not changed since."""
        record = self._records.get(photo.name)
        return record is not None and record["file"] == _identity(photo) and self.label_path(photo).is_file()

    def label_path(self, photo: PhotoFile) -> Path:
        """Where the label map of a photo is."""
        return self.folder / LABELS / f"{photo.name}.png"

    def write(self, photo: PhotoFile, image: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Writes label map and overlay of a photo. Several threads may do so at once; see `record`.

        Args:
            photo: it.
            image: uint8 (height, width, 3).
            labels: uint8 (height, width).

        Returns:
            Its record.

        Raises:
            UserError: something cannot be written.
        """
        with self._writing():
            return self._write(photo, image, labels)

    def _write(self, photo: PhotoFile, image: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        if self.overlays:
            drawn = overlay(image, labels, class_names=self.class_names, colours=self.colours)
            _saved(drawn, self.folder / OVERLAYS / f"{photo.name}.jpg", quality=88)
        indexed = Image.fromarray(labels)
        indexed.putpalette(self.colours.tobytes())
        _saved(indexed, self.label_path(photo))
        counts = np.bincount(labels.ravel(), minlength=len(self.class_names))
        return {
            "photo": photo.name,
            "file": _identity(photo),
            "height": labels.shape[0],
            "width": labels.shape[1],
            "pixels": {name: int(count) for name, count in zip(self.class_names, counts, strict=True) if count},
        }

    def record(self, record: dict[str, Any]) -> None:
        """Notes that a photo is done."""
        self._records[record["photo"]] = record
        with self._writing(), (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record) + "\n")

    def tables(self, photos: Sequence[PhotoFile]) -> None:
        """Writes the tables, of the photos that were asked for."""
        with self._writing():
            self._tables(photos)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # a full disk, a name that is too long with an ending more
            raise UserError(f"output={self.folder} cannot be written: {error}; the same command goes on") from error

    def _tables(self, photos: Sequence[PhotoFile]) -> None:
        records = [self._records[photo.name] for photo in photos if photo.name in self._records]
        numbers = {name: number for number, name in enumerate(self.class_names)}
        with (self.folder / "classes.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["photo", "height", "width", "class", "name", "pixels", "share"])
            for record in records:
                area = record["height"] * record["width"]
                for name, pixels in sorted(record["pixels"].items(), key=lambda item: -item[1]):
                    row = [record["photo"], record["height"], record["width"], numbers[name], name, pixels]
                    writer.writerow([*row, f"{pixels / area:.6f}"])
        path = self.folder / "skipped.csv"
        path.unlink(missing_ok=True)
        if self.skipped:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([["photo", "reason"], *self.skipped.items()])


def check_apart(output: Path, photos: Sequence[PhotoFile], folders: Sequence[str]) -> None:
    """Refuses an output among the input, which it would be read as, or could overwrite.

    Raises:
        UserError: names the two.
    """
    whole = output.expanduser().resolve()
    for text in folders:
        given = Path(text).expanduser().resolve()
        if given.is_dir() and (whole == given or given in whole.parents):
            raise UserError(f"output={output} lies in photos={text}; results are not written among photos")
    for photo in photos:
        if whole in photo.path.resolve().parents:
            raise UserError(f"photos has {photo.path}, which lies in output={output}; results are not photos")


def _identity(photo: PhotoFile) -> list[int]:
    stat = photo.path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _saved(image: Image.Image, path: Path, **options: Any) -> None:
    """Written aside and renamed into place: what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    image.save(aside, format="PNG" if path.suffix == ".png" else "JPEG", **options)
    os.replace(aside, path)
