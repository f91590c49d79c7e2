"""Fixtures that every part of the tests may use. Nothing here imports TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Real photos and weights lie in a folder `shared` beside the checkout, where there is one.
SHARED = Path(os.environ.get("CLOTHSEG_SHARED", REPOSITORY.parent / "shared"))


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


class CommandLine:
    """The entry points as a user starts them: in a folder, in a process of their own."""

    def environment(self, folder: Path, **changes: str) -> dict[str, str]:
        """Without what the developer's shell says of data, tracking and devices; prepared arrays stay in `folder`."""
        prefixes = ("CLOTHSEG_", "MLFLOW_", "KERAS_", "HYDRA_", "TF_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "CLOTHSEG_CACHE": str(folder / "cache"),
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        return inherited | own | changes

    def command(self, entry: str, *overrides: str) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", f"clothseg.{entry}", *overrides]

    def __call__(
        self, entry: str, *overrides: str, folder: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(entry, *overrides),
            cwd=folder,
            env=self.environment(folder, **environment),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="session")
def clothseg() -> CommandLine:
    """Runs an entry point: `clothseg("train", "seed=1", folder=tmp_path)`."""
    return CommandLine()


# Padded photos, a decoder that ends at a coarser stride, a photo size of its own.
SMALL_RUN = (
    "experiment=article", "dataset=paperdoll", "dataset.count=30", "dataset.image_size=[60,40]", "image_size=[64,64]",
    "prepare.resize=pad", "batch_size=8", "backbone=mobilenetv2", "backbone.weights=null", "augmentation=none",
    "decoder=fpn", "optimizer=adam", "schedule=one_phase", "schedule.phases.training.epochs=1",
    "evaluation.native=false", "precision=float32",
)  # fmt: skip


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, clothseg) -> Path:
    """A folder with an MLflow store, in which a small network was trained once."""
    folder = tmp_path_factory.mktemp("small_run")
    done = clothseg("train", *SMALL_RUN, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder
