"""Sampling that goes on where it stopped."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution

from clothseg.sweeps.sampling import NumberedSampler, grid_points

SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
SAMPLERS = {
    "random": optuna.samplers.RandomSampler,
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=2, multivariate=True),
    "nsgaii": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=3),
}


def numbered(name):
    return NumberedSampler(lambda seed: SAMPLERS[name](seed=seed), seed=7)


def tried(name, tmp_path, *, sessions):
    """Parameters of the trials that so many sessions ask for, each with a sampler of its own."""
    storage = f"sqlite:///{tmp_path / f'{len(sessions)}.db'}"
    for count in sessions:
        study = optuna.create_study(
            study_name="s", storage=storage, sampler=numbered(name), direction="maximize", load_if_exists=True
        )
        for _ in range(count):
            trial = study.ask(SPACE)
            study.tell(trial, trial.params["x"] - trial.params["y"] ** 2)
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore")
def test_a_study_in_two_sessions_tries_what_it_tries_in_one_and_nothing_twice(name, tmp_path):
    whole, parts = tried(name, tmp_path, sessions=[8]), tried(name, tmp_path, sessions=[3, 5])
    assert whole == parts
    # Genetic sampling may give a child its parent's genes.
    assert len(set(whole)) == 8 or name == "nsgaii"


def test_a_grid_has_every_point_once_in_an_order_of_its_seed():
    choices = {"a": [1, 2, 3], "b": ["x", "y"]}
    points = grid_points(choices, seed=0)
    assert sorted((point["a"], point["b"]) for point in points) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]
    assert grid_points(choices, seed=0) == points != grid_points(choices, seed=1)
