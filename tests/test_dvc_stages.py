"""The stages of dvc.yaml run for real, and each again only where something it depends on has changed."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import hydra
import pytest
import yaml
from conftest import REPOSITORY
from omegaconf import DictConfig, OmegaConf
from small_backbone import SMALL_BACKBONE

from clothseg import entry

SMALL = (
    "dataset.count=20", "image_size=[32,32]", *SMALL_BACKBONE, "decoder=fpn", "batch_size=8", "precision=float32",
    "schedule.phases.training.epochs=1", "schedule.phases.training.steps_per_epoch=1", "tracking.log_model=false",
    "pipeline.evaluate.figure_photos=1", "pipeline.report.figure_photos=1",
)  # fmt: skip
OPTIONS = [argument for value in SMALL for argument in ("--set-param", value)]
STAGES = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "dvc.yaml"))["stages"]
RESULTS = Path("experiments", "pipeline")


class Checkout:
    """A clone of this checkout as it is now, in which DVC never ran anything."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        for name in ("clothseg", "conf", ".dvc"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
        for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".gitignore"):
            shutil.copyfile(REPOSITORY / name, folder / name)
        for command in ("init --quiet", "add --all", "commit --quiet --message clone"):
            self.run("git", *command.split())

    def run(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def changed(self) -> set[str]:
        """Stages that would run because of what they depend on."""
        return set(json.loads(self.dvc("status", "--json")))

    def output(self, name: str) -> Path:
        return self.folder / RESULTS / name

    def run_id(self) -> str:
        return self.output("train/run_id").read_text().strip()

    def trainings(self):
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        return {run.info.run_id: run for run in client.search_runs(["1"])}


def edit(checkout: Checkout, option: str, value: object) -> None:
    """Another value in params.yaml, without a command of ours."""
    path = checkout.folder / "params.yaml"
    params = OmegaConf.create(path.read_text())
    OmegaConf.update(params, option, value)
    path.write_text(OmegaConf.to_yaml(params))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, clothseg) -> Checkout:
    """In which the pipeline ran once, small."""
    folder = tmp_path_factory.mktemp("dvc")
    (clone := folder / "clone").mkdir()
    own = {f"GIT_{role}_{what}": "x@x.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own |= {name: str(folder / name) for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SITE_CACHE_DIR")}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own["PYTHONPATH"] = f"{clone}{os.pathsep}{REPOSITORY / 'tests'}"
    made = Checkout(clone, clothseg.environment(folder, **own))
    told = made.dvc("exp", "run", "--name", "small", *OPTIONS)
    assert re.findall("^Running stage '(.*)'", told, re.MULTILINE) == ["prepare", "train", "evaluate", "report"]
    return made


def test_a_second_run_does_nothing(checkout):
    assert "Data and pipelines are up to date" in checkout.dvc("repro")
    assert set(checkout.trainings()) == {checkout.run_id()}


