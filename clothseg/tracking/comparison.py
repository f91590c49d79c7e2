"""What a comparison of trainings leaves: a table of scores and whether their differences are real, and figures."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clothseg.evaluation.bootstrap import Difference, Draws, Interval
from clothseg.evaluation.together import Together
from clothseg.tracking import comparison_figures as figures
from clothseg.tracking.evaluation import Log, rounded
from clothseg.training import scores
from clothseg.training.scores import Counts

if TYPE_CHECKING:
    from clothseg.trained import Trained

log = logging.getLogger(__name__)

NAMES = {
    "accuracy": "accuracy",
    "clothing_accuracy": "accuracy on clothing",
    "miou": "mean IoU",
    "clothing_miou": "clothing mean IoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "dice": "mean Dice",
    "mean_recall": "mean recall",
}
CURVES = ("train/loss", "val/loss", "val/accuracy", "val/clothing_miou")


@dataclass(frozen=True)
class Comparison:
    """Trainings that were scored on the same photos.

    Attributes:
        configurations: the trainings, those of one configuration together; the first is what others are compared with.
        confusions: of every training int64 (n, classes, classes), photo by photo.
        draws: scores on photos drawn at random.
        confidence: of the intervals, in 0..1.
        class_names: one per class.
        what: the scores are called by.
        photos: how many.
    """

    configurations: Sequence[Sequence[Trained]]
    confusions: Sequence[Sequence[np.ndarray]]
    draws: Draws
    confidence: float
    class_names: Sequence[str]
    what: str
    photos: int

    def names(self) -> list[str]:
        """Of the configurations: that of their first run, numbered where two are the same, with the number of seeds."""
        names = [_name(trainings[0]) for trainings in self.configurations]
        many = [f"{name} [{place + 1}]" if names.count(name) > 1 else name for place, name in enumerate(names)]
        return [
            f"{name} ({len(trainings)} seeds)" if len(trainings) > 1 else name
            for name, trainings in zip(many, self.configurations, strict=True)
        ]

    def interval(self, score: str, configuration: int) -> Interval:
        """A score of a configuration."""
        return self.draws.interval(score, configuration, confidence=self.confidence)

    def difference(self, score: str, configuration: int) -> Difference:
        """A score of a configuration less that of the first."""
        return self.draws.difference(score, configuration, 0, confidence=self.confidence)

    def seed_scores(self, score: str, configuration: int) -> np.ndarray:
        """A score of every seed, float (seeds,)."""
        totals = np.stack([confusions.sum(axis=0) for confusions in self.confusions[configuration]])
        return scores.SCORES[score](Counts.of(totals))

    def class_iou(self, configuration: int) -> np.ndarray:
        """IoU of every class, the mean over the seeds, float (classes,)."""
        totals = np.stack([confusions.sum(axis=0) for confusions in self.confusions[configuration]])
        return scores.class_iou(Counts.of(totals)).mean(axis=0)

    def changed(self) -> list[tuple[str, list[Any]]]:
        """Options that are not the same in all configurations, with the value in each."""
        from clothseg.trained import configuration

        options = [configuration(trainings[0]) for trainings in self.configurations]
        keys = dict.fromkeys(key for own in options for key in own)
        rows = [(key, [own.get(key, "") for own in options]) for key in keys]
        return [(key, values) for key, values in rows if any(value != values[0] for value in values)]

    def verdicts(self) -> list[str]:
        """In words, whether configurations differ, and what that is said of."""
        names = self.names()
        if len(names) == 1:
            return [f"no difference: {names[0]} is one configuration, and what its runs differ by is their seeds"]
        told = []
        for place in range(1, len(names)):
            found = {NAMES[score]: self.difference(score, place) for score in NAMES}
            better = [name for name, difference in found.items() if difference.real and difference.value > 0]
            worse = [name for name, difference in found.items() if difference.real and difference.value < 0]
            same = [name for name, difference in found.items() if not difference.real]
            pair = f"{names[place]} against {names[0]}"
            if not better and not worse:
                told.append(f"{pair}: no difference")
                continue
            parts = [("better", better), ("worse", worse), ("no difference", same)]
            told.append(f"{pair}: " + "; ".join(f"{how} in {', '.join(of)}" for how, of in parts if of))
        if any(len(trainings) == 1 for trainings in self.configurations):
            told.append(
                "where a configuration has one seed, what another seed would change is in no interval: "
                "train more to tell a better configuration from a luckier run"
            )
        return told


def log_comparison(logs: Sequence[Log], comparison: Comparison) -> None:
    """Logs the scores, their differences and figures of them, and prints the scores and the verdicts.

    Args:
        logs: where they go.
        comparison: what is logged.
    """
    names, places = comparison.names(), range(len(comparison.configurations))
    header, rows = _scores(comparison)
    iou = [comparison.class_iou(place) for place in places]
    pixels = comparison.confusions[0][0].sum(axis=(0, 2))
    by_class = [
        [number, name, pixels[number], *(rounded(own[number]) for own in iou), *_change(iou, number)]
        for number, name in enumerate(comparison.class_names)
    ]
    changed = comparison.changed()
    curves = [[training.found.history(CURVES) for training in own] for own in comparison.configurations]
    drawn = {"scores": figures.scores(comparison, NAMES)}
    if len(names) > 1:
        drawn["classes"] = figures.class_changes(
            iou[0], iou[1], pixels=pixels, class_names=comparison.class_names, names=names[:2]
        )
    if any(map(any, curves)):
        drawn["curves"] = figures.curves(curves, CURVES, names=names)
    for destination in logs:
        destination.scores(_values(comparison), step=0)
        destination.table(header, rows, "tables/comparison.csv")
        destination.table(["class", "name", "pixels", *names, *_changes(names)], by_class, "tables/class_iou.csv")
        destination.table(["option", *names], [[key, *values] for key, values in changed], "tables/configuration.csv")
        for name, figure in drawn.items():
            destination.figure(figure, f"figures/{name}.png")
    _print(comparison, changed)


def log_predictions(
    logs: Sequence[Log],
    comparison: Comparison,
    together: Together,
    *,
    names: Sequence[str],
    pair: Sequence[Trained],
) -> None:
    """Draws the photos where two trainings differ most.

    Args:
        logs: where the figure goes.
        comparison: that they are of.
        together: the photos and what was predicted of them.
        names: of the photos.
        pair: the two trainings.
    """
    if not together.rows:
        return
    titles = comparison.names()[:2]
    if len(titles) == 1:
        titles = [f"{_name(training)}, seed {training.settings.seed}" for training in pair]
    captions = [f"{name}: {share:.0%} differ" for name, share in zip(names, together.differing, strict=True)]
    figure = figures.both_predictions(
        together.predictions, class_names=comparison.class_names, captions=captions, titles=titles
    )
    for destination in logs:
        destination.figure(figure, "figures/differing_photos.png")


def _name(training: Trained) -> str:
    """Of its run, without the seed, which is not the configuration's, and as much of it as figures have room for."""
    words = training.found.name.split()
    name = " ".join(word for word in words if not word.startswith("seed=")) or training.found.name
    return textwrap.shorten(name, 44, placeholder=" ...")


