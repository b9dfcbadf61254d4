"""The TCP ports of the development environment: remembered, so that addresses stay the same from start to start."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.dev.errors import DevServerError
from gateway.dev.files import free_port, port_is_free, read_json, try_port, write_private_json

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.dev.options import DevOptions

PORTS_FILE = "ports.json"
METRICS_PORT = 9464
PRIVILEGED_PORTS = 1024
PREVIOUS_END_S_MAX = 20.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Ports:
    """A TCP port for each part that listens."""

    gateway: int
    metrics: int
    engines: tuple[int, ...]


def choose_ports(options: DevOptions) -> Ports:
    """Return a free port for each part and remember them in the data directory.

    Ports that were asked for are taken or refused, the others are those of the start before while they are free. Raises
    DevServerError, naming the option, when a port that was asked for is in use or not to be had.
    """
    file = options.data_dir / PORTS_FILE
    before = read_json(file)
    gateway = options.port or free_port(_port(before.get("gateway")))
    _require_free(gateway, "--port")
    taken = {gateway}
    if options.metrics_port:
        metrics = options.metrics_port
        if metrics in taken:
            raise DevServerError(f"--port and --metrics-port are both {metrics}: they must differ")
        _require_free(metrics, "--metrics-port")
    else:
        metrics = free_port(_port(before.get("metrics")) or METRICS_PORT, taken=frozenset(taken))
    taken.add(metrics)
    known = before.get("engines")
    engines: list[int] = []
    for index in range(options.engines):
        preferred = _port(known[index]) if isinstance(known, list) and index < len(known) else None
        engines.append(free_port(preferred, taken=frozenset(taken)))
        taken.add(engines[-1])
    ports = Ports(gateway, metrics, tuple(engines))
    write_private_json(file, {"gateway": gateway, "metrics": metrics, "engines": engines})
    return ports


def await_previous(data_dir: Path) -> None:
    """Wait until what a killed start left behind has let go of its ports, at most `PREVIOUS_END_S_MAX` seconds.

    After a kill -9 the children end by themselves, but the gateway first finishes what it was streaming.
    """
    states = [read_json(data_dir / name) for name in (PORTS_FILE, "postgres.json", "redis.json")]
    values = [value for state in states for key, value in state.items() if key not in {"password", "engines"}]
    ports = [port for value in [*values, *_list(states[0].get("engines"))] if (port := _port(value))]
    deadline_s = time.monotonic() + PREVIOUS_END_S_MAX
    while not all(map(port_is_free, ports)) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def _require_free(port: int, option: str) -> None:
    try:
        try_port(port)
    except OSError as error:
        raise DevServerError(why_not(port, option, error)) from None


def why_not(port: int, option: str, error: OSError) -> str:
    """Say why nothing can listen on `port`, which `option` asked for, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program: stop that, or choose another port with {option}"
    if error.errno != errno.EACCES:
        return f"port {port} cannot be used: {error.strerror or error}; choose another port with {option}"
    if port < PRIVILEGED_PORTS:
        return f"ports below {PRIVILEGED_PORTS} need privileges, {port} too: choose another port with {option}"
    return f"the system does not allow to listen on port {port}: choose another port with {option}"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _port(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 65_536 else None