def test_the_training_is_found_again_where_its_stage_ended(checkout):
    run = checkout.trainings()[checkout.run_id()]
    assert run.info.run_name == "small" and run.info.status == "FINISHED"
    assert run.data.tags["command"].startswith("python -m clothseg.train --config-name=stage")
    split = Path(checkout.folder, "mlruns", "1", run.info.run_id, "artifacts", "data", "split.json")
    assert split.read_text() == checkout.output("data/split.json").read_text()
    with checkout.output("train/metrics.csv").open(newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert float(epoch["val/accuracy"]) == pytest.approx(run.data.metrics["val/accuracy"], rel=1e-5)
    assert run.info.run_id in checkout.output("report/report_val_native.html").read_text()


def test_scores_are_metrics_and_curves_and_confusion_are_plots(checkout):
    (scores,) = json.loads(checkout.dvc("metrics", "show", "--json"))[""]["data"].values()
    run = checkout.trainings()[checkout.run_id()]
    assert scores["data"]["val_native/miou"] == run.data.metrics["val_native/miou"]
    checkout.dvc("plots", "show", "--out", "plots")
    page = Path(checkout.folder, "plots", "index.html").read_text()
    for drawn in ("val/loss", "val/accuracy", "val/clothing_miou", "val_native_confusion.png"):
        assert drawn in page


def test_what_one_machine_alone_has_is_not_for_git(checkout):
    new = checkout.run("git", "status", "--porcelain", "--untracked-files=all", str(RESULTS)).splitlines()
    assert {line[3:].removeprefix(f"{RESULTS}/") for line in new} == {"train/metrics.csv", "evaluate/scores.json"}


@pytest.mark.parametrize(
    ("option", "value", "stages"),
    [
        ("dataset.count", 30, {"prepare", "train"}),
        ("splitting.random_state", 1, {"prepare"}),
        ("pipeline.prepare.duplicate_distance", 3, {"prepare"}),
        ("prepare.workers", 3, set()),
        ("optimizer.learning_rate", 0.1, {"train"}),
        ("schedule.phases.training.epochs", 2, {"train"}),
        ("pipeline.evaluate.flip", True, {"evaluate"}),
        ("pipeline.report.figure_photos", 2, {"report"}),
    ],
)
def test_a_value_concerns_the_stages_that_use_it(checkout, option, value, stages):
    path = checkout.folder / "params.yaml"
    before = path.read_text()
    assert OmegaConf.select(OmegaConf.create(before), option) not in (None, value) or option == "prepare.workers"
    edit(checkout, option, value)
    try:
        assert checkout.changed() == stages
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("source", "stages"),
    [("report.py", {"prepare", "evaluate", "report"}), ("training/losses.py", set(STAGES))],
)
def test_changed_code_concerns_the_stages_that_run_it(checkout, source, stages):
    path = checkout.folder / "clothseg" / source
    before = path.read_text()
    path.write_text(f"{before}# changed\n")
    try:
        assert checkout.changed() == stages
    finally:
        path.write_text(before)


@pytest.mark.long
def test_another_augmentation_trains_on_the_same_prepared_photos(checkout):
    before = checkout.run_id()
    told = checkout.dvc("exp", "run", *OPTIONS, "--set-param", "augmentation.copies=[]", "train")
    assert "Stage 'prepare' didn't change, skipping" in told and "Running stage 'train'" in told
    assert set(checkout.trainings()) == {before, checkout.run_id()} and before != checkout.run_id()
    assert checkout.changed() == {"evaluate", "report"}


def test_an_edited_value_repeats_the_stages_that_use_it(checkout):
    before = checkout.run_id()
    edit(checkout, "augmentation.copies", ["flip_vertical"])
    told = checkout.dvc("repro")
    assert "Stage 'prepare' didn't change, skipping" in told
    assert re.findall("^Running stage '(.*)'", told, re.MULTILINE) == ["train", "evaluate", "report"]
    run = checkout.trainings()[checkout.run_id()]
    assert run.info.run_id != before and run.data.params["augmentation.copies"] == "['flip_vertical']"
    assert checkout.changed() == set()


def test_experiments_are_shown_side_by_side_and_can_be_taken_up(checkout):
    shown = checkout.dvc("exp", "show", "--only-changed", "--csv")
    columns = shown.splitlines()[0].split(",")
    assert "val_native/miou" in columns and "augmentation.copies" in columns and "seed" not in columns
    assert "\nsmall," in shown
    checkout.dvc("plots", "diff", "small", "--out", "compared")
    page = Path(checkout.folder, "compared", "index.html").read_text()
    assert all(f'"rev": "{name}"' in page for name in ("small", "workspace"))
    now = checkout.run_id()
    checkout.dvc("exp", "apply", "small")
    assert checkout.run_id() != now and "up to date" in checkout.dvc("repro")
    # Of the last commit, in which nothing had run, and now.
    (scores,) = json.loads(checkout.dvc("metrics", "diff", "--json")).values()
    assert scores["val_native/miou"]["new"] == checkout.trainings()[checkout.run_id()].data.metrics["val_native/miou"]


