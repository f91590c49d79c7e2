"""Samplers that can be stopped, started again and shared without drawing the same numbers twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class NumberedSampler(BaseSampler):
    """Seeds a sampler anew for every trial, by the trial's number.

    A sampler with one seed begins its random numbers again in every process: a study that is resumed, or that several
    processes share, would try what it has tried. With a seed for each number it does not, and a study that is stopped
    and resumed asks for the same as one that is not.

    Args:
        make: a sampler with the seed given.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], *, seed: int) -> None:
        self.make, self.seed = make, seed
        self.sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler = self.make(int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self.sampler.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.sampler.after_trial(study, trial, state, values)


def grid_points(choices: Mapping[str, Sequence[Any]], *, seed: int) -> list[dict[str, Any]]:
    """Every combination, in a random order: a sweep that is cut short has seen all of the grid, thinly.

    Args:
        choices: by parameter.
        seed: of the order.
    """
    points: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        points = [{**point, name: value} for point in points for value in values]
    return [points[place] for place in np.random.default_rng(seed).permutation(len(points))]
