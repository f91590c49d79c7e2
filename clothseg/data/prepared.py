"""Decoding and resizing a data set once; afterwards it is two arrays on disk.

The resizing is that of `tf.image.resize` (half-pixel centres, no antialiasing), which the article uses, in NumPy: at
these sizes it is as fast, and nothing here has to import TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from clothseg.data.folders import locked
from clothseg.data.labels import IGNORE
from clothseg.data.source import DataError, Source
from clothseg.errors import UserError

if TYPE_CHECKING:
    from clothseg.data.groups import Labels

FORMAT = 4  # of the cache; a new number makes every cache be prepared again
SHOWN = 3  # problems in a message; the report has them all
_CACHED = 2**17  # numbers that are interpolated together
PADDING = 127  # grey level around a padded photo, which says least to a network

Frame = tuple[int, int, int, int]
Resize = Literal["squash", "pad"]
LabelResize = Literal["nearest", "bilinear"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A data set, decoded and resized. n examples of one size.

    Attributes:
        name: of the data set.
        photos: uint8 (n, height, width, 3) in 0..255, read from disk as needed.
        labels: uint8 (n, height, width) in 0..len(class_names) - 1 or, around a padded photo, `IGNORE`; read from disk
            as needed.
        pixels: int (n, classes), of every class in every photo; ignored ones are counted nowhere.
        frames: int (n, 4), top, left, height and width in pixels of what of the picture is photo and not padding.
        names: n names, in the order of the source.
        class_names: one name per label value.
        fingerprint: sha256 over names, photos and labels; equal wherever they are equal.
        folder: where the arrays lie.
        skipped: name and reason of every example left out.
    """

    name: str
    photos: np.ndarray
    labels: Labels
    pixels: np.ndarray
    frames: np.ndarray
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    fingerprint: str
    folder: Path
    skipped: tuple[tuple[str, str], ...]


def prepare(
    source: Source,
    *,
    image_size: tuple[int, int],
    resize: Resize,
    label_resize: LabelResize,
    cache: Path,
    skip_invalid: bool,
    workers: int | None,
) -> Prepared:
    """Decodes and resizes every pair of a data set, or opens what an earlier call left in the cache.

    The cache is valid as long as the source's identity, the size and the kind of resizing stay as they are. Of several
    processes one prepares and the others wait for it.

    Args:
        source: the data set.
        image_size: (height, width) wanted, in pixels.
        resize: "squash" photos into the size whatever their shape, or "pad" them to keep it, with grey that counts
            nowhere.
        label_resize: "nearest", or the article's "bilinear", a defect that invents labels; see `resize_labels`.
        cache: folder for the arrays, made where it is missing.
        skip_invalid: whether to leave out examples that cannot be used, with a warning, instead of raising.
        workers: threads that decode; None for one per processor that this process may use.

    Raises:
        DataError: examples cannot be used (its `problems` has all of them), or no example is left.
        UserError: an argument is out of its range, or the cache cannot be written.
    """
    height, width = _checked_size(image_size)
    if label_resize not in ("nearest", "bilinear"):
        raise UserError(f'label_resize is {label_resize!r}; it can be "nearest" or "bilinear"')
    if resize not in ("squash", "pad"):
        raise UserError(f'resize is {resize!r}; it can be "squash" or "pad"')
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it can be 1 or more, or null for one per processor")

    cache = Path(cache)
    key = _key([FORMAT, source.identity(), list(source.class_names), height, width, resize, label_resize])
    folder = cache / f"{source.name}-{key[:16]}"
    try:
        prepared = _open(folder)
        if prepared is None:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_name(f"{folder.name}.lock")):
                # Another process may have prepared it while this one waited.
                prepared = _open(folder) or _prepare(
                    source, folder, (height, width), resize, label_resize, skip_invalid, workers
                )
        if prepared.skipped and not skip_invalid:
            raise _invalid(source.name, dict(prepared.skipped), len(prepared.names) + len(prepared.skipped), folder)
    except OSError as error:
        raise UserError(f"{source.name} cannot be prepared in {cache}: {error}") from error
    return prepared


