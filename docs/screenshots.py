"""Makes the pictures of MLflow's pages in `docs/images` from the runs of a store.

    python docs/screenshots.py FOLDER docs/images                       # all of them
    python docs/screenshots.py FOLDER docs/images --only compare figure # some

`FOLDER` is where trainings and a sweep ran, with mlflow.db. Needs Chromium, its driver and `pip install -e ".[test]"`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mlflow_pages import charts, chromium, mlflow_ui, search_charts, shows, unfold, until  # noqa: E402

from clothseg.tracking.store import where_all  # noqa: E402

# Of the pictures, in pixels; letters are still read where one is as wide as a page of text.
SIZES = {"runs": (1400, 800), "charts": (1400, 690), "compare": (960, 800), "figure": (1400, 800), "sweep": (1400, 620)}
CURVES = "^val/(accuracy|clothing_miou|miou)$"
# Buttons that close what takes room beside the runs: MLflow's assistant, and what it says of a shared view.
BESIDE = "Close", "Hide banner"


class Pages:
    """Of a store, each of which is brought to what a reader wants to see of it."""

    def __init__(self, browser: Any, address: str, *, experiment: str) -> None:
        self.browser, self.address, self.experiment = browser, address, experiment
        found = mlflow.MlflowClient().search_runs([experiment], order_by=["attributes.start_time DESC"])
        self.trainings = [run for run in found if "val_native/miou" in run.data.metrics]
        self.trials = [run for run in found if "mlflow.parentRunId" in run.data.tags]

    def open(self, page: str) -> None:
        self.browser.get(f"{self.address}/#/{page}")

    def runs(self) -> None:
        self.browser.get(where_all(self.experiment))
        shows(self.browser, self.trainings[0].info.run_name, "Metrics")

    def sweep(self) -> None:
        self.runs()
        unfold(self.browser, self.trials[0].data.tags["mlflow.parentRunId"])
        shows(self.browser, self.trials[0].info.run_name)

    def charts(self) -> None:
        self.browser.get(f"{where_all(self.experiment)}&compareRunsMode=CHART")
        search_charts(self.browser, CURVES)
        until(self.browser, lambda own: len(charts(own)) == 3)

    def compare(self) -> None:
        runs = json.dumps([run.info.run_id for run in self.trainings[:2]]).replace(" ", "")
        self.open(f"compare-runs?runs={runs}&experiments=[%22{self.experiment}%22]&workflowType=machine_learning")
        shows(self.browser, "Comparing 2 Runs", "Show diff only", "optimizer.learning_rate")
        headers = self.browser.find_elements("css selector", "[role=button][aria-expanded=true]")
        for header in headers:
            if header.text == "Visualizations":
                header.click()
        # With a row before it, which does not differ.
        self.browser.execute_script(
            """
            const row = document.querySelector("tr.diff-row"), table = row.closest("table");
            table.scrollTop = row.offsetTop - 50;
            """
        )

    def figure(self) -> None:
        run = self.trainings[-1].info.run_id
        figures = mlflow.MlflowClient().list_artifacts(run, "figures")
        (path, *_) = [each.path for each in figures if "predictions" in each.path]
        self.open(f"experiments/{self.experiment}/runs/{run}/artifacts/{path}?workflowType=machine_learning")
        shows(self.browser, path)
        drawn = "return [...document.images].some(image => image.naturalWidth > 800)"
        until(self.browser, lambda own: own.execute_script(drawn))

    def tidy(self) -> None:
        """Closes what takes room beside the runs."""
        # The menu stays as it was on the page before.
        menu = ["Toggle sidebar"] if "Model training" in shows(self.browser) else []
        for button in (*BESIDE, *menu):
            for found in self.browser.find_elements("css selector", f"button[aria-label='{button}']"):
                found.click()

    def save(self, name: str, file: Path) -> None:
        """A picture of one of the pages above."""
        width, height = SIZES[name]
        # The window is that much higher than the page in it; it is higher than the picture, or lists are cut short.
        edge = self.browser.execute_script("return outerHeight - innerHeight")
        self.browser.set_window_size(width, max(height, 800) + edge)
        getattr(self, name)()
        self.tidy()
        # Plotly's buttons, which are shown under the mouse, and always in a browser that has none.
        hidden = "document.head.insertAdjacentHTML('beforeend', '<style>.modebar { display: none }</style>')"
        self.browser.execute_script(hidden)
        # Until the page has its new width, and charts are drawn in theirs.
        time.sleep(5)
        picture = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
        picture.crop((0, 0, width, height)).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the pictures of MLflow's pages.")
    parser.add_argument("folder", type=Path, help="where trainings and a sweep ran, with mlflow.db")
    parser.add_argument("output", type=Path, help="folder of the pictures")
    parser.add_argument("--only", nargs="+", choices=SIZES, default=[*SIZES], help="pages (default: all)")
    parser.add_argument("--experiment", default="1", help="id of MLflow's experiment (default: 1)")
    given = parser.parse_args()
    browser = chromium()
    if browser is None:
        parser.error("Chromium or its driver is not installed")
    try:
        with mlflow_ui(given.folder.resolve()) as address:
            mlflow.set_tracking_uri(address)
            shown = Pages(browser, address, experiment=given.experiment)
            # Pages have columns as wide as there was room when they were opened.
            shown.runs()
            shown.tidy()
            for name in given.only:
                shown.save(name, given.output / f"mlflow_{name}.png")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
