"""What Optuna draws of a study, drawn so that it can be read with many trials.

With log axes, marks for the baseline and for pruned trials, and one legend for all of a kind. The numbers are Optuna's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.tri import Triangulation
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from clothseg.tracking.canvas import BLUE, GREEN, INK, LARGE, NORMAL, ORANGE, QUIET, SMALL, blank, headline, tidy

COLOURS = "viridis"
MOST = 3  # parameters in the figures that show pairs of them


def study_figures(study: optuna.Study, *, objectives: Sequence[str]) -> dict[str, Figure]:
    """Everything that can be drawn of a study as it stands.

    Args:
        study: with any number of trials in any state.
        objectives: names of what is optimised.

    Returns:
        Figures by name: `history`, `intermediate_values`, `importances`, `slice`, `contour`, `parallel_coordinates`,
        `pareto_front`. Those that make no sense yet, or never will for this study, are not among them.
    """
    drawing = _Study(study, objectives)
    figures = {name: draw(drawing) for name, draw in DRAWN.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


class _Study:
    """A study sorted into what figures are made of."""

    def __init__(self, study: optuna.Study, objectives: Sequence[str]) -> None:
        trials = [trial for trial in study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]
        self.study, self.name, self.objectives = study, study.study_name, list(objectives)
        self.trials = [trial for trial in trials if trial.state is not TrialState.WAITING]
        self.complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        self.pruned = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.values]
        self.failed = [trial for trial in trials if trial.state is TrialState.FAIL]
        self.upwards = [direction is StudyDirection.MAXIMIZE for direction in study.directions]
        names = dict.fromkeys(name for trial in [*self.complete, *self.pruned] for name in trial.params)
        # What was always the same shows nothing.
        self.parameters = [
            name for name in names if len({str(trial.params.get(name)) for trial in [*self.complete, *self.pruned]}) > 1
        ]

    def distribution(self, name: str) -> optuna.distributions.BaseDistribution:
        return next(trial.distributions[name] for trial in self.trials if name in trial.distributions)

    def choices(self, name: str) -> list[Any] | None:
        distribution = self.distribution(name)
        return list(distribution.choices) if isinstance(distribution, CategoricalDistribution) else None

    def place(self, name: str, trial: FrozenTrial) -> float:
        """Where a trial stands on the axis of a parameter: its value, or the number of its choice."""
        choices = self.choices(name)
        return float(trial.params[name] if choices is None else choices.index(trial.params[name]))

    def importances(self) -> dict[str, float]:
        """Shares of what varies in the first objective; empty where they cannot be told."""
        if len(self.complete) < 4 or not self.parameters or len({trial.values[0] for trial in self.complete}) < 2:
            return {}
        try:
            shares = get_param_importances(
                self.study,
                target=None if len(self.objectives) == 1 else lambda trial: trial.values[0],
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            )
        except (RuntimeError, ValueError):
            # Complete trials that agree in all parameters.
            return {}
        return {name: float(share) for name, share in shares.items() if np.isfinite(share)}

    def foremost(self) -> list[str]:
        order = self.importances()
        return sorted(self.parameters, key=lambda name: -order.get(name, 0.0))[:MOST]


def _history(study: _Study) -> Figure | None:
    if not study.complete:
        return None
    figure = blank(7.5, 4.2 * len(study.objectives))
    panels = figure.subplots(len(study.objectives), 1, squeeze=False)[:, 0]
    for place, (axes, objective) in enumerate(zip(panels, study.objectives, strict=True)):
        best = np.maximum.accumulate if study.upwards[place] else np.minimum.accumulate
        numbers = [trial.number for trial in study.complete]
        values = [trial.values[place] for trial in study.complete]
        axes.step(
            [*numbers, max(trial.number for trial in study.trials)], [*best(values), best(values)[-1]],
            where="post", color=BLUE, linewidth=1.2, alpha=0.6, label="best so far",
        )  # fmt: skip
        _dots(axes, study, lambda trial: trial.number, partial(_value, place))
        if study.failed:
            axes.plot(
                [trial.number for trial in study.failed], [0.02] * len(study.failed), "x", color=INK, markersize=6,
                label="failed or lost", transform=axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("trial", fontsize=NORMAL)
        axes.set_ylabel(objective, fontsize=NORMAL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend(figure, panels[0])
    return _finished(figure, study, "history")


def _intermediate_values(study: _Study) -> Figure | None:
    reported = [trial for trial in study.trials if trial.intermediate_values]
    if not reported or len(study.objectives) > 1:
        return None
    figure = blank(7.5, 4.6)
    axes = figure.subplots()
    best = _best(study)
    for trial in sorted(reported, key=lambda trial: (trial is best, "baseline" in trial.user_attrs)):
        epochs, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        style: dict[str, Any]
        if trial is best:
            kind = "best, which is the baseline" if "baseline" in trial.user_attrs else "best"
            style = {"color": BLUE, "linewidth": 2.4, "label": f"{kind}, trial {trial.number}"}
        elif "baseline" in trial.user_attrs and trial.state is TrialState.COMPLETE:
            style = {"color": GREEN, "linewidth": 2.4, "label": f"baseline, trial {trial.number}"}
        elif trial.state is TrialState.COMPLETE:
            style = {"color": BLUE, "linewidth": 1, "alpha": 0.55, "label": "complete"}
        elif trial.state is TrialState.PRUNED:
            style = {"color": ORANGE, "linewidth": 1, "alpha": 0.8, "label": "pruned"}
            axes.plot(epochs[-1:], values[-1:], "X", color=ORANGE, markersize=7)
        else:
            style = {"color": QUIET, "linewidth": 1, "linestyle": ":", "label": trial.state.name.lower()}
        axes.plot(epochs, values, marker="o", markersize=2.5, **style)
    axes.set_xlabel("epoch", fontsize=NORMAL)
    axes.set_ylabel(study.objectives[0], fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend(figure, axes)
    return _finished(figure, study, "every epoch of every trial")


def _importances(study: _Study) -> Figure | None:
    shares = study.importances()
    if len(shares) < 2:
        return None
    figure = blank(7.5, 1.4 + 0.4 * len(shares))
    axes = figure.subplots()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=NORMAL)
    axes.set_xlim(0, max(shares.values()) * 1.12)
    axes.set_xlabel(f"share of what varies in {study.objectives[0]} (fANOVA)", fontsize=NORMAL)
    figure = _finished(figure, study, f"importance of parameters, {len(study.complete)} complete trials")
    axes.grid(axis="y", visible=False)
    return figure


def _slice(study: _Study) -> Figure | None:
    if not study.complete or not study.parameters:
        return None
    count = len(study.parameters)
    across = min(count, 4)
    down = -(-count // across)
    figure = blank(max(3.6 * across, 6), 3.8 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, study.parameters, strict=False):
        having = [trial for trial in [*study.complete, *study.pruned] if name in trial.params]
        _dots(axes, study, partial(study.place, name), partial(_value, 0), only=having)
        _axis(axes, study, name, "x")
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel(study.objectives[0], fontsize=NORMAL)
    _legend(figure, panels[0])
    return _finished(figure, study, "slices")


def _contour(study: _Study) -> Figure | None:
    names = study.foremost()
    pairs = list(itertools.combinations(names, 2))
    having = [trial for trial in study.complete if all(name in trial.params for name in names)]
    if not pairs or len(having) < 2:
        return None
    figure = blank(6.2 * len(pairs), 4.8)
    values = np.array([trial.values[0] for trial in having])
    scale = _scale(values)
    for axes, (first, second) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        x = np.array([study.place(first, trial) for trial in having])
        y = np.array([study.place(second, trial) for trial in having])
        _axis(axes, study, first, "x")
        _axis(axes, study, second, "y")
        # Between choices there is nothing to interpolate.
        if study.choices(first) is None and study.choices(second) is None:
            _surface(axes, x, y, values, scale)
        baseline = np.array(["baseline" in trial.user_attrs for trial in having])
        for chosen, marker, size in ((~baseline, "o", 42), (baseline, "*", 170)):
            axes.scatter(
                x[chosen], y[chosen], c=values[chosen], cmap=COLOURS, norm=scale, marker=marker, s=size,
                edgecolors="white", linewidths=1.2, zorder=3,
            )  # fmt: skip
        axes.grid(visible=False)
    figure.colorbar(ScalarMappable(scale, COLOURS), ax=figure.axes, label=study.objectives[0], pad=0.02)
    return _finished(figure, study, "contours over complete trials, the star is the baseline", layout=False)


def _surface(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, scale: Normalize) -> None:
    logs = [np.log(part) if kind == "log" else part for part, kind in ((x, axes.get_xscale()), (y, axes.get_yscale()))]
    if len(set(zip(x, y, strict=True))) < 4:
        return
    try:
        triangles = Triangulation(*logs).triangles
    except (RuntimeError, ValueError):
        # All on one line.
        return
    axes.tricontourf(Triangulation(x, y, triangles), values, levels=12, cmap=COLOURS, norm=scale, alpha=0.6)


def _parallel_coordinates(study: _Study) -> Figure | None:
    names = study.parameters
    having = [trial for trial in study.complete if all(name in trial.params for name in names)]
    if len(having) < 2 or not names:
        return None
    figure = blank(max(2.6 * (len(names) + 1), 6.5), 4.6)
    axes = figure.subplots()
    values = np.array([trial.values[0] for trial in having])
    columns = [values, *(np.array([study.place(name, trial) for trial in having]) for name in names)]
    scale, lines = _scale(values), []
    for place, (name, column) in enumerate(zip([None, *names], columns, strict=True)):
        log_scale = name is not None and getattr(study.distribution(name), "log", False)
        column = np.log10(column) if log_scale else column
        low, high = float(column.min()), float(column.max())
        span = high - low or 1.0
        lines.append((column - low) / span if high > low else np.full(len(column), 0.5))
        choices = None if name is None else study.choices(name)
        ticks = range(len(choices)) if choices is not None else _round_ticks(low, high, log_scale=log_scale)
        axes.axvline(place, color=INK, linewidth=0.8)
        for tick in ticks:
            height = (tick - low) / span if high > low else 0.5
            if not -0.01 <= height <= 1.01:
                continue
            text = str(choices[tick]) if choices is not None else f"{10**tick if log_scale else tick:.6g}"
            axes.annotate(
                text, (place, height), xytext=(-4, 0), textcoords="offset points", ha="right", va="center",
                fontsize=SMALL, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
            )  # fmt: skip
    colours = matplotlib.colormaps[COLOURS](scale(values))
    for number in np.argsort(values if study.upwards[0] else -values):
        baseline = "baseline" in having[number].user_attrs
        axes.plot(
            range(len(lines)), [line[number] for line in lines], color=colours[number],
            linewidth=2.4 if baseline else 1.4, linestyle="--" if baseline else "-", alpha=0.9,
        )  # fmt: skip
    axes.set_xlim(-0.55, len(names) + 0.1)
    axes.set_xticks(range(len(lines)), [study.objectives[0], *names], fontsize=NORMAL)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.set_layout_engine("constrained")
    figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes, label=study.objectives[0], pad=0.02)
    headline(figure, f"{study.name}: complete trials, the dashed one is the baseline")
    return figure


def _round_ticks(low: float, high: float, *, log_scale: bool) -> np.ndarray:
    """Round numbers from `low` to `high`; for a log scale these, and what is returned, are decimal logarithms."""
    if low == high:
        return np.array([low])
    if not log_scale:
        return np.asarray(MaxNLocator(5).tick_values(low, high))
    ticks = np.array(LogLocator(subs=(1, 2, 5)).tick_values(10**low, 10**high))
    inside = (ticks >= 10**low) & (ticks <= 10**high)
    # Within a fraction of a decade there are no two such numbers.
    ticks = ticks[inside] if inside.sum() > 1 else np.asarray(MaxNLocator(4).tick_values(10**low, 10**high))
    return np.log10(ticks[ticks > 0])


def _pareto_front(study: _Study) -> Figure | None:
    if len(study.objectives) != 2 or not study.complete:
        return None
    figure = blank(7, 4.8)
    axes = figure.subplots()
    front = sorted(study.study.best_trials, key=lambda trial: trial.values[1])
    for trial in study.complete:
        on_front = any(trial.number == other.number for other in front)
        baseline = "baseline" in trial.user_attrs
        label = "Pareto front" if on_front else "baseline" if baseline else "dominated"
        axes.plot(
            trial.values[1], trial.values[0], "*" if baseline else "o", markersize=15 if baseline else 7,
            color=BLUE if on_front else GREEN if baseline else "0.65", markeredgecolor="white", label=label, zorder=3,
        )  # fmt: skip
        axes.annotate(
            str(trial.number), (trial.values[1], trial.values[0]), xytext=(5, 5), textcoords="offset points",
            fontsize=SMALL, color=QUIET,
        )  # fmt: skip
    # Steps: between two trials of the front nothing better than the worse of both was reached.
    axes.step(
        [trial.values[1] for trial in front], [trial.values[0] for trial in front], color=BLUE, linewidth=1.2,
        where="pre" if study.upwards[1] else "post",
    )  # fmt: skip
    axes.set_xlabel(study.objectives[1], fontsize=NORMAL)
    axes.set_ylabel(study.objectives[0], fontsize=NORMAL)
    axes.margins(0.08)
    _legend(figure, axes)
    return _finished(figure, study, "Pareto front, with numbers of trials; the star is the baseline")


DRAWN: dict[str, Callable[[_Study], Figure | None]] = {
    "history": _history,
    "intermediate_values": _intermediate_values,
    "importances": _importances,
    "slice": _slice,
    "contour": _contour,
    "parallel_coordinates": _parallel_coordinates,
    "pareto_front": _pareto_front,
}


def _best(study: _Study) -> FrozenTrial | None:
    if not study.complete:
        return None
    return (max if study.upwards[0] else min)(study.complete, key=lambda trial: trial.values[0])


def _dots(
    axes: Axes,
    study: _Study,
    x: Callable[[FrozenTrial], float],
    y: Callable[[FrozenTrial], float],
    only: Sequence[FrozenTrial] | None = None,
) -> None:
    """Complete trials filled, pruned ones hollow at their last value, the baseline as a star."""
    chosen = {trial.number for trial in (study.trials if only is None else only)}
    baseline = [trial for trial in study.complete if "baseline" in trial.user_attrs]
    others = [trial for trial in study.complete if "baseline" not in trial.user_attrs]
    kinds: tuple[tuple[list[FrozenTrial], str, dict[str, Any]], ...] = (
        (
            study.pruned,
            "pruned, its last value",
            {"marker": "o", "markerfacecolor": "none", "markersize": 6, "color": ORANGE},
        ),
        (others, "complete", {"marker": "o", "markersize": 6, "color": BLUE, "markeredgecolor": "white"}),
        (baseline, "baseline", {"marker": "*", "markersize": 14, "color": GREEN, "markeredgecolor": "white"}),
    )
    for trials, label, style in kinds:
        shown = [trial for trial in trials if trial.number in chosen]
        if shown:
            axes.plot(
                [x(trial) for trial in shown], [y(trial) for trial in shown], linestyle="none", label=label, **style
            )


def _axis(axes: Axes, study: _Study, name: str, which: str) -> None:
    """The axis of a parameter: its name, choices by name, log where it was searched so."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(name, fontsize=NORMAL)
    choices = study.choices(name)
    if choices is not None:
        turned = which == "x" and sum(len(str(choice)) for choice in choices) > 24
        axis.set_ticks(range(len(choices)), [str(choice) for choice in choices], fontsize=SMALL)
        if turned:
            axes.tick_params(axis="x", rotation=30)
        (axes.set_xlim if which == "x" else axes.set_ylim)(-0.5, len(choices) - 0.5)
        return
    distribution = study.distribution(name)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if distribution.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        # A decade or less has labels too, and several have not too many.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if distribution.high <= 100 * distribution.low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        margin = (distribution.high / distribution.low) ** 0.04
        limits = distribution.low / margin, distribution.high * margin
    else:
        margin = 0.04 * (distribution.high - distribution.low)
        limits = distribution.low - margin, distribution.high + margin
    # All that was searched, not only what was tried.
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)


def _value(place: int, trial: FrozenTrial) -> float:
    return trial.values[place]


def _scale(values: np.ndarray) -> Normalize:
    low, high = float(values.min()), float(values.max())
    return Normalize(low, high if high > low else low + 1e-6)


def _legend(figure: Figure, axes: Axes) -> None:
    """One entry for each kind of mark, below everything, where it hides none."""
    # Only a figure with a layout has an outside.
    figure.set_layout_engine("constrained")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        figure.legend(
            unique.values(), unique.keys(), fontsize=SMALL, frameon=False, loc="outside lower center", ncols=len(unique)
        )


def _finished(figure: Figure, study: _Study, what: str, *, layout: bool = True) -> Figure:
    figure.set_layout_engine("constrained")
    if layout:
        for axes in figure.axes:
            tidy(axes)
            axes.tick_params(axis="y", labelsize=NORMAL - 0.5)
    figure.suptitle(f"{study.name}: {what}", fontsize=LARGE, color=INK)
    return figure
