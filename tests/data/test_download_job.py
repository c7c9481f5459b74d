import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from processes import wait_until

from engine.base.errors import LoupeError
from engine.base.jobs import find_job
from engine.data.catalogue import CATALOGUE, Progress, download_folder
from engine.data.dataset import is_prepared, open_dataset, prepared_root
from engine.data.download_job import cancel_download, find_download, get_dataset, start_download

pytestmark = pytest.mark.processes


class SlowServer(ThreadingHTTPServer):
    """Sends a megabyte of KMNIST, and after each step that the test allows another; then it closes the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SlowAnswer)
        self.asked = 0
        self.steps = [threading.Event(), threading.Event()]


class SlowAnswer(BaseHTTPRequestHandler):
    server: SlowServer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000000")
        self.end_headers()
        self.server.asked += 1
        if self.server.asked > 1:  # the first looks for a redirection, and takes nothing
            for step in self.server.steps:
                with suppress(OSError):  # nobody waits for it any more
                    self.wfile.write(bytes(1 << 20))
                step.wait(60)

    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowServer]:
    """Answer for kmnist, whose address is without encryption, so that a stand-in can."""
    with SlowServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        yield server
        for step in server.steps:
            step.set()
        server.shutdown()
        thread.join()


def test_getting_yields_progress_and_ends_with_the_dataset(digits_data, monkeypatch):
    progress = list(get_dataset("digits"))
    assert progress
    assert set(progress) == {Progress(0, 0)}  # nothing is downloaded
    here = open_dataset("digits")
    assert list(get_dataset("digits")) == []
    wait_until(lambda: find_download("digits") is None)

    # The same every time: as in the folder that another process prepared.
    monkeypatch.setenv("LOUPE_DATA", str(digits_data))
    assert open_dataset("digits").fingerprint == here.fingerprint


def test_getting_tells_what_stopped_it(tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file, not a folder")
    folder = tmp_path / "occupied" / "data"
    monkeypatch.setenv("LOUPE_DATA", str(folder))
    with pytest.raises(LoupeError) as refused:
        list(get_dataset("digits"))
    assert str(refused.value).startswith(f"{folder / 'prepared'} cannot be written (")
    assert "LOUPE_DATA" in str(refused.value)


def test_bytes_and_seconds_left_are_told_while_they_come_to_all_who_ask(slow: SlowServer) -> None:
    getting, another = get_dataset("kmnist"), get_dataset("kmnist")
    one = next(progress for progress in getting if progress.done == 1 << 20)
    assert next(another).done == 1 << 20
    slow.steps[0].set()
    two = next(progress for progress in getting if progress.done == 2 << 20)
    slow.steps[1].set()
    with pytest.raises(LoupeError, match="KMNIST is not on this machine and could not be downloaded"):
        list(getting)
    total = CATALOGUE["kmnist"].download_bytes
    assert (one.total, two.total) == (total, total)
    assert one.seconds_left is None  # there is no pace to go by yet
    assert two.seconds_left > 0
    assert not is_prepared("kmnist")
    assert find_download("kmnist") is None  # whoever started it has been told
    another.close()


def test_what_is_cancelled_ends_at_once_and_leaves_nothing(slow: SlowServer) -> None:
    getting = get_dataset("kmnist")
    next(progress for progress in getting if progress.done == 1 << 20)
    assert not start_download("kmnist")
    cancel_download("kmnist")  # on another page
    with pytest.raises(LoupeError, match=r"^Getting KMNIST was cancelled\. Start it again\.$"):
        list(getting)
    wait_until(lambda: not list(prepared_root().glob(".kmnist*")))
    assert not download_folder("kmnist").exists()
    assert find_job(prepared_root() / ".kmnist.get") is None
