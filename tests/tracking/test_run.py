"""One training as one MLflow run, in a store of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import mlflow
import pytest

from clothseg.errors import UserError
from clothseg.tracking.run import TrackedRun, git_state, versions


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield
    mlflow.set_tracking_uri(before)


def opened(**changes) -> TrackedRun:
    return TrackedRun(
        **{
            "experiment": "here",
            "name": "a run",
            "tags": {"answer": 42},
            "parent": None,
            "run_id": None,
            "folder": Path("kept"),
            "patience": 1.0,
            "figures": True,
        }
        | changes
    )


def data(run: TrackedRun):
    return mlflow.get_run(run.id)


def test_a_run_says_what_made_it_and_ends_finished():
    with opened() as run:
        assert data(run).info.status == "RUNNING"
    found = data(run)
    assert found.info.status == "FINISHED" and found.info.run_name == "a run"
    assert found.data.tags["answer"] == "42" and found.data.tags["version.keras"] == versions()["keras"]
    assert found.data.tags["keras_backend"] == "tensorflow"


def test_a_run_is_described_unless_somebody_has_done_so():
    with opened() as run:
        run.describe("python -m clothseg.train seed=1", "Accuracy 0.8")
        until(lambda: "mlflow.note.content" in data(run).data.tags)
        assert data(run).data.tags["mlflow.note.content"] == "    python -m clothseg.train seed=1\n\nAccuracy 0.8"
        run.describe("python -m clothseg.train seed=1", "Accuracy 0.9")
        until(lambda: data(run).data.tags["mlflow.note.content"].endswith("0.9"))
        mlflow.MlflowClient().set_tag(run.id, "mlflow.note.content", "my words")
        run.describe("python -m clothseg.train seed=1", "Accuracy 1.0")
    assert data(run).data.tags["mlflow.note.content"] == "my words"


def until(holds) -> None:
    """Waits until what is logged in a thread has arrived."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it has not arrived")


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (UserError, "FAILED"), (OSError, "FAILED")]
)
def test_a_run_that_does_not_reach_its_end_says_how_it_ended(error, status):
    with pytest.raises(error), opened() as run:
        raise error("the disk is full")
    found = data(run)
    assert found.info.status == status
    assert ("the disk is full" in found.data.tags.get("failure", "")) == (status == "FAILED")


def test_configuration_and_scores_are_logged_and_what_is_not_a_number_is_left_out():
    with opened() as run:
        run.configuration("a: 1\n", {"a": 1})
        run.scores({"val/miou": 0.5, "val/clothing_miou": float("nan"), "val/loss": float("inf")}, step=3)
    metrics = {name: value for name, value in data(run).data.metrics.items() if not name.startswith("system/")}
    assert metrics == {"val/miou": 0.5}
    assert data(run).data.params == {"a": "1"}
    folder = f"{data(run).info.artifact_uri}/config"
    assert mlflow.artifacts.load_text(f"{folder}/config.yaml") == "a: 1\n"
    assert f"mlflow=={mlflow.__version__}" in mlflow.artifacts.load_text(f"{folder}/packages.txt")


def test_a_figure_is_replaced_under_its_path():
    from matplotlib.figure import Figure

    with opened() as run:
        run.figure(Figure(figsize=(1, 1)), "figures/one.png")
        run.figure(Figure(figsize=(2, 1)), "figures/one.png")
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.id, "figures")] == ["figures/one.png"]


def test_without_figures_everything_else_is_logged():
    from matplotlib.figure import Figure

    with opened(figures=False) as run:
        run.figure(Figure(figsize=(1, 1)), "figures/one.png")
        run.text("here", "text.txt")
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.id)] == ["text.txt"]


def test_inputs_of_equal_data_have_equal_digests_and_parts_differ():
    digests = []
    for fingerprint in ("aa", "aa", "bb"):
        with opened() as run:
            parts = {"training": ["1", "2"], "validation": ["3"]}
            run.inputs(name="ccp", fingerprint=fingerprint, parts=parts, options={"subset": "article"})
        digests.append([item.dataset.digest for item in data(run).inputs.dataset_inputs])
    assert digests[0] == digests[1] != digests[2]
    assert len(set(digests[0])) == 2


def test_a_store_that_cannot_be_used_is_told_without_its_password(monkeypatch):
    # MLflow tries for 100 seconds.
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    mlflow.set_tracking_uri("postgresql://me:secret@127.0.0.1:9/none")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as told, opened():
        pass
    assert "127.0.0.1:9" in str(told.value) and "secret" not in str(told.value)


def test_the_address_of_the_run_is_given():
    with opened() as run:
        assert run.where().startswith("http://127.0.0.1:5000/#/experiments/1/runs/") and "`mlflow ui`" in run.where()


