"""What the command line answers, and how soon."""

from __future__ import annotations

import base64
import errno
import os
import pickle
import re
import resource
import sqlite3
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
from conftest import REPOSITORY, Harm
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.errors import UserError


def test_importing_the_package_loads_neither_tensorflow_nor_mlflow():
    code = (
        "import sys, clothseg, clothseg.train, clothseg.prepare, clothseg.results;"
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_does_not_look_for_garbage_after_every_few_hundred_objects(tmp_path):
    code = (
        "import gc; from clothseg import entry\n"
        "entry.run(lambda cfg: print(gc.isenabled(), gc.get_threshold()[0]), config_name='prepare')"
    )
    command = [sys.executable, "-c", code, "hydra.run.dir=."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.split() == ["True", str(entry.OBJECTS_BETWEEN_COLLECTIONS)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "experiment=quickstart"),
        (["--cfg", "job"], "name: densenet121"),
        (["backbone=densenet11"], "did you mean backbone=densenet121?"),
    ],
)
def test_questions_and_slips_are_answered_within_two_seconds(clothseg, arguments, expected, tmp_path):
    # Processor seconds, which stay what they are when other processes have the machine.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = clothseg("train", *arguments, folder=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert expected in done.stdout + done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bakbone=resnet50"], "Did you mean: 'backbone'"),
        (["backbone=resnet5"], "did you mean backbone=resnet50?"),
        (["batch_size=many"], "batch_size=many: input should be a valid integer"),
        (["batch_size=0"], "batch_size=0: input should be greater than 0"),
        (["precision=half"], "precision=half: input should be 'auto', 'float32'"),
        (["schedule.phases.frozen.epochs=-1"], "schedule.phases.frozen.epochs=-1"),
        (["schedule.phases.frozen.encoder=cold"], "'frozen' or 'trainable'"),
        (["splitting.validation=1.5"], "splitting.validation=1.5"),
        (["image_size=[100,128]", "backbone.weights=null"], "multiples of 32"),
        (["image_size=128"], "image_size=128"),
        (["backbone.weights=/nowhere/file.weights.h5"], "there is no such file"),
        (["dataset._target_=os.system"], "os.system"),
        (["dataset=kaggle"], "dataset.root"),
        (["-m", "seed=0,1", "--cfg", "job"], "Only one of"),
        (["schedule.phases.fine_tuning.optimizer.learning_rate=1"], "schedule.phases.fine_tuning.optimizer"),
        (["+schedule.phases.third.epochs=2"], "schedule.phases.third.encoder: field required"),
        (["+dataset.size=3", "backbone.weights=null"], "unexpected keyword argument 'size'"),
        (["backbone.weights=null", "dataset.root=/nowhere"], "experiment=quickstart"),
    ],
)
def test_a_users_error_is_one_line_without_traceback(clothseg, arguments, told, tmp_path):
    done = clothseg("train", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("clothseg: ") and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EROFS, "out/a.json cannot be written: Read-only file system; work in another folder"),
        (errno.EDQUOT, "out/a.json cannot be written: Disk quota exceeded; make room"),
        (errno.EACCES, "out/a.json cannot be read or written: Permission denied; work in a folder of your own"),
        (errno.EPERM, "out/a.json cannot be read or written: Operation not permitted; work in a folder of your own"),
    ],
)
def test_what_a_disk_does_not_take_is_told_wherever_it_is_in_the_chain(number, told):
    error = RuntimeError("while a figure was drawn")
    error.__cause__ = OSError(number, os.strerror(number), "out/a.json")
    assert entry.told(error).startswith(told)
    assert entry.told(OSError(errno.ENOSPC, "")).startswith("a file cannot be written: No space left on device; make")


def test_other_errors_of_the_system_are_none_of_the_users():
    assert entry.told(FileNotFoundError(errno.ENOENT, "", "a.json")) is None
    assert entry.told(ValueError("a slip")) is None


def test_what_was_told_on_purpose_is_not_hidden_by_what_a_full_disk_does_in_ending():
    error = OSError(errno.ENOSPC, "")
    error.__context__ = UserError("checkpoints cannot be written; resume=RUN goes on")
    assert entry.told(error) == "checkpoints cannot be written; resume=RUN goes on"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("database is locked", "try again once the program that writes to it has ended"),
        ("database or disk is full", "make room, or MLFLOW_TRACKING_URI names another store"),
    ],
)
def test_what_a_database_refuses_is_told_without_its_sql(reason, hint):
    import mlflow
    from sqlalchemy.exc import OperationalError

    refused = OperationalError("INSERT INTO runs VALUES (?)", ("secret",), sqlite3.OperationalError(reason))
    line = entry.told(mlflow.MlflowException(refused))
    assert re.fullmatch(rf"cannot track in \S+ \({reason}\); {hint}", line)
    # As Optuna raises it.
    assert f"does not answer ({reason}); try again" in entry.told(refused)


def test_a_misspelt_option_of_prepare_is_told_as_well(clothseg, tmp_path):
    done = clothseg("prepare", "kagle_output=x", folder=tmp_path)
    assert done.returncode == 2 and "kaggle_output" in done.stderr and "Traceback" not in done.stderr


