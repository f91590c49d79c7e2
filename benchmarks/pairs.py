"""Measuring two things in turns, so that a machine that is slow for a while is slow for both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Measure = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Compared:
    """One quantity of ours and of the other, in pairs.

    Attributes:
        ours: a value of each pair.
        theirs: the other's.
    """

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of ours over the median of theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio within a pair."""
        ratios = [own / other for own, other in zip(self.ours, self.theirs, strict=True)]
        return min(ratios), max(ratios)


def in_turns(ours: Measure, theirs: Measure, *, pairs: int, tell: Callable[[str], None]) -> dict[str, Compared]:
    """Measures ours, theirs, theirs, ours, ours, ... and gives every quantity that both have.

    Args:
        ours: measures once, and names what it measured.
        theirs: the same of the other.
        pairs: how often, at least 1.
        tell: hears of every value as it comes.

    Raises:
        ValueError: fewer pairs than 1, or nothing that both measured.
    """
    if pairs < 1:
        raise ValueError(f"{pairs} pairs cannot be measured; 1 or more can")
    found: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
    for number in range(pairs):
        values: dict[str, Mapping[str, float]] = {}
        # Whoever is second may find files in memory that the first has read.
        for who in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            values[who] = (ours if who == "ours" else theirs)()
            tell(f"pair {number + 1} of {pairs}, {who}: " + ", ".join(f"{k} {v:.4g}" for k, v in values[who].items()))
        found.append((values["ours"], values["theirs"]))
    names = [name for name in found[0][0] if name in found[0][1]]
    if not names:
        raise ValueError(f"ours measured {list(found[0][0])}, theirs {list(found[0][1])}; nothing is common to both")
    return {
        name: Compared(tuple(own[name] for own, _ in found), tuple(other[name] for _, other in found)) for name in names
    }
