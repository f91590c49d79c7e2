"""Machines that others use too: disks fill up, databases are locked, two begin the same at once; nothing is lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from conftest import REPOSITORY
from small_backbone import SMALL_BACKBONE

EPOCHS = 4
TRAINING = (
    *SMALL_BACKBONE, "experiment=article", "dataset=paperdoll", "dataset.count=40", "image_size=[64,32]",
    "batch_size=8", "augmentation=light", "decoder=fpn", "optimizer=adamw", "schedule=one_phase",
    f"schedule.phases.training.epochs={EPOCHS}", "tracking.log_model=false", "precision=float32",
    "tracking.figures=false", "evaluation.native=false",
)  # fmt: skip


def runs(folder: Path) -> list:
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_runs(["1"])


def scores(folder: Path, run) -> dict[str, list[tuple[int, float]]]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    names = [name for name in run.data.metrics if name.startswith(("train/", "val/"))]
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)] for name in names
    }


def listing(folder: Path, run) -> list[str]:
    return sorted(path.name for path in (folder / "mlruns" / "1" / run.info.run_id / "artifacts").rglob("*.*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clothseg):
    """A training that had all the room it wanted: its folder and its run."""
    folder = tmp_path_factory.mktemp("whole")
    done = clothseg("train", *TRAINING, folder=folder)
    assert done.returncode == 0, done.stderr
    (run,) = runs(folder)
    return folder, run


def on_small_disk(clothseg, script: str, *, disk: Path, megabytes: int, folder: Path) -> subprocess.CompletedProcess:
    """Runs a shell script that sees a file system of its own in `disk`, which is gone when it ends.

    In the script `$TRAIN` is the command, `fill` takes the room that is left on the disk, `free` gives it back and
    `seal` makes the disk read-only.
    """
    mount = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file systems of one's own can be mounted here (unshare --map-root-user --mount)")
    disk.mkdir(exist_ok=True)
    given = f"""
        DISK={shlex.quote(str(disk))} TRAIN={shlex.quote(shlex.join(clothseg.command("train")))}
        fill() {{ cat /dev/zero > $DISK/filler 2>/dev/null; true; }}
        free() {{ rm $DISK/filler; }}
        seal() {{ mount -o remount,ro $DISK; }}
        mount -t tmpfs -o size={megabytes}m none $DISK || exit 99
    """
    environment = clothseg.environment(folder)
    return subprocess.run(
        [*mount, "bash", "-c", given + script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def one_line(text: str) -> str:
    assert "Traceback" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("clothseg: ")]
    return line


def test_a_disk_that_is_full_when_photos_are_prepared(clothseg, tmp_path):
    prepare = shlex.join(
        [*clothseg.command("prepare"), "dataset=paperdoll", "dataset.count=40", "image_size=[128,128]"]
    )
    script = f"""
        export CLOTHSEG_CACHE=$DISK
        {prepare}; first=$?
        left=$(find $DISK -type f -size +100k | wc -l)
        mount -o remount,size=64m $DISK
        {prepare}; echo ends $first $left $?
    """
    done = on_small_disk(clothseg, script, disk=tmp_path / "disk", megabytes=1, folder=tmp_path)
    # Nothing half prepared is left in the way, and with room the same command works.
    assert done.stdout.splitlines()[-1] == "ends 2 0 0", done.stdout + done.stderr
    assert "No space left on device" in one_line(done.stderr)


PREPARED = ("prepare", "dataset=paperdoll", "dataset.count=12", "image_size=[32,32]")


@pytest.mark.parametrize("state", ["seal", "fill"])
@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("train",), "outputs"),
        (("results",), "experiments/README.md"),
        pytest.param((*PREPARED, "hydra.run.dir=FOLDER/run", "output=report"), "report", marks=pytest.mark.long),
    ],
    ids=["train", "results", "prepare"],
)
def test_a_disk_that_takes_nothing_is_told_on_one_line(clothseg, tmp_path, command, file, state):
    entry, *options = [part.replace("FOLDER", str(tmp_path)) for part in command]
    script = f"""
        cd $DISK && mkdir -p experiments/one
        cp {REPOSITORY}/experiments/strong/result.json experiments/one
        {state}
        {shlex.join(clothseg.command(entry, *options))}; echo ends $?
    """
    done = on_small_disk(clothseg, script, disk=tmp_path / "disk", megabytes=1, folder=tmp_path)
    assert done.stdout.splitlines()[-1] == "ends 2", done.stdout + done.stderr
    reason = {"seal": "Read-only file system", "fill": "No space left on device"}[state]
    # A disk that is full takes names of files, and when they are written to they are not told.
    assert re.search(f"({file if state == 'seal' else 'a file'}) cannot be written: {reason}; ", one_line(done.stderr))


@pytest.mark.long
def test_a_disk_that_is_full_when_checkpoints_are_kept(clothseg, whole, tmp_path):
    folder, uninterrupted = whole
    shutil.copytree(folder / "cache", tmp_path / "cache")
    script = f"""
        (until [ -e $DISK/run/weights/best.npz ]; do sleep 0.05; done; fill) &
        $TRAIN {shlex.join(TRAINING)} hydra.run.dir=$DISK/run; first=$?
        wait; free
        $TRAIN resume=last; echo ends $first $?
    """
    done = on_small_disk(clothseg, script, disk=tmp_path / "disk", megabytes=100, folder=tmp_path)
    assert done.stdout.splitlines()[-1] == "ends 2 0", done.stdout + done.stderr
    assert re.search(r"cannot be written \(No space left on device\); what was kept", one_line(done.stderr))
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED" and run.data.tags["resumed"] == "1"
    assert scores(tmp_path, run) == scores(folder, uninterrupted)


@pytest.mark.long
def test_a_disk_that_is_full_when_things_are_logged(clothseg, whole, tmp_path):
    folder, uninterrupted = whole
    shutil.copytree(folder / "cache", tmp_path / "cache")
    # The store and its artifacts are on the small disk, checkpoints and what waits to be logged are not.
    script = f"""
        export MLFLOW_TRACKING_URI=sqlite:///$DISK/mlflow.db MLFLOW_DEFAULT_ARTIFACT_ROOT=$DISK/mlruns
        cd $DISK
        (until ls {tmp_path}/run/weights/state.npz 2>/dev/null; do sleep 0.05; done; fill) >/dev/null &
        $TRAIN {shlex.join(TRAINING)} hydra.run.dir={tmp_path}/run tracking.patience=1; first=$?
        wait; free
        {shlex.join(clothseg.command("deliver", f"folder={tmp_path}/run"))}; echo ends $first $?
        cp -r $DISK/mlflow.db $DISK/mlruns {tmp_path}
    """
    done = on_small_disk(clothseg, script, disk=tmp_path / "disk", megabytes=30, folder=tmp_path)
    assert done.stdout.splitlines()[-1] == "ends 0 0", done.stdout + done.stderr
    assert "does not take what is logged" in done.stderr + done.stdout
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED" and "not_logged" not in run.data.tags
    assert scores(tmp_path, run) == scores(folder, uninterrupted)
    assert listing(tmp_path, run) == listing(folder, uninterrupted)
    assert not list(tmp_path.glob("run/outbox"))


def test_a_disk_that_is_full_when_a_network_is_exported(clothseg, whole, tmp_path):
    export = shlex.join([*clothseg.command("export"), "run=last", "format=keras", "photos=1"])
    script = f"""
        fill
        {export} output=$DISK/model; full=$?
        left=$(find $DISK/model -type f -size +1k | wc -l)
        free
        {export} output=$DISK/model; echo ends $full $left $? $(find $DISK/model -name '*.keras' | wc -l)
    """
    done = on_small_disk(clothseg, script, disk=tmp_path / "disk", megabytes=64, folder=whole[0])
    assert done.stdout.splitlines()[-1] == "ends 2 0 0 1", done.stdout + done.stderr
    assert "No space left on device" in one_line(done.stderr)


@pytest.mark.long
def test_a_database_that_another_locks_meanwhile(clothseg, whole, tmp_path):
    folder, uninterrupted = whole
    shutil.copytree(folder / "cache", tmp_path / "cache")
    process = clothseg.start("train", *TRAINING, folder=tmp_path)
    # As soon as the run is there another writes, for longer than SQLite waits by itself.
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("MLflow run"):
            with sqlite3.connect(tmp_path / "mlflow.db", timeout=30, isolation_level=None) as other:
                other.execute("BEGIN EXCLUSIVE")
                time.sleep(8)
                other.execute("COMMIT")
            other.close()
    process.wait(60)
    assert process.returncode == 0, lines
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert scores(tmp_path, run) == scores(folder, uninterrupted)
    assert listing(tmp_path, run) == listing(folder, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize(("given_back", "told"), [(True, "no finished run in"), (False, "database is locked")])
def test_a_database_that_another_locked_before_is_waited_for(clothseg, tmp_path, given_back, told):
    assert "no finished run in" in clothseg("results", "series=none", folder=tmp_path).stderr
    with sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        process = clothseg.start("results", "series=none", folder=tmp_path)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if given_back and "waiting for another program" in line:
                other.execute("COMMIT")
    other.close()
    assert process.wait(60) == 2 and told in one_line("".join(lines))
    assert sum("waiting for another program that has locked sqlite:" in line for line in lines) == 1


@pytest.mark.long
def test_two_of_the_same_name_at_once_are_two_runs_and_in_one_folder_one(clothseg, whole, tmp_path):
    folder, uninterrupted = whole
    shutil.copytree(folder / "cache", tmp_path / "cache")
    named = ("tracking.run_name=same", "threads=1")
    both = [clothseg.start("train", *TRAINING, *named, folder=tmp_path) for _ in range(2)]
    assert [process.communicate()[0] and process.returncode for process in both] == [0, 0]
    first, second = runs(tmp_path)
    assert first.info.run_name == second.info.run_name == "same"
    assert scores(tmp_path, first) == scores(tmp_path, second)
    assert listing(tmp_path, first) == listing(tmp_path, second)
    assert first.data.tags["checkpoints"] != second.data.tags["checkpoints"]
    assert os.listdir(tmp_path / "outputs")

    both = [clothseg.start("train", *TRAINING, *named, "hydra.run.dir=outputs/one", folder=tmp_path) for _ in range(2)]
    told = [process.communicate()[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    (refused,) = [text for text, process in zip(told, both, strict=True) if process.returncode == 2]
    assert "is still going on, in another process" in one_line(refused)
    assert len([run for run in runs(tmp_path) if run.info.status == "FINISHED"]) == 3
