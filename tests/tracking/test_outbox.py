"""What is logged reaches a store that is slow, away, full or refuses it; MLflow itself is in tests/test_server.py."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading

import mlflow
import pytest
from filelock import Timeout

from clothseg.tracking import outbox as outbox_module
from clothseg.tracking.outbox import Outbox, outboxes, run_of, send, send_if_free, waiting


class Store:
    """Keeps what it is given, and fails as it is told to."""

    def __init__(self) -> None:
        self.taken: list[int | dict[str, str]] = []
        self.files: dict[int, str] = {}
        self.error: Exception | None = None
        self.refused: dict[int, Exception] = {}
        self.tags: dict[str, str] = {}
        self.open = threading.Event()
        self.open.set()

    def write(self, client, run_id, entry, folder) -> None:
        assert self.open.wait(20) and run_id == "run"
        if self.error is not None:
            raise self.error
        if entry.get("step") in self.refused:
            raise self.refused[entry["step"]]
        self.taken.append(entry.get("tags") or entry["step"])
        if (folder / "text").is_file():
            self.files[entry["step"]] = (folder / "text").read_text()

    def set_tag(self, run_id, key, value) -> None:
        """As of MLflow's client, which is this."""
        self.tags[key] = value


@pytest.fixture(autouse=True)
def store(monkeypatch) -> Store:
    made = Store()
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: made)
    monkeypatch.setattr(outbox_module, "write", made.write)
    monkeypatch.setattr(outbox_module, "_FIRST_PAUSE", 0.01)
    return made


def put(outbox: Outbox, *steps: int) -> None:
    for step in steps:
        outbox.put({"kind": "metrics", "step": step})


def test_everything_arrives_in_its_order_and_nothing_is_left(tmp_path, store):
    outbox = Outbox(tmp_path / "outbox", "run")
    put(outbox, 1, 2)
    outbox.put({"kind": "artifact", "file": "text", "step": 3}, lambda folder: (folder / "text").write_text("hello"))
    put(outbox, 4)
    assert outbox.close(patience=0) == 0
    assert store.taken == [1, 2, 3, 4] and store.files == {3: "hello"}
    assert not (tmp_path / "outbox").exists()


def test_nobody_waits_for_a_slow_store(tmp_path, store):
    store.open.clear()
    outbox = Outbox(tmp_path / "outbox", "run")
    put(outbox, *range(50))
    assert store.taken == []
    store.open.set()
    # Slow is not away: it is waited for.
    assert outbox.close(patience=0) == 0 and store.taken == list(range(50))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        OSError(errno.ENOSPC, "No space left on device"),
        mlflow.MlflowException("database is locked", error_code=mlflow.exceptions.TEMPORARILY_UNAVAILABLE),
        mlflow.MlflowException("error code 401 != 200", error_code=mlflow.exceptions.UNAUTHENTICATED),
    ],
)
def test_what_a_store_does_not_take_now_it_takes_later(tmp_path, store, caplog, error):
    store.error = error
    outbox = Outbox(tmp_path / "outbox", "run")
    with caplog.at_level(logging.INFO):
        put(outbox, 1, 2)
        assert outbox.close(patience=0.1) == 2
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(tmp_path / "outbox") in warning
    outbox._thread.join(10)
    assert outboxes(tmp_path) == [tmp_path / "outbox"] and waiting(tmp_path / "outbox") == 2
    assert outboxes(tmp_path / "outbox") == [tmp_path / "outbox"]
    assert run_of(tmp_path / "outbox")["run_id"] == "run"
    store.error = None
    assert send(tmp_path / "outbox", patience=0) == 0
    assert store.taken == [1, 2] and outboxes(tmp_path) == []


def test_a_store_that_comes_back_gets_it_from_the_same_process(tmp_path, store, caplog):
    store.error = ConnectionRefusedError()
    outbox = Outbox(tmp_path / "outbox", "run")
    put(outbox, 1)
    closing = threading.Timer(0.3, lambda: setattr(store, "error", None))
    closing.start()
    with caplog.at_level(logging.INFO):
        assert outbox.close(patience=20) == 0
    assert store.taken == [1] and "is back after" in caplog.text