def test_a_strangers_configuration_runs_nothing(clothseg, tmp_path):
    victim = tmp_path / "made"
    done = clothseg("train", "loss._target_=pathlib.Path.touch", f"+loss.self={victim}", folder=tmp_path)
    assert done.returncode == 2
    assert not victim.exists()


@pytest.mark.parametrize("variable", ["CLOTHSEG_TARGETS", "PATH", "LD_PRELOAD", "MLFLOW_TRACKING_URI"])
def test_a_strangers_configuration_does_not_say_what_is_trusted(variable, clothseg, tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "theirs.yaml").write_text(
        "# @package _global_\ndefaults:\n  - quickstart\n"
        f"hydra: {{job: {{env_set: {{{variable}: 'shutil.*'}}}}}}\n"
        f"loss: {{_target_: shutil.copyfile, src: /dev/null, dst: {canary}}}\n"
    )
    done = clothseg("train", "--config-dir", "theirs", "experiment=theirs", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"hydra.job.env_set.{variable}=shutil.* is none of the variables that a configuration may set" in done.stderr
    assert not canary.exists()


@pytest.mark.parametrize(
    "part",
    [
        "{_target_: os.system, command: touch CANARY}",
        "{_target_: clothseg.entry.os.system, command: touch CANARY}",
        "{_target_: clothseg.data.paperdoll.Path.touch, self: CANARY}",
        "{_target_: clothseg.data.prepared.shutil.copy, src: /dev/null, dst: CANARY}",
        "{_target_: subprocess.run, args: [touch, CANARY]}",
        "{_target_: builtins.open, file: CANARY, mode: w}",
        "{_target_: clothseg.entry.config_folder.__globals__}",
        # Hydra would build the inner one first.
        "{_target_: clothseg.data.paperdoll.Paperdoll, count: {_target_: os.system, command: touch CANARY}}",
        "{_target_: clothseg.entry.build, part: {_target_: os.system, command: touch CANARY}, _recursive_: false}",
        # Functions of this package that do as they are told.
        "{_target_: clothseg.sweeps.workers._job, payload: !!binary PICKLE}",
        "{_target_: clothseg.sweeps.workers.cloudpickle.loads, data: !!binary PICKLE}",
        "{_target_: clothseg.data.download.fetch, target: CANARY, base_url: 'x:', registry: {}, retries: 0}",
        "{_target_: clothseg.data.prepared._write_synced, text: x, path: CANARY}",
        "{_target_: clothseg.data.folders.locked, path: CANARY}",
    ],
)
def test_a_part_that_is_none_is_refused_by_name_and_not_run(part, tmp_path):
    canary = tmp_path / "canary"
    pickled = base64.b64encode(pickle.dumps(Harm(canary))).decode()
    cfg = OmegaConf.create(f"dataset: {part.replace('CANARY', str(canary)).replace('PICKLE', pickled)}")
    with pytest.raises(UserError, match=r"dataset.*\._target_=\S+ is none of the parts that a configuration may name"):
        entry.build(cfg.dataset)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["losses.deserialize", "losses.get", "optimizers.deserialize", "optimizers.get"])
def test_what_makes_anything_of_its_text_is_no_part_of_keras(name):
    with pytest.raises(UserError, match=f"{name} is none of the parts"):
        entry.build(OmegaConf.create({"loss": {"_target_": f"keras.{name}", "identifier": "mse"}}).loss)


def test_every_part_in_the_configuration_may_be_named():
    parts = set(re.findall(r"_target_: *(\S+)", "\n".join(path.read_text() for path in config_files())))
    assert len(parts) > 20
    assert [part for part in parts if not any(fnmatchcase(part, pattern) for pattern in entry.TARGETS)] == []


def config_files():
    return entry.config_folder().rglob("*.yaml")


def test_own_targets_are_allowed_by_name(clothseg, tmp_path):
    (tmp_path / "mylab.py").write_text("raise RuntimeError('mylab was imported')\n")
    arguments = ["dataset._target_=mylab.Photos", "backbone.weights=null"]
    path = f"{REPOSITORY}{os.pathsep}{tmp_path}"
    refused = clothseg("train", *arguments, folder=tmp_path, PYTHONPATH=path)
    assert refused.returncode == 2 and "mylab was imported" not in refused.stderr
    allowed = clothseg("train", *arguments, folder=tmp_path, PYTHONPATH=path, CLOTHSEG_TARGETS="mylab.*")
    assert "mylab was imported" in allowed.stderr


def test_a_backbone_of_ones_own_runs_only_if_it_is_trusted(clothseg, tmp_path):
    arguments = ("experiment=quickstart", "backbone.name=small_backbone:small", "backbone.weights=null")
    for more in ((), ("-m", "sweep=lr_batch")):
        done = clothseg("train", *more, *arguments, folder=tmp_path, CLOTHSEG_TARGETS="mylab.*")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "with CLOTHSEG_TARGETS=small_backbone.small in the environment it may run" in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_the_wheel_carries_the_configuration(clothseg, tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    assert not (site / "tests").exists()
    done = clothseg("train", "--cfg", "job", folder=tmp_path, PYTHONPATH=str(site))
    assert "name: densenet121" in done.stdout, done.stderr
