"""What is said of a comparison is what its numbers say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from clothseg.evaluation.bootstrap import bootstrap
from clothseg.tracking import comparison_figures
from clothseg.tracking.comparison import NAMES, Comparison
from clothseg.trained import by_configuration


def training(name: str, *, seed: int = 0, **options):
    found = SimpleNamespace(name=name, given=name, run_id=None)
    return SimpleNamespace(found=found, settings=SimpleNamespace(seed=seed), options={"seed": seed} | options)


def photos(right: float, *, seed: int) -> np.ndarray:
    """Confusion matrices of photos of two kinds of clothes, right in this share of their pixels, more or less."""
    shares = np.clip(np.random.default_rng(seed).normal(right, 0.1, (60, 1)), 0, 1)
    hits = np.rint(shares * [50, 30, 20]).astype(int)
    missed = np.array([50, 30, 20]) - hits
    confusions = np.zeros((60, 3, 3), int)
    confusions[:, range(3), range(3)] = hits
    confusions[:, range(3), (1, 2, 0)] = missed
    return confusions


def comparison(*configurations) -> Comparison:
    """Of configurations, each a list of trainings with their confusion matrices."""
    confusions = [[found for _, found in own] for own in configurations]
    return Comparison(
        configurations=[[one for one, _ in own] for own in configurations],
        confusions=confusions,
        draws=bootstrap(confusions, draws=300, seed=0),
        confidence=0.95,
        class_names=("background", "shirt", "shoes"),
        what="val_native",
        photos=60,
    )


def test_better_worse_and_the_same_are_told_and_single_seeds_mentioned():
    base, good, bad = photos(0.5, seed=0), photos(0.8, seed=1), photos(0.3, seed=2)
    found = comparison(
        [(training("base", rate=1), base)], [(training("good", rate=2), good)], [(training("bad", rate=3), bad)],
        [(training("same", rate=4), base)],
    )  # fmt: skip
    good_told, bad_told, same_told, seeds = found.verdicts()
    assert good_told.startswith("good against base: better in accuracy, ") and "worse" not in good_told
    assert bad_told.startswith("bad against base: worse in accuracy, ")
    assert same_told == "same against base: no difference"
    assert "one seed" in seeds
    assert found.changed() == [("rate", [1, 2, 3, 4])]


def test_seeds_are_averaged_and_named():
    own = [(training(f"fast lr=1 seed={seed}", seed=seed, rate=1), photos(0.6, seed=seed)) for seed in range(3)]
    found = comparison(own, [(training("fast lr=1", rate=2), photos(0.6, seed=9))])
    assert found.names() == ["fast lr=1 [1] (3 seeds)", "fast lr=1 [2]"]
    values = found.seed_scores("accuracy", 0)
    assert len(values) == 3 and found.interval("accuracy", 0).value == pytest.approx(values.mean())
    assert found.class_iou(0).shape == (3,)
    alone = comparison(own)
    assert alone.verdicts() == [
        "no difference: fast lr=1 (3 seeds) is one configuration, and what its runs differ by is their seeds"
    ]


def test_configurations_are_told_apart_by_what_matters():
    trainings = [
        training("a", rate=1, threads=1), training("b", seed=1, rate=1, threads=2), training("c", rate=2),
        training("d", seed=3, rate=1, **{"tracking.run_name": "d", "dataset.root": "elsewhere"}),
    ]  # fmt: skip
    assert by_configuration(trainings) == [[0, 1, 3], [2]]


def test_figures_take_one_configuration_or_many():
    own = [(training(f"a seed={seed}", seed=seed), photos(0.6, seed=seed)) for seed in range(2)]
    many = [[(training(f"run {number}", rate=number), photos(0.5 + 0.05 * number, seed=number))] for number in range(4)]
    for found, panels in ((comparison(own), 1), (comparison(own, *many), 2)):
        figure = comparison_figures.scores(found, NAMES)
        assert len(figure.axes) == panels
        assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(NAMES.values())
    before, after = np.array([0.9, np.nan, 0.2, 0.5]), np.array([0.9, np.nan, 0.6, 0.1])
    figure = comparison_figures.class_changes(
        before, after, pixels=np.array([5, 0, 3, 2]), class_names="abcd", names=["one", "other"]
    )
    # Absent and unchanged classes are left out; the most gained comes first.
    assert [text.get_text()[0] for text in figure.axes[0].get_yticklabels()] == ["c", "d"]
    histories = [[{"val/loss": [(1, 2.0), (2, 1.0)]}, {}], [{"val/loss": [(1, 3.0)]}]]
    figure = comparison_figures.curves(histories, ("val/loss", "val/accuracy"), names=["one", "other"])
    assert [len(axes.lines) for axes in figure.axes[:2]] == [2, 0]
