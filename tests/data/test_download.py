from __future__ import annotations

import hashlib
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clothseg.data import download
from clothseg.data.ccp import Ccp
from clothseg.data.download import DownloadError, ccp_registry, fetch

FILES = {f"photos/{number:04}.jpg": bytes([number]) * (5000 + number) for number in range(12)} | {
    "label_list.mat": b"59"
}


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback; `broken` paths end in mid-body as often as their number says."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder):
        self.fetched = []
        self.broken = {}
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.fetched.append(path)
        if self.server.broken.get(path, 0) > 0:
            self.server.broken[path] -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(FILES[path])))
            self.end_headers()
            self.wfile.write(FILES[path][:1000])
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    for path, data in FILES.items():
        file = tmp_path / "served" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    # A proxy that is set up for the internet does not know this server.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(tmp_path / "served") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def no_waiting(monkeypatch):
    """Takes pooch's pauses out of the tests."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)


def registry():
    return {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_arrives_once_and_nothing_else_does(server, tmp_path, capfd):
    target = tmp_path / "data" / "ccp"
    fetch(target, base_url=server.url, registry=registry(), retries=0)
    assert contents(target) == FILES
    assert sorted(server.fetched) == sorted(FILES)
    assert sorted(path.name for path in target.parent.iterdir()) in (["ccp"], ["ccp", "ccp.lock"])
    assert capfd.readouterr() == ("", "")


def test_an_empty_folder_is_filled(server, tmp_path):
    target = tmp_path / "ccp"
    target.mkdir()
    fetch(target, base_url=server.url, registry=registry(), retries=0)
    assert contents(target) == FILES


def test_a_connection_that_breaks_is_tried_again(server, tmp_path, no_waiting):
    server.broken = {"photos/0003.jpg": 2}
    fetch(tmp_path / "ccp", base_url=server.url, registry=registry(), retries=2)
    assert contents(tmp_path / "ccp") == FILES
    assert server.fetched.count("photos/0003.jpg") == 3


def test_a_download_that_broke_off_goes_on_where_it_ended(server, tmp_path, no_waiting, monkeypatch):
    monkeypatch.setattr(download, "THREADS", 1)
    server.broken = {"photos/0007.jpg": 2}
    target = tmp_path / "ccp"
    with pytest.raises(
        DownloadError, match=r"photos/0007\.jpg: no connection to http://127.* is kept in .*ccp\.partial"
    ):
        fetch(target, base_url=server.url, registry=registry(), retries=1)
    assert not target.exists()
    before = contents(tmp_path / "ccp.partial")
    assert set(before) >= {f"photos/000{number}.jpg" for number in range(7)}
    assert all(FILES[path] == data for path, data in before.items())

    server.fetched.clear()
    (tmp_path / "ccp.partial" / "tmp1234").write_bytes(b"of a killed process")
    fetch(target, base_url=server.url, registry=registry(), retries=0)
    assert contents(target) == FILES
    assert sorted(server.fetched) == sorted(FILES.keys() - before.keys())


def test_a_file_that_is_not_the_known_one_is_refused_by_name_and_not_kept(server, tmp_path, no_waiting):
    (tmp_path / "served" / "photos" / "0005.jpg").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"photos/0005\.jpg: .*hash") as caught:
        fetch(tmp_path / "ccp", base_url=server.url, registry=registry(), retries=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ccp").exists()
    assert "photos/0005.jpg" not in contents(tmp_path / "ccp.partial")
    assert b"something else" not in contents(tmp_path / "ccp.partial").values()


def test_a_kept_file_that_is_wrong_is_fetched_again(server, tmp_path):
    kept = tmp_path / "ccp.partial" / "label_list.mat"
    kept.parent.mkdir()
    kept.write_bytes(b"rotten")
    fetch(tmp_path / "ccp", base_url=server.url, registry=registry(), retries=0)
    assert contents(tmp_path / "ccp") == FILES


def test_a_file_the_server_has_not_is_named_with_the_answer(server, tmp_path, no_waiting):
    (tmp_path / "served" / "photos" / "0005.jpg").unlink()
    with pytest.raises(DownloadError, match=r"photos/0005\.jpg: 404 "):
        fetch(tmp_path / "ccp", base_url=server.url, registry=registry(), retries=1)


def test_a_server_that_is_away_is_told_at_once_and_leaves_nothing(server, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=f"no connection to {url}"):
        fetch(tmp_path / "data" / "ccp", base_url=url, registry=registry(), retries=9)
    assert time.monotonic() - begin < 2
    assert not (tmp_path / "data").exists()


def test_two_at_once_fetch_every_file_once(server, tmp_path):
    target = tmp_path / "ccp"
    threads = [
        threading.Thread(
            target=fetch, args=(target,), kwargs={"base_url": server.url, "registry": registry(), "retries": 0}
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert contents(target) == FILES
    assert sorted(server.fetched) == sorted(FILES)


def test_a_target_that_cannot_be_written_is_told_in_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(tmp_path / "file" / "ccp", base_url=server.url, registry=registry(), retries=0)


def test_the_registry_has_every_photo_and_annotation():
    digests = ccp_registry()
    numbers = [f"{number:04}" for number in range(1, 1005)]
    assert set(digests) == (
        {f"photos/{number}.jpg" for number in numbers}
        | {f"annotations/pixel-level/{number}.mat" for number in numbers}
        | {"label_list.mat", "README.md"}
    )
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests.values())


def test_the_registry_is_that_of_the_data_set(ccp_root):
    for path, digest in list(ccp_registry().items())[::50]:
        assert hashlib.sha256((ccp_root / path).read_bytes()).hexdigest() == digest, path


def test_the_data_set_is_fetched_where_it_is_missing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CCP_URL", server.url)
    (tmp_path / "served" / "annotations" / "pixel-level").mkdir(parents=True)
    (tmp_path / "served" / "annotations" / "pixel-level" / "0001.mat").write_bytes(b"labels")
    digests = registry() | {"annotations/pixel-level/0001.mat": hashlib.sha256(b"labels").hexdigest()}
    monkeypatch.setattr(download, "ccp_registry", lambda: digests)
    source = Ccp(root=tmp_path / "data" / "ccp", pairing="name", subset="all", download=True)
    assert source.names()[:2] == ("0000", "0001")
    assert source.problems().keys() == {f"{number:04}" for number in range(12)} - {"0001"}
