"""Sheets of pictures: cells of fixed sizes in inches, so that nothing moves with what a cell holds, and legends."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from clothseg.data.labels import IGNORE
from clothseg.palette import colorize
from clothseg.tracking.canvas import INK, SMALL, blank

MARGIN = 0.15  # inches
LINE = SMALL * 1.38 / 72  # inches a legend line takes
GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
COMPACT = {"handlelength": 1.1, "handleheight": 1.0, "handletextpad": 0.5, "labelspacing": 0.3, "columnspacing": 1.2}


def whole_levels(photo: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(photo), 0, 255).astype(np.uint8)


def overlay(photo: np.ndarray, label: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The photo in grey, faded where background is, tinted where clothes are: a shift of the labels is seen at once.

    Ignored pixels are dark.
    """
    grey = whole_levels(photo) @ GREY
    clothes = (np.asarray(label) != 0)[..., None]
    mixed = np.where(clothes, 0.3 * grey[..., None] + 0.7 * colorize(label, colours), 0.45 * grey[..., None] + 140)
    return whole_levels(mixed)


def by_area(*labels: np.ndarray, background: bool = True) -> list[int]:
    """Values in the pictures, the largest first; ignored pixels have none."""
    counts = np.sum([np.bincount(np.ravel(label), minlength=256) for label in labels], axis=0)
    counts[0] *= background
    counts[IGNORE] = 0
    return [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]]


def overlap(label: np.ndarray, guess: np.ndarray, value: int) -> float:
    true, found = np.asarray(label) == value, np.asarray(guess) == value
    return (true & found).sum() / (true | found).sum()


def picture(axes: Axes, image: np.ndarray, title: str = "", centred: bool = False) -> None:
    axes.imshow(image, interpolation="nearest" if image.shape[0] < 300 else "antialiased")
    axes.set_title(title, fontsize=SMALL, loc="center" if centred else "left", pad=3, color=INK)


def sheet(
    widths: Sequence[float],
    heights: Sequence[float],
    *,
    gap: float | Sequence[float] = 0.06,
    row_gap: float | Sequence[float] = 0.1,
    top: float = 0.0,
    bottom: float = 0.0,
    left: float = 0.0,
) -> tuple[Figure, list[list[Axes]]]:
    """Axes without frames in columns and rows of the given sizes; all in inches, `top` and the like beside a margin."""
    gaps = [*gap, 0] if isinstance(gap, Sequence) else [gap] * len(widths)
    row_gaps = row_gap if isinstance(row_gap, Sequence) else [row_gap] * len(heights)
    lefts = MARGIN + left + np.cumsum([0, *np.add(widths, gaps)])
    tops = MARGIN + top + np.cumsum([0, *np.add(heights, row_gaps)])
    width, height = lefts[-1] - gaps[-1] + MARGIN, tops[-1] - row_gaps[-1] + bottom + MARGIN
    figure = blank(width, height)
    axes = [
        [
            figure.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height), anchor="NW")
            for x, wide in zip(lefts, widths, strict=False)
        ]
        for y, tall in zip(tops, heights, strict=False)
    ]
    for cell in itertools.chain.from_iterable(axes):
        cell.set_axis_off()
    return figure, axes


def cell_size(images: Iterable[np.ndarray], area: float) -> tuple[float, float]:
    """Inches (width, height) of a cell of about this area that suits the tallest and the widest image."""
    ratios = [image.shape[0] / image.shape[1] for image in images]
    ratio = np.clip(np.sqrt(max(ratios) * min(ratios)), 0.4, 2.5)
    return float(np.sqrt(area / ratio)), float(np.sqrt(area * ratio))


def swatch(name: str, colour: np.ndarray) -> Patch:
    return Patch(facecolor=(colour / 255).tolist(), edgecolor="0.4", linewidth=0.4, label=name)


def name_width(names: Sequence[str], values: Iterable[int]) -> float:
    """Inches a legend column needs for the longest of the names."""
    return 0.38 + 0.058 * max((len(names[value]) for value in values), default=4)


def legend_size(present: Sequence[Sequence[int]], height: float, names: Sequence[str]) -> tuple[int, float]:
    """Lines that fit into `height` inches, and the width of as many columns as the fullest legend then needs."""
    lines = max(1, int(height / LINE))
    columns = max(1, max(-(-len(values) // lines) for values in present))
    return lines, columns * name_width(names, {value for values in present for value in values})


def legend(
    axes: Axes, entries: Sequence[tuple[int, str]], colours: np.ndarray, *, rows: int, title: str | None = None
) -> None:
    if not entries:
        return
    axes.legend(
        handles=[swatch(name, colours[value]) for value, name in entries],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=-(-len(entries) // rows),
        fontsize=SMALL,
        title=title,
        title_fontsize=SMALL,
        alignment="left",
        frameon=False,
        borderaxespad=0,
        borderpad=0.1,
        **COMPACT,
    )
