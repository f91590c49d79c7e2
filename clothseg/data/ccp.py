"""Clothing Co-Parsing (CCP; Yang, Luo, Lin, CVPR 2014): 1,004 street photos with pixel-level labels.

A copy of the data set is a folder in the layout of its public repository:

    photos/0001.jpg ...                   RGB
    annotations/pixel-level/0001.mat ...  variable `groundtruth`, uint8 (height, width), labels 0..58

The article's set ("People Clothing Segmentation" on Kaggle) is made of the first 1,000 pairs: `subset="article"` makes
it again, pixel by pixel.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.io

from clothseg.data.decoding import MOST_PIXELS
from clothseg.data.download import DownloadError, fetch_ccp
from clothseg.data.folders import check_sizes, file_identity, file_problem, list_files, read_photo
from clothseg.data.labels import BACKGROUND, CLASS_NAMES
from clothseg.data.source import DataError
from clothseg.errors import UserError

PHOTOS = "photos"
ANNOTATIONS = "annotations/pixel-level"
ANNOTATED = 1004  # photos with higher numbers have image-level tags only
ARTICLE_PAIRS = 1000
ARTICLE_HEIGHT = 825

# Of MAT files of version 5: classes of variables that are numbers, the types that these are written in, and the flag of
# complex ones; where the first variable begins, how long type and length are, the type of what is compressed, and
# within how many bytes of a variable its numbers have to begin.
NUMERIC = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}
COMPLEX = 0x800
HEADER, TAG, COMPRESSED, HEAD = 128, 8, 15, 4096

logger = logging.getLogger(__name__)


class Ccp:
    """Clothing Co-Parsing, wherever a copy lies; see `clothseg.data.source.Source`.

    Args:
        root: the copy, or a folder that holds it as `ccp`. None: the environment variable CLOTHSEG_DATA says where,
            and without it the copy is `data/ccp` under the working folder. Looked up when the data is first asked for.
        pairing: "name" pairs photo and annotation of the same name. "walk" is a defect of the article, kept to study
            what it does: photos and annotations are listed as `os.walk` gives them, unsorted, and zipped. Which
            annotation a photo gets then depends on the file system, `names` keeps that order instead of sorting, and
            so a split sees that order too.
        subset: "article" for the article's set: the first 1,000 pairs, cropped or padded to a height of 825 (all are
            550 wide). "all" for every pair at its own size.
        download: whether to fetch the data set (68 MB) where there is none.

    Raises:
        UserError: `pairing` or `subset` is neither of its values, or "walk" is asked of "all".
    """

    name = "ccp"
    class_names = CLASS_NAMES

    def __init__(
        self,
        *,
        root: str | Path | None,
        pairing: Literal["name", "walk"],
        subset: Literal["article", "all"],
        download: bool,
    ) -> None:
        if pairing not in ("name", "walk"):
            raise UserError(f'pairing is {pairing!r}; it can be "name" or "walk"')
        if subset not in ("article", "all"):
            raise UserError(f'subset is {subset!r}; it can be "article" or "all"')
        if pairing == "walk" and subset != "article":
            # Only at one common size can a photo stand beside the annotation of another.
            raise UserError(f'pairing="walk" needs subset="article", not {subset!r}')
        self.root = root
        self.pairing = pairing
        self.subset = subset
        self.download = download
        self._found: _Found | None = None

    def names(self) -> tuple[str, ...]:
        """Names such as "0001", sorted unless the pairing is "walk"; those in `problems` are among them.

        Raises:
            DataError: there is no copy of the data set, and none can be had.
        """
        found = self._scan()
        if self.subset == "article" and len(found.pairs) < ARTICLE_PAIRS:
            logger.warning(
                "%s holds %d pairs; the article's set has %d, so results will not compare",
                found.root, len(found.pairs), ARTICLE_PAIRS,
            )  # fmt: skip
        return tuple(found.pairs)

    def identity(self) -> dict[str, Any]:
        """Options, and name, size and time of every file, in the order of `names`."""
        found = self._scan()
        files = [
            [
                file_identity(_photo(photo), found.photos.get(photo)),
                file_identity(_mat(mat), found.annotations.get(mat)),
            ]
            for photo, mat in found.pairs.items()
        ]
        return {"source": self.name, "pairing": self.pairing, "subset": self.subset, "files": files}

    def problems(self) -> dict[str, str]:
        """Photos and annotations that are empty or lack their partner, by the name of the pair.

        Photos beyond 1004 have no annotation in the data set and are left out, which is no problem.
        """
        found = self._scan()
        return {
            name: reason
            for name, mat in found.pairs.items()
            if (
                reason := file_problem(_photo(name), found.photos.get(name))
                or file_problem(_mat(mat), found.annotations.get(mat))
            )
        }

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Photo uint8 (height, width, 3) in 0..255, labels uint8 (height, width).

        Raises:
            DataError: no such pair, a file that cannot be read, or photo and labels of different sizes.
        """
        found = self._found or self._scan()
        if name not in found.pairs:
            raise DataError(f"{name!r} is no pair of {found.root}")
        photo = read_photo(found.root / _photo(name))
        labels = read_annotation(found.root / _mat(found.pairs[name]))
        if self.pairing == "walk":
            photo, labels = fit_height(photo, ARTICLE_HEIGHT), fit_height(labels, ARTICLE_HEIGHT)
        check_sizes(photo, labels, _photo(name), _mat(found.pairs[name]))
        if self.subset == "article":
            photo, labels = fit_height(photo, ARTICLE_HEIGHT), fit_height(labels, ARTICLE_HEIGHT)
        return photo, labels

    def _scan(self) -> _Found:
        # Scanned at every question, so that files mended meanwhile count; `read` alone relies on the last answer.
        root = self._locate()
        photos = list_files(root / PHOTOS, ".jpg")
        annotations = list_files(root / ANNOTATIONS, ".mat")
        names = sorted(annotations.keys() | {name for name in photos if not _is_beyond_annotated(name)})
        if self.subset == "article":
            names = names[:ARTICLE_PAIRS]
        pairs = dict(zip(names, names, strict=True))
        if self.pairing == "walk":
            wanted = set(names)
            walked_photos = (n for n in photos if n in wanted)
            walked_annotations = (n for n in annotations if n in wanted)
            pairs = dict(zip(walked_photos, walked_annotations, strict=False))
        self._found = _Found(root, pairs, photos, annotations)
        return self._found

    def _locate(self) -> Path:
        given = self.root or os.environ.get("CLOTHSEG_DATA")
        asked = Path(given).expanduser() if given else Path("data", "ccp")
        for folder in (asked, asked / "ccp"):
            if (folder / PHOTOS).is_dir() and (folder / ANNOTATIONS).is_dir():
                return folder
        advice = "set CLOTHSEG_DATA or dataset.root to a copy, or run experiment=quickstart, which needs none"
        if asked.exists() and not (asked.is_dir() and not any(asked.iterdir())):
            raise DataError(f"{asked} does not hold the ccp photos ({PHOTOS}/ and {ANNOTATIONS}/); {advice}")
        if not self.download:
            raise DataError(f"the ccp photos are not in {asked} and download is off; switch it on, {advice}")
        try:
            fetch_ccp(asked)
        except DownloadError as error:
            missing = f"the ccp photos are not in {asked} and could not be downloaded"
            raise DataError(f"{missing} ({error}); {advice}") from error
        return asked


