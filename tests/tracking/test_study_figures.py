"""Figures of studies in every state they go through."""

from __future__ import annotations

import io
import random

import matplotlib.pyplot as plt
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from clothseg.tracking.study_figures import study_figures

RATE = FloatDistribution(1e-4, 1e-2, log=True)
SIZE = IntDistribution(16, 128, log=True)
BACKBONE = CategoricalDistribution(["mobilenetv2", "densenet121", None])
SINGLE = {"history", "intermediate_values", "slice", "contour", "parallel_coordinates"}


def study(states: str, space: dict, *, objectives: int = 1, equal: bool = False) -> optuna.Study:
    """One trial for each letter: complete, pruned, failed, running, waiting, surplus. The first is the baseline."""
    made = optuna.create_study(directions=["maximize", "minimize"][:objectives], study_name="a_study")
    draw = random.Random(0)
    for number, state in enumerate(states):
        params = {
            name: draw.choice(part.choices) if hasattr(part, "choices") else draw.randint(16, 100) if part is SIZE
            else 10 ** draw.uniform(-4, -2)
            for name, part in space.items()
        }  # fmt: skip
        value = 0.1 if equal else draw.uniform(0.05, 0.15)
        kind = {"c": "COMPLETE", "p": "PRUNED", "r": "RUNNING", "w": "WAITING"}.get(state, "FAIL")
        values = {"c": [value, 20.0 + number][:objectives], "p": [value]}.get(state)
        made.add_trial(
            create_trial(
                state=TrialState[kind],
                values=values,
                params=params,
                distributions=space,
                intermediate_values={} if objectives > 1 or state == "w" else {1: value / 2, 2: value},
                user_attrs={"surplus": True} if state == "s" else {"baseline": True} if number == 0 else {},
            )
        )
    return made


def drawn(made: optuna.Study) -> dict:
    names = ["val/clothing_miou", "inference/milliseconds_per_photo"][: len(made.directions)]
    figures = study_figures(made, objectives=names)
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png")
        assert "a_study" in figure._suptitle.get_text()
    return figures


@pytest.mark.parametrize(
    ("states", "space", "wanted"),
    [
        ("", {"rate": RATE}, set()),
        ("r", {"rate": RATE}, {"intermediate_values"}),
        ("fff", {"rate": RATE, "size": SIZE}, {"intermediate_values"}),
        ("c", {"rate": RATE, "size": SIZE}, {"history", "intermediate_values"}),
        ("cc", {"rate": RATE, "size": SIZE}, SINGLE),
        ("cccp", {"rate": RATE}, SINGLE - {"contour"}),
        ("ccccpfrws", {"rate": RATE, "size": SIZE}, SINGLE | {"importances"}),
        ("ccccccpp", {"rate": RATE, "backbone": BACKBONE, "size": SIZE}, SINGLE | {"importances"}),
    ],
)
def test_what_makes_sense_is_drawn_and_nothing_else(states, space, wanted):
    assert set(drawn(study(states, space))) == wanted


def test_two_objectives_have_a_pareto_front_and_a_history_each():
    figures = drawn(study("cccccf", {"rate": RATE, "size": SIZE}, objectives=2))
    assert "pareto_front" in figures and "intermediate_values" not in figures
    assert [axes.get_ylabel() for axes in figures["history"].axes] == [
        "val/clothing_miou", "inference/milliseconds_per_photo",
    ]  # fmt: skip


def test_values_that_are_all_equal_have_no_importances():
    assert "importances" not in drawn(study("cccccc", {"rate": RATE, "size": SIZE}, equal=True))


def test_pruned_curves_end_where_they_were_stopped_and_surplus_trials_are_nowhere():
    figure = study_figures(study("ccps", {"rate": RATE}), objectives=["val/miou"])["intermediate_values"]
    labels = figure.legends[0].get_texts()
    assert "pruned" in {label.get_text() for label in labels}
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == 3
    ends = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
    assert len(ends) == 1 and list(ends[0].get_xdata()) == [2]


def test_log_parameters_have_log_axes_and_the_baseline_is_marked():
    figure = study_figures(study("cccp", {"rate": RATE, "size": SIZE}), objectives=["val/miou"])["slice"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["rate", "size"]
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert len(stars) == 1 and len(stars[0].get_xdata()) == 1


def test_nothing_is_left_to_pyplot():
    drawn(study("cccc", {"rate": RATE, "size": SIZE}))
    assert plt.get_fignums() == []
