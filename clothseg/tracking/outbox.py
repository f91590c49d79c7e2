"""What is logged waits in a folder until the tracking store has it, so that a training never waits for the store."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from clothseg.tracking.store import briefly, reason, store_address

log = logging.getLogger(__name__)

FOLDER = "outbox"  # beside the checkpoints of a training
_ENTRIES, _DELIVERED, _RUN, _LOCK = "entries.jsonl", "delivered", "run.json", "in_use.lock"

# What a store answers to what it will never take. Everything else (no connection, no disk space, a locked database,
# a wrong password) may pass.
_FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between attempts
_BATCH = 100  # parameters and tags that a store takes at once


def write(client: mlflow.MlflowClient, run_id: str, entry: Mapping[str, Any], folder: Path) -> None:
    """Gives the store one entry. A second time changes nothing.

    Args:
        client: of the store.
        run_id: of the run.
        entry: its `kind` is metrics, tags, params, artifact, input, model or end.
        folder: with the entry's files.

    Raises:
        Exception: whatever MLflow raises.
    """
    kind = entry["kind"]
    if kind == "metrics":
        values, when, step = entry["values"], entry["time"], entry["step"]
        metrics = [Metric(key, value, when, step) for key, value in values.items()]
        client.log_batch(run_id, metrics=metrics, synchronous=True)
    elif kind == "tags":
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in entry["tags"].items()], synchronous=True)
    elif kind == "params":
        params = [Param(key, value) for key, value in entry["params"].items()]
        for first in range(0, len(params), _BATCH):
            client.log_batch(run_id, params=params[first : first + _BATCH], synchronous=True)
    elif kind == "artifact":
        client.log_artifact(run_id, str(folder / entry["file"]), entry["folder"])
    elif kind == "input":
        tags = [InputTag(key, value) for key, value in entry["tags"].items()]
        client.log_inputs(run_id, [DatasetInput(Dataset(**entry["dataset"]), tags)])
    elif kind == "model":
        from clothseg.tracking.logged_model import log_model

        log_model(client, run_id, folder, class_names=entry["class_names"], requirements=entry["requirements"])
    else:
        client.set_terminated(run_id, entry["status"], entry["time"])


class Outbox:
    """Takes entries of one run and delivers them in their order, in a thread of its own.

    Every entry is on disk before it is delivered, and gone from there when it has been. While the store is away it is
    tried again with growing pauses; what the store refuses for good is told and left out. Where the disk is full,
    entries wait in memory only; files of theirs are lost, which is told.

    Args:
        folder: of the outbox, for one run. What an earlier process left there is delivered first.
        run_id: of the MLflow run.

    Attributes:
        refused: what the store did not take, with its reason.
        lost: files that there was no room for in the folder.

    Raises:
        Timeout: another process has the outbox.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id
        self.refused, self.lost = list[str](), list[str]()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / _LOCK, thread_local=False)
        self._lock.acquire(timeout=0)
        self._pending = deque(_left(folder))
        self._numbers = 1 + max((entry["number"] for entry in self._pending), default=_delivered(folder))
        self._away: tuple[float, str] | None = None  # since when, and why
        self._told_of_disk = self._cut_off = False
        self._putting, self._changed = threading.Lock(), threading.Condition()
        self._closed, self._given_up = False, False
        with self._disk():
            (folder / _RUN).write_text(json.dumps({"run_id": run_id, "store": store_address()}), encoding="utf-8")
            _end_line(folder / _ENTRIES)
        self._thread = threading.Thread(target=self._deliver, name="outbox", daemon=True)
        self._thread.start()

    def put(self, entry: Mapping[str, Any], fill: Callable[[Path], object] | None = None) -> None:
        """Takes an entry.

        Args:
            entry: as of `write`, of values that JSON has.
            fill: writes the entry's files into the folder that it is given.
        """
        with self._putting:
            number = self._numbers
            self._numbers += 1
            numbered = {**entry, "number": number}
            if fill is not None:
                try:
                    files = self.folder / str(number)
                    files.mkdir()
                    fill(files)
                except OSError as error:
                    what = entry.get("file") or entry["kind"]
                    log.warning("%s is not logged; it cannot be written into %s: %s", what, self.folder, error)
                    self.lost.append(what)
                    shutil.rmtree(files, ignore_errors=True)
                    numbered = {"kind": "tags", "tags": {"not_logged": ", ".join(self.lost)}, "number": number}
            with self._disk(), (self.folder / _ENTRIES).open("a", encoding="utf-8") as file:
                try:
                    # After a line that was cut off the next is one of its own.
                    file.write("\n" * self._cut_off + json.dumps(numbered) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    self._cut_off = False
                except OSError:
                    self._cut_off = True
                    raise
        with self._changed:
            self._pending.append(numbered)
            self._changed.notify_all()

    def close(self, patience: float) -> int:
        """Waits until everything is delivered, or the store has been away for `patience` seconds of this waiting.

        Returns:
            How many entries are left in the folder.
        """
        begun, told = time.monotonic(), False
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._thread.is_alive():
                waited = time.monotonic() - begun
                if not told and waited > 2:
                    log.info("logging what is left (%d) to %s", len(self._pending), store_address())
                    told = True
                if self._away is not None and time.monotonic() - max(begun, self._away[0]) > patience:
                    self._given_up = True
                    break
                self._changed.wait(0.1)
            return len(self._pending)

    def _deliver(self) -> None:
        client = mlflow.MlflowClient()
        pause = _FIRST_PAUSE
        try:
            while (entry := self._next()) is not None:
                try:
                    write(client, self.run_id, entry, self.folder / str(entry["number"]))
                except Exception as error:
                    if _may_pass(error):
                        self._is_away(error)
                        with self._changed:
                            self._changed.wait_for(lambda: self._given_up, pause)
                        pause = min(2 * pause, _LONGEST_PAUSE)
                        continue
                    self._refuse(client, entry, error)
                else:
                    self._is_back()
                pause = _FIRST_PAUSE
                self._done(entry)
        finally:
            self._lock.release()
            if not self._pending:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _next(self) -> dict[str, Any] | None:
        """The entry to deliver, waited for; None when there will be no more, or enough was tried."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed or self._given_up)
            return None if self._given_up or not self._pending else self._pending[0]

    def _done(self, entry: Mapping[str, Any]) -> None:
        try:
            aside = self.folder / f"{_DELIVERED}.new"
            aside.write_text(str(entry["number"]), encoding="utf-8")
            aside.replace(self.folder / _DELIVERED)
            shutil.rmtree(self.folder / str(entry["number"]), ignore_errors=True)
        except OSError:
            pass  # delivered once more after a crash, which changes nothing
        with self._changed:
            self._pending.popleft()
            self._changed.notify_all()

    def _is_away(self, error: Exception) -> None:
        if self._away is None:
            self._away = time.monotonic(), reason(error)
            log.warning(
                "%s does not take what is logged (%s); it is tried again, and all is kept in %s",
                store_address(),
                self._away[1],
                self.folder,
            )

    def _is_back(self) -> None:
        if self._away is not None:
            log.info("%s is back after %.0f s", store_address(), time.monotonic() - self._away[0])
            self._away = None

    def _refuse(self, client: mlflow.MlflowClient, entry: Mapping[str, Any], error: Exception) -> None:
        told = f"{entry.get('file') or entry['kind']}: {reason(error)}"
        if told not in self.refused:
            log.warning("%s does not take %s", store_address(), told)
        self.refused.append(told)
        try:
            client.set_tag(self.run_id, "not_logged", "; ".join(dict.fromkeys(self.refused))[:5000])
        except Exception:
            pass  # as of a run that was deleted

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._told_of_disk:
                log.warning("what is logged cannot be kept in %s (%s), and has to arrive at once", self.folder, error)
                self._told_of_disk = True


def outboxes(folder: Path) -> list[Path]:
    """Outboxes in a folder and below it that hold something."""
    if folder.name == FOLDER and (folder / _RUN).is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob(f"{FOLDER}/{_RUN}"))


def send(folder: Path, patience: float) -> int:
    """Delivers what is left in an outbox.

    Returns:
        How many entries are still left.

    Raises:
        Timeout: the training that it is of is still going on.
    """
    with briefly():
        return Outbox(folder, run_of(folder)["run_id"]).close(patience)


def send_if_free(folder: Path) -> None:
    """Delivers what an interrupted process left, if no other has it."""
    try:
        if (folder / _RUN).is_file():
            send(folder, patience=0)
    except Timeout:
        pass


def run_of(folder: Path) -> dict[str, str]:
    """`run_id` that an outbox is of, and the address of its `store`."""
    return json.loads((folder / _RUN).read_text(encoding="utf-8"))


def waiting(folder: Path) -> int:
    """How many entries an outbox holds."""
    return len(_left(folder))


def _left(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / _ENTRIES).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the line in whose midst the process ended
    delivered = _delivered(folder)
    return [entry for entry in found if entry["number"] > delivered]


def _delivered(folder: Path) -> int:
    try:
        return int((folder / _DELIVERED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def _end_line(path: Path) -> None:
    """So that what follows a line that was cut off is a line of its own."""
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, mlflow.MlflowException):
        return error.error_code not in _FINAL
    # Files of the entry that are gone do not come back.
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