def frame_of(own: tuple[int, int], size: tuple[int, int], *, resize: Resize) -> Frame:
    """Where in the prepared picture a photo lies.

    Args:
        own: height and width of the photo.
        size: (height, width) of the prepared picture.
        resize: "squash" fills it; "pad" keeps the photo's shape, as large as it fits, in the middle.

    Returns:
        Top, left, height and width in pixels.
    """
    if resize == "squash":
        return 0, 0, *size
    scale = min(wanted / have for wanted, have in zip(size, own, strict=True))
    height, width = (max(1, min(wanted, round(have * scale))) for wanted, have in zip(size, own, strict=True))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def fit_photo(photo: np.ndarray, size: tuple[int, int], *, resize: Resize) -> np.ndarray:
    """A photo uint8 (own height, own width, 3) as a network is shown it: uint8 (height, width, 3)."""
    top, left, height, width = frame_of(photo.shape[:2], size, resize=resize)
    fitted = np.full((*size, 3), PADDING, np.uint8)
    fitted[top : top + height, left : left + width] = resize_photo(photo, (height, width))
    return fitted


def fit_labels(labels: np.ndarray, size: tuple[int, int], *, resize: Resize, how: LabelResize) -> np.ndarray:
    """The labels of a photo, uint8 (own height, own width), as `fit_photo` puts it: uint8 (height, width)."""
    top, left, height, width = frame_of(labels.shape, size, resize=resize)
    fitted = np.full(size, IGNORE, np.uint8)
    fitted[top : top + height, left : left + width] = resize_labels(labels, (height, width), how=how)
    return fitted


