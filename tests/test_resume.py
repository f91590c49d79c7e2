"""A training that is killed goes on with `resume=`, in the same MLflow run, and ends as one that was not killed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import h5py
import mlflow
import numpy as np
import pytest
from small_backbone import SMALL_BACKBONE

from clothseg import entry
from clothseg.errors import UserError
from clothseg.interrupted import _with_changes, taken_up, with_its_command
from clothseg.settings import TrainSettings, options_of
from clothseg.sweeps import plugin
from clothseg.training.checkpoints import epochs_kept

# Everything that has a state of its own: augmentation, averages of weights, moments, a learning rate that follows the
# steps, two phases, the second at another size.
TRAINING = (
    *SMALL_BACKBONE, "experiment=article", "dataset=paperdoll", "dataset.count=40", "image_size=[64,32]",
    "batch_size=8", "augmentation=light", "decoder=fpn", "optimizer=adamw", "optimizer.use_ema=true",
    "learning_rate=cosine", "schedule=progressive", "schedule.phases.small.image_size=[32,32]",
    "schedule.phases.small.epochs=4", "schedule.phases.large.epochs=3", "tracking.log_model=false", "precision=float32",
    "tracking.figures=false", "evaluation.native=false",
)  # fmt: skip
EPOCHS = 7
# How often a training is killed: as more take long, once by default.
KILLS = 20 if os.environ.get("CLOTHSEG_LONG") else 1
PHASES = {"small", "large"}


def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path) -> list:
    return client(folder).search_runs(["1"])


def curves(folder: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every score as MLflow has it, without how fast it went."""
    found = {}
    for name in client(folder).get_run(run_id).data.metrics:
        if name.startswith(("train/", "val", "learning_rate")):
            found[name] = [(point.step, point.value) for point in client(folder).get_metric_history(run_id, name)]
    return found


def weights(folder: Path, run) -> dict[str, bytes]:
    kept = {}
    for which in ("best", "last"):
        path = folder / "mlruns" / "1" / run.info.run_id / "artifacts" / "weights" / f"{which}.weights.h5"
        with h5py.File(path) as file:

            def note(name: str, item, which=which) -> None:
                if isinstance(item, h5py.Dataset):
                    kept[f"{which}/{name}"] = np.asarray(item).tobytes()

            file.visititems(note)
    assert len(kept) > 40
    return kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clothseg):
    """A training that nothing interrupts: its folder, its run, and how many seconds it took."""
    return uninterrupted(tmp_path_factory.mktemp("whole"), clothseg, *TRAINING)


def uninterrupted(folder: Path, clothseg, *arguments: str) -> tuple[Path, mlflow.entities.Run, float]:
    begun = time.monotonic()
    # By itself, as those that are killed: how long they take to begin counts.
    done = clothseg("train", *arguments, folder=folder, PYTHONUNBUFFERED="1")
    assert done.returncode == 0, done.stderr
    (run,) = runs(folder)
    assert not states(folder)
    return folder, run, time.monotonic() - begun


def states(folder: Path) -> list[Path]:
    return list(folder.glob("outputs/*/*/weights/state.npz"))


def stand_still(process: subprocess.Popen[str], folder: Path) -> None:
    """Stops a process where it is, but not while it has the database locked, which nobody could read then."""
    for _ in range(200):
        os.killpg(process.pid, signal.SIGSTOP)
        # Its other threads stand still later, and one of them may be about to lock it.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(folder / "mlflow.db", timeout=0)) as database:
            database.execute("BEGIN IMMEDIATE").close()
            database.rollback()
            return
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.05)
    pytest.fail("it always has the database locked")


def interrupted(folder: Path) -> bool:
    return any(run.info.status != "FINISHED" for run in runs(folder))


def went_on(folder: Path) -> int:
    """How often trainings of a folder were resumed."""
    if not (folder / "mlflow.db").exists():
        return 0
    return sum(int(run.data.tags.get("resumed", 0)) for run in runs(folder))


def killed_at_random(process: subprocess.Popen[str], folder: Path, wait: random.Random, seconds: float) -> bool:
    """Kills it at any moment after it has kept a state; says whether it came to that."""
    begun = None
    until = wait.uniform(0, seconds)
    while process.poll() is None:
        if begun is None and states(folder):
            begun = time.monotonic()
        if begun is not None and time.monotonic() - begun > until:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.01)
    process.communicate()
    return False


def test_killed_at_any_moment_it_ends_with_the_same_bits_in_the_same_run(whole, tmp_path, clothseg):
    killed_again_and_again(whole, tmp_path, clothseg, TRAINING, kills=KILLS, phases=PHASES if KILLS > 1 else set())


@pytest.mark.long
def test_so_it_does_in_bfloat16(tmp_path, clothseg):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    arguments = (*TRAINING[:-3], "precision=mixed_bfloat16", *TRAINING[-2:])
    whole = uninterrupted(tmp_path / "whole", clothseg, *arguments)
    killed_again_and_again(whole, tmp_path / "killed", clothseg, arguments, kills=3, phases=set())


