"""One MLflow server for several trainings: on PostgreSQL, with users and artifacts of its own, and away for a while."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from small_backbone import SMALL_BACKBONE
from werkzeug.security import generate_password_hash

from clothseg.errors import UserError
from clothseg.tracking.store import open_store

DOCS = Path(__file__).resolve().parents[1] / "docs"
PASSWORD = "correct-horse-7"
TOKEN = "battery-staple-11"
# Users by name and password, and as a proxy lets them through, by a token.
AUTHENTICATION = f"""
from flask import request
from mlflow.server.auth import authenticate_request_basic_auth
from werkzeug.datastructures import Authorization


def authenticate():
    if request.headers.get("Authorization") == "Bearer {TOKEN}":
        return Authorization("basic", {{"username": "keeper", "password": "{PASSWORD}"}})
    return authenticate_request_basic_auth()
"""
TRAINING = (
    "experiment=article", "dataset=paperdoll", "dataset.count=12", "image_size=[32,32]", "batch_size=4",
    *SMALL_BACKBONE, "augmentation.copies=[brightness]", "precision=float32", "schedule=one_phase",
    "evaluation.boundary=false",
    "schedule.phases.training.steps_per_epoch=2",
)  # fmt: skip


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with something else for what must be in it."""
    for old, new in pairs:
        assert old in text, text
        text = text.replace(old, new)
    return text


