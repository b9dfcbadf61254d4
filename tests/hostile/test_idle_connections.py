"""Ten thousand clients that do nothing: they cost little, harm nobody, and are let go after their time."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.chat import chat
from tests.support.refusals import assert_refused
from tests.support.source import REPOSITORY
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
IDLE = 10_000 if HARD_LIMIT == resource.RLIM_INFINITY else min(10_000, HARD_LIMIT - 2048)
OWN = 1
PATIENCE_S = 15
BYTES_EACH_MAX = 20 * 1024
"""A protocol, a transport, a parser, a timer: measured 8 to 10 KiB. The kernel's own buffers are not in it."""


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with room for the idle ones and one more; it has to find the descriptors for them by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        with running_stack(
            databases,
            servers,
            tmp_path_factory.mktemp("idle"),
            connections_max=IDLE + OWN,
            requests_in_flight_max=100,
            header_timeout_s=PATIENCE_S,
            keep_alive_timeout_s=PATIENCE_S,
        ) as running:
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_cost_little_and_are_let_go(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    client, process = stack.client(), psutil.Process(stack.gateway.pid)
    descriptors = process.num_fds()
    assert client.post("/v1/chat/completions", chat()).status == 200
    before = process.memory_info().rss
    with client.raw() as own:
        own.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert own.answer().status == 200
        command = [sys.executable, "-m", "tests.hostile.idle_clients", str(stack.gateway.port), str(IDLE)]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as clients:
            assert clients.stdout is not None
            assert clients.stdout.readline() == f"open {IDLE}\n"
            each = (process.memory_info().rss - before) / IDLE
            record_property("bytes_of_an_idle_connection", round(each))
            own.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer nobody\r\n\r\n")
            assert_refused(own.answer(), 401, "invalid_api_key")
            with client.raw() as beyond:
                refused = beyond.answer()
                assert (refused.status, refused.error["code"]) == (503, "unavailable")
                assert refused.headers["retry-after"] == "1"
                assert beyond.closed()
            assert each < BYTES_EACH_MAX, f"{each:.0f} bytes"
            assert clients.stdout.readline() == "closed all\n"
    assert client.post("/v1/chat/completions", chat()).status == 200
    wait_for(lambda: process.num_fds() <= descriptors + 10, "their descriptors are free")
