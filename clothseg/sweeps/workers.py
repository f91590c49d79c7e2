"""Worker processes for the jobs of a sweep.

A worker loads TensorFlow once and trains one trial after the other. When one is killed, as the system does when memory
runs out, its job fails and the others do not notice. Workers end with the sweep that started them, also when it is
killed.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from clothseg.errors import UserError

# A graph with a custom gradient is never forgotten by TensorFlow, which registers the gradient for good. With Keras's
# own layers that is some 200 MB for every training.
JOBS = 10
# What the drivers of NVIDIA and AMD put there.
DEVICES = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/kfd")
SECONDS_TO_END = 30  # for a job that was asked to end: it logs what it has


class WorkerDiedError(Exception):
    """The process of a job is gone, and with it what it did."""


class Workers:
    """A context with a number of processes that take jobs.

    Args:
        hydra_context: of the sweep.
        task_function: what a job does with its configuration.
        config: of the sweep; jobs differ from it by their overrides.
        count: processes side by side.
        jobs_per_process: after how many a process is replaced, or "auto": 1 where there is a GPU, as its memory is
            given back only at a process's end, else `JOBS`.

    Raises:
        UserError: `count` or `jobs_per_process` is not one of these.
    """

    def __init__(
        self,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        *,
        count: int,
        jobs_per_process: int | str,
    ) -> None:
        if count < 1:
            raise UserError(f"hydra.launcher.n_jobs={count}: 1 or more processes are needed")
        if jobs_per_process != "auto" and (not isinstance(jobs_per_process, int) or jobs_per_process < 1):
            raise UserError(f"hydra.launcher.jobs_per_process={jobs_per_process}: it is auto, or 1 or more")
        self.common = hydra_context, task_function, config
        self.count = count
        self.most = (1 if has_gpu() else JOBS) if jobs_per_process == "auto" else int(jobs_per_process)
        self.idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self.workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        for _ in range(self.count):
            self.idle.put(_Worker())
        return self

    def submit(self, overrides: Sequence[str], number: int) -> Future[JobReturn]:
        """Starts a job as soon as a worker is free.

        Returns:
            What becomes of it. Its result is Hydra's account of the job, failed with `WorkerDiedError` where the
            process died.
        """
        result: Future[JobReturn] = Future()
        payload = cloudpickle.dumps((*self.common, list(overrides), number, Singleton.get_state()))
        threading.Thread(target=self._follow, args=(payload, result), daemon=True).start()
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends all workers. After an error running jobs are asked to end, as SIGTERM does, and log what they have."""
        busy = [worker for worker in self.workers if worker.process.is_alive()]
        while not self.idle.empty():
            self.idle.get().close()
        for worker in busy:
            if kind is not None:
                worker.process.terminate()
        for worker in busy:
            worker.process.join(SECONDS_TO_END)
            worker.process.kill()
        self.workers = []

    def _follow(self, payload: bytes, result: Future[JobReturn]) -> None:
        worker = self.idle.get()
        try:
            if worker.process is None:
                worker.start()
                self.workers.append(worker)
            returned = worker.run(payload)
            if worker.jobs >= self.most or not worker.process.is_alive():
                worker.close()
                worker = _Worker()
        except BaseException as error:
            result.set_exception(error)
        else:
            result.set_result(returned)
        finally:
            self.idle.put(worker)


class _Worker:
    """A process and the pipe to it. The process is started for its first job."""

    def __init__(self) -> None:
        self.process: Any = None
        self.jobs = 0

    def start(self) -> None:
        # Spawned: neither TensorFlow nor a GPU survives a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), name="trials")
        self.process.start()
        # Ours alone is left open on this side, so that the death of the process ends what we wait for.
        theirs.close()

    def run(self, payload: bytes) -> JobReturn:
        self.jobs += 1
        try:
            self.connection.send_bytes(payload)
            return cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(SECONDS_TO_END)
            return _died(self.process.exitcode)

    def close(self) -> None:
        if self.process is not None:
            self.connection.close()
            self.process.join(SECONDS_TO_END)


def has_gpu() -> bool:
    """Whether there is a GPU that this process may use, without loading what would use it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(Path(device).exists() for device in DEVICES)


def _died(exit_code: int | None) -> JobReturn:
    if exit_code == 0:
        how = "was asked to end"
    elif exit_code == -signal.SIGKILL:
        how = "was killed (SIGKILL), as the system does when memory runs out"
    elif exit_code is not None and exit_code < 0:
        how = f"was ended by {signal.Signals(-exit_code).name}"
    else:
        how = f"ended with status {exit_code}"
    return _failed(WorkerDiedError(f"its process {how}"))


def _failed(error: Exception) -> JobReturn:
    returned = JobReturn(status=JobStatus.FAILED)
    returned.return_value = error
    return returned


def _serve(connection: Connection) -> None:
    """What a worker does: one job after the other, until the pipe is closed."""
    # Ctrl-C reaches every process of a terminal; this one is ended by its parent, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    while True:
        try:
            payload = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            answer = _job(payload)
        except KeyboardInterrupt:
            # It was asked to end, and its job has seen to its own.
            return
        except Exception as error:
            answer = cloudpickle.dumps(_failed(error))
        connection.send_bytes(answer)


def _job(payload: bytes) -> bytes:
    """Runs one job in a worker, as Hydra's own launchers do."""
    hydra_context, task_function, config, overrides, number, state = cloudpickle.loads(payload)
    setup_globals()
    Singleton.set_state(state)
    job_config = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = f"{job_config.hydra.job.name}_{number}"
        job_config.hydra.job.num = number
    HydraConfig.instance().set_config(job_config)
    returned: Any = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return cloudpickle.dumps(returned)


def _follow_parent() -> None:
    """Ends this process after the one that started it, which may have been killed without a word to us."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os._exit(1)