def resize_photo(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes as `tf.image.resize` does by default (bilinear, no antialiasing), rounded to whole grey levels.

    Args:
        photo: uint8 (own height, own width, 3).
        size: (height, width) wanted.

    Returns:
        uint8 (height, width, 3).
    """
    return np.rint(bilinear(photo, size)).astype(np.uint8)


def resize_labels(labels: np.ndarray, size: tuple[int, int], *, how: LabelResize) -> np.ndarray:
    """Resizes labels.

    Args:
        labels: uint8 (own height, own width).
        size: (height, width) wanted.
        how: "nearest" as `tf.image.resize(method="nearest")`. "bilinear" as the article: bilinear between label
            numbers, cut off to whole ones, which puts classes along every edge that are not in the photo.

    Returns:
        uint8 (height, width).
    """
    if how == "bilinear":
        return bilinear(labels, size).astype(np.uint8)
    rows, columns = (_nearest(wanted, own) for wanted, own in zip(size, labels.shape, strict=True))
    return labels.take(rows, axis=0).take(columns, axis=1)


def _centres(wanted: int, own: int, *, offset: float) -> np.ndarray:
    # In float32 throughout, as TensorFlow computes them: in float64 some nearest neighbours are others.
    scale = np.float32(own) / np.float32(wanted)
    return (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(offset)


def _nearest(wanted: int, own: int) -> np.ndarray:
    return np.minimum(_centres(wanted, own, offset=0.0).astype(np.intp), own - 1)


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes as `tf.image.resize` does by default, but for rounding; float32 (height, width, ...)."""
    if image.shape[:2] == size:
        return image.astype(np.float32)
    top, bottom, down = _neighbours(size[0], image.shape[0])
    left, right, across = _neighbours(size[1], image.shape[1])
    channels = image.size // (image.shape[0] * image.shape[1])
    # Pixels are taken whole, and their channels are then numbers of a row: NumPy is slow at short last axes.
    down, across = down[:, None], across.repeat(channels)

    def row(rows: np.ndarray) -> np.ndarray:
        lines = image.take(rows, axis=0)
        first = lines.take(left, axis=1).reshape(len(rows), -1).astype(np.float32)
        change = lines.take(right, axis=1).reshape(len(rows), -1) - first
        change *= across
        return np.add(first, change, out=change)

    made = np.empty((size[0], size[1] * channels), np.float32)
    # So few rows at a time that they stay in the processor's cache.
    height = max(1, _CACHED // made.shape[1])
    for part in (slice(start, start + height) for start in range(0, size[0], height)):
        upper = row(top[part])
        change = row(bottom[part])
        change -= upper
        change *= down[part]
        np.add(upper, change, out=made[part])
    return made.reshape(*size, *image.shape[2:])


def _neighbours(wanted: int, own: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centres = _centres(wanted, own, offset=0.5)
    below = np.floor(centres)
    first = np.maximum(below.astype(np.intp), 0)
    second = np.minimum(np.ceil(centres).astype(np.intp), own - 1)
    return first, second, centres - below


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else ()
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"image_size is {image_size}; it has to be two positive whole numbers, height and width")
    return size


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _open(folder: Path) -> Prepared | None:
    """What the folder holds; None where it holds nothing that can be used."""
    if not folder.is_dir():
        return None
    try:
        return _load(folder)
    except Exception as error:  # damaged files make NumPy raise nearly anything, BadZipFile included
        logger.warning("the cache %s is damaged and will be prepared again: %s", folder, error)
        return None


def _load(folder: Path) -> Prepared:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    photos = np.load(folder / "photos.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
    expected = (len(meta["names"]), *meta["image_size"])
    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    frames = np.array(meta["frames"], int)
    if photos.dtype != np.uint8 or labels.dtype != np.uint8:
        raise ValueError(f"arrays of {photos.dtype} and {labels.dtype} instead of uint8")
    if photos.shape != (*expected, 3) or labels.shape != expected or frames.shape != (expected[0], 4):
        raise ValueError(f"arrays of shapes {photos.shape} and {labels.shape} instead of {expected}")
    if pixels.dtype != np.uint32 or pixels.shape != (expected[0], len(meta["class_names"])):
        raise ValueError(f"counts of pixels {pixels.dtype} {pixels.shape} instead of a row a photo, a column a class")
    return Prepared(
        name=meta["name"],
        photos=photos,
        labels=labels,
        pixels=pixels.astype(np.int64),
        frames=frames,
        names=tuple(meta["names"]),
        class_names=tuple(meta["class_names"]),
        fingerprint=meta["fingerprint"],
        folder=folder,
        skipped=tuple((name, reason) for name, reason in meta["skipped"]),
    )


def _prepare(
    source: Source,
    folder: Path,
    size: tuple[int, int],
    resize: Resize,
    label_resize: LabelResize,
    skip_invalid: bool,
    workers: int | None,
) -> Prepared:
    names = source.names()
    problems = source.problems()
    logger.info("preparing %d pairs of %s at %d x %d in %s", len(names), source.name, *size, folder)

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        kept, frames, pixels = [], [], []
        with (
            _RowWriter(partial / "photos.npy", (*size, 3)) as photos,
            _RowWriter(partial / "labels.npy", size) as labels,
        ):
            usable = [name for name in names if name not in problems]
            for name, example in _read_all(source, usable, size, resize, label_resize, workers):
                if isinstance(example, str):
                    problems[name] = example
                else:
                    photos.append(example[0])
                    labels.append(example[1])
                    frames.append(example[2])
                    pixels.append(example[3])
                    kept.append(name)
        # In the order of the names, whether found before decoding or by it.
        problems = {name: problems[name] for name in (*names, *problems) if name in problems}
        _judge(source.name, kept, problems, folder, skip_invalid)
        with (partial / "pixels.npy").open("wb") as file:
            np.save(file, np.stack(pixels))
            _sync(file)
        meta = {
            "name": source.name,
            "image_size": size,
            "resize": resize,
            "label_resize": label_resize,
            "class_names": source.class_names,
            "fingerprint": _key([kept, size, photos.digest(), labels.digest()]),
            "skipped": list(problems.items()),
            "names": kept,
            "frames": frames,
        }
        _write_synced(partial / "meta.json", json.dumps(meta, indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been opened
        partial.rename(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _load(folder)


def _judge(name: str, kept: list[str], problems: dict[str, str], folder: Path, skip_invalid: bool) -> None:
    if not kept and not problems:
        raise DataError(f"{name} has no examples")
    if problems:
        error = _invalid(name, problems, len(kept) + len(problems), folder)
        if not skip_invalid or not kept:
            raise error
        logger.warning("left out: %s", error)


# A resized photo and its labels, where they lie, and uint32 (classes,), the pixels of every class.
_Example = tuple[np.ndarray, np.ndarray, Frame, np.ndarray]


def _read_all(
    source: Source,
    names: list[str],
    size: tuple[int, int],
    resize: Resize,
    label_resize: LabelResize,
    workers: int | None,
) -> Iterator[tuple[str, _Example | str]]:
    """Every name in order, with its example, or what is wrong with it."""
    classes = len(source.class_names)

    def read(name: str) -> _Example | str:
        try:
            photo, labels = source.read(name)
            _check(name, photo, labels, classes)
        except DataError as error:
            return str(error)
        fitted = fit_labels(labels, size, resize=resize, how=label_resize)
        pixels = np.bincount(fitted.ravel(), minlength=classes)[:classes].astype(np.uint32)
        frame = frame_of(labels.shape, size, resize=resize)
        return fit_photo(photo, size, resize=resize), fitted, frame, pixels

    # Threads, because nearly all of it happens outside the interpreter's lock: as fast as processes.
    workers = workers or _processors()
    waiting: deque[tuple[str, Future[_Example | str]]] = deque()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc=f"preparing {source.name}", total=len(names), unit="pair", disable=None) as progress,
    ):
        try:
            for name in names:
                waiting.append((name, pool.submit(read, name)))
                # So many are ahead that no thread waits, and so few that they do not fill the memory.
                if len(waiting) > 4 * workers:
                    yield _taken(waiting)
                    progress.update()
            while waiting:
                yield _taken(waiting)
                progress.update()
        finally:
            for _, coming in waiting:
                coming.cancel()


def _taken(waiting: deque[tuple[str, Future[_Example | str]]]) -> tuple[str, _Example | str]:
    name, coming = waiting.popleft()
    return name, coming.result()


def _processors() -> int:
    # Those that a scheduler or a container left to this process, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(name: str, photo: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if (
        photo.dtype != np.uint8
        or labels.dtype != np.uint8
        or photo.shape != (*labels.shape, 3)
        or labels.ndim != 2
        or not labels.size
    ):
        raise DataError(
            f"{name} has a photo {photo.dtype} {photo.shape} and labels {labels.dtype} {labels.shape}; "
            "they have to be uint8 (height, width, 3) and uint8 (height, width)"
        )
    if labels.max() >= classes:
        raise DataError(f"{name} has the label {labels.max()}; the highest of {classes} classes is {classes - 1}")


def _invalid(name: str, problems: dict[str, str], total: int, folder: Path) -> DataError:
    """Writes the report beside the cache."""
    report = folder.with_name(f"{folder.name}-problems.txt")
    report.write_text("".join(f"{example}: {reason}\n" for example, reason in problems.items()), encoding="utf-8")
    shown = "; ".join(f"{example}: {reason}" for example, reason in list(problems.items())[:SHOWN])
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return DataError(
        f"{len(problems)} of {total} examples of {name} cannot be used ({shown}{more}); all are listed in {report}; "
        "mend them, or leave them out with prepare.skip_invalid=true",
        problems,
    )


class _RowWriter:
    """A .npy file of uint8 rows, written one by one until their number is known.

    Plain writes instead of a memory map: on a full disk those raise, where a map would kill the process.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self._file = path.open("wb")
        self._row_shape = row_shape
        self._hash = hashlib.sha256()
        self._rows = 0
        self._write_header()

    def __enter__(self) -> _RowWriter:
        return self

    def append(self, row: np.ndarray) -> None:
        data = row.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._rows += 1

    def digest(self) -> str:
        return self._hash.hexdigest()

    def __exit__(self, *_: object) -> None:
        try:
            self._write_header()
            _sync(self._file)
        finally:
            self._file.close()

    def _write_header(self) -> None:
        # NumPy pads the header so that it keeps its length when the first dimension grows.
        self._file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
