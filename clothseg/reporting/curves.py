"""Learning curves as what an SVG is drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

PANELS = {"loss": "Loss", "accuracy": "Pixel accuracy", "clothing_miou": "Clothing mean IoU"}
PARTS = {"train": "training", "val": "validation"}
BASELINE = "val/background_accuracy"
NAMES = (*(f"{part}/{metric}" for metric in PANELS for part in PARTS), BASELINE)
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 34  # of the frame, in the SVG's units


def panels(histories: Sequence[Mapping[str, Sequence[tuple[int, float]]]]) -> list[dict[str, Any]]:
    """What is drawn, one panel a metric that any run has, in SVG coordinates of `WIDTH` x `HEIGHT`.

    Args:
        histories: of every run epochs and values, by the names in `NAMES`; values that are not finite are left out.

    Returns:
        Of every panel its title, its ticks (place, text), the all-background accuracy (y, value) where it belongs there
        and is known, and its lines: number of the run, part, and points (x, y, epoch, value).
    """
    found = [_panel(metric, title, histories) for metric, title in PANELS.items()]
    return [panel for panel in found if panel["lines"]]


def _panel(metric: str, title: str, histories: Sequence[Mapping[str, Sequence[tuple[int, float]]]]) -> dict[str, Any]:
    lines = []
    for number, history in enumerate(histories):
        for part in PARTS:
            points = [(step, value) for step, value in history.get(f"{part}/{metric}", ()) if math.isfinite(value)]
            if points:
                lines.append((number, part, points))
    if not lines:
        return {"lines": []}
    every = [point for _, _, points in lines for point in points]
    baseline = [history[BASELINE][-1][1] for history in histories if metric == "accuracy" and BASELINE in history]
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    rows = MaxNLocator(5).tick_values(min(value for _, value in every), max(value for _, value in every))
    low, high = rows[0], rows[-1]

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(last - first, 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low), 1)

    epochs = [step for step in MaxNLocator(6, integer=True).tick_values(first, last) if first <= step <= last]
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "frame": {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM},
        "rows": [(y(value), f"{value:.6g}") for value in rows],
        "columns": [(x(step), f"{step:g}") for step in epochs],
        "baseline": [(y(value), value) for value in baseline[:1] if low <= value <= high],
        "lines": [
            {
                "run": number,
                "part": part,
                "told": PARTS[part],
                "points": [(x(step), y(value), step, value) for step, value in points],
            }
            for number, part, points in lines
        ],
    }
