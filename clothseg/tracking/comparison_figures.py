"""Figures that set trainings against each other."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clothseg.evaluation.bootstrap import Interval
from clothseg.evaluation.native import Prediction
from clothseg.palette import colorize, palette
from clothseg.tracking.canvas import (
    BLUE,
    GREEN,
    INK,
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
from clothseg.tracking.sheets import by_area, cell_size, legend, legend_size, picture, sheet

if TYPE_CHECKING:
    from clothseg.tracking.comparison import Comparison

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
MOST = 30  # classes in the figure of changes


def scores(comparison: Comparison, names: Mapping[str, str]) -> Figure:
    """Every score with its interval, one dot for a seed; and how much each configuration differs from the first.

    Args:
        comparison: the trainings.
        names: scores, and what they are called.
    """
    count = len(comparison.configurations)
    titles = comparison.names()
    height = 1.5 + len(names) * (0.22 + 0.16 * count)
    figure = blank(10 if count > 1 else 6, height)
    figure.set_layout_engine("constrained")
    headline(
        figure,
        f"{comparison.what.replace('_', ' ')}, {comparison.photos} photos, {comparison.confidence:.0%} intervals",
    )
    panels = figure.subplots(1, 2 if count > 1 else 1, sharey=True, squeeze=False)[0]
    rows = np.arange(len(names))
    for place, title in enumerate(titles):
        colour = COLOURS[place % len(COLOURS)]
        offset = rows + 0.7 * ((place + 0.5) / count - 0.5)
        found = [comparison.interval(score, place) for score in names]
        _intervals(panels[0], found, offset, colour, title)
        for row, score in zip(offset, names, strict=True):
            seeds = comparison.seed_scores(score, place)
            if len(seeds) > 1:
                panels[0].scatter(seeds, [row] * len(seeds), s=9, color=INK, zorder=3, linewidths=0)
        if place:
            differences = [comparison.difference(score, place) for score in names]
            _intervals(panels[1], differences, offset, colour, f"{title}\nless {titles[0]}")
    panels[0].set_yticks(rows, list(names.values()), fontsize=NORMAL)
    panels[0].invert_yaxis()
    panels[0].set_xlabel("score", fontsize=NORMAL)
    if count > 1:
        panels[1].axvline(0, color=INK, linewidth=1)
        panels[1].set_xlabel("difference (an interval that meets the line: no difference)", fontsize=NORMAL)
    for panel in panels:
        tidy(panel, grid="x")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=SMALL, frameon=False)
    return figure


def class_changes(
    before: np.ndarray,
    after: np.ndarray,
    *,
    pixels: np.ndarray,
    class_names: Sequence[str],
    names: Sequence[str],
) -> Figure:
    """IoU of every class in two configurations, the most changed first, a line from the one to the other.

    Args:
        before: float (classes,), NaN for absent classes.
        after: the same of the other.
        pixels: int (classes,), labelled.
        class_names: one per class.
        names: of the two.
    """
    change = after - before
    changed = np.flatnonzero(~np.isnan(change) & (np.abs(change) >= 0.005))
    order = changed[np.argsort(-change[changed], kind="stable")]
    if len(order) > MOST:
        order = order[np.argsort(-np.abs(change[order]), kind="stable")[:MOST]]
        order = order[np.argsort(-change[order], kind="stable")]
    figure = blank(7.5, 1.4 + 0.19 * max(len(order), 4))
    figure.set_layout_engine("constrained")
    headline(figure, "IoU by class, most gained first")
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.hlines(rows, before[order], after[order], color=QUIET, linewidth=1.2)
    axes.scatter(before[order], rows, s=26, color=BLUE, label=names[0], zorder=3)
    axes.scatter(after[order], rows, s=26, color=ORANGE, label=names[1], zorder=3)
    share = pixels / max(pixels.sum(), 1)
    labels = [f"{class_names[value]} ({100 * share[value]:.2g} %)" for value in order]
    axes.set_yticks(rows, labels, fontsize=SMALL + 0.5)
    for row, value in enumerate(order):
        axes.annotate(
            f"{change[value]:+.2f}", (max(before[value], after[value]), row), xytext=(6, -2.5),
            textcoords="offset points", fontsize=SMALL - 0.5, color=INK,
        )  # fmt: skip
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.08)
    axes.set_xlabel(
        f"IoU (in brackets: share of the pixels; {len(class_names) - len(order)} classes are absent, hardly changed, "
        "or left out)",
        fontsize=SMALL + 0.5,
    )
    axes.legend(loc="lower right", fontsize=SMALL, framealpha=0.95, edgecolor="0.8")
    tidy(axes, grid="x")
    return figure


def curves(
    histories: Sequence[Sequence[Mapping[str, Sequence[tuple[int, float]]]]],
    metrics: Sequence[str],
    *,
    names: Sequence[str],
) -> Figure:
    """Learning curves, one panel a metric, one colour a configuration, one line a seed.

    Args:
        histories: of every configuration and seed, of every metric epochs and values.
        metrics: that are drawn.
        names: of the configurations.
    """
    figure = blank(10, 6.4)
    figure.set_layout_engine("constrained")
    headline(figure, "Learning curves")
    for panel, metric in zip(figure.subplots(2, -(-len(metrics) // 2)).ravel(), metrics, strict=False):
        for place, (seeds, name) in enumerate(zip(histories, names, strict=True)):
            label: str | None = name
            for history in seeds:
                if metric in history:
                    epochs, values = zip(*history[metric], strict=True)
                    panel.plot(epochs, values, color=COLOURS[place % len(COLOURS)], linewidth=1.4, label=label)
                    label = None
        panel.set_title(metric, fontsize=NORMAL, color=INK, loc="left")
        panel.set_xlabel("epoch", fontsize=SMALL)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        tidy(panel)
        panel.tick_params(labelsize=SMALL)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=SMALL, frameon=False)
    return figure


def both_predictions(
    predictions: Sequence[tuple[Prediction, Prediction]],
    *,
    class_names: Sequence[str],
    captions: Sequence[str],
    titles: Sequence[str],
) -> Figure:
    """Photos with the truth and what two trainings predicted.

    Args:
        predictions: of the two, photo by photo.
        class_names: one per class.
        captions: of the photos.
        titles: of the trainings.
    """
    colours = palette(len(class_names))
    maps = [(first.truth, first.predicted, second.predicted) for first, second in predictions]
    present = [by_area(*three) for three in maps]
    photos = [first.photo for first, _ in predictions]
    width, height = cell_size(photos, area=4.8)
    rows, names = legend_size(present, height, class_names)
    # So many characters of this size are as wide as a photo.
    headings = [textwrap.fill(heading, int(width * 17)) for heading in ("Photo", "Ground truth", *titles)]
    top = 0.35 + 0.15 * max(heading.count("\n") + 1 for heading in headings)
    figure, axes = sheet([*[width] * 4, max(names, 1.2)], [height] * len(photos), top=top, left=0.22, row_gap=0.12)
    headline(figure, "Where predictions differ most")
    for heading, axis in zip(headings, axes[0], strict=False):
        axis.set_title(heading, fontsize=SMALL, color=INK)
    for row, photo, three, values, caption in zip(axes, photos, maps, present, captions, strict=True):
        picture(row[0], photo)
        for axis, labels in zip(row[1:4], three, strict=True):
            picture(axis, colorize(labels, colours))
        row[0].text(
            -0.03, 0.5, caption, transform=row[0].transAxes, fontsize=SMALL, rotation=90, ha="right", va="center"
        )
        legend(row[4], [(value, class_names[value]) for value in values], colours, rows=rows)
    return figure


def _intervals(axes: Axes, found: Sequence[Interval], rows: np.ndarray, colour: str, label: str) -> None:
    values = np.array([one.value for one in found])
    ends = np.abs(np.array([[one.low, one.high] for one in found]).T - values)
    axes.errorbar(
        values, rows, xerr=ends, fmt="o", markersize=4.5, color=colour, elinewidth=1.6, capsize=2.5, label=label
    )
