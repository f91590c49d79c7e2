"""Runs entry points in processes that have TensorFlow and MLflow loaded from the beginning: what takes longest of most.

`python forked.py` reads a job from each line of its standard input, a JSON object of `entry`, `arguments`, `folder`,
`environment` and `output` (a file), and answers with the job's exit status. With `until`, a path, it is killed once
there is such a file.
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
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        if (process := os.fork()) == 0:
            os._exit(run(job))
        ended, status = 0, 0
        while not ended:
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and job["until"] and Path(job["until"]).exists():
                os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict) -> int:
    """The exit status of one job, in the process that it was forked into."""
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv[1:] = job["arguments"]
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
