"""Runs become versions of a registered model, and only the one that is really better becomes its champion."""

from __future__ import annotations

import csv
import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

TINY = (
    "experiment=article", "dataset=paperdoll", "dataset.count=60", "dataset.image_size=[48,40]", "batch_size=8",
    "backbone=mobilenetv2", "backbone.weights=null", "backbone.batch_norm_momentum=0.9", "augmentation=none",
    "decoder=fpn", "optimizer=adam", "schedule=one_phase", "schedule.phases.training.steps_per_epoch=null",
    "best_metric=val/accuracy",
)  # fmt: skip
SHORT = ("image_size=[32,32]", "schedule.phases.training.epochs=1", "precision=float32", "threads=2")
# Another precision, size and number of threads than those of the champion, which its own process has then.
LONG = ("image_size=[64,32]", "schedule.phases.training.epochs=8", "precision=mixed_bfloat16", "threads=1")


@pytest.fixture(scope="module")
def registered(tmp_path_factory, clothseg):
    """Three trainings, the first two registered as they ended. Returns their folder, run ids and what was told."""
    folder = tmp_path_factory.mktemp("register")
    told = {}
    for name, options in (
        ("short", [*SHORT, "register=dress"]),
        ("long", [*LONG, "register=dress"]),
        ("short_again", [*SHORT, "seed=1"]),
    ):
        done = clothseg("train", *TINY, *options, f"tracking.run_name={name}", folder=folder)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        told[name] = done.stdout
    found = client(folder).search_runs(["1"], "tags.preset LIKE '%'")
    return folder, {run.info.run_name: run for run in found}, told


def client(folder: Path):
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def artifacts(folder: Path, run) -> Path:
    return folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"


def champion(folder: Path, name: str) -> int:
    return int(client(folder).get_model_version_by_alias(name, "champion").version)


@pytest.fixture
def first(clothseg, registered, request):
    """A model of its own for a test, whose champion is the short training. Returns its name."""
    folder, runs, _ = registered
    name = re.sub(r"\W+", "_", request.node.name)
    done = clothseg("register", f"run={runs['short'].info.run_id}", f"name={name}", folder=folder)
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


def test_training_registers_what_it_trained(registered):
    folder, runs, told = registered
    assert told["short"].splitlines()[-1] == "dress version 1 is champion: there was none"
    version = client(folder).get_model_version("dress", "1")
    assert version.run_id == runs["short"].info.run_id and version.status == "READY"
    assert float(version.tags["val_native/miou"]) == runs["short"].data.metrics["val_native/miou"]
    assert version.tags["preset"] == "article" and "val_best/miou" in version.tags
    assert runs["short"].data.tags["register.version"] == "dress/1"
    assert version.tags["champion.decision"] == runs["short"].data.tags["champion.decision"]


def test_a_better_run_takes_the_alias_over(registered):
    folder, runs, told = registered
    decision = told["long"].splitlines()[-1]
    assert decision.startswith("dress version 2 is champion: accuracy +") and decision.endswith("against version 1")
    assert champion(folder, "dress") == 2
    version = client(folder).get_model_version("dress", "2")
    for tags in (version.tags, runs["long"].data.tags):
        assert tags["champion.decision"] == decision and tags["champion.against"] == "dress/1"
        assert tags["champion.difference"].startswith("accuracy +") and tags["champion.difference"] in decision
    assert runs["long"].info.status == "FINISHED"


def test_both_are_scored_as_they_were_trained(registered):
    folder, runs, _ = registered
    (comparison,) = [
        run
        for run in client(folder).search_runs(["1"], "tags.role = 'comparison'", order_by=["attributes.start_time"])
        if run.data.tags["members"] == f"{runs['short'].info.run_id} {runs['long'].info.run_id}"
    ][:1]
    with (artifacts(folder, comparison) / "tables" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        values = {row["configuration"]: float(row["value"]) for row in csv.DictReader(file) if row["score"] == "miou"}
    for name in ("short", "long"):
        assert values[name] == pytest.approx(runs[name].data.metrics["val_native/miou"], abs=2e-6)


def test_a_registered_model_is_opened_and_evaluated_by_version_and_alias(clothseg, registered):
    import mlflow

    folder, runs, _ = registered
    for given, name in (("models:/dress/1", "short"), ("models:/dress@champion", "long")):
        done = clothseg("evaluate", f"run={given}", "figure_photos=0", "output=scored", folder=folder)
        assert done.returncode == 0, done.stderr
        scores = json.loads((folder / "scored" / "scores.json").read_text(encoding="utf-8"))
        assert scores["val_native/miou"] == pytest.approx(runs[name].data.metrics["val_native/miou"], abs=1e-6)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    try:
        assert mlflow.models.get_model_info("models:/dress@champion").run_id == runs["long"].info.run_id
    finally:
        mlflow.set_tracking_uri(before)


def test_a_worse_run_does_not_and_a_run_is_one_version(clothseg, registered):
    folder, runs, _ = registered
    for run, told in (
        ("short", "dress version 1 is not champion: accuracy -"),
        ("long", "dress version 2 is champion: it is already"),
    ):
        done = clothseg("register", f"run={runs[run].info.run_id}", "name=dress", "figure_photos=0", folder=folder)
        assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(told), done.stderr
        assert champion(folder, "dress") == 2
    assert len(client(folder).search_model_versions("name='dress'")) == 2


def test_another_seed_is_no_better_champion(clothseg, registered, first):
    folder, runs, _ = registered
    done = clothseg("register", f"run={runs['short_again'].info.run_id}", f"name={first}", folder=folder)
    assert done.returncode == 0, done.stderr
    told = (
        f"{first} version 2 is not champion: version 1 has the same configuration; they differ by their seeds at most"
    )
    assert done.stdout.splitlines()[-1] == told
    assert champion(folder, first) == 1


@pytest.mark.parametrize("lacking", ["split", "classes", "configuration"])
def test_what_cannot_be_compared_leaves_the_alias_where_it_is(clothseg, registered, first, lacking):
    folder, runs, _ = registered
    own, champions = artifacts(folder, runs["long"]), artifacts(folder, runs["short"])
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
        done = clothseg("register", f"run={runs['long'].info.run_id}", f"name={first}", folder=folder)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1]
    assert told.startswith(f"{first} version 2 is not champion: it cannot be compared with version 1: ")
    assert reason in told
    assert champion(folder, first) == 1
    assert client(folder).get_model_version(first, "2").tags["champion.decision"] == told


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
def test_what_cannot_be_registered_is_told_on_one_line(clothseg, registered, bare, entry, options, told):
    folder, runs, _ = registered
    names = bare | {"FOLDER": str(artifacts(folder, runs["short"]))}

    def real(text: str) -> str:
        for name, value in names.items():
            text = text.replace(f"run={name}", f"run={value}")
        return text

    before = len(client(folder).search_runs(["1"]))
    given = TINY if entry == "train" else ()
    done = clothseg(entry, *given, *map(real, options), folder=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert real(told) in done.stderr
    assert len(client(folder).search_runs(["1"])) == before
    assert not client(folder).search_model_versions("name='a'")


@pytest.fixture(scope="module")
def bare(registered):
    """Ids of a finished run without a logged model, and of one that was stopped."""
    folder, _, _ = registered
    made = {}
    for name, status in (("BARE", "FINISHED"), ("KILLED", "KILLED")):
        made[name] = client(folder).create_run("1", tags={"preset": "bare"}).info.run_id
        client(folder).set_terminated(made[name], status)
    return made
