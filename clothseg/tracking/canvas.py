"""What all figures are drawn with: canvases without pyplot (they may be drawn in any thread), sizes and colours."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
SMALL, NORMAL, LARGE = 7.5, 9, 11  # points
INK, QUIET = "0.15", "0.45"

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"


def blank(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Takes away frames that say nothing and lays a quiet grid below what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=NORMAL - 0.5)


def headline(figure: Figure, text: str) -> None:
    """A title above everything."""
    figure.suptitle(text, fontsize=LARGE, color=INK, wrap=True)