def test_a_stage_whose_training_ended_elsewhere_is_done_once_committed(checkout):
    edit(checkout, "schedule.phases.training.validation_steps", 1)
    assert checkout.changed() == {"train"}
    checkout.dvc("commit", "--force", "train")
    assert checkout.changed() == set() and "Running stage" not in checkout.dvc("repro")


def test_committed_values_are_those_of_the_configuration(monkeypatch):
    monkeypatch.setenv("CLOTHSEG_CACHE", "/a/folder/of/this/machine")
    with hydra.initialize_config_dir(str(entry.config_folder())):
        cfg = hydra.compose("pipeline")
    OmegaConf.resolve(cfg)
    assert (REPOSITORY / "params.yaml").read_text() == OmegaConf.to_yaml(cfg), "`dvc exp run` writes it anew"


def test_the_committed_lock_is_of_the_committed_stages_and_values():
    params = OmegaConf.load(REPOSITORY / "params.yaml")
    locked = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "dvc.lock"))["stages"]
    assert set(locked) == set(STAGES)
    for name, stage in STAGES.items():
        assert locked[name]["cmd"].split() == re.sub(r"\$\{([\w.]+)\}", partial(written, params), stage["cmd"]).split()
        values = {one: OmegaConf.select(params, one) for one in stage["params"] if isinstance(one, str)}
        assert OmegaConf.create(locked[name]["params"]["params.yaml"]) == OmegaConf.create(values)
        assert {one["path"] for one in locked[name]["deps"]} >= set(stage["deps"])
        assert len(set(stage["deps"])) == len(stage["deps"])


def written(params: DictConfig, name: re.Match[str]) -> str:
    """A value of params.yaml as DVC puts it into a command."""
    return yaml.safe_dump(OmegaConf.select(params, name[1])).split()[0]


def test_every_option_of_training_is_a_parameter_of_its_stage():
    elsewhere = {
        # Through split.json.
        "splitting",
        # Where something is kept, and how fast it is made.
        "prepare.cache", "prepare.workers", "output", "resume",
        # Of other commands.
        "pipeline", "sweep",
    }  # fmt: skip
    params = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "params.yaml"), resolve=False)
    names = {f"prepare.{name}" for name in params.pop("prepare")} | set(params)
    declared = {name for name in STAGES["train"]["params"] if isinstance(name, str)}
    assert declared == names - elsewhere


def test_training_depends_on_all_code_that_it_imports_or_is_told_to_build():
    package = REPOSITORY / "clothseg"
    named = re.findall(r"_target_: (clothseg\.\S+)", (REPOSITORY / "params.yaml").read_text())
    wanted, todo = set(), [package / "train.py", *(_source(name.rpartition(".")[0]) for name in named)]
    while todo:
        if (path := todo.pop()) not in wanted:
            wanted.add(path)
            todo += _imported(path)
    declared = [REPOSITORY / name for name in STAGES["train"]["deps"] if name.startswith("clothseg/")]
    assert len(wanted) > 50
    missing = {path for path in wanted if not any(path.is_relative_to(name) for name in declared)}
    assert missing <= {package / "__init__.py"}
    assert not any(name.stem in ("report", "reporting", "evaluate", "predict") for name in declared)


def _source(module: str) -> Path | None:
    """The file of a module of the package; None for what is none."""
    path = REPOSITORY.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imported(path: Path) -> set[Path]:
    """Modules of the package that one imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clothseg"):
            found |= {_source(f"{node.module}.{name.name}") or _source(node.module) for name in node.names}
    return found - {None}


def test_a_stage_without_its_values_is_told_on_one_line(clothseg, tmp_path):
    done = clothseg("prepare", "--config-name=stage", folder=tmp_path)
    assert done.returncode == 2 and "params" in done.stderr and done.stderr.count("\n") == 1


def test_a_training_that_cannot_leave_its_run_is_not_begun(clothseg, tmp_path):
    (tmp_path / "file").touch()
    done = clothseg("train", "experiment=quickstart", "output=file", folder=tmp_path)
    assert done.returncode == 2 and "output=file" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists()
