"""The store of runs is made once, whoever comes first."""

from __future__ import annotations

import logging
import subprocess
import sys

import mlflow
import pytest

from clothseg.errors import UserError
from clothseg.tracking import store as stores
from clothseg.tracking.store import cannot_track, open_store


def test_several_that_begin_at_once_make_one_database(tmp_path, clothseg):
    command = [sys.executable, "-c", "from clothseg.tracking.store import cannot_track, open_store; open_store()"]
    environment = clothseg.environment(tmp_path)
    started = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 4
    assert [process.returncode for process in started] == [0] * 4
    assert mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_experiments()


def test_a_store_that_cannot_be_made_is_told(tmp_path, request):
    (tmp_path / "nowhere").touch()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    request.addfinalizer(lambda: mlflow.set_tracking_uri(before))
    with pytest.raises(UserError, match="cannot track in sqlite:.*nowhere/mlflow.db .*; MLFLOW_TRACKING_URI names"):
        open_store()


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (
            403,
            "Invalid Host header - possible DNS rebinding attack detected",
            "the server does not answer to tracking:5000; start it with --allowed-hosts tracking:5000",
        ),
        (403, "Permission denied", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (401, "You are not authenticated", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_a_server_that_refuses_is_told_with_what_helps(request, status, body, hint):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://ada:secret@tracking:5000")
    request.addfinalizer(lambda: mlflow.set_tracking_uri(before))
    refused = f"API request to endpoint /x failed with error code {status} != 200. Response body: '{body}'"
    told = str(cannot_track(mlflow.MlflowException(refused)))
    assert told.startswith("cannot track in http://tracking:5000 (error code ") and "secret" not in told
    assert told.partition("; ")[2].startswith(hint)


@pytest.fixture
def locked(store, monkeypatch):
    """A store that SQLite says of that it is locked, as often as the number in the list says."""
    left, search = [2], mlflow.MlflowClient.search_experiments

    def answer(client, **options):
        if left[0]:
            left[0] -= 1
            raise mlflow.MlflowException("(sqlite3.OperationalError) database is locked [SQL: SELECT 1]")
        return search(client, **options)

    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", answer)
    monkeypatch.setattr(stores, "SETTLE", 0)
    return left


def test_a_database_that_another_has_locked_is_waited_for(locked, caplog):
    caplog.set_level(logging.INFO)
    open_store()
    (line,) = [record.getMessage() for record in caplog.records if "waiting" in record.getMessage()]
    assert line.startswith("waiting for another program that has locked sqlite:///") and locked == [0]


def test_a_database_that_stays_locked_is_told_on_one_line(locked, monkeypatch):
    monkeypatch.setattr(stores, "PATIENCE", 0)
    with pytest.raises(UserError, match=r"cannot track in \S+ \(database is locked\); try again once the program"):
        open_store()