class _Found(NamedTuple):
    root: Path
    pairs: dict[str, str]  # photo -> annotation
    photos: dict[str, os.stat_result]
    annotations: dict[str, os.stat_result]


def read_annotation(path: Path) -> np.ndarray:
    """The labels in one of the data set's MATLAB files.

    Returns:
        uint8 (height, width).

    Raises:
        DataError: the file is missing, cut off, or holds no whole numbers in 0..255 as `groundtruth`.
    """
    try:
        found = [(shape, kind) for name, shape, kind in scipy.io.whosmat(path) if name == "groundtruth"]
        for shape, kind in found:
            # A few bytes can say that they unpack to any size.
            if math.prod(shape) > MOST_PIXELS:
                raise ValueError(f"groundtruth of {shape} is larger than any photo")
            if kind not in NUMERIC:
                raise DataError(f"{path} holds groundtruth as {kind}, not numbers (height, width)")
        _check_types(path.read_bytes())
        labels = scipy.io.loadmat(path, variable_names=["groundtruth"])["groundtruth"]
    except DataError:
        raise
    except Exception as error:  # a broken file makes scipy raise nearly anything, zlib.error and TypeError included
        raise DataError(f"{path} cannot be read as an annotation: {type(error).__name__}: {error}") from error
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{path} holds groundtruth as {type(labels).__name__}, not numbers (height, width)")
    if labels.ndim != 2 or labels.dtype.kind not in "uif" or labels.size == 0:
        raise DataError(f"{path} holds groundtruth {labels.dtype} {labels.shape}, not numbers (height, width)")
    with np.errstate(invalid="ignore"):  # NaN is none of the whole numbers either
        whole = labels.astype(np.uint8)
    if not np.array_equal(whole, labels):
        raise DataError(f"{path} holds labels that are no whole numbers in 0..255")
    return whole


