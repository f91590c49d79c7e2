"""A run, or several side by side, as one HTML file that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from clothseg.data.labels import IGNORE
from clothseg.data.prepared import resize_labels
from clothseg.evaluation.native import Evaluation, Prediction
from clothseg.palette import palette
from clothseg.reporting import curves
from clothseg.tracking.comparison import NAMES
from clothseg.tracking.evaluation import all_background
from clothseg.training import scores
from clothseg.training.scores import Counts

LONGEST = 600  # pixels of a side of a photo in the page
QUALITY = 85  # of its JPEG
LETTERS = "ABCDE"  # what several runs are called where names are too long; the page has as many colours


@dataclass(frozen=True)
class Run:
    """One of the runs that a page tells of.

    Attributes:
        name: it goes by.
        origin: where it is from, in words, on one line or more.
        options: its configuration, by dotted names.
        evaluation: its scores on the photos of the page, those of all runs.
        history: epochs and values of its curves, of those in `curves.NAMES`; may be empty.
    """

    name: str
    origin: str
    options: Mapping[str, Any]
    evaluation: Evaluation
    history: Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Example:
    """A photo that the page shows.

    Attributes:
        name: of the photo.
        place: its row in the evaluations.
        predictions: one per run.
    """

    name: str
    place: int
    predictions: Sequence[Prediction]


def spread(evaluations: Sequence[Evaluation], *, most: int) -> list[int]:
    """Rows of photos from the best to the worst, evenly over their ranking by the runs' mean clothing mean IoU.

    Args:
        evaluations: of every run, on the same photos.
        most: how many; all that have a score where they are fewer.
    """
    each = [scores.clothing_miou(Counts.of(evaluation.photo_confusions)) for evaluation in evaluations]
    mean = np.mean(each, axis=0)
    ranked = [int(row) for row in np.argsort(-mean, kind="stable") if np.isfinite(mean[row])]
    if most == 1:
        return ranked[len(ranked) // 2 :][:1]
    places = np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def page(
    runs: Sequence[Run], examples: Sequence[Example], *, class_names: Sequence[str], what: str, photos: int
) -> str:
    """The page, as the text of an HTML file.

    Args:
        runs: one, or several that are set against the first.
        examples: photos to look at, in their order.
        class_names: one per class.
        what: was scored.
        photos: how many were.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clothseg.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "signed": _signed}
    colours = palette(len(class_names))
    return environment.get_template("page.html.jinja").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side",
        what=what,
        photos=photos,
        runs=runs,
        letters=LETTERS,
        headline=_headline([run.evaluation for run in runs]),
        panels=curves.panels([run.history for run in runs]),
        changed=_changed(runs),
        classes=_classes([run.evaluation for run in runs], class_names, colours),
        examples=[_shown(example, runs, class_names, colours) for example in examples],
        lookup={
            "names": dict(enumerate(class_names)) | {IGNORE: "not labelled"},
            "colours": dict(enumerate(colours.tolist())),
        },
    )


def _headline(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Of every score its name, the value of painting everything background, and that of every run."""
    counts = [Counts.of(evaluation.confusion) for evaluation in evaluations]
    background = Counts.of(all_background(evaluations[0].confusion))
    rows: list[dict[str, Any]] = [
        {
            "name": told,
            "background": scores.SCORES[score](background),
            "values": [scores.SCORES[score](own) for own in counts],
        }
        for score, told in NAMES.items()
    ]
    boundary = [evaluation.boundary_f for evaluation in evaluations if evaluation.boundary_f is not None]
    if len(boundary) == len(evaluations):
        rows.append({"name": "boundary F", "background": None, "values": [np.nanmean(own) for own in boundary]})
    return rows


def _classes(
    evaluations: Sequence[Evaluation], class_names: Sequence[str], colours: np.ndarray
) -> list[dict[str, Any]]:
    """Of every class what the table says of it, the commonest first."""
    counts = [Counts.of(evaluation.confusion) for evaluation in evaluations]
    iou, recall = ([score(own) for own in counts] for score in (scores.class_iou, scores.class_recall))
    pixels = counts[0].truth
    return [
        {
            "name": name,
            "colour": _css(colours[number]),
            "pixels": int(pixels[number]),
            "of_all": pixels[number] / max(pixels.sum(), 1),
            "iou": [own[number] for own in iou],
            "recall": [own[number] for own in recall],
        }
        for number, name in sorted(enumerate(class_names), key=lambda own: -pixels[own[0]])
    ]


def _changed(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Options that are not the same in all runs, with the value in each; all of them for a single run."""
    keys = dict.fromkeys(key for run in runs for key in run.options)
    rows = [(key, [run.options.get(key, "") for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(runs) == 1 or any(value != values[0] for value in values)]


def _shown(example: Example, runs: Sequence[Run], class_names: Sequence[str], colours: np.ndarray) -> dict[str, Any]:
    """A photo and the label maps over it, small enough for a page."""
    first = example.predictions[0]
    photo = Image.fromarray(first.photo)
    photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    layers = {"truth": first.truth}
    for letter, prediction in zip(LETTERS, example.predictions, strict=False):
        layers[f"prediction {letter}" if len(runs) > 1 else "prediction"] = prediction.predicted
    maps = {name: resize_labels(labels, photo.size[::-1], how="nearest") for name, labels in layers.items()}
    there = np.bincount(np.concatenate([labels.ravel() for labels in maps.values()]), minlength=IGNORE + 1)
    order = [number for number in np.argsort(-there[: len(class_names)], kind="stable") if there[number]]
    own = [Counts.of(run.evaluation.photo_confusions[example.place]) for run in runs]
    return {
        "name": example.name,
        "width": photo.width,
        "height": photo.height,
        "photo": _jpeg(photo),
        "layers": [{"name": name, "labels": _packed(labels)} for name, labels in maps.items()],
        "legend": [(class_names[number], _css(colours[number])) for number in order],
        "clothing_miou": [scores.clothing_miou(counts) for counts in own],
        "accuracy": [scores.accuracy(counts) for counts in own],
    }


def _jpeg(photo: Image.Image) -> str:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=QUALITY, optimize=True)
    return _base64(file.getvalue())


def _packed(labels: np.ndarray) -> str:
    """Labels row by row, one byte each, in zlib's format, which browsers unpack.

    A picture would have to be read back from a canvas, which some browsers blur on purpose against tracking.
    """
    return _base64(zlib.compress(labels.tobytes(), 9))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _css(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()


def _share(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    # No difference has no sign.
    return "" if np.isnan(value) else f"{value:+.3f}" if f"{abs(value):.3f}" != "0.000" else "0.000"
