"""A trial as the process that trains it sees it."""

from __future__ import annotations

import time

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from clothseg.sweeps.study import StudyError, counted, open_storage
from clothseg.sweeps.trial import PrunedError, Trial, reason

SPACE = {"x": FloatDistribution(0, 1)}
MEDIAN = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def study(address):
    return optuna.create_study(study_name="s", storage=open_storage(address, grace_period=60), direction="maximize")


def trial(address, study, *, pruner=MEDIAN, number=None, **options):
    if number is None:
        number = study.ask(SPACE).number
    return Trial(
        storage=address, study_name="s", number=number, pruner=pruner,
        **({"objectives": ["val/miou"], "grace_period": 60} | options),
    )  # fmt: skip


def train(address, study, scores, **options):
    with trial(address, study, **options) as job:
        for epoch, score in enumerate(scores, 1):
            job.report(score, epoch=epoch, last=epoch == len(scores))
        job.complete([max(scores)])
    return study.trials[job.number]


def test_it_reports_epochs_and_tells_its_value(address, study):
    ended = train(address, study, [0.1, 0.3, 0.2])
    assert (ended.state, ended.value) == (TrialState.COMPLETE, 0.3)
    assert ended.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert ended.user_attrs["epochs"] == 3


def test_a_trial_that_falls_behind_is_stopped_and_pruned(address, study):
    train(address, study, [0.4, 0.5, 0.6])
    ended = train(address, study, [0.1, 0.2, 0.3])
    assert ended.state is TrialState.PRUNED
    assert ended.intermediate_values == {1: 0.1} and ended.user_attrs["epochs"] == 1


def test_a_trial_is_not_stopped_after_its_last_epoch(address, study):
    train(address, study, [0.5])
    assert train(address, study, [0.1]).state is TrialState.COMPLETE


def test_the_baseline_is_never_stopped(address, study):
    train(address, study, [0.5, 0.5])
    study.enqueue_trial({"x": 0.5}, user_attrs={"baseline": True})
    assert train(address, study, [0.1, 0.1]).state is TrialState.COMPLETE


def test_without_a_pruner_none_is_stopped(address, study):
    train(address, study, [0.5, 0.5])
    assert train(address, study, [0.1, 0.1], pruner=optuna.pruners.NopPruner()).state is TrialState.COMPLETE


def test_an_error_is_passed_on_and_its_reason_kept(address, study):
    with pytest.raises(RuntimeError), trial(address, study):
        raise RuntimeError("no\nway")
    assert study.trials[0].state is TrialState.FAIL
    assert study.trials[0].user_attrs["failure"] == "RuntimeError: no way"


def test_a_value_that_is_not_a_number_is_a_failure(address, study):
    with pytest.raises(ValueError, match="val/miou is nan"), trial(address, study) as job:
        job.complete([float("nan")])
    assert study.trials[0].state is TrialState.FAIL and "nan" in study.trials[0].user_attrs["failure"]


def test_memory_that_ran_out_is_named():
    assert reason(MemoryError("12 GB")) == "out of memory: MemoryError: 12 GB"


def test_an_interrupted_trial_is_passed_on_and_will_be_run_again(address, study):
    with pytest.raises(KeyboardInterrupt), trial(address, study):
        raise KeyboardInterrupt
    assert study.trials[0].state is TrialState.FAIL and study.trials[0].user_attrs["lost"] == "interrupted"
    assert study.trials[1].state is TrialState.WAITING and study.trials[1].params == study.trials[0].params
    assert counted(study) == []


def test_two_objectives_are_told_and_not_pruned(address):
    storage = open_storage(address, grace_period=60)
    study = optuna.create_study(study_name="s", storage=storage, directions=["maximize", "minimize"])
    with trial(address, study, objectives=["val/miou", "time"]) as job:
        job.report(0.1, epoch=1, last=False)
        job.complete([0.1, 20.0])
    assert study.trials[0].values == [0.1, 20.0]


def test_it_gives_a_sign_of_life_from_the_start(address, study):
    storage = open_storage(address, grace_period=6)
    with trial(address, study, grace_period=6) as job:
        time.sleep(1.5)
        # Silent trials have none, so their machine cannot be told from one that never began.
        from optuna.storages._rdb.models import TrialHeartbeatModel

        with storage.scoped_session() as session:
            assert session.query(TrialHeartbeatModel).filter_by(trial_id=job.id).count() == 1
        job.complete([0.1])


@pytest.mark.parametrize("number", [0, 5])
def test_a_trial_that_has_ended_or_does_not_exist_is_refused(address, study, number):
    study.tell(study.ask(SPACE), 0.5)
    with pytest.raises(StudyError, match=f"sweep.trial={number}"):
        trial(address, study, number=number)


def test_pruning_is_no_failure():
    from clothseg.errors import StoppedError

    assert issubclass(PrunedError, StoppedError)
