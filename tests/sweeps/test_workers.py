"""Worker processes, with jobs that take no time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clothseg.sweeps import workers

REPOSITORY = Path(__file__).parents[2]

APP = """
import os, signal, time
from pathlib import Path

import hydra
from clothseg.sweeps import plugin

plugin.register()


@hydra.main(config_path=None, config_name=None)
def app(cfg):
    with open("done.txt", "a") as file:
        file.write(f"{cfg.n} {os.getpid()}\\n")
    if cfg.get("die") == cfg.n:
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.get("fail") == cfg.n:
        raise ValueError(f"no {cfg.n}")
    try:
        time.sleep(cfg.get("seconds", 0))
    except KeyboardInterrupt:
        Path("interrupted.txt").touch()
        raise


def interrupt(number, frame):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupt)

if __name__ == "__main__":
    app()
"""


def command(folder: Path, *overrides: str) -> dict:
    script = folder / "app.py"
    script.write_text(APP)
    arguments = [sys.executable, str(script), "-m", "hydra/launcher=workers", "hydra.sweep.dir=out", *overrides]
    return {"args": arguments, "cwd": folder, "env": os.environ | {"PYTHONPATH": str(REPOSITORY)}, "text": True}


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(folder, *overrides), capture_output=True, timeout=120, check=False)


def done(folder: Path) -> dict[str, str]:
    """Process by job."""
    path = folder / "done.txt"
    return dict(line.split() for line in path.read_text().splitlines()) if path.exists() else {}


@pytest.mark.parametrize(("count", "most", "processes"), [(1, "auto", 1), (1, 1, 3), (1, 2, 2), (3, 3, 3)])
def test_a_worker_takes_one_job_after_the_other_until_it_is_replaced(tmp_path, count, most, processes):
    options = f"hydra.launcher.n_jobs={count}", f"hydra.launcher.jobs_per_process={most}", "+seconds=0.5"
    finished = run(tmp_path, "+n=1,2,3", *options)
    assert finished.returncode == 0, finished.stderr
    assert sorted(done(tmp_path)) == ["1", "2", "3"]
    assert len(set(done(tmp_path).values())) == processes


def test_a_job_that_fails_is_told_and_the_others_are_done(tmp_path):
    finished = run(tmp_path, "+n=1,2,3", "+fail=2")
    assert finished.returncode != 0 and "no 2" in finished.stderr
    assert sorted(done(tmp_path)) == ["1", "2", "3"]


def test_a_process_that_dies_takes_only_its_own_job_with_it(tmp_path):
    finished = run(tmp_path, "+n=1,2,3", "+die=2")
    assert finished.returncode != 0
    assert "was killed (SIGKILL), as the system does when memory runs out" in finished.stderr
    assert sorted(done(tmp_path)) == ["1", "2", "3"]
    assert done(tmp_path)["1"] == done(tmp_path)["2"] != done(tmp_path)["3"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them_and_let_their_job_end_in_order(tmp_path, how):
    process = subprocess.Popen(**command(tmp_path, "+n=1", "+seconds=60"), stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not done(tmp_path):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    process.send_signal(how)
    process.communicate(timeout=30)
    worker = int(done(tmp_path)["1"])
    until = time.monotonic() + 15
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (tmp_path / "interrupted.txt").exists()


@pytest.mark.parametrize(("option", "told"), [("n_jobs=0", "n_jobs=0"), ("jobs_per_process=0", "jobs_per_process=0")])
def test_wrong_options_are_told(tmp_path, option, told):
    finished = run(tmp_path, "+n=1", f"hydra.launcher.{option}")
    assert finished.returncode != 0 and told in finished.stderr


def test_a_gpu_that_is_hidden_does_not_count(monkeypatch, tmp_path):
    device = tmp_path / "nvidiactl"
    device.touch()
    monkeypatch.setattr(workers, "DEVICES", (str(device),))
    for visible, counts in (("0", True), ("", False), ("-1", False)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert workers.has_gpu() is counts
    monkeypatch.setattr(workers, "DEVICES", (str(tmp_path / "nothing"),))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not workers.has_gpu()
