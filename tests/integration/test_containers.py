"""The suite's search for containers: a daemon that does not answer, or cannot help, is passed over without an error."""

from __future__ import annotations

import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import docker_answers, docker_servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NOTHING, VERSION = b'{"message": "no such thing"}', b'{"ApiVersion": "1.44"}'


class WithoutImages(BaseHTTPRequestHandler):
    """A Docker daemon that is alive and has nothing to run."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that it is alive; know nothing else."""
        self._answer(b"OK" if self.path.endswith("/_ping") else VERSION if "version" in self.path else NOTHING)

    def do_POST(self) -> None:
        """Know nothing."""
        self._answer(NOTHING)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(404 if body == NOTHING else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def useless_daemon(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment points at a daemon that answers and cannot run anything."""
    address = reachable_dir / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
    with socketserver.ThreadingUnixStreamServer(str(address), WithoutImages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_no_daemon_no_containers(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{reachable_dir}/nothing.sock")
    assert not docker_answers()
    with docker_servers(postgres=True, redis=True) as found:
        assert found == (None, None)


@pytest.mark.usefixtures("useless_daemon")
def test_a_daemon_without_images_is_as_good_as_none(caplog: pytest.LogCaptureFixture) -> None:
    assert docker_answers()
    with docker_servers(postgres=True, redis=True) as found:
        assert found == (None, None)
    assert "Docker answers but cannot run postgres" in caplog.text


@pytest.mark.usefixtures("useless_daemon")
def test_nothing_is_started_that_is_not_wanted() -> None:
    with docker_servers(postgres=False, redis=False) as found:
        assert found == (None, None)