def test_what_a_store_refuses_for_good_does_not_keep_back_the_rest(tmp_path, store, caplog):
    store.refused = {
        2: mlflow.MlflowException("too long", error_code=mlflow.exceptions.INVALID_PARAMETER_VALUE),
        3: TypeError("a fault of ours"),
    }
    outbox = Outbox(tmp_path / "outbox", "run")
    put(outbox, 1, 2, 3, 4)
    assert outbox.close(patience=0) == 0
    assert store.taken == [1, 4]
    assert outbox.refused == ["metrics: too long", "metrics: a fault of ours"] and "too long" in caplog.text
    assert store.tags == {"not_logged": "metrics: too long; metrics: a fault of ours"}


def test_after_a_crash_what_is_on_disk_is_delivered_once_and_first(tmp_path, store):
    folder = tmp_path / "outbox"
    store.error = ConnectionRefusedError()
    killed = Outbox(folder, "run")
    put(killed, 1, 2, 3)
    killed.close(patience=0)
    killed._thread.join(10)
    # The first was delivered, and the process ended in the midst of writing a line.
    (folder / "delivered").write_text("1")
    with (folder / "entries.jsonl").open("a") as file:
        file.write('{"kind": "metrics", "st')
    store.error = None
    after = Outbox(folder, "run")
    put(after, 4)
    assert after.close(patience=0) == 0
    assert store.taken == [2, 3, 4]


def test_a_line_that_was_cut_off_does_not_take_the_next_with_it(tmp_path, store):
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "entries.jsonl").write_text('{"number": 1, "kind": "metrics", "step": 1}\n{"numb')
    store.error = ConnectionRefusedError()
    outbox = Outbox(folder, "run")
    put(outbox, 2)
    outbox.close(patience=0)
    assert [json.loads(line)["step"] for line in (folder / "entries.jsonl").read_text().splitlines()[::2]] == [1, 2]


def test_two_processes_do_not_deliver_the_same(tmp_path, store):
    store.error = ConnectionRefusedError()
    outbox = Outbox(tmp_path / "outbox", "run")
    put(outbox, 1)
    with pytest.raises(Timeout):
        send(tmp_path / "outbox", patience=0)
    send_if_free(tmp_path / "outbox")
    outbox.close(patience=0)


def test_on_a_full_disk_scores_still_arrive_and_the_loss_of_a_file_is_told(tmp_path, store, caplog, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    outbox = Outbox(tmp_path / "outbox", "run")
    monkeypatch.setattr("os.fsync", full)
    put(outbox, 1)
    outbox.put({"kind": "artifact", "file": "curves.png", "folder": "figures", "step": 2}, full)
    put(outbox, 3)
    assert outbox.close(patience=0) == 0
    assert store.taken == [1, {"not_logged": "curves.png"}, 3]
    first, second = [record.getMessage() for record in caplog.records]
    assert "has to arrive at once" in first and "curves.png is not logged" in second and "No space left" in second
    assert outbox.lost == ["curves.png"]


def test_after_a_line_that_a_full_disk_cut_off_the_next_can_be_read(tmp_path, store, monkeypatch):
    store.error = ConnectionRefusedError()
    outbox = Outbox(tmp_path / "outbox", "run")
    entries = tmp_path / "outbox" / "entries.jsonl"
    fsync = os.fsync

    def full(descriptor):
        entries.write_bytes(entries.read_bytes()[:-20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    put(outbox, 1)
    monkeypatch.setattr("os.fsync", fsync)
    put(outbox, 2)
    put(outbox, 3)
    outbox.close(patience=0)
    outbox._thread.join()
    store.error = None
    assert waiting(tmp_path / "outbox") == 2
    assert send(tmp_path / "outbox", patience=0) == 0
    assert store.taken == [2, 3]
