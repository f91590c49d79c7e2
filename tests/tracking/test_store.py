"""The store of runs is made once, whoever comes first."""

from __future__ import annotations

import subprocess
import sys

import mlflow
import pytest

from clothseg.errors import UserError
from clothseg.tracking.store import open_store


def test_several_that_begin_at_once_make_one_database(tmp_path, clothseg):
    command = [sys.executable, "-c", "from clothseg.tracking.store import open_store; open_store()"]
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
