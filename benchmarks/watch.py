"""What a process has of memory, files and threads, and how long it logs (on Linux)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil

PAUSE = 0.1  # seconds between two looks at the memory


class Peak:
    """Looks at this process's memory from now on, in a thread of its own.

    What is counted is memory of its own: pages of files that are mapped, as prepared photos are, belong to the system,
    which takes them back when it needs them.
    """

    def __init__(self) -> None:
        self._highest = 0.0
        threading.Thread(target=self._look, name="peak", daemon=True).start()

    def megabytes(self) -> float:
        """The highest so far."""
        self._highest = max(self._highest, own_megabytes())
        return self._highest

    def _look(self) -> None:
        while True:
            self.megabytes()
            time.sleep(PAUSE)


def own_megabytes() -> float:
    """Anonymous memory in use."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1]) / 1024


class Logging:
    """Seconds that training stood still to log, and processor seconds of the thread that delivers what was logged."""

    def __init__(self) -> None:
        from clothseg.tracking.run import TrackedRun

        self._stood = self._delivered = 0.0
        put = TrackedRun._put

        def timed(run: TrackedRun, *arguments: object, **options: object) -> None:
            begun = time.perf_counter()
            put(run, *arguments, **options)  # type: ignore[arg-type]
            self._stood += time.perf_counter() - begun

        TrackedRun._put = timed  # type: ignore[method-assign]

    def seconds(self) -> dict[str, float]:
        """So far."""
        ids = {thread.native_id for thread in threading.enumerate() if thread.name == "outbox"}
        delivering = [one for one in psutil.Process().threads() if one.id in ids]
        # When it has ended its last reading stays.
        self._delivered = max(self._delivered, sum(one.user_time + one.system_time for one in delivering))
        return {"stood still": self._stood, "delivering": self._delivered}


def readings() -> dict[str, float]:
    """Memory, open files and threads."""
    return {
        "MB": own_megabytes(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": psutil.Process().num_threads(),
    }
