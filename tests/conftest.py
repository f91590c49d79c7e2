"""Fixtures that every part of the tests may use. Nothing here imports TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow_pages import chromium
from small_backbone import SMALL_BACKBONE

REPOSITORY = Path(__file__).resolve().parents[1]

# Real photos and weights lie in a folder `shared` beside the checkout, where there is one.
SHARED = Path(os.environ.get("CLOTHSEG_SHARED", REPOSITORY.parent / "shared"))


# Of jobs that nobody here has MLflow's servers start half a dozen processes, each of which loads all of MLflow.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

# Files whose tests share a training, by its fixture.
SHARED_TRAININGS = {
    "tests/test_compare.py": "three_runs", "tests/test_register.py": "three_runs",
    "tests/test_report.py": "three_runs", "tests/tracking/test_ui.py": "three_runs",
    "tests/test_predict.py": "small_run", "tests/test_export.py": "small_run",
    "tests/deployment/test_serving.py": "small_run",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start a process of their own come first: they take longest."""
    items.sort(key=lambda item: "clothseg" not in item.fixturenames)
    if not os.environ.get("CLOTHSEG_LONG"):
        # What they show is mostly shown by others in less time.
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(pytest.mark.skip(reason="takes long; CLOTHSEG_LONG=1 runs it"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file in one process, and so files that share a training."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return SHARED_TRAININGS.get(file, file)

    return Scheduling(config, log)


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} beside the checkout")
    return path


@pytest.fixture(scope="session")
def ccp_root() -> Path:
    """The real Clothing Co-Parsing data set."""
    return _shared("data", "ccp")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Real ImageNet weights."""
    return _shared("weights")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty MLflow store in the working folder of the test; gives its client."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[Callable[[], str]]:
    """Makes an empty database on a PostgreSQL server, for the time of the tests; its SQLAlchemy address has a password.

    MLflow and Optuna need one each: their tables of versions have the same name.
    """
    server = os.environ.get("CLOTHSEG_TEST_POSTGRES")
    if not server:
        pytest.skip("needs a PostgreSQL server's address in CLOTHSEG_TEST_POSTGRES, as under .ci/postgres")
    import sqlalchemy

    # Databases cannot be made in a transaction.
    engine = sqlalchemy.create_engine(server, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    names: list[str] = []

    def run(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))

    def new() -> str:
        names.append(f"clothseg_{uuid.uuid4().hex}")
        run(f"CREATE DATABASE {names[-1]}")
        return sqlalchemy.make_url(server).set(database=names[-1]).render_as_string(hide_password=False)

    yield new
    for name in names:
        # MLflow and Optuna keep connections open, which go too.
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Harm:
    """Leaves a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


class CommandLine:
    """The entry points as a user starts them: in a folder, in a process of their own.

    Those that are waited for are forked from one that has TensorFlow loaded, unless what they are given says what
    Python or TensorFlow load.
    """

    def __init__(self) -> None:
        self._loaded: subprocess.Popen[str] | None = None

    def environment(self, folder: Path, **changes: str) -> dict[str, str]:
        """Without what the developer's shell says of data, tracking and devices; prepared arrays stay in `folder`."""
        prefixes = ("CLOTHSEG_", "MLFLOW_", "KERAS_", "HYDRA_", "TF_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
        own = {
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
            "CLOTHSEG_TARGETS": "small_backbone.*",
            "CLOTHSEG_CACHE": str(folder / "cache"),
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        return inherited | own | changes

    def command(self, entry: str, *overrides: str) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", f"clothseg.{entry}", *overrides]

    def __call__(
        self, entry: str, *overrides: str, folder: Path, until: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """With `until` the process is killed once there is such a file."""
        command = self.command(entry, *overrides)
        given = self.environment(folder, **environment)
        apart = any(name.startswith(("PYTHON", "KERAS_", "TF_")) for name in environment)
        if until is None and (apart or any(option.startswith("precision=mixed") for option in overrides)):
            return subprocess.run(
                command, cwd=folder, env=given, capture_output=True, text=True, timeout=600, check=False
            )
        if self._loaded is None:
            self._loaded = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "tests" / "forked.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=given, text=True,
            )  # fmt: skip
        assert self._loaded.stdin is not None and self._loaded.stdout is not None
        with tempfile.TemporaryDirectory() as printed:
            told = [Path(printed, name) for name in ("stdout", "stderr")]
            job = {
                "entry": entry, "arguments": overrides, "folder": str(folder), "environment": given, "timeout": 600,
                "stdout": str(told[0]), "stderr": str(told[1]), "until": None if until is None else str(until),
            }  # fmt: skip
            print(json.dumps(job), file=self._loaded.stdin, flush=True)
            status = int(self._loaded.stdout.readline())
            return subprocess.CompletedProcess(command, status, *[file.read_text(encoding="utf-8") for file in told])

    def end(self) -> None:
        """Ends the process that the others are forked from."""
        if self._loaded is not None:
            self._loaded.communicate(timeout=60)

    def start(self, entry: str, *overrides: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
        """In a session of its own, all that it prints in `stdout`. Ctrl-C works whatever the tests were started by."""
        return subprocess.Popen(
            self.command(entry, *overrides),
            cwd=folder,
            env=self.environment(folder, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell makes what it starts in the background ignore it, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture(scope="session")
def clothseg() -> Iterator[CommandLine]:
    """Runs an entry point: `clothseg("train", "seed=1", folder=tmp_path)`."""
    made = CommandLine()
    yield made
    made.end()


# Padded photos, a decoder that ends at a coarser stride, a photo size of its own.
SMALL_RUN = (
    "experiment=article", "dataset=paperdoll", "dataset.count=30", "dataset.image_size=[60,40]", "image_size=[64,64]",
    "prepare.resize=pad", "batch_size=8", "backbone=mobilenetv2", "backbone.weights=null", "augmentation=none",
    "decoder=fpn", "optimizer=adam", "schedule=one_phase", "schedule.phases.training.epochs=1",
    "schedule.phases.training.encoder=frozen", "evaluation.native=false", "precision=float32", "tracking.figures=false",
)  # fmt: skip


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, clothseg) -> Path:
    """A folder with an MLflow store, in which a small network was trained once."""
    folder = tmp_path_factory.mktemp("small_run")
    done = clothseg("train", *SMALL_RUN, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


# One configuration with two seeds whose learning rate lets it learn nothing, and another that learns, at another size,
# precision and number of threads: what a process gets that works on both.
THREE_RUNS = (
    "experiment=article", "dataset=paperdoll", "dataset.count=60", "dataset.image_size=[48,40]", "batch_size=8",
    *SMALL_BACKBONE, "augmentation=none", "decoder=fpn", "optimizer=adam", "schedule=one_phase",
    "schedule.phases.training.steps_per_epoch=null", "best_metric=val/accuracy",
)  # fmt: skip
SHORT = (
    "image_size=[32,32]", "optimizer.learning_rate=1e-6", "schedule.phases.training.epochs=1", "precision=float32",
    "threads=2",
)  # fmt: skip
LONG = ("image_size=[64,32]", "schedule.phases.training.epochs=2", "precision=mixed_bfloat16", "threads=1")


@dataclass(frozen=True)
class Runs:
    """Trainings in one store.

    Attributes:
        folder: with the store.
        runs: as MLflow had them when they had ended, by name.
        told: what each printed.
    """

    folder: Path
    runs: dict[str, Any]
    told: dict[str, str]

    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def id(self, name: str) -> str:
        return self.runs[name].info.run_id

    def artifacts(self, name: str) -> Path:
        return self.artifacts_of(self.runs[name])

    def artifacts_of(self, run: Any) -> Path:
        return self.folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory, clothseg) -> Runs:
    """Trainings "short", "long" and "short_again" (with another seed), the first two registered as "dress"."""
    folder = tmp_path_factory.mktemp("three_runs")
    made = Runs(folder, {}, {})
    for name, options in (
        ("short", [*SHORT, "register=dress"]),
        ("long", [*LONG, "register=dress"]),
        ("short_again", [*SHORT, "seed=1", "tracking.figures=false"]),
    ):
        done = clothseg("train", *THREE_RUNS, *options, f"tracking.run_name={name}", folder=folder)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        made.told[name] = done.stdout
    found = made.client().search_runs(["1"], "tags.preset LIKE '%'")
    made.runs.update({run.info.run_name: run for run in found})
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    opened = chromium()
    if opened is None:
        pytest.skip("needs Chromium and its driver; on Debian apt-get install chromium chromium-driver")
    yield opened
    opened.quit()
