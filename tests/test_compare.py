"""Runs are compared on the same photos, and only real differences are called so."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest


def table(folder, name):
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_better_run_is_called_better_and_in_what(clothseg, three_runs):
    done = clothseg(
        "compare",
        f"runs=[{three_runs.id('short')},{three_runs.id('long')}]",
        "draws=500",
        "output=better",
        folder=three_runs.folder,
    )
    assert done.returncode == 0, done.stderr
    assert "long against short: better in accuracy" in done.stdout and "another seed" in done.stdout
    assert "schedule.phases.training.epochs: 1 | 2" in done.stdout
    rows = {(row["score"], row["configuration"]): row for row in table(three_runs.folder / "better", "comparison")}
    short, long = rows["accuracy", "short"], rows["accuracy", "long"]
    assert float(long["difference"]) == pytest.approx(float(long["value"]) - float(short["value"]), abs=2e-6)
    assert 0 < float(long["difference_low"]) < float(long["difference"]) < float(long["difference_high"])
    assert short["difference"] == ""
    assert table(three_runs.folder / "better", "configuration") == [
        {"option": "image_size", "short": "[32, 32]", "long": "[64, 32]"},
        {"option": "precision", "short": "float32", "long": "mixed_bfloat16"},
        {"option": "optimizer.learning_rate", "short": "1e-06", "long": "0.001"},
        {"option": "schedule.phases.training.epochs", "short": "1", "long": "2"},
    ]
    classes = table(three_runs.folder / "better", "class_iou")
    assert len(classes) == 59 and classes[0]["name"] == "background"
    drawn = {path.name for path in (three_runs.folder / "better" / "figures").iterdir()}
    assert drawn == {"scores.png", "classes.png", "curves.png", "differing_photos.png"}
    logged = three_runs.client().get_run(re.search(r"run ([0-9a-f]{32})", done.stdout)[1])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["val_difference/accuracy"] == pytest.approx(float(long["difference"]), abs=1e-5)


def test_seeds_of_one_configuration_are_no_difference(clothseg, three_runs):
    done = clothseg(
        "compare",
        f"runs=[{three_runs.id('short')},{three_runs.id('short_again')}]",
        "draws=200",
        folder=three_runs.folder,
    )
    assert done.returncode == 0, done.stderr
    assert "no difference: short (2 seeds) is one configuration" in done.stdout
    assert "deviation" in done.stdout and "better" not in done.stdout


def test_seeds_are_taken_together(clothseg, three_runs):
    given = f"runs=[{three_runs.id('short')},{three_runs.id('long')},{three_runs.id('short_again')}]"
    done = clothseg("compare", given, "draws=200", "figure_photos=0", "output=seeds", folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    seeds = {row["configuration"]: row["seeds"] for row in table(three_runs.folder / "seeds", "comparison")}
    assert seeds == {"short (2 seeds)": "2", "long": "1"}
    assert not (three_runs.folder / "seeds" / "figures" / "differing_photos.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "runs"),
        (["runs=[last]"], "runs=['last']: list should have at least 2 items after validation, not 1"),
        (["runs=[best:clothseg,LONG]"], "runs has best:clothseg and LONG, which are one run"),
        (["runs=[last,0123]"], "run=0123 is not in sqlite"),
        (["runs=[SHORT,LONG]", "draws=5"], "draws=5: input should be greater than or equal to 100"),
        (["runs=[SHORT,OTHER]"], "run=OTHER has 2 classes and SHORT 59"),
        (["runs=[SHORT,MOVED]"], "run=MOVED was trained on"),
    ],
)
def test_what_cannot_be_compared_is_told_on_one_line(clothseg, three_runs, options, told, others):
    names = {"LONG": three_runs.id("long"), "SHORT": three_runs.id("short")} | others

    def real(text: str) -> str:
        for name, run in names.items():
            text = text.replace(name, run)
        return text

    done = clothseg("compare", *map(real, options), folder=three_runs.folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert real(told) in done.stderr


@pytest.fixture(scope="module")
def others(tmp_path_factory, three_runs):
    """Artifacts of the short run, changed into those of a run with other classes, and of one with another split."""
    kept = {}
    for name in ("OTHER", "MOVED"):
        copy = tmp_path_factory.mktemp("others") / name.lower()
        shutil.copytree(three_runs.artifacts("short"), copy)
        kept[name] = str(copy)
    classes = Path(kept["OTHER"]) / "tables" / "classes.csv"
    classes.write_text("".join(classes.read_text().splitlines(keepends=True)[:3]))
    split = Path(kept["MOVED"]) / "data" / "split.json"
    parts = json.loads(split.read_text())
    split.write_text(json.dumps(parts | {"train": parts["validation"], "validation": parts["train"]}))
    return kept