class Server:
    """`mlflow server` with users, which keeps the artifacts itself."""

    def __init__(self, folder: Path, store: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder, self.store = f"http://127.0.0.1:{self.port}", folder, store
        self.process: subprocess.Popen[bytes] | None = None
        # Both as the page has them, but for what is of this place and for tokens.
        page = (DOCS / "server.md").read_text(encoding="utf-8").replace("\\\n", " ")
        users = re.search(r"^    \[mlflow\]\n(?:    .*\n)+", page, re.MULTILINE)[0].replace("    ", "")
        (folder / "users.ini").write_text(
            replaced(
                users,
                ("/srv/mlflow", str(folder)),
                ("CHANGE-ME-12-LETTERS", PASSWORD),
                ("mlflow.server.auth:authenticate_request_basic_auth", "by_token:authenticate"),
            )
        )
        (folder / "by_token.py").write_text(AUTHENTICATION)
        told = replaced(
            re.search(r"^    mlflow server .*", page, re.MULTILINE)[0],
            ("0.0.0.0", "127.0.0.1"),
            ("localhost:5000", "127.0.0.1:5000"),
            ("5000", str(self.port)),
            ("postgresql://mlflow:PASSWORD@localhost/mlflow", store),
            ("/srv/mlflow", str(folder)),
        )
        self.command = [sys.executable, "-m", *shlex.split(told), "--workers", "1"]

    def start(self) -> None:
        own = {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "users.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test",
            "PYTHONPATH": str(self.folder),
        }  # fmt: skip
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=os.environ | own, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        for _ in range(240):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("the server does not start")
        # MLflow's own way of keeping passwords takes a quarter of a second of the server at every request.
        with contextlib.closing(sqlite3.connect(self.folder / "users.db")) as users, users:
            quick = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1")
            assert users.execute("UPDATE users SET password_hash = ?", [quick]).rowcount == 1

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=30)
            self.process = None

    def variables(self) -> dict[str, str]:
        """What a training is told of it."""
        return {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": "keeper",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory, request) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    if "CLOTHSEG_TEST_POSTGRES" in os.environ:
        store = request.getfixturevalue("new_postgres")()
    else:
        store = f"sqlite:///{folder / 'mlflow.db'}"
    made = Server(folder, store)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def trainings(server, clothseg, tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """Two at the same time, during which the server is away: `short` ends meanwhile, `long` does not."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("short", "long")}
    options = {"short": (2, 0), "long": (40, 60)}
    running = {
        name: clothseg.start(
            "train",
            *TRAINING,
            f"schedule.phases.training.epochs={epochs}",
            f"tracking.patience={patience}",
            f"tracking.run_name={name}",
            folder=folders[name],
            **server.variables(),
        )
        for name, (epochs, patience) in options.items()
    }
    printed = {name: [] for name in running}
    for name, process in running.items():
        for line in process.stdout:
            printed[name].append(line)
            if line.startswith("phase training"):
                break
    server.stop()
    try:
        rest, errors = running["short"].communicate(timeout=180)
        assert running["short"].returncode == 0, errors
        printed["short"].append(rest)
        # Between an epoch at which it is away and the end.
        for line in running["long"].stdout:
            printed["long"].append(line)
            if "does not take what is logged" in "".join(printed["long"]) and line.startswith("training "):
                break
    finally:
        server.start()
    rest, errors = running["long"].communicate(timeout=180)
    assert running["long"].returncode == 0, errors
    printed["long"].append(rest)
    return {name: (folders[name], "".join(lines)) for name, lines in printed.items()}


@pytest.fixture
def client(server, monkeypatch) -> Iterator[mlflow.MlflowClient]:
    # Before the variables are set, of which it would be this server, and the tests after it would wait for that.
    before = mlflow.get_tracking_uri()
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(server.address)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def run_named(client: mlflow.MlflowClient, name: str):
    experiment = client.get_experiment_by_name("clothseg").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    return run


def files(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    found = set()
    for item in client.list_artifacts(run_id, folder):
        found |= files(client, run_id, item.path) if item.is_dir else {item.path}
    return found


def scores(client: mlflow.MlflowClient, run) -> dict[str, list[tuple[int, float]]]:
    """What was logged for every epoch, and at the end; not of the machine or of its time."""
    names = [name for name in run.data.metrics if name.startswith(("train/", "val/", "val_", "learning_rate"))]
    return {name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)] for name in names}


@pytest.fixture(scope="module")
def undisturbed(server, clothseg, tmp_path_factory) -> None:
    """A run of that name as `short` is, with the server there."""
    options = (*TRAINING, "schedule.phases.training.epochs=2", "tracking.run_name=undisturbed")
    done = clothseg("train", *options, folder=tmp_path_factory.mktemp("undisturbed"), **server.variables())
    assert done.returncode == 0, done.stderr


def assert_whole(client: mlflow.MlflowClient, name: str, *, epochs: int) -> None:
    """A run lacks nothing of what a training logs, nor of what an undisturbed one did."""
    run, other = run_named(client, name), run_named(client, "undisturbed")
    assert run.info.status == "FINISHED" and "not_logged" not in run.data.tags
    assert set(run.data.metrics) == set(other.data.metrics) and set(run.data.params) == set(other.data.params)
    assert files(client, run.info.run_id) == files(client, other.info.run_id)
    found, known = scores(client, run), scores(client, other)
    assert len(known) > 20
    for metric, values in known.items():
        if epochs == 2:
            assert found[metric] == values, metric
        elif len(values) == 2:
            assert [step for step, _ in found[metric]] == list(range(1, epochs + 1)), metric
    for metric in ("train/loss", "val/accuracy", "val/miou", "learning_rate"):
        assert [one.step for one in client.get_metric_history(run.info.run_id, metric)] == list(range(1, epochs + 1))
    assert {"val_native/accuracy", "val_best/epoch", "duration_seconds"} <= set(run.data.metrics)
    assert run.data.params["tracking.run_name" if "tracking.run_name" in run.data.params else "batch_size"]
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"paperdoll"}
    found = files(client, run.info.run_id)
    assert {"config/config.yaml", "data/split.json", "figures/curves.png", "tables/val_native_classes.csv"} <= found
    assert {"weights/best.weights.h5", "weights/last.weights.h5"} <= found
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status == "READY" and model.name == "model"


def test_a_training_goes_on_while_the_server_is_away_and_nothing_is_missing_afterwards(trainings, undisturbed, client):
    folder, printed = trainings["long"]
    assert "does not take what is logged" in printed and "is back after" in printed
    assert_whole(client, "long", epochs=40)
    assert not list(folder.rglob("outbox"))


def test_what_a_server_did_not_take_in_time_one_command_delivers(trainings, undisturbed, client, clothseg, server):
    folder, printed = trainings["short"]
    assert "is still away" in printed and "python -m clothseg.deliver" in printed
    assert run_named(client, "short").info.status == "RUNNING"
    elsewhere = clothseg("deliver", folder=folder)
    assert elsewhere.returncode == 2 and f"MLFLOW_TRACKING_URI={server.address} delivers it" in elsewhere.stderr
    done = clothseg("deliver", folder=folder, **server.variables())
    assert done.returncode == 0, done.stderr
    assert "delivered from" in done.stdout
    assert_whole(client, "short", epochs=2)
    again = clothseg("deliver", folder=folder, **server.variables())
    assert again.returncode == 0 and "nothing is left to deliver" in again.stdout


def test_no_password_is_in_what_trainings_leave(trainings, client, server):
    secrets = [PASSWORD.encode(), b"keeper:"]
    if "CLOTHSEG_TEST_POSTGRES" in os.environ:
        from sqlalchemy import make_url

        secrets.append(make_url(server.store).password.encode())
    assert_nowhere(secrets, [server.folder / "artifacts", *(folder for folder, _ in trainings.values())])
    for name, (_, printed) in trainings.items():
        run = run_named(client, name)
        assert PASSWORD not in printed + str(run.to_dictionary())


def assert_nowhere(secrets: list[bytes], places: list[Path]) -> None:
    """No file in folders has any of them."""
    kept = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(kept) > 40
    for path in kept:
        assert not any(secret in path.read_bytes() for secret in secrets), path


def test_a_token_lets_a_training_in_and_is_in_nothing_that_it_leaves(server, undisturbed, client, clothseg, tmp_path):
    given = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_TRACKING_TOKEN": TOKEN}
    options = (*TRAINING, "schedule.phases.training.epochs=1", "tracking.run_name=token")
    done = clothseg("train", *options, folder=tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert_whole(client, "token", epochs=1)
    assert_nowhere([TOKEN.encode()], [server.folder / "artifacts", tmp_path])
    assert TOKEN not in done.stdout + done.stderr + str(run_named(client, "token").to_dictionary())
    refused = clothseg("train", *options, folder=tmp_path, **(given | {"MLFLOW_TRACKING_TOKEN": "of-somebody-else"}))
    (line,) = refused.stderr.splitlines()
    assert refused.returncode == 2 and line.startswith("clothseg: cannot track in") and "of-somebody-else" not in line


@pytest.mark.parametrize(("page", "databases"), [("server.md", 1), ("sweeps.md", 2)])
def test_the_databases_of_a_page_belong_to_the_role_of_its_addresses(page, databases):
    if "CLOTHSEG_TEST_POSTGRES" not in os.environ:
        pytest.skip("needs a PostgreSQL server's address in CLOTHSEG_TEST_POSTGRES, as under .ci/postgres")
    import sqlalchemy

    server = sqlalchemy.make_url(os.environ["CLOTHSEG_TEST_POSTGRES"])
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    (role,) = re.findall(r"CREATE ROLE (\w+)", text)
    made = re.findall(r"CREATE DATABASE (\w+)", text)
    addresses = dict.fromkeys(re.findall(r"postgresql://\w\S+", text))
    assert len(made) == databases
    urls = map(sqlalchemy.make_url, addresses)
    assert {(url.username, url.database) for url in urls} == {(role, name) for name in made}
    # Under names of its own, as roles are of the whole server.
    own = {name: f"{name}_{uuid.uuid4().hex}" for name in {role, *made}}
    command = re.search(r"^    (psql .*)", text, re.MULTILINE)[1]
    command = re.sub(r"(?<=ROLE |BASE |WNER )\w+", lambda found: own[found[0]], command)
    variables = {
        "PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": server.username, "PGPASSWORD": server.password,
    }  # fmt: skip
    subprocess.run(shlex.split(command), env=os.environ | variables, check=True, capture_output=True)
    try:
        for name in made:
            address = server.set(username=own[role], password="PASSWORD", database=own[name])
            engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE runs (id integer)"))
    finally:
        drop = [argument for name in made for argument in ("-c", f"DROP DATABASE {own[name]}")]
        drop += ["-c", f"DROP ROLE {own[role]}"]
        subprocess.run(["psql", "postgres", *drop], env=os.environ | variables, check=True, capture_output=True)


@pytest.mark.parametrize(("host", "status"), [("tracking", 200), ("elsewhere", 403)])
def test_a_server_answers_to_the_names_that_it_was_told(server, host, status):
    request = urllib.request.Request(f"{server.address}/api/2.0/mlflow/experiments/search?max_results=1")
    request.add_header("Host", f"{host}:{server.port}")
    request.add_header("Authorization", "Basic " + b64encode(f"keeper:{PASSWORD}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            told = answer.status
    except urllib.error.HTTPError as error:
        told = error.code
    assert told == status


def test_a_name_that_the_server_was_not_told_is_refused_with_what_helps(server, client):
    # Given, the list takes the place of MLflow's own, so not even this machine's name is in it.
    other = f"localhost:{server.port}"
    mlflow.set_tracking_uri(f"http://{other}")
    with pytest.raises(UserError, match=f"Invalid Host .*; .* start it with --allowed-hosts {other}$"):
        open_store()


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "MLFLOW_TRACKING_PASSWORD"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_a_server_that_is_away_or_locked_is_told_before_anything_is_loaded(
    server, clothseg, tmp_path, changes, hint, client
):
    begun = time.monotonic()
    done = clothseg("train", *TRAINING, folder=tmp_path, **(server.variables() | changes))
    assert time.monotonic() - begun < 60
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("clothseg: cannot track in http://127.0.0.1:") and hint in line
    assert "loading Keras" not in done.stdout and "wrong" not in line


@pytest.mark.parametrize("command", [("train", "resume=last"), ("evaluate", "run=last"), ("results", "run=abc")])
def test_other_commands_say_so_too(clothseg, tmp_path, command):
    changes = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    done = clothseg(*command, folder=tmp_path, **changes)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("clothseg: ") and "Connection refused" in line
