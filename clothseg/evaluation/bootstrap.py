"""Whether a difference between trainings is more than chance: the paired bootstrap over photos.

Scores of a data set are not means over its photos: pixels are added up before anything is divided. So what is drawn
again and again are weights of the photos, the same for every training, and all scores are worked out anew from the
weighted sums of their counts. The weights are those of the Bayesian bootstrap (Rubin 1981, The Annals of Statistics 9),
which has the spread of drawing photos with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993)
but leaves no photo out: a class that is in one photo only would be absent from every third draw, and a mean over the
classes that are present would be one over other classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clothseg.training import scores
from clothseg.training.scores import Counts

_AT_ONCE = 500  # draws whose counts are held together


@dataclass(frozen=True)
class Interval:
    """A value and where it would lie for other photos.

    Attributes:
        value: on these photos.
        low: lower end of the confidence interval.
        high: its upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A score of one training less that of another.

    Attributes:
        p: two-sided achieved significance level, twice the share of draws on the rarer side of zero, at most 1.
    """

    p: float

    @property
    def real(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Draws:
    """Scores of some configurations, each with one or more seeds.

    Attributes:
        values: of every score those of the configurations on the photos as they are, float (configurations,), the mean
            over their seeds.
        drawn: of every score those on photos weighted (and seeds drawn) at random, float (draws, configurations).
    """

    values: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]

    def interval(self, score: str, configuration: int, *, confidence: float) -> Interval:
        """A score of one configuration; `confidence` in 0..1."""
        low, high = _percentiles(self.drawn[score][:, configuration], confidence)
        return Interval(float(self.values[score][configuration]), low, high)

    def difference(self, score: str, configuration: int, than: int, *, confidence: float) -> Difference:
        """A score of one configuration less that of another, `than`; `confidence` in 0..1."""
        drawn = self.drawn[score][:, configuration] - self.drawn[score][:, than]
        known = drawn[~np.isnan(drawn)]
        low, high = _percentiles(known, confidence)
        sides = min((known <= 0).mean(), (known >= 0).mean()) if len(known) else 1.0
        value = self.values[score][configuration] - self.values[score][than]
        return Difference(float(value), low, high, p=float(min(1.0, 2 * sides)))


def bootstrap(configurations: Sequence[Sequence[np.ndarray]], *, draws: int, seed: int) -> Draws:
    """Scores on photos weighted at random, with the same weights for all configurations.

    Where a configuration was trained with several seeds, as many of them are drawn with replacement too, and their
    scores averaged: its interval then tells what other seeds would give as well.

    Args:
        configurations: of each the confusion matrices of its seeds, int (n, classes, classes), photo by photo, of the
            same n photos in the same order.
        draws: how many.
        seed: of the draws.
    """
    counted = [[Counts.of(confusions) for confusions in seeds] for seeds in configurations]
    photos = len(counted[0][0].truth)
    random = np.random.default_rng(seed)
    values = _means([[scores.every(_sum(counts)) for counts in seeds] for seeds in counted])
    parts = []
    for start in range(0, draws, _AT_ONCE):
        many = min(_AT_ONCE, draws - start)
        # Uniform over all weights of this sum.
        weights = photos * random.dirichlet(np.ones(photos), size=many)
        parts.append(_drawn(counted, weights, random))
    return Draws(values, {score: np.concatenate([part[score] for part in parts]) for score in values})


def _drawn(counted: Sequence[Sequence[Counts]], weights: np.ndarray, random: np.random.Generator) -> dict:
    columns = []
    for seeds in counted:
        of_seeds = [scores.every(_weighted(counts, weights)) for counts in seeds]
        chosen = random.integers(len(seeds), size=(len(weights), len(seeds)))
        rows = np.arange(len(weights))[:, None]
        columns.append(
            {
                score: np.stack([found[score] for found in of_seeds], axis=1)[rows, chosen].mean(axis=1)
                for score in of_seeds[0]
            }
        )
    return {score: np.stack([column[score] for column in columns], axis=1) for score in columns[0]}


def _means(found: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    names = found[0][0]
    return {name: np.array([np.mean([seed[name] for seed in seeds]) for seeds in found]) for name in names}


def _sum(counts: Counts) -> Counts:
    return _weighted(counts, np.ones(len(counts.truth)))


def _weighted(counts: Counts, weights: np.ndarray) -> Counts:
    return Counts(*(weights @ part for part in (counts.hits, counts.truth, counts.predicted)))


def _percentiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
