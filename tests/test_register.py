"""Runs become versions of a registered model, and only the one that is really better becomes its champion."""

from __future__ import annotations

import csv
import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest


def champion(three_runs, name: str) -> int:
    return int(three_runs.client().get_model_version_by_alias(name, "champion").version)


@pytest.fixture
def first(clothseg, three_runs, request):
    """A model of its own for a test, whose champion is the short training. Returns its name."""
    name = re.sub(r"\W+", "_", request.node.name)
    done = clothseg("register", f"run={three_runs.id('short')}", f"name={name}", folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{name} version 1 is champion: there was none"
    return name


@contextmanager
def changed(path: Path, text: str):
    before = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def test_training_registers_what_it_trained(three_runs):
    assert three_runs.told["short"].splitlines()[-1] == "dress version 1 is champion: there was none"
    version = three_runs.client().get_model_version("dress", "1")
    assert version.run_id == three_runs.id("short") and version.status == "READY"
    assert float(version.tags["val_native/miou"]) == three_runs.runs["short"].data.metrics["val_native/miou"]
    assert version.tags["preset"] == "article" and "val_best/miou" in version.tags
    assert three_runs.runs["short"].data.tags["register.version"] == "dress/1"
    assert version.tags["champion.decision"] == three_runs.runs["short"].data.tags["champion.decision"]


def test_a_better_run_takes_the_alias_over(three_runs):
    decision = three_runs.told["long"].splitlines()[-1]
    assert decision.startswith("dress version 2 is champion: accuracy +") and decision.endswith("against version 1")
    assert champion(three_runs, "dress") == 2
    version = three_runs.client().get_model_version("dress", "2")
    for tags in (version.tags, three_runs.runs["long"].data.tags):
        assert tags["champion.decision"] == decision and tags["champion.against"] == "dress/1"
        assert tags["champion.difference"].startswith("accuracy +") and tags["champion.difference"] in decision
    assert three_runs.runs["long"].info.status == "FINISHED"


def test_both_are_scored_as_they_were_trained(three_runs):
    (comparison,) = [
        run
        for run in three_runs.client().search_runs(
            ["1"], "tags.role = 'comparison'", order_by=["attributes.start_time"]
        )
        if run.data.tags["members"] == f"{three_runs.id('short')} {three_runs.id('long')}"
    ][:1]
    with (three_runs.artifacts_of(comparison) / "tables" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        values = {row["configuration"]: float(row["value"]) for row in csv.DictReader(file) if row["score"] == "miou"}
    for name in ("short", "long"):
        assert values[name] == pytest.approx(three_runs.runs[name].data.metrics["val_native/miou"], abs=2e-6)


def test_a_registered_model_is_opened_and_evaluated_by_version_and_alias(clothseg, three_runs):
    import mlflow

    for given, name in (("models:/dress/1", "short"), ("models:/dress@champion", "long")):
        done = clothseg("evaluate", f"run={given}", "figure_photos=0", "output=scored", folder=three_runs.folder)
        assert done.returncode == 0, done.stderr
        scores = json.loads((three_runs.folder / "scored" / "scores.json").read_text(encoding="utf-8"))
        assert scores["val_native/miou"] == pytest.approx(
            three_runs.runs[name].data.metrics["val_native/miou"], abs=1e-6
        )
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{three_runs.folder / 'mlflow.db'}")
    try:
        assert mlflow.models.get_model_info("models:/dress@champion").run_id == three_runs.id("long")
    finally:
        mlflow.set_tracking_uri(before)


def test_a_worse_run_does_not_and_a_run_is_one_version(clothseg, three_runs):
    for run, told in (
        ("short", "dress version 1 is not champion: accuracy -"),
        ("long", "dress version 2 is champion: it is already"),
    ):
        done = clothseg(
            "register", f"run={three_runs.id(run)}", "name=dress", "figure_photos=0", folder=three_runs.folder
        )
        assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(told), done.stderr
        assert champion(three_runs, "dress") == 2
    assert len(three_runs.client().search_model_versions("name='dress'")) == 2


def test_another_seed_is_no_better_champion(clothseg, three_runs, first):
    done = clothseg("register", f"run={three_runs.id('short_again')}", f"name={first}", folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    told = (
        f"{first} version 2 is not champion: version 1 has the same configuration; they differ by their seeds at most"
    )
    assert done.stdout.splitlines()[-1] == told
    assert champion(three_runs, first) == 1


@pytest.mark.parametrize("lacking", ["split", "classes", "configuration"])
def test_what_cannot_be_compared_leaves_the_alias_where_it_is(clothseg, three_runs, first, lacking):
    own, champions = three_runs.artifacts("long"), three_runs.artifacts("short")
    parts = json.loads((own / "data" / "split.json").read_text(encoding="utf-8"))
    classes = (champions / "tables" / "classes.csv").read_text(encoding="utf-8")
    changes = {
        "split": (
            own / "data" / "split.json",
            json.dumps(parts | {"train": parts["validation"], "validation": parts["train"]}),
            "was trained on 12 of the 12 photos",
        ),
        "classes": (
            champions / "tables" / "classes.csv",
            "".join(classes.splitlines(keepends=True)[:3]),
            f"run=models:/{first}/2 has 59 classes",
        ),
        "configuration": (champions / "config" / "config.yaml", "seed: 0\n", "this version of clothseg does not take"),
    }
    path, text, reason = changes[lacking]
    with changed(path, text):
        done = clothseg("register", f"run={three_runs.id('long')}", f"name={first}", folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1]
    assert told.startswith(f"{first} version 2 is not champion: it cannot be compared with version 1: ")
    assert reason in told
    assert champion(three_runs, first) == 1
    assert three_runs.client().get_model_version(first, "2").tags["champion.decision"] == told


@pytest.mark.parametrize(
    ("entry", "options", "told"),
    [
        ("train", ["register=a/b"], "register=a/b: string should match pattern"),
        ("train", ["register=a", "tracking.log_model=false"], "register=a needs the logged model"),
        ("train", ["register=a", "folds=2"], "register=a and folds=2 do not go together"),
        ("register", ["run=last", "name=models:/a"], "name=models:/a: string should match pattern"),
        ("register", ["run=last"], "name"),
        ("register", ["run=0123", "name=a"], "run=0123 is not in sqlite"),
        ("register", ["run=FOLDER", "name=a"], "is a folder; only a run in MLflow can be registered"),
        ("register", ["run=BARE", "name=a"], "run=BARE has no logged model; tracking.log_model=true logs one"),
        ("register", ["run=KILLED", "name=a"], "run=KILLED is KILLED; only a FINISHED run can be registered"),
    ],
)
def test_what_cannot_be_registered_is_told_on_one_line(clothseg, three_runs, bare, entry, options, told):
    names = bare | {"FOLDER": str(three_runs.artifacts("short"))}

    def real(text: str) -> str:
        for name, value in names.items():
            text = text.replace(f"run={name}", f"run={value}")
        return text

    before = len(three_runs.client().search_runs(["1"]))
    given = ("experiment=article", "dataset=paperdoll") if entry == "train" else ()
    done = clothseg(entry, *given, *map(real, options), folder=three_runs.folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert real(told) in done.stderr
    assert len(three_runs.client().search_runs(["1"])) == before
    assert not three_runs.client().search_model_versions("name='a'")


@pytest.fixture(scope="module")
def bare(three_runs):
    """Ids of a finished run without a logged model, and of one that was stopped."""
    made = {}
    for name, status in (("BARE", "FINISHED"), ("KILLED", "KILLED")):
        made[name] = three_runs.client().create_run("1", tags={"preset": "bare"}).info.run_id
        three_runs.client().set_terminated(made[name], status)
    yield made
    # Other tests see the same store, and `last` is the last training in it.
    for run in made.values():
        three_runs.client().delete_run(run)
