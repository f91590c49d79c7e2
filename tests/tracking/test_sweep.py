"""The run of a study, seen through MLflow's own client."""

from __future__ import annotations

import multiprocessing

import mlflow
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from clothseg.errors import UserError
from clothseg.tracking import sweep
from clothseg.tracking.sweep import SweepRun

SPACE = {"optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True)}
COLUMNS, ROWS = ["trial", "state"], [[0, "COMPLETE"]]


@pytest.fixture
def client(tmp_path, monkeypatch):
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "SETTLE", 0)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def opened(**changes) -> SweepRun:
    return SweepRun(**({"experiment": "ours", "name": "a_study", "known": None, "tags": {"space": "lr"}} | changes))


def study(*values: float) -> optuna.Study:
    made = optuna.create_study(direction="maximize", study_name="a_study")
    for number, value in enumerate(values):
        params = {"optimizer.learning_rate": 0.001 * (number + 1)}
        made.add_trial(create_trial(values=[value], params=params, distributions=SPACE))
    return made


def update(run: SweepRun, made: optuna.Study, *, final: bool = False) -> None:
    run.update(made, objectives=["val/miou"], columns=COLUMNS, rows=ROWS, final=final)


def figures(client, run: SweepRun) -> list[str]:
    return sorted(item.path for item in client.list_artifacts(run.id, "figures"))


def test_a_study_has_a_run_of_its_name_and_continues_it(client):
    run = opened()
    run.end("FINISHED")
    again = opened(known=run.id)
    assert again.id == run.id
    found = client.get_run(run.id)
    assert (found.info.run_name, found.info.status) == ("a_study", "RUNNING")
    assert {"study": "a_study", "role": "sweep", "space": "lr"}.items() <= found.data.tags.items()


@pytest.mark.parametrize("known", ["0" * 32, None])
def test_a_run_that_the_study_does_not_know_is_found_by_its_tags(client, known):
    assert opened().id == opened(known=known).id


def test_a_deleted_run_is_not_continued(client):
    run = opened()
    client.delete_run(run.id)
    assert opened(known=run.id).id != run.id


def test_the_run_named_in_the_environment_is_taken_wherever_it_is(client, monkeypatch):
    outer = client.create_run(client.create_experiment("elsewhere"))
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    run = opened(known="0" * 32)
    assert (run.id, run.experiment_id) == (outer.info.run_id, outer.info.experiment_id)


def test_a_run_in_the_environment_that_does_not_exist_is_told_on_one_line(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "1" * 32)
    with pytest.raises(UserError, match="MLFLOW_RUN_ID=1"):
        opened()


def test_a_deleted_experiment_is_told_on_one_line(client):
    client.delete_experiment(opened().experiment_id)
    with pytest.raises(UserError, match="tracking.experiment=ours was deleted"):
        opened()


def _open_at_once(address: str, barrier, queue) -> None:
    mlflow.set_tracking_uri(address)
    barrier.wait()
    queue.put(opened().id)


def _ids_opened_at_once(address: str) -> list[str]:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    children = [context.Process(target=_open_at_once, args=(address, barrier, queue)) for _ in range(3)]
    for child in children:
        child.start()
    ids = [queue.get(timeout=100) for _ in children]
    for child in children:
        child.join()
    return ids


@pytest.mark.long
def test_processes_that_open_it_at_the_same_moment_have_one_run(client):
    # The tables are there; the experiment and the run are made by all at once.
    client.create_experiment("other")
    ids = _ids_opened_at_once(mlflow.get_tracking_uri())
    assert len(set(ids)) == 1
    assert [run.info.run_id for run in client.search_runs([client.get_experiment_by_name("ours").experiment_id])] == [
        ids[0]
    ]


