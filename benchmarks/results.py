"""What was measured: a JSON file that grows row by row and machine by machine, a table and a figure of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pairs import Compared

FILE = "results.json"


def save(folder: Path, row: str, goals: Mapping[str, float], compared: Mapping[str, Compared], machine: str) -> None:
    """Puts a row in place of what this machine measured of it before, and makes table and figure anew.

    Args:
        folder: gets `results.json`, `results.md` and `results.png`.
        row: its name.
        goals: the highest ratio that is wanted, by quantity, for those that have one.
        compared: by quantity.
        machine: in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found.setdefault(row, {})[machine] = {
        name: {
            "ours": one.ours, "theirs": one.theirs, "ratio": one.ratio, "spread": one.spread, "goal": goals.get(name),
        }
        for name, one in compared.items()
    }  # fmt: skip
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(table(found), encoding="utf-8")
    figure(found, folder / "results.png")


def table(found: Mapping[str, Any]) -> str:
    """All rows as a Markdown table, medians and ratios, and the machines they were measured on."""
    letters = _letters(found)
    lines = [
        "| row | quantity | machine | clothseg | the other | ratio | in pairs | goal |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row, name, machine, one in _quantities(found):
        low, high = one["spread"]
        goal = "" if one["goal"] is None else f"{one['goal']:.3g} {'✓' if one['ratio'] <= one['goal'] else '✗'}"
        pairs = f"{low:.2f} to {high:.2f} ({len(one['ours'])})"
        ours, theirs = statistics.median(one["ours"]), statistics.median(one["theirs"])
        values = f"{ours:.4g} | {theirs:.4g} | {one['ratio']:.2f} | {pairs} | {goal}"
        lines.append(f"| {row} | {name} | {letters[machine]} | {values} |")
    lines += ["", *(f"- {letter}: {machine}" for machine, letter in letters.items())]
    return "\n".join(lines) + "\n"


def figure(found: Mapping[str, Any], path: Path) -> None:
    """Every ratio with its spread on a logarithmic axis, and where it was to be."""
    from matplotlib.figure import Figure

    letters = _letters(found)
    rows = [(f"{row}: {name} ({letters[machine]})", one) for row, name, machine, one in _quantities(found)]
    drawn = Figure(figsize=(10, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = drawn.subplots()
    for place, (_, one) in enumerate(rows):
        low, high = one["spread"]
        axes.plot([low, high], [place, place], color="tab:blue", linewidth=6, alpha=0.3, solid_capstyle="round")
        axes.plot(one["ratio"], place, "o", color="tab:blue", label="ratio of medians" if place == 0 else None)
        if one["goal"] is not None:
            axes.plot(one["goal"], place, "|", color="tab:red", markersize=14, markeredgewidth=2)
    axes.plot([], [], color="tab:blue", linewidth=6, alpha=0.3, label="pairs")
    axes.plot([], [], "|", color="tab:red", markersize=14, markeredgewidth=2, label="goal")
    axes.axvline(1, color="0.6", linewidth=1)
    axes.set(
        xscale="log", yticks=range(len(rows)), yticklabels=[name for name, _ in rows], ylim=(len(rows) - 0.5, -0.5),
    )  # fmt: skip
    machines = [f"{letter}: {name}" for name, letter in letters.items()]
    # Beginning under the names of the rows, where there is room for a long one.
    axes.set_xlabel("\n".join(["clothseg over the other: less is better", *machines]), loc="right")
    low, high = axes.get_xlim()
    marks = [mark for mark in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= mark <= high]
    axes.set_xticks(marks, labels=[f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.legend(loc="best", frameon=False)
    drawn.savefig(path, dpi=120)


def _letters(found: Mapping[str, Any]) -> dict[str, str]:
    """A letter for every machine, in the order in which they come."""
    machines = dict.fromkeys(machine for by_machine in found.values() for machine in by_machine)
    return {machine: chr(ord("A") + place) for place, machine in enumerate(machines)}


def _quantities(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Row, quantity, machine, and what was measured; a quantity's machines below each other."""
    for row, by_machine in found.items():
        for name in dict.fromkeys(name for measured in by_machine.values() for name in measured):
            for machine, measured in by_machine.items():
                if name in measured:
                    yield row, name, machine, measured[name]
