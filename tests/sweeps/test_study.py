"""A study that processes open together, leave, and open again."""

from __future__ import annotations

import multiprocessing
import os
import time

import hydra
import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from clothseg import entry
from clothseg.sweeps import plugin
from clothseg.sweeps import study as studies
from clothseg.sweeps.study import StudyError

SPACE = {"rate": FloatDistribution(0.0001, 0.01, log=True), "size": IntDistribution(16, 128, log=True)}
BASELINE = {"rate": 0.001, "size": 64}


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


def opened(address, *, grace_period=120, **changes):
    storage = studies.open_storage(address, grace_period=grace_period)
    options = {
        "name": "s", "sampler": optuna.samplers.RandomSampler(seed=0), "pruner": optuna.pruners.NopPruner(),
        "directions": ["maximize"], "objectives": ["val/miou"], "space": SPACE, "configuration": {"seed": 0},
        "first": [BASELINE], "baseline": BASELINE,
    }  # fmt: skip
    return storage, studies.open_study(storage, **(options | changes))


def asked(study):
    trial = study.ask(dict(SPACE))
    trial.set_user_attr("asker", studies.process())
    return trial


def ended_process() -> dict:
    """What a process that is gone has left of itself."""
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=os.getpid)
    child.start()
    owner = studies.process() | {"pid": child.pid}
    child.join()
    return owner


def test_the_baseline_comes_first_whatever_the_sampler(address):
    _, study = opened(address)
    first, second = asked(study), asked(study)
    assert first.params == BASELINE and second.params != BASELINE
    assert "baseline" in studies.trials(study)[0].user_attrs and "baseline" not in studies.trials(study)[1].user_attrs


def test_a_study_is_where_the_variable_says(monkeypatch):
    plugin.register()
    monkeypatch.setenv("CLOTHSEG_STUDIES", "postgresql://team@db.example.org/studies")
    with hydra.initialize_config_dir(str(entry.config_folder())):
        cfg = hydra.compose("train", ["sweep=lr_batch"])
    assert cfg.sweep.storage == "postgresql://team@db.example.org/studies"


def test_opened_again_it_goes_on(address):
    _, study = opened(address)
    study.tell(asked(study), 0.5)
    _, again = opened(address)
    assert [trial.value for trial in studies.trials(again)] == [0.5]
    assert asked(again).number == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"configuration": {"seed": 1}}, "configuration: seed=0, now seed=1"),
        ({"configuration": {"seed": 0, "more": None}}, "more=absent"),
        ({"space": {"rate": SPACE["rate"]}}, "space: size="),
        ({"objectives": ["val/accuracy"]}, "val/accuracy"),
    ],
)
def test_a_study_of_something_else_is_refused_and_the_difference_named(address, changes, named):
    opened(address)
    with pytest.raises(StudyError, match="sweep.study_name=OTHER") as refused:
        opened(address, **changes)
    assert named in str(refused.value)


def test_a_trial_whose_process_is_gone_is_failed_at_once_and_run_again_once(address):
    storage, study = opened(address)
    for attempt in range(2):
        trial = asked(study)
        assert trial.params == BASELINE
        trial.set_user_attr("worker", ended_process())
        begun = time.monotonic()
        assert [lost.number for lost in studies.recover(study, storage)] == [attempt]
        assert time.monotonic() - begun < 5
    # Lost twice: the second time it counts, and is not tried a third time.
    assert [trial.state for trial in studies.trials(study)] == [TrialState.FAIL] * 2
    assert [trial.number for trial in studies.counted(study)] == [1]
    assert studies.again_as(study) == {0: 1}
    assert asked(study).params != BASELINE


def test_a_trial_run_again_is_the_baseline_still_and_brings_nothing_else_of_the_lost_one(address):
    storage, study = opened(address)
    trial = asked(study)
    trial.set_user_attr("mlflow_run_id", "abc")
    trial.set_user_attr("worker", ended_process())
    studies.recover(study, storage)
    asked(study)
    again = studies.trials(study)[1]
    assert again.user_attrs["baseline"] is True
    assert "mlflow_run_id" not in again.user_attrs and "lost" not in again.user_attrs


def test_a_trial_in_a_living_process_is_left_alone(address):
    storage, study = opened(address)
    asked(study)
    assert studies.recover(study, storage) == []
    assert studies.trials(study)[0].state is TrialState.RUNNING


def test_a_trial_on_another_machine_is_lost_when_it_no_longer_reports(address):
    storage, study = opened(address, grace_period=1)
    trial = asked(study)
    trial.set_user_attr("worker", studies.process() | {"host": "elsewhere"})
    storage.record_heartbeat(trial._trial_id)
    assert studies.recover(study, storage) == []
    time.sleep(2.5)
    assert [lost.number for lost in studies.recover(study, storage)] == [0]
    assert [trial.number for trial in studies.counted(study)] == []
    assert asked(study).params == BASELINE


def test_a_trial_whose_process_died_before_it_said_who_it_is_is_lost_after_a_while(address):
    storage, study = opened(address, grace_period=1)
    study.ask(dict(SPACE))
    assert studies.recover(study, storage) == []
    time.sleep(1.5)
    assert [lost.number for lost in studies.recover(study, storage)] == [0]


def test_a_later_process_with_the_same_number_is_not_taken_for_the_one_that_is_gone():
    assert studies.alive(studies.process()) is True
    assert studies.alive(studies.process() | {"started": 0.0}) is False
    assert studies.alive(studies.process() | {"host": "elsewhere"}) is None


def test_of_trials_begun_at_once_those_above_the_number_asked_for_are_surplus(address):
    _, study = opened(address)
    numbers = [asked(study).number for _ in range(4)]
    assert [number for number in numbers if studies.surplus(study, number, n_trials=3)] == [3]


def _begin(address: str, barrier, queue) -> None:
    barrier.wait()
    _, study = opened(address)
    queue.put([asked(study).number for _ in range(3)])


def test_processes_that_begin_a_study_at_the_same_moment_have_one_baseline_and_no_trial_in_common(address):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    children = [context.Process(target=_begin, args=(address, barrier, queue)) for _ in range(3)]
    for child in children:
        child.start()
    numbers = sorted(number for _ in children for number in queue.get(timeout=60))
    for child in children:
        child.join()
    assert numbers == list(range(9))
    _, study = opened(address)
    baselines = [trial for trial in study.trials if trial.user_attrs.get("baseline")]
    assert [trial.number for trial in baselines] == [0] and baselines[0].params == BASELINE


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("sqlite:////nowhere/to/be/found.db", "unable to open"),
        ("nonsense", "nonsense"),
        ("postgresql://me:hush@127.0.0.1:1/none", "127.0.0.1:1"),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_on_one_line_without_its_password(monkeypatch, wrong, named):
    monkeypatch.setattr(studies, "patiently", lambda action, seconds: action())
    with pytest.raises(StudyError, match="sweep.storage=") as refused:
        studies.open_storage(wrong, grace_period=60)
    assert named in str(refused.value) and "hush" not in str(refused.value) and "\n" not in str(refused.value)


def test_what_took_too_long_to_fail_is_tried_once_more():
    outcomes = [sqlalchemy.exc.OperationalError("", None, Exception("locked")), "done"]

    def action():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert studies.patiently(action, seconds=0) == "done"
    outcomes += [sqlalchemy.exc.OperationalError("", None, Exception("away"))] * 2
    with pytest.raises(sqlalchemy.exc.OperationalError):
        studies.patiently(action, seconds=0)
