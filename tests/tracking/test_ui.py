"""What people see who open `mlflow ui`: runs with their scores, two of them side by side, figures, nested trials."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import mlflow
import pytest

from clothseg.tracking.store import SHOWN_METRICS, where_all


@pytest.fixture(scope="module")
def address(three_runs) -> Iterator[str]:
    """Of MLflow's UI, with the three runs, the third in two nested trials as well."""
    client = three_runs.client()
    before = mlflow.get_tracking_uri()
    parent = client.create_run("1", run_name="study", tags={"mlflow.note.content": "two trials"})
    for number in range(2):
        tags = {"mlflow.parentRunId": parent.info.run_id}
        trial = client.create_run("1", run_name=f"trial {number:02d}", tags=tags)
        client.set_terminated(trial.info.run_id)
    client.set_terminated(parent.info.run_id)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    store = f"sqlite:///{three_runs.folder / 'mlflow.db'}"
    server = subprocess.Popen(
        [*command, "--backend-store-uri", store], cwd=three_runs.folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    found = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None
            try:
                urllib.request.urlopen(found, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        mlflow.set_tracking_uri(found)
        yield found
    finally:
        mlflow.set_tracking_uri(before)
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        for run in client.search_runs(["1"], "tags.mlflow.parentRunId LIKE '%'"):
            client.delete_run(run.info.run_id)
        client.delete_run(parent.info.run_id)


def shows(browser, *texts: str) -> str:
    """Waits until the page shows all of the texts; gives all that it shows."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    def seen(own) -> str | bool:
        try:
            text = own.find_element("tag name", "body").text
        except StaleElementReferenceException:
            return False
        return text if all(each in text for each in texts) else False

    return WebDriverWait(browser, 60).until(seen, f"{texts} on {browser.current_url}")


def test_the_list_of_runs_has_their_scores(browser, three_runs, address):
    browser.set_window_size(1700, 1000)
    browser.get(where_all("1"))
    text = shows(browser, "long", "short", "Metrics", "Parameters", "Sort: Created")
    headers = [
        each.get_attribute("col-id") or "" for each in browser.find_elements("css selector", "[role=columnheader]")
    ]
    assert [name for name in SHOWN_METRICS[:2] if any(name in header for header in headers)] == list(SHOWN_METRICS[:2])
    # MLflow shows eight digits of a score.
    assert f"{three_runs.runs['long'].data.metrics['val_native/accuracy']:.10f}"[:6] in text


def test_two_runs_side_by_side_have_charts_and_what_differs(browser, three_runs, address):
    runs = json.dumps([three_runs.id("short"), three_runs.id("long")]).replace(" ", "")
    browser.get(f"{address}/#/compare-runs?runs={runs}&experiments=[%221%22]&workflowType=machine_learning")
    text = shows(browser, "Comparing 2 Runs", "Parallel Coordinates Plot", "Show diff only", "image_size", "[64, 32]")
    assert "short" in text and "long" in text
    assert browser.find_elements("css selector", ".js-plotly-plot svg.main-svg")
    changed = {row.text.split()[0] for row in browser.find_elements("css selector", "tr.diff-row") if row.text}
    assert {"image_size", "optimizer.learning_rate"} <= changed and "batch_size" not in changed


def test_figures_are_shown_among_the_artifacts(browser, three_runs, address):
    run = three_runs.id("long")
    browser.get(f"{address}/#/experiments/1/runs/{run}/artifacts/figures/curves.png?workflowType=machine_learning")
    shows(browser, "figures/curves.png", "confusion.png", "predictions_1_training.png")
    from selenium.webdriver.support.ui import WebDriverWait

    drawn = "return [...document.images].some(image => image.naturalWidth > 800)"
    assert WebDriverWait(browser, 30).until(lambda own: own.execute_script(drawn))


def test_trials_are_nested_in_their_study(browser, address):
    browser.get(where_all("1"))
    shows(browser, "study")
    assert "trial 00" not in browser.find_element("tag name", "body").text
    from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    def opened(own) -> bool:
        # The list is drawn anew as columns arrive.
        rows = [each for each in own.find_elements("css selector", "[role=row]") if "study" in each.text.splitlines()]
        for row in rows:
            row.find_element("css selector", "button").click()
        return bool(rows)

    ignored = [StaleElementReferenceException, WebDriverException]
    WebDriverWait(browser, 60, ignored_exceptions=ignored).until(opened)
    shows(browser, "trial 00", "trial 01")