def test_processes_that_make_the_tables_of_a_database_at_the_same_moment_do_not_fail(new_postgres):
    assert len(set(_ids_opened_at_once(new_postgres()))) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_an_older_run_that_is_seen_late_is_taken_by_all(client, monkeypatch, others):
    experiment_id = client.create_experiment("ours")
    tags = {"study": "a_study", "role": "sweep"}
    for _ in range(others):
        client.create_run(experiment_id, tags=tags)
    older = []
    monkeypatch.setattr(sweep, "SETTLE", 30)
    monkeypatch.setattr(
        sweep.time, "sleep", lambda _: older.append(client.create_run(experiment_id, start_time=1, tags=tags))
    )
    assert opened().id == older[0].info.run_id
    # Of the others each deletes its own.
    assert len(client.search_runs([experiment_id])) == 1 + others


def test_the_best_trial_is_told_in_tags_which_change(client):
    run = opened()
    update(run, study(0.1, 0.3))
    update(run, study(0.1, 0.3, 0.5))
    tags = client.get_run(run.id).data.tags
    assert (tags["best.trial"], tags["best.value"], tags["best.optimizer.learning_rate"]) == ("2", "0.5", "0.003")
    assert tags["trials.complete"] == "3" and tags["trials.pruned"] == "0"
    description = tags["mlflow.note.content"]
    assert ": 3 complete, 0 pruned, 0 fail. Best: trial 2, 0.5000 with " in description
    assert description.endswith("optimizer.learning_rate=0.003")
    history = client.get_metric_history(run.id, "best/val/miou")
    assert [(point.step, point.value) for point in history] == [(2, 0.3), (3, 0.5)]
    client.set_tag(run.id, "mlflow.note.content", "my words")
    update(run, study(0.1, 0.3, 0.5))
    assert client.get_run(run.id).data.tags["mlflow.note.content"] == "my words"


def test_the_table_is_an_artifact(client):
    run = opened()
    update(run, study(0.1))
    path = client.download_artifacts(run.id, "tables/trials.csv")
    assert open(path, encoding="utf-8").read() == "trial,state\n0,COMPLETE\n"


def test_figures_take_a_small_share_of_the_time_and_are_complete_in_the_end(client, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep, "study_figures", lambda study, objectives: drawn.append(len(study.trials)) or {})
    run = opened()
    update(run, study(0.1))
    run.seconds = 60
    update(run, study(0.1, 0.2))
    update(run, study(0.1, 0.2, 0.3), final=True)
    assert drawn == [1, 3]


def test_figures_are_artifacts(client):
    run = opened()
    update(run, study(0.1, 0.2, 0.4))
    assert {"figures/history.png", "figures/slice.png"} <= set(figures(client, run))


def test_two_objectives_have_a_front_instead_of_a_best(client):
    made = optuna.create_study(directions=["maximize", "minimize"])
    for values in ([0.1, 10], [0.2, 20], [0.1, 30]):
        made.add_trial(create_trial(values=values))
    run = opened()
    run.update(made, objectives=["a", "b"], columns=COLUMNS, rows=ROWS, final=True)
    tags = client.get_run(run.id).data.tags
    assert tags["pareto.trials"] == "0, 1" and "best.trial" not in tags


def test_the_run_of_a_process_that_is_gone_is_ended_and_one_that_ended_is_left_alone(client):
    run = opened()
    running, ended = (client.create_run(run.experiment_id).info.run_id for _ in range(2))
    client.set_terminated(ended, "FINISHED")
    for run_id in (running, ended):
        run.lost(run_id, "its process was killed")
    assert [client.get_run(run_id).info.status for run_id in (running, ended)] == ["KILLED", "FINISHED"]
    assert client.get_run(running).data.tags["failure"] == "its process was killed"


def test_a_store_that_fails_later_is_warned_of(client, monkeypatch, caplog):
    run = opened()
    monkeypatch.setattr(run.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("gone\naway")))
    update(run, study(0.1))
    assert "could not be logged" in caplog.text and "gone" in caplog.text


def test_trials_that_were_one_too_many_are_not_counted(client):
    made = study(0.1)
    made.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"surplus": True}))
    run = opened()
    update(run, made)
    assert client.get_run(run.id).data.tags["trials.fail"] == "0"
