"""Every figure of a run, drawn from plain arrays.

Each function returns a `matplotlib.figure.Figure` with a canvas of its own: nothing goes through pyplot, so figures may
be drawn in any thread and are freed with their last reference. Save them with `figure.savefig(path)`.

Photos are (height, width, 3) in 0..255, uint8 or float; labels and predictions are (height, width) integers, 0 being
background. Pictures of one call may differ in size.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from clothseg.data.labels import IGNORE
from clothseg.evaluation.calibration import Calibration
from clothseg.palette import colorize, palette
from clothseg.tracking.canvas import (
    BLUE,
    GREEN,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    SMALL,
    blank,
    headline,
    tidy,
)
from clothseg.tracking.sheets import (
    COMPACT,
    GREY,
    LINE,
    by_area,
    cell_size,
    legend,
    legend_size,
    name_width,
    overlap,
    overlay,
    picture,
    sheet,
    swatch,
    whole_levels,
)

Images = Sequence[np.ndarray] | np.ndarray

MISTAKES = {"clothes not found": BLUE, "background taken for clothes": ORANGE, "other clothes": PURPLE}

CURVES = {
    "train/loss": ("training", BLUE),
    "val/loss": ("validation", ORANGE),
    "train/accuracy": ("training", BLUE),
    "val/accuracy": ("validation", ORANGE),
    "train/miou": ("training", BLUE),
    "val/miou": ("validation", ORANGE),
    "train/clothing_miou": ("training, clothing only", SKY),
    "val/clothing_miou": ("validation, clothing only", GREEN),
}


# Examples: photos beside their labels


def sample_sheet(photos: Images, labels: Images, *, class_names: Sequence[str], names: Sequence[str]) -> Figure:
    """Examples as they are learnt from: each photo, its labels laid over it in grey, and what they are.

    Args:
        photos: n photos (height, width, 3), 0..255.
        labels: n label images (height, width), each of its photo's size.
        class_names: one name per label value, background first.
        names: n names, drawn above the photos.
    """
    colours = palette(len(class_names))
    present = [by_area(label, background=False) for label in labels]
    across = min(len(photos), 3 if len(photos) > 4 else 2)
    down = -(-len(photos) // across)
    width, height = cell_size(photos, area=4)
    entries, legend_width = legend_size(present, height, class_names)
    legend_width = max(legend_width, 1.2)  # "background only" has room
    figure, axes = sheet([width, width, legend_width] * across, [height] * down, row_gap=0.3, top=0.25)
    for index, (photo, label, name) in enumerate(zip(photos, labels, names, strict=True)):
        row, column = divmod(index, across)
        first, second, third = axes[row][3 * column : 3 * column + 3]
        picture(first, whole_levels(photo), title=name)
        picture(second, overlay(photo, label, colours))
        legend(third, [(value, class_names[value]) for value in present[index]], colours, rows=entries)
        if not present[index]:
            _note(third, "background only")
    return figure


def augmentation_sheet(photos: Images, labels: Images, *, titles: Sequence[str], class_names: Sequence[str]) -> Figure:
    """One example under each augmentation: photos above, the labels that go with them below.

    Args:
        photos: n photos (height, width, 3), 0..255.
        labels: n label images (height, width).
        titles: n names of what was done.
        class_names: one name per label value, background first.
    """
    colours = palette(len(class_names))
    present = by_area(*labels, background=False)
    across = min(len(photos), 4 if len(photos) in (4, 7, 8) else 5)
    down = -(-len(photos) // across)
    width, height = cell_size(photos, area=2.6)
    width = max(width, 0.085 * max(map(len, titles)))
    columns = max(1, int((width + 0.08) * across / name_width(class_names, present)))
    bottom = LINE * -(-len(present) // columns) + 0.2
    gaps = [0.06, 0.4] * down
    figure, axes = sheet([width] * across, [height] * 2 * down, row_gap=gaps, top=0.25, bottom=bottom)
    for index, (photo, label, title) in enumerate(zip(photos, labels, titles, strict=True)):
        row, column = divmod(index, across)
        picture(axes[2 * row][column], whole_levels(photo), title=title, centred=True)
        picture(axes[2 * row + 1][column], overlay(photo, label, colours))
    figure.legend(
        handles=[swatch(class_names[value], colours[value]) for value in present],
        loc="lower center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.8,
        **COMPACT,
    )
    return figure


def augmentation_gallery(
    photos: Sequence[Sequence[np.ndarray]],
    labels: Sequence[Sequence[np.ndarray]],
    *,
    names: Sequence[str],
    titles: Sequence[str],
    class_names: Sequence[str],
) -> Figure:
    """A few examples in several versions each: versions side by side, below each photo the labels that go with it.

    Args:
        photos: n examples, each of m photos (height, width, 3), 0..255.
        labels: n times m label images (height, width).
        names: n names of the examples, drawn beside them.
        titles: m names of what was done, drawn above.
        class_names: one name per label value, background first.
    """
    colours = palette(len(class_names))
    present = [by_area(*row, background=False) for row in labels]
    width, height = cell_size([photo for row in photos for photo in row], area=2.6)
    entries, legend_width = legend_size(present, 2 * height, class_names)
    figure, axes = sheet(
        [width] * len(titles) + [legend_width],
        [height] * 2 * len(photos),
        row_gap=[0.04, 0.16] * len(photos),
        top=0.2,
        left=0.2,
    )
    for index, (row, name) in enumerate(zip(photos, names, strict=True)):
        above, below = axes[2 * index : 2 * index + 2]
        for column, (photo, label, title) in enumerate(zip(row, labels[index], titles, strict=True)):
            picture(above[column], whole_levels(photo), title="" if index else title, centred=True)
            picture(below[column], overlay(photo, label, colours))
        above[0].text(
            -0.04, 0.5, name, transform=above[0].transAxes, fontsize=SMALL, rotation=90, ha="right", va="center"
        )
        legend(above[-1], [(value, class_names[value]) for value in present[index]], colours, rows=entries)
    return figure


def predictions(
    photos: Images,
    labels: Images,
    predicted: Images,
    *,
    class_names: Sequence[str],
    title: str,
    names: Sequence[str],
    mistakes: bool,
) -> Figure:
    """Rows of photo, ground truth and prediction, with the classes in each row and their IoU in that picture.

    Args:
        photos: n photos (height, width, 3), 0..255.
        labels: n label images (height, width).
        predicted: n predicted label images (height, width).
        class_names: one name per label value, background first.
        title: what stands above the figure.
        names: n names, drawn beside the photos.
        mistakes: whether a fourth picture shows where the prediction is wrong, and how.
    """
    colours = palette(len(class_names))
    headings = ["Actual Image", "Ground Truth", "Prediction", *(["Mistakes"] if mistakes else [])]
    true = [by_area(label) for label in labels]
    invented = [
        [value for value in by_area(guess) if value not in values]
        for guess, values in zip(predicted, true, strict=True)
    ]
    width, height = cell_size(photos, area=4.8)
    room = height - LINE
    true_rows, true_width = legend_size(true, room, [f"{name} 0.00" for name in class_names])
    invented_rows, invented_width = legend_size(invented, room, class_names)
    figure, axes = sheet(
        [*[width] * len(headings), max(true_width, 1.25), max(invented_width, 1.0)],
        [height] * len(photos),
        top=0.52,
        bottom=0.25 if mistakes else 0.0,
        left=0.22,
        row_gap=0.12,
    )
    figure.suptitle(title, fontsize=LARGE, y=1 - 0.1 / figure.get_figheight(), va="top", color=INK, wrap=True)
    for heading, cell in zip(headings, axes[0], strict=False):
        cell.set_title(heading, fontsize=NORMAL, color=INK)
    if mistakes:
        swatches = [Patch(facecolor=colour, label=kind) for kind, colour in MISTAKES.items()]
        figure.legend(handles=swatches, loc="lower center", ncols=3, fontsize=NORMAL, frameon=False, **COMPACT)
    for row, name, photo, label, guess, values, extra in zip(
        axes, names, photos, labels, predicted, true, invented, strict=True
    ):
        picture(row[0], whole_levels(photo))
        picture(row[1], colorize(np.asarray(label), colours))
        picture(row[2], colorize(np.asarray(guess), colours))
        row[0].text(-0.03, 0.5, name, transform=row[0].transAxes, fontsize=SMALL, rotation=90, ha="right", va="center")
        scored = [(value, f"{class_names[value]} {overlap(label, guess, value):.2f}") for value in values]
        if mistakes:
            picture(row[3], _mistakes(photo, np.asarray(label), np.asarray(guess)))
        legend(row[-2], scored, colours, rows=true_rows, title="in the truth, IoU")
        legend(row[-1], [(v, class_names[v]) for v in extra], colours, rows=invented_rows, title="only predicted")
    return figure


def _mistakes(photo: np.ndarray, label: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """The photo in pale grey, and what is wrong in the colours of `MISTAKES`."""
    picture = np.repeat(0.5 * (whole_levels(photo) @ GREY)[..., None] + 120, 3, axis=2)
    wrong = (label != guess) & (label != IGNORE)
    kinds = (wrong & (guess == 0), wrong & (label == 0), wrong & (guess != 0) & (label != 0))
    for where, colour in zip(kinds, MISTAKES.values(), strict=True):
        picture[where] = 255 * np.array(to_rgb(colour))
    return whole_levels(picture)


def predictions_jet(photos: Images, labels: Images, predicted: Images, *, title: str) -> Figure:
    """Rows of prediction, ground truth and photo in the style of the article: `jet` from 0 to 58, a red title.

    Args:
        photos: n photos (height, width, 3), 0..255. The article shows four.
        labels: n label images (height, width), 0..58.
        predicted: n predicted label images (height, width), 0..58.
        title: the article has "Prediction After 20 Epochs (No Fine-tuning)".
    """
    width, height = cell_size(photos, area=9.0)
    width = max(width, (0.16 * len(title) - 0.3) / 3)
    figure, axes = sheet([width] * 3, [height] * len(photos), top=0.75, row_gap=0.35, gap=0.15)
    figure.suptitle(title, color="red", size=20, y=1 - 0.1 / figure.get_figheight(), va="top")
    for row, photo, label, guess in zip(axes, photos, labels, predicted, strict=True):
        for cell, image, heading in zip(row, (guess, label), ("Prediction", "Ground Truth"), strict=False):
            cell.imshow(image, cmap="jet", vmin=0, vmax=58, interpolation="nearest")
            cell.set_title(heading)
        row[2].imshow(whole_levels(photo))
        row[2].set_title("Actual Image")
    return figure


def duplicate_pairs(photos_a: Images, photos_b: Images, *, captions: Sequence[str]) -> Figure:
    """Near-duplicate photos side by side, or the words "none found".

    Args:
        photos_a: n photos (height, width, 3), 0..255; n may be 0.
        photos_b: the n photos they resemble.
        captions: n lines such as "0183 / 0730, distance 2, train / validation".
    """
    if not len(photos_a):
        figure, axes = sheet([4.0], [0.8])
        axes[0][0].text(0.5, 0.5, "Near-duplicate photos: none found", ha="center", va="center", fontsize=LARGE)
        return figure
    across = min(len(photos_a), 3)
    down = -(-len(photos_a) // across)
    width, height = cell_size([*photos_a, *photos_b], area=3.2)
    between = max(0.3, 0.062 * max(map(len, captions)) - 2 * width)
    widths, gaps = [width] * (2 * across), ([0.04, between] * across)[:-1]
    figure, axes = sheet(widths, [height] * down, gap=gaps, row_gap=0.32, top=0.25)
    for index, (first, second, caption) in enumerate(zip(photos_a, photos_b, captions, strict=True)):
        row, column = divmod(index, across)
        picture(axes[row][2 * column], whole_levels(first), title=caption)
        picture(axes[row][2 * column + 1], whole_levels(second))
    return figure


# Numbers: what was measured


def curves(
    history: Mapping[str, Sequence[float]],
    *,
    phases: Sequence[tuple[str, int]],
    all_background_accuracy: float | None,
) -> Figure:
    """Loss, accuracy and mean IoU per epoch, with a line where each later phase starts.

    The line stands half an epoch before the phase's first epoch: what is right of it was trained in that phase.

    Args:
        history: values per epoch by name, those of `CURVES`; lists may be empty, of different length, or hold NaN.
        phases: (name, first epoch) of each phase in order, epochs counted from 1.
        all_background_accuracy: the accuracy (0..1) of predicting nothing but background, or None where unknown.
    """
    figure = blank(13, 4.6)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    panels = figure.subplots(1, 3)
    titles = {"loss": "Loss", "accuracy": "Pixel accuracy", "miou": "Mean IoU"}
    for panel, (metric, title) in zip(panels, titles.items(), strict=True):
        drawn = [name for name in CURVES if name.endswith(metric) and len(history.get(name, ()))]
        for name in drawn:
            _curve(panel, np.asarray(history[name], float), *CURVES[name], best=min if metric == "loss" else max)
        if metric == "accuracy" and all_background_accuracy is not None:
            label = f"all background: {all_background_accuracy:.3f}"
            panel.axhline(all_background_accuracy, color=QUIET, linestyle=":", linewidth=1.4, label=label)
        for name, first in phases[1:]:
            panel.axvline(first - 0.5, color=QUIET, linestyle="--", linewidth=1, label=f"_{name}")
            _phase_name(panel, name, first - 0.5, top=metric == "loss")
        tidy(panel)
        panel.set_title(title, fontsize=LARGE, color=INK)
        panel.set_xlabel("epoch", fontsize=NORMAL)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        last = max([len(values) for values in history.values()] + [first for _, first in phases] + [1])
        panel.set_xlim(0.5, last + 0.5)
        if not drawn:
            _note(panel, "no values yet", centred=True)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=NORMAL - 0.5, frameon=False)
    return figure


def class_iou(iou: ArrayLike, *, pixels: ArrayLike, class_names: Sequence[str], title: str) -> Figure:
    """IoU of every class as bars, best first, with the share of pixels it has.

    Args:
        iou: one value in 0..1 per class; NaN where the class does not occur: left out of the bars and the means, and
            counted below the figure.
        pixels: true pixels per class.
        class_names: one name per class, background first.
        title: what stands above the figure.
    """
    iou, pixels = np.asarray(iou, float), np.asarray(pixels, float)
    present = np.flatnonzero(~np.isnan(iou))
    order = present[np.lexsort((-pixels[present], -iou[present]))]
    figure, (axes,) = _bars(len(order), panels=1)
    headline(figure, title)
    _class_bars(axes, order, iou[order], [f"{value:.2f}" for value in iou[order]], class_names, BLUE)
    share = pixels / max(pixels.sum(), 1)
    for row, value in enumerate(order):
        text = _percent(share[value]) if pixels[value] else "only predicted"
        axes.text(1.1, row, text, va="center", ha="right", fontsize=SMALL - 0.5, color=QUIET)
    means = (("mIoU", present, ORANGE, "--"), ("clothing mIoU", present[present != 0], GREEN, "-."))
    for name, classes, colour, style in means:
        if len(classes):
            mean = iou[classes].mean()
            axes.axvline(mean, color=colour, linestyle=style, linewidth=1.3, label=f"{name} {mean:.3f}")
    tidy(axes, grid="x")
    axes.set_xlim(0, 1.11)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel("IoU (grey: share of the true pixels)", fontsize=NORMAL)
    if len(order):
        axes.legend(loc="lower right", bbox_to_anchor=(0.86, 0.01), fontsize=NORMAL, framealpha=0.95, edgecolor="0.8")
    else:
        _note(axes, "no class is present", centred=True)
    absent = np.flatnonzero(np.isnan(iou))
    _footnote(figure, f"{len(absent)} of {len(iou)} classes are absent and left out of the means", absent, class_names)
    return figure


def class_frequencies(pixels: ArrayLike, images: ArrayLike, *, class_names: Sequence[str]) -> Figure:
    """Share of pixels of each class (log scale) beside the number of photos it is in; absent classes are named below.

    Args:
        pixels: pixels per class.
        images: photos per class.
        class_names: one name per class, background first.
    """
    pixels, images = np.asarray(pixels, float), np.asarray(images, int)
    present = np.flatnonzero(pixels > 0)
    order = present[np.argsort(-pixels[present], kind="stable")]
    share = pixels / max(pixels.sum(), 1)
    figure, (left, right) = _bars(len(order), panels=2)
    headline(figure, "Class frequencies")
    _class_bars(left, order, 100 * share[order], [_percent(value) for value in share[order]], class_names, BLUE)
    _class_bars(right, order, images[order], [str(value) for value in images[order]], class_names, ORANGE)
    right.tick_params(left=False, labelleft=False)
    if len(order):
        left.set_xscale("log")
        left.set_xlim(100 * share[order].min() / 3, 900)
        left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        right.set_xlim(0, images.max() * 1.14)
    else:
        _note(left, "no class is present", centred=True)
    for panel, label in ((left, "share of pixels in % (log scale)"), (right, "photos with the class")):
        tidy(panel, grid="x")
        panel.set_xlabel(label, fontsize=NORMAL)
    absent = np.flatnonzero(pixels == 0)
    _footnote(figure, f"{len(absent)} of {len(pixels)} classes are absent", absent, class_names)
    return figure


def confusion(matrix: np.ndarray, *, class_names: Sequence[str], most: int) -> Figure:
    """What the commonest classes are taken for: rows are the truth and sum to 1, columns the prediction.

    Args:
        matrix: pixel counts (classes, classes), rows the truth.
        class_names: one name per class, background first.
        most: how many classes get a row of their own, commonest first; all others are summed as "other".
    """
    matrix = np.asarray(matrix, float)
    truth = matrix.sum(axis=1)
    order = np.argsort(-truth, kind="stable")[:most]
    order = order[truth[order] > 0]
    rest = np.setdiff1d(np.arange(len(matrix)), order)
    table = np.block(
        [
            [matrix[np.ix_(order, order)], matrix[np.ix_(order, rest)].sum(axis=1, keepdims=True)],
            [
                matrix[np.ix_(rest, order)].sum(axis=0, keepdims=True),
                matrix[np.ix_(rest, rest)].sum(keepdims=True),
            ],
        ]
    )
    names = [class_names[value] for value in order] + ["other"]
    rows, columns = table.sum(axis=1) > 0, np.ones(len(names), bool)
    columns[-1] = table[:, -1].sum() > 0
    table = table[rows][:, columns]
    table = table / table.sum(axis=1, keepdims=True)
    return _confusion(table, np.array(names)[rows], np.array(names)[columns])


def reliability(calibration: Calibration) -> Figure:
    """How often predictions are right against how sure they are, and how many are so sure.

    Args:
        calibration: counts by confidence.
    """
    figure = blank(5.2, 5.6)
    figure.set_layout_engine("constrained")
    headline(figure, f"Calibration: expected error {calibration.error:.3f}")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = len(calibration.pixels)
    there = calibration.pixels > 0
    places = (np.arange(bins) + 0.5) / bins
    accuracy, confidence = (
        values[there] / calibration.pixels[there] for values in (calibration.correct, calibration.confidence)
    )
    above.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1, label="as right as it is sure")
    above.bar(places[there], accuracy, width=0.92 / bins, color=BLUE, alpha=0.75, label="share that is right")
    above.plot(confidence, accuracy, color=ORANGE, marker="o", markersize=3, linewidth=1.2, label="at mean confidence")
    above.set_ylim(0, 1)
    above.set_ylabel("accuracy", fontsize=NORMAL)
    above.legend(loc="upper left", fontsize=NORMAL, frameon=False)
    below.bar(places, calibration.pixels / max(calibration.pixels.sum(), 1), width=0.92 / bins, color=BLUE, alpha=0.75)
    below.set_ylabel("share of pixels", fontsize=NORMAL)
    below.set_xlabel("confidence: probability of the predicted class", fontsize=NORMAL)
    below.set_xlim(0, 1)
    for axes in (above, below):
        tidy(axes, grid="y")
    return figure


def _confusion(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Figure:
    cell = 0.4 if len(columns) <= 21 else 0.3
    figure = blank(cell * len(columns) + 2.6, cell * max(len(rows), 4) + 1.5)
    figure.set_layout_engine("constrained")
    headline(figure, "Confusion of the commonest classes")
    axes = figure.subplots()
    image = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=NORMAL)
    axes.set_yticks(range(len(rows)), rows, fontsize=NORMAL)
    axes.set_xlabel("predicted", fontsize=LARGE)
    axes.set_ylabel("truth", fontsize=LARGE)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    for (row, column), value in np.ndenumerate(table):
        if value >= 0.01:
            colour = "white" if value > 0.55 else INK
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=SMALL, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, format=lambda value, _: f"{value:.0%}")
    bar.set_label("share of the true class's pixels (numbers in %)", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    return figure


def _note(axes: Axes, text: str, centred: bool = False) -> None:
    x, y, side = (0.5, 0.5, "center") if centred else (0.04, 0.98, "left")
    axes.text(
        x, y, text, transform=axes.transAxes, ha=side, va="center" if centred else "top", fontsize=SMALL, color=QUIET
    )


# Charts


PATCH = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}  # keeps lines off a number


def _curve(axes: Axes, values: np.ndarray, name: str, colour: str, *, best: Callable) -> None:
    epochs = np.arange(1, len(values) + 1)
    known = np.isfinite(values)
    if known.any():
        reached = best(values[known])
        name = f"{name} (best {reached:.3f}, epoch {epochs[known][values[known] == reached][0]})"
    size = 6 if len(values) < 4 else 3 if len(values) < 60 else 0
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker="o", markersize=size, label=name)


def _phase_name(axes: Axes, name: str, x: float, *, top: bool) -> None:
    """The name along its line, on the side where the curves are not: falling ones leave the top free."""
    axes.annotate(
        name,
        (x, 0.98 if top else 0.02),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="top" if top else "bottom",
        fontsize=SMALL + 0.5,
        color=QUIET,
    )


def _bars(count: int, *, panels: int) -> tuple[Figure, Sequence[Axes]]:
    figure = blank(7.5 if panels == 1 else 10, 0.17 * max(count, 6) + 1.5)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _class_bars(
    axes: Axes, order: np.ndarray, lengths: np.ndarray, texts: list[str], class_names: Sequence[str], colour: str
) -> None:
    bars = axes.barh(range(len(order)), lengths, height=0.72, color=colour, alpha=0.75)
    axes.bar_label(bars, texts, padding=2, fontsize=SMALL - 0.5, color=INK, bbox=PATCH)
    axes.set_yticks(range(len(order)), [class_names[value] for value in order], fontsize=SMALL + 0.5)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.1g} %"


def _footnote(figure: Figure, text: str, classes: Iterable[int], class_names: Sequence[str]) -> None:
    names = ", ".join(class_names[value] for value in classes)
    lines = textwrap.wrap(f"{text}: {names}" if names else text, int(figure.get_figwidth() * 16))
    figure.supxlabel("\n".join(lines), fontsize=SMALL, color=QUIET)