@pytest.mark.long
def test_with_more_epochs_it_goes_on_as_if_it_had_had_them_from_the_beginning(tmp_path, clothseg):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    arguments, longer = (*TRAINING, "learning_rate=constant"), "schedule.phases.large.epochs=5"
    folder, run, _ = uninterrupted(tmp_path / "whole", clothseg, *arguments, longer)
    shutil.copytree(folder / "cache", tmp_path / "killed" / "cache")
    process = clothseg.start("train", *arguments, folder=tmp_path / "killed")
    assert killed_at_random(process, tmp_path / "killed", random.Random(2), 1)
    done = clothseg("train", "resume=last", longer, folder=tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    (resumed,) = runs(tmp_path / "killed")
    assert curves(tmp_path / "killed", resumed.info.run_id) == curves(folder, run.info.run_id)
    assert weights(tmp_path / "killed", resumed) == weights(folder, run)


def test_more_epochs_are_taken_where_the_learning_rate_does_not_follow_their_number():
    plugin.register()
    more = "schedule.phases.fine_tuning.epochs=30"
    begun, wanted = (entry.compose("train", [*options]) for options in ([], [more]))
    assert (
        _with_changes("last", begun, wanted, {"frozen": 20, "fine_tuning": 3}).schedule.phases.fine_tuning.epochs == 30
    )
    fewer = entry.compose("train", ["schedule.phases.fine_tuning.epochs=2"])
    with pytest.raises(UserError, match="3 epochs of phase fine_tuning are done"):
        _with_changes("last", entry.compose("train", []), fewer, {"frozen": 20, "fine_tuning": 3})


def killed_again_and_again(
    whole: tuple[Path, mlflow.entities.Run, float],
    tmp_path: Path,
    clothseg,
    training: tuple[str, ...],
    *,
    kills: int,
    phases: set[str],
) -> None:
    """Kills trainings until they were resumed so often, and in these phases, and compares all with a whole one."""
    folder, uninterrupted, seconds = whole
    wait = random.Random(1)
    shutil.copytree(folder / "cache", tmp_path / "cache")
    arguments = training
    hit = set[str]()
    # Those that are killed before they have gone on are not counted.
    while went_on(tmp_path) < kills or not phases <= hit:
        process = clothseg.start("train", *arguments, folder=tmp_path)
        if killed_at_random(process, tmp_path, wait, seconds / 2):
            hit |= {list(epochs_kept(state))[-1] for state in states(tmp_path)}
            # Whatever has not come to its end can be gone on with.
            arguments = ("resume=last",) if interrupted(tmp_path) else training
        else:
            # It ended before its time; another begins.
            assert process.returncode == 0
            arguments = training
    if interrupted(tmp_path):
        # By itself, in whatever precision it is.
        done = clothseg("train", "resume=last", folder=tmp_path, PYTHONUNBUFFERED="1")
        assert done.returncode == 0, done.stderr
    expected = curves(folder, uninterrupted.info.run_id)
    assert len(expected["val/miou"]) == EPOCHS
    for run in runs(tmp_path):
        assert run.info.status == "FINISHED"
        assert curves(tmp_path, run.info.run_id) == expected
        assert weights(tmp_path, run) == weights(folder, uninterrupted)


@pytest.fixture
def here(monkeypatch) -> Iterator[Callable[[Path], None]]:
    """Goes into a folder and uses its MLflow store."""
    before = mlflow.get_tracking_uri()

    def go(folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("CLOTHSEG_TARGETS", "small_backbone.*")
        monkeypatch.setenv("CLOTHSEG_CACHE", str(folder / "cache"))
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")

    yield go
    mlflow.set_tracking_uri(before)


def take_up(*arguments: str) -> None:
    """What the command does before it trains."""
    plugin.register()
    overrides = [each for each in with_its_command([*arguments]) if not each.startswith("resume=")]
    given = next(each for each in arguments if each.startswith("resume=")).removeprefix("resume=")
    taken_up(given, options_of(entry.compose("train", overrides), "train", TrainSettings), overrides)


def test_what_was_interrupted_on_purpose_goes_on_too_and_what_would_be_another_training_does_not(
    whole, tmp_path, clothseg, here
):
    folder, uninterrupted, _ = whole
    shutil.copytree(folder / "cache", tmp_path / "cache")
    none = clothseg("train", "resume=last", folder=tmp_path)
    assert none.returncode == 2 and "resume=last: no unfinished training" in none.stderr

    process = clothseg.start("train", *TRAINING, folder=tmp_path)
    for line in process.stdout:
        if line.startswith("large 5/7"):
            # As long as it goes on, even if it stands still, it is nobody else's.
            stand_still(process, tmp_path)
            (run,) = runs(tmp_path)
            busy = clothseg("train", f"resume={run.info.run_id}", folder=tmp_path)
            os.killpg(process.pid, signal.SIGINT)
            os.killpg(process.pid, signal.SIGCONT)
    process.communicate()
    assert process.returncode == 130
    assert busy.returncode == 2 and "is still going on, in another process" in busy.stderr
    assert runs(tmp_path)[0].info.status == "KILLED"

    refused = clothseg("train", "resume=last", "folds=3", folder=tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert re.search("resume=.* and folds=3 do not go together", refused.stderr)
    here(tmp_path)
    for option, reason in {
        "batch_size=4": "batch_size=4 was 8 when the training began; it goes on as it was, or another is trained",
        "schedule.phases.small.epochs=9": "phase small is over",
        "schedule.phases.large.epochs=9": "the learning rate, which follows the number of epochs, would have been",
    }.items():
        with pytest.raises(UserError, match=reason):
            take_up("resume=last", option)
    done = clothseg("train", "resume=last", "threads=1", "keep=best", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED" and run.data.tags["command"].endswith("threads=1 keep=best")
    # Which rounds otherwise.
    assert re.search(r"machine .* 1 threads$", run.data.tags["resumed.differently"]) or os.cpu_count() == 1
    assert curves(tmp_path, run.info.run_id).keys() == curves(folder, uninterrupted.info.run_id).keys()
    # Once more there is nothing to go on with.
    for given, reason in {
        run.info.run_id: "came to its end",
        "0" * 32: "is not in sqlite",
        "a b": "has to be the id of an MLflow run, or last",
    }.items():
        with pytest.raises(UserError, match=reason):
            take_up(f"resume={given}")