def _check_types(data: bytes) -> None:
    """Refuses numbers of a type that there is not: scipy looks it up without a check, which may end the process.

    Args:
        data: of a MAT file of version 5; those of version 4 have no such types.

    Raises:
        ValueError: the type; or zlib.error or struct.error, for what is no such file.
    """
    if 0 in data[:4]:
        return
    order, at = "<" if data[126:128] == b"IM" else ">", HEADER
    while at + TAG <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        head, at = data[at + TAG : at + TAG + HEAD], at + TAG + size
        if kind == COMPRESSED:
            head = zlib.decompressobj().decompress(data[at - size : at], HEAD)[TAG:]
        # Flags, then dimensions, name and numbers; of four bytes and fewer the content is in the tag.
        place, contents = 2 * TAG, []
        for _ in range(2):
            tag, length = struct.unpack_from(f"{order}II", head, place)
            start, length = (place + 4, 4) if tag >> 16 else (place + TAG, length)
            contents.append(head[start : start + length])
            place = start + length + -(start + length) % 8
        if contents[1] == b"groundtruth":
            (tag,) = struct.unpack_from(f"{order}I", head, place)
            number = tag & 0xFFFF if tag >> 16 else tag
            (flags,) = struct.unpack_from(f"{order}I", head, TAG)
            if flags & COMPLEX:
                raise ValueError("groundtruth has complex numbers")
            if number not in NUMBERS:
                raise ValueError(f"groundtruth is of type {number}, which is none of numbers")


def fit_height(image: np.ndarray, height: int) -> np.ndarray:
    """Crops an image at its centre, or pads it with zeros, to a height; the width stays.

    How Kaggle's set was made of CCP, found by comparing all 1,000 images: the crop begins at row `(own - height) // 2`,
    the padding has `(height - own) // 2` rows on top.

    Args:
        image: (own height, width) or (own height, width, channels).
        height: rows wanted.

    Returns:
        (height, width) or (height, width, channels) of the same type.
    """
    surplus = image.shape[0] - height
    if surplus >= 0:
        return image[surplus // 2 : surplus // 2 + height]
    top = -surplus // 2
    padding = ((top, -surplus - top),) + ((0, 0),) * (image.ndim - 1)
    return np.pad(image, padding, constant_values=BACKGROUND)


def _photo(name: str) -> str:
    return f"{PHOTOS}/{name}.jpg"


def _mat(name: str) -> str:
    return f"{ANNOTATIONS}/{name}.mat"


def _is_beyond_annotated(name: str) -> bool:
    return name.isdigit() and int(name) > ANNOTATED