@pytest.fixture
def elsewhere() -> str:
    """A run in another experiment, as a sweep or a scheduler makes one."""
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("elsewhere"), run_name="theirs", tags={"theirs": "kept"})
    return run.info.run_id


def experiment_name(run: TrackedRun) -> str:
    return mlflow.get_experiment(data(run).info.experiment_id).name


def variables() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}


def test_a_nested_run_is_in_its_parents_experiment(elsewhere):
    with opened(parent=elsewhere) as run:
        pass
    assert data(run).data.tags["mlflow.parentRunId"] == elsewhere and experiment_name(run) == "elsewhere"
    assert mlflow.get_experiment_by_name("here") is None
    with opened() as following:
        pass
    assert "mlflow.parentRunId" not in data(following).data.tags and experiment_name(following) == "here"


@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (OSError, "FAILED")])
def test_one_training_is_logged_into_the_run_that_mlflows_variable_names(elsewhere, monkeypatch, error, status):
    with opened():
        pass  # MLflow remembers the experiment of an earlier run
    monkeypatch.setenv("MLFLOW_RUN_ID", elsewhere)
    try:
        with opened() as run:
            run.scores({"val/miou": 0.5}, step=1)
            if error:
                raise error
    except OSError:
        pass
    found = data(run)
    assert run.id == elsewhere and found.info.status == status and found.info.run_name == "a run"
    assert found.data.tags["answer"] == "42" and found.data.tags["theirs"] == "kept"
    assert found.data.metrics["val/miou"] == 0.5
    with opened() as following:
        pass
    assert following.id != elsewhere and experiment_name(following) == "here"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_trials_do_not_take_the_run_that_mlflows_variable_names_and_leave_the_variables_alone(
    elsewhere, monkeypatch, error
):
    other = mlflow.MlflowClient().create_experiment("other")
    theirs = mlflow.MlflowClient().create_run(other).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    before, made = variables(), []
    for _ in range(2):
        try:
            with opened(parent=elsewhere) as run:
                made.append(run.id)
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert variables() == before
        assert data(run).data.tags["mlflow.parentRunId"] == elsewhere and experiment_name(run) == "elsewhere"
    assert len({*made, theirs, elsewhere}) == 4


@pytest.mark.parametrize("state", ["absent", "deleted", "malformed"])
def test_a_run_to_log_into_or_under_that_is_not_there_is_told(elsewhere, monkeypatch, state):
    run_id = {"absent": "0" * 32, "deleted": elsewhere, "malformed": "no/run"}[state]
    mlflow.MlflowClient().delete_run(elsewhere)
    with pytest.raises(UserError, match=f"^parent run {run_id} ") as told, opened(parent=run_id):
        pass
    assert "mlflow.db" in str(told.value)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    before = variables()
    with pytest.raises(UserError, match=f"^MLFLOW_RUN_ID={run_id} ") as told, opened():
        pass
    assert "mlflow.db" in str(told.value) and variables() == before
    assert mlflow.active_run() is None


def test_the_experiment_may_be_named_by_the_id_in_mlflows_variable(monkeypatch):
    theirs = mlflow.MlflowClient().create_experiment("theirs")
    with opened(experiment=theirs) as named:
        pass
    assert experiment_name(named) == theirs
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", theirs)
    with opened(experiment=theirs) as by_id:
        pass
    with opened() as by_name:
        pass
    assert experiment_name(by_id) == "theirs" and experiment_name(by_name) == "here"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(UserError, match="77"), opened(experiment="77"):
        pass


def test_mlflows_variable_names_the_store(tmp_path, monkeypatch):
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    with opened() as run:
        assert "theirs.db" in run.where()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'theirs.db'}")
    assert data(run).info.status == "FINISHED"


def test_an_experiment_that_another_process_makes_at_the_same_moment_is_shared(monkeypatch):
    theirs = mlflow.MlflowClient().create_experiment("here")
    find = mlflow.tracking.fluent.TrackingServiceClient.get_experiment_by_name
    late = iter([None])
    monkeypatch.setattr(
        mlflow.tracking.fluent.TrackingServiceClient,
        "get_experiment_by_name",
        lambda client, name: next(late, find(client, name)),
    )
    with opened() as run:
        pass
    assert data(run).info.experiment_id == theirs


def test_commit_and_dirty_flag_are_those_of_the_checkout(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(tmp_path) == {}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    assert git_state(tmp_path) == {"git.commit": git("rev-parse", "HEAD"), "git.dirty": "false"}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["git.dirty"] == "true"
    git("commit", "-qam", "two")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("")
    git("add", "pkg")
    git("commit", "-qm", "three")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "own.yaml").write_text("new")
    assert git_state(tmp_path / "pkg")["git.dirty"] == "false"
    assert git_state(tmp_path / "pkg", tmp_path / "conf")["git.dirty"] == "true"
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "module.py").write_text("")
    assert git_state(installed) == {}
