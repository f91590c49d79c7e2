"""`mlflow models serve` answers requests with what training logged."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
from conftest import REPOSITORY
from PIL import Image


@pytest.fixture(scope="module")
def server(clothseg, small_run):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{small_run / 'mlflow.db'}")
    (model,) = client.search_logged_models([client.get_experiment_by_name("clothseg").experiment_id])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model.artifact_location]
    process = subprocess.Popen(
        [*command, "--env-manager", "local", "--port", str(port), "--workers", "1"],
        cwd=small_run,
        env=clothseg.environment(small_run, PYTHONPATH=""),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, process.stdout.read()
            try:
                if requests.get(f"{address}/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield f"{address}/invocations"
    finally:
        process.terminate()
        process.wait(30)


def test_a_photo_in_base64_gets_a_label_map_and_areas(server):
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, format="JPEG")
    body = {"dataframe_records": [{"photo": base64.b64encode(file.getvalue()).decode()}]}
    done = requests.post(server, json=body, timeout=60)
    assert done.status_code == 200, done.text
    (answer,) = done.json()["predictions"]
    with Image.open(io.BytesIO(base64.b64decode(answer["label_map"]))) as labels:
        assert labels.size == (30, 40) and labels.mode == "P"
    assert sum(found["share"] for found in answer["classes"]) == pytest.approx(1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_lines_of_the_page_are_answered(server, tmp_path):
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    (asked,), (sent,) = (re.findall(f"^    ({program} .*)$", page, re.MULTILINE) for program in ("python -c", "curl"))
    asked = asked.replace("python", sys.executable, 1)
    sent = re.sub(r"http://127\.0\.0\.1:\d+/invocations", server, sent)
    Image.new("RGB", (30, 40), "white").save(tmp_path / "photo.jpg")
    done = subprocess.run(f"{asked} && {sent}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)["predictions"]
    assert (answer["height"], answer["width"]) == (40, 30)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"dataframe_records": [{"photo": base64.b64encode(b"no photo").decode()}]}, "no picture file"),
        ({"dataframe_records": [{"photo": "QQ=="}] * 300}, "300 photos of 300 bytes; up to 256"),
        ({"dataframe_records": [{"picture": "QQ=="}]}, "missing inputs ['photo']"),
        ({"dataframe_records": [{"photo": 5}]}, "not compatible with model signature"),
        ({"photo": "QQ=="}, "exactly one of the input fields"),
    ],
)
def test_bad_input_gets_a_400_with_the_reason(server, body, told):
    done = requests.post(server, json=body, timeout=60)
    assert done.status_code == 400 and told in done.json()["message"]