def _scores(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    header = [
        "score", "configuration", "seeds", "value", "low", "high", "seed_deviation", "difference", "difference_low",
        "difference_high", "p",
    ]  # fmt: skip
    rows = []
    for score in NAMES:
        for place, name in enumerate(comparison.names()):
            interval, seeds = comparison.interval(score, place), comparison.seed_scores(score, place)
            deviation = rounded(seeds.std(ddof=1)) if len(seeds) > 1 else ""
            row = [score, name, len(seeds), *map(rounded, (interval.value, interval.low, interval.high)), deviation]
            if place:
                difference = comparison.difference(score, place)
                row += map(rounded, (difference.value, difference.low, difference.high, difference.p))
            else:
                row += [""] * 4
            rows.append(row)
    return header, rows


def _values(comparison: Comparison) -> dict[str, float]:
    """Differences as metrics of the comparison's own run."""
    values: dict[str, float] = {}
    for place in range(1, len(comparison.configurations)):
        for score in NAMES:
            difference = comparison.difference(score, place)
            name = (
                f"val_difference/{score}" if len(comparison.configurations) == 2 else f"val_difference_{place}/{score}"
            )
            values |= {name: difference.value, f"{name}_low": difference.low, f"{name}_high": difference.high}
    return values


def _change(iou: Sequence[np.ndarray], number: int) -> list[float | str]:
    return [rounded(own[number] - iou[0][number]) for own in iou[1:]]


def _changes(names: Sequence[str]) -> list[str]:
    return [f"{name} less {names[0]}" for name in names[1:]]


def _print(comparison: Comparison, changed: Sequence[tuple[str, list[Any]]]) -> None:
    names = comparison.names()
    share = f"{comparison.confidence:.0%}"
    log.info("%s, %d photos; %s intervals over photos drawn at random", comparison.what, comparison.photos, share)
    for place, name in enumerate(names):
        log.info("%s", name)
        for score, told in NAMES.items():
            interval, seeds = comparison.interval(score, place), comparison.seed_scores(score, place)
            line = f"  {told:24} {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            if len(seeds) > 1:
                line += f" seeds {seeds.min():.4f} to {seeds.max():.4f}, deviation {seeds.std(ddof=1):.4f}"
            if place:
                found = comparison.difference(score, place)
                line += f"   {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}] p {found.p:.3f}"
                line += "" if found.real else "   no difference"
            log.info("%s", line)
    for key, values in changed:
        log.info("  %s: %s", key, " | ".join(str(value) for value in values))
    for verdict in comparison.verdicts():
        log.info("%s", verdict)
