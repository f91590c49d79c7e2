"""`mlflow ui` and its pages in headless Chromium, for tests and for the pictures of `docs/screenshots.py`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Seconds that a page has; there are machines with much else to do.
PATIENCE = 180
# What a page that is drawn anew has for a moment.
PASSING = (
    "NoSuchElementException",
    "StaleElementReferenceException",
    "ElementNotInteractableException",
    "ElementClickInterceptedException",
)


def chromium() -> Any:
    """Headless Chromium; None where it, or its driver, is not installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Without the sandbox, which cannot be had as root; the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With the driver named, selenium looks for none to download.
    return webdriver.Chrome(options=options, service=Service(driver))


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """The address of `mlflow ui` in a folder with a store, while it runs.

    Raises:
        RuntimeError: it ends by itself, or does not answer within two minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "ui", "--port", address.rpartition(":")[2], "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError(f"mlflow ui ended with {server.returncode} in {folder}") from None
                time.sleep(0.5)
        else:
            raise RuntimeError(f"mlflow ui does not answer at {address}")
        yield address
    finally:
        # With the processes that it started; it only reads, and takes its time to end otherwise.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


def until(browser: Any, condition: Callable[[Any], Any], message: str = "") -> Any:
    """What the condition gives of the browser, once that is something; the page may be drawn anew meanwhile."""
    from selenium.common import exceptions
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = [getattr(exceptions, name) for name in PASSING]
    return WebDriverWait(browser, PATIENCE, ignored_exceptions=ignored).until(condition, message)


def shows(browser: Any, *texts: str) -> str:
    """Waits until the page shows all of the texts; gives all that it shows."""

    def seen(own: Any) -> str | bool:
        text = own.find_element("tag name", "body").text
        return text if all(each in text for each in texts) else False

    return until(browser, seen, f"{texts} on {browser.current_url}")


def columns(browser: Any) -> list[str]:
    """Names of the columns of the list of runs that are in the window."""
    found = browser.find_elements("css selector", "[role=columnheader]")
    return [each.get_attribute("col-id") or "" for each in found]


def cells(browser: Any, run_id: str) -> dict[str, str]:
    """What the list of runs says of a run, by column; empty while it has no such row."""
    found = browser.find_elements("css selector", f"[row-id='{run_id}'] [role=gridcell]")
    return {each.get_attribute("col-id") or "": each.text for each in found}


def unfold(browser: Any, run_id: str) -> None:
    """Opens a run of the list that has others nested in it."""
    until(browser, lambda own: own.find_element("css selector", f"[row-id='{run_id}'] button")).click()


def search_charts(browser: Any, pattern: str) -> None:
    """On the page of charts, leaves those of the metrics whose names match."""
    field = "input[placeholder='Search metric charts']"
    until(browser, lambda own: own.find_element("css selector", field)).send_keys(pattern)


def charts(browser: Any) -> dict[str, dict[str, int]]:
    """Number of points of every curve, by run, of every chart that is drawn, by its title."""
    return browser.execute_script(
        """
        const found = {};
        for (const plot of document.querySelectorAll(".js-plotly-plot")) {
            let card = plot;
            while (card && !card.querySelector("h4")) card = card.parentElement;
            const title = card ? card.querySelector("h4").textContent : "";
            for (const curve of plot.data || [])
                (found[title] ??= {})[curve.name] = (curve.y || []).length;
        }
        return found;
        """
    )
