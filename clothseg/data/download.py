"""Fetching a data set, file by file, each checked against a known hash."""

from __future__ import annotations

import importlib.resources
import logging
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from clothseg.data.folders import locked
from clothseg.errors import UserError

# The public home of Clothing Co-Parsing, at the commit whose files `ccp.sha256` lists.
CCP_URL = "https://raw.githubusercontent.com/bearpaw/clothing-co-parsing/fe34fb77721a9973fbae92c05f7f12b664d10110/"
CCP_REGISTRY = "ccp.sha256"
RETRIES = 3  # pooch waits one second before the first, two before the second, ...
THREADS = 8
TIMEOUT = (10.0, 30.0)  # seconds to connect, seconds without a byte

logger = logging.getLogger(__name__)


class DownloadError(UserError):
    """A file could not be had; the message says which and why."""


def fetch_ccp(target: Path) -> None:
    """Fetches the pixel-annotated part of Clothing Co-Parsing (2,010 files, 68 MB) into a folder; see `fetch`."""
    fetch(target, base_url=CCP_URL, registry=ccp_registry(), retries=RETRIES)


def ccp_registry() -> dict[str, str]:
    """The sha256 of every file of Clothing Co-Parsing that is needed, by relative path."""
    lines = importlib.resources.files("clothseg.data").joinpath(CCP_REGISTRY).read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines)}


def fetch(target: Path, *, base_url: str, registry: dict[str, str], retries: int) -> None:
    """Fetches files into a folder that appears only when it is whole.

    What arrived is kept beside the target, in a folder with `.partial` after its name, so that a second call fetches
    only what is missing or wrong there. Of several processes one fetches and the others wait for it.

    Args:
        target: the folder to make; absent or empty.
        base_url: what relative paths are appended to; ends with a slash.
        registry: sha256 by relative path.
        retries: how often to try a file again after it failed.

    Raises:
        DownloadError: the server cannot be reached (known at once, nothing is retried), a file could not be had or is
            not the one whose hash is known, or the target cannot be written.
    """
    _probe(base_url, next(iter(registry)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock")):
            if target.is_dir() and any(target.iterdir()):
                return  # another process fetched it while this one waited
            partial = target.with_name(f"{target.name}.partial")
            _fetch_all(partial, base_url=base_url, registry=registry, retries=retries)
            _remove_strangers(partial, registry)
            if target.is_dir():
                target.rmdir()
            partial.rename(target)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error}") from error
    logger.info("downloaded %d files to %s", len(registry), target)


def _probe(base_url: str, path: str) -> None:
    try:
        requests.head(base_url + path, timeout=TIMEOUT, allow_redirects=True).raise_for_status()
    except requests.RequestException as error:
        raise DownloadError(_reason(error, base_url)) from error


def _fetch_all(partial: Path, *, base_url: str, registry: dict[str, str], retries: int) -> None:
    pooch.get_logger().setLevel(logging.ERROR)  # it would write a line for every file
    for folder in {(partial / path).parent for path in registry}:
        folder.mkdir(parents=True, exist_ok=True)  # pooch's threads would fall over one another here
    hashes = {path: f"sha256:{digest}" for path, digest in registry.items()}
    files = pooch.create(path=partial, base_url=base_url, registry=hashes, retry_if_failed=retries)
    logger.info("downloading %d files from %s to %s", len(registry), base_url, partial)
    executor = ThreadPoolExecutor(THREADS)
    try:
        running = {executor.submit(_fetch_one, files, path): path for path in registry}
        for done in tqdm(as_completed(running), desc="downloading", unit="file", total=len(running), disable=None):
            try:
                done.result()
            except (ValueError, requests.RequestException) as error:  # ValueError: the hash is another
                raise DownloadError(
                    f"{running[done]}: {_reason(error, base_url)}; what arrived is kept in {partial} for the next try"
                ) from error
    finally:
        # Without this an interrupted download would go on to its last file.
        executor.shutdown(cancel_futures=True)


def _fetch_one(files: pooch.Pooch, path: str) -> None:
    files.fetch(path, downloader=pooch.HTTPDownloader(timeout=TIMEOUT))


def _reason(error: Exception, base_url: str) -> str:
    # What requests says of a connection is a paragraph of object addresses.
    if isinstance(error, requests.Timeout):
        return f"no answer from {base_url} within {max(TIMEOUT):.0f} s"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason} from {base_url}"
    if isinstance(error, requests.RequestException):
        return f"no connection to {base_url}"
    return str(error)


def _remove_strangers(partial: Path, registry: dict[str, str]) -> None:
    # A killed download leaves temporary files behind.
    for path in partial.rglob("*"):
        if path.is_file() and path.relative_to(partial).as_posix() not in registry:
            path.unlink()
