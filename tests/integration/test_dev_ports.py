"""Ports: remembered while they are free, refused by name when they were asked for and are not."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from gateway.dev.errors import DevServerError
from gateway.dev.files import LOOPBACK, free_port, port_is_free
from gateway.dev.options import DevOptions
from gateway.dev.ports import await_previous, choose_ports

if TYPE_CHECKING:
    from pathlib import Path


def test_ports_stay_the_same_while_they_are_free(tmp_path: Path) -> None:
    options = DevOptions(tmp_path, port=0, engines=2)
    first = choose_ports(options)
    assert len({first.gateway, first.metrics, *first.engines}) == 4
    assert choose_ports(options) == first
    more = choose_ports(DevOptions(tmp_path, port=0, engines=3))
    assert more.engines[:2] == first.engines
    with socket.create_server((LOOPBACK, first.engines[0])):
        moved = choose_ports(options)
    assert moved.engines[0] != first.engines[0]
    assert moved.engines[1] == first.engines[1]


def test_a_taken_port_that_was_asked_for_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(DevServerError, match=f"port {taken} is in use.* with --port"):
            choose_ports(DevOptions(tmp_path, port=taken))
        with pytest.raises(DevServerError, match=f"port {taken} is in use.* with --metrics-port"):
            choose_ports(DevOptions(tmp_path, port=0, metrics_port=taken))
    free = free_port()
    with pytest.raises(DevServerError, match="must differ"):
        choose_ports(DevOptions(tmp_path, port=free, metrics_port=free))


def test_waits_until_what_a_killed_start_left_has_gone(tmp_path: Path) -> None:
    ports = choose_ports(DevOptions(tmp_path, port=0))
    with socket.create_server((LOOPBACK, ports.gateway)) as left:
        release = threading.Timer(0.2, left.close)
        release.start()
        await_previous(tmp_path)
        assert port_is_free(ports.gateway)
        release.join()


def test_damaged_notes_are_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"gateway": "x", "metrics": -1, "engines": 7}')
    await_previous(tmp_path)
    assert choose_ports(DevOptions(tmp_path, port=0)).gateway > 0


def test_a_free_port_goes_to_nobody_who_asks_for_any_port() -> None:
    with ExitStack() as opened:
        bound = [opened.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(150)]
        remembered = {listener.getsockname()[1] for listener in bound}
    assert {free_port(port) for port in remembered} == remembered
    ours = remembered | {free_port() for _ in range(150)}
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server((LOOPBACK, 0), backlog=1))
        others = set()
        for _ in range(300):
            other = opened.enter_context(socket.socket())
            other.bind((LOOPBACK, 0))
            others.add(other.getsockname()[1])
            connected = opened.enter_context(socket.create_connection(listener.getsockname()))
            others.add(connected.getsockname()[1])
            listener.accept()[0].close()
    assert not ours & others
    with socket.create_server((LOOPBACK, ours.pop())):
        pass


def test_somebody_who_connects_while_a_port_is_looked_at_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.create_connection

    def after_another(address: tuple[str, int]) -> socket.socket:
        strangers.append(connect(address))
        return connect(address)

    strangers: list[socket.socket] = []
    with monkeypatch.context() as patched:
        patched.setattr(socket, "create_connection", after_another)
        port = free_port()
    with strangers.pop(), socket.create_server((LOOPBACK, port)):
        pass
