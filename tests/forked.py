"""Runs entry points in processes that have TensorFlow and MLflow loaded from the beginning: what takes longest of most.

`python forked.py` reads a job from each line of its standard input, a JSON object of `entry`, `arguments`, `folder`,
`environment`, `stdout` and `stderr` (files), and answers with the job's exit status. With `until`, a path, it is killed
once there is such a file; so it is after `timeout` seconds.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path


def main() -> None:
    """Until there are no more jobs."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}  # as trainings in float32 do
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        if (process := os.fork()) == 0:
            os._exit(run(job))
        ended, status, begun = 0, 0, time.monotonic()
        while not ended:
            time.sleep(0.02)
            ended, status = os.waitpid(process, os.WNOHANG)
            late = time.monotonic() - begun > job["timeout"]
            if not ended and (late or (job["until"] and Path(job["until"]).exists())):
                os.kill(process, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict) -> int:
    """The exit status of one job, in the process that it was forked into."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        # What both have is appended, in the order in which it was written.
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(job["folder"])
    as_loaded = {"TF_ENABLE_ONEDNN_OPTS": os.environ["TF_ENABLE_ONEDNN_OPTS"]}
    os.environ.clear()
    os.environ.update(job["environment"] | as_loaded)
    sys.argv[1:] = job["arguments"]
    sys.path[0] = job["folder"]
    status = 0
    try:
        runpy.run_module(f"clothseg.{job['entry']}", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()
