"""Starts the parts of the development environment in the order that they need each other.

Engines first (they take longest), then PostgreSQL and Redis, the schema, the demo tenant, and the gateway, which is
started as it is everywhere: `serve` with a penstock.yaml. Everything is left on an ExitStack, to be stopped in reverse.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import gateway
from gateway.authenticate.key import Peppers
from gateway.dev.children import Child, ChildSpec, wait_until
from gateway.dev.demo import demo_keys
from gateway.dev.demo_config import UPSTREAM_MODEL, write_demo_config
from gateway.dev.errors import DevServerError
from gateway.dev.files import LOOPBACK
from gateway.dev.options import DevInfo, DevOptions, base_url
from gateway.dev.servers import ServerAddresses, running_servers
from gateway.settings import load_config
from gateway.storage.migrate import upgrade

if TYPE_CHECKING:
    from contextlib import ExitStack

    from gateway.dev.ports import Ports
    from gateway.dev.screen import Screen
    from gateway.settings import Settings

READY_S_MAX = 60.0
ANSWER_S_MAX = 1.0
DRAIN_S_MAX = 5
"""How long streams may finish when the environment is stopped: a person waits for it."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that runs: what scripts are told, whether penstock.yaml is ours, the processes, PostgreSQL's files.

    `needs_key`: whether callers must show the key.
    """

    info: DevInfo
    config_is_ours: bool
    children: tuple[Child, ...]
    """What it cannot do without: when one of them ends, all of it does."""
    postgres_data: Path | None = None
    engines: tuple[Child, ...] = ()
    needs_key: bool = True


def start_stack(stack: ExitStack, options: DevOptions, ports: Ports, settings: Settings, screen: Screen) -> Stack:
    """Start everything and return once the gateway is ready. What was started is on `stack`, also after a failure.

    Raises DevServerError, ConfigError and GatewayError, with what to do about it.
    """
    data_dir = options.data_dir
    engine_urls = [f"http://{LOOPBACK}:{port}" for port in ports.engines]
    config, config_is_ours = write_demo_config(data_dir, engine_urls)
    load_config(config)  # an edited file may have mistakes: better told before anything runs
    engines = [stack.enter_context(Child(_engine(data_dir, number, port))) for number, port in enumerate(ports.engines)]
    addresses = _given_addresses(settings)
    with screen.step(_servers_step(addresses)):
        servers = stack.enter_context(running_servers(data_dir, **addresses))
    direct_dsn = _direct_dsn(settings, servers)
    with screen.step("Database schema"):
        asyncio.run(upgrade(direct_dsn))
    replica = stack.enter_context(
        Child(_replica(options, config, ports, servers, direct_dsn), depends_on=[*servers.children, *engines])
    )
    with screen.step("Demo organization, team, user and key"):
        keys = demo_keys(servers.postgres_dsn, _peppers(settings), data_dir)
    with screen.step(f"{len(engines)} simulated engines" if len(engines) != 1 else "1 simulated engine"):
        for child, port in zip(engines, ports.engines, strict=True):
            _wait_for_answer(child, port, "/health")
    with screen.step("Gateway"):
        _wait_for_answer(replica, ports.gateway, "/readyz")
    info = DevInfo(
        base_url=base_url(ports.gateway),
        admin_key=keys.admin_key,
        api_key=keys.api_key,
        metrics_url=f"http://{LOOPBACK}:{ports.metrics}/metrics",
        postgres_dsn=servers.postgres_dsn,
        redis_url=servers.redis_url,
        config=str(config),
        engines=engine_urls,
        pid=os.getpid(),
    )
    children = (replica, *servers.children)
    return Stack(info, config_is_ours, children, servers.postgres_data, tuple(engines), settings.auth == "keys")


def answers(port: int, path: str) -> bool:
    """Return whether a server on this port answers a GET with 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWER_S_MAX)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait_for_answer(child: Child, port: int, path: str) -> None:
    if not wait_until(partial(answers, port, path), child, READY_S_MAX):
        raise child.failure(f"ended with exit code {child.exit_code} before it was ready")


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "gateway", *arguments)


def _home_of_package() -> Path:
    """Return a working directory from which `python -m gateway` finds this package and no other of that name."""
    return Path(gateway.__file__).parents[1]


def _engine(data_dir: Path, number: int, port: int) -> ChildSpec:
    name = f"engine-{number + 1}"
    argv = _python("engine", "--port", str(port), "--model", UPSTREAM_MODEL)
    return ChildSpec(name, argv, log=data_dir / "logs" / f"{name}.log", cwd=_home_of_package())


def _replica(options: DevOptions, config: Path, ports: Ports, servers: ServerAddresses, direct_dsn: str) -> ChildSpec:
    data_dir = options.data_dir
    listen = ("--port", str(ports.gateway), "--metrics-port", str(ports.metrics))
    auth = () if options.auth is None else ("--auth", options.auth)
    return ChildSpec(
        "gateway",
        _python("serve", "--config", str(config), *listen, *auth),
        log=data_dir / "logs" / "gateway.log",
        cwd=_home_of_package(),
        environment={
            "PENSTOCK_POSTGRES_DSN": servers.postgres_dsn,
            "PENSTOCK_POSTGRES_DIRECT_DSN": direct_dsn,
            "PENSTOCK_REDIS_URL": servers.redis_url,
            "PENSTOCK_DRAIN_TIMEOUT_S": str(DRAIN_S_MAX),
            "PENSTOCK_SPOOL_DIR": str(data_dir / "spool"),
        },
        stop_grace_s=2.0 * DRAIN_S_MAX,
    )


def _given_addresses(settings: Settings) -> dict[str, str | None]:
    return {
        "postgres_dsn": settings.postgres_dsn.get_secret_value() if settings.postgres_dsn else None,
        "redis_url": settings.redis_url.get_secret_value() if settings.redis_url else None,
    }


def _servers_step(addresses: dict[str, str | None]) -> str:
    """Return what is done for PostgreSQL and Redis, with the host of one that the environment names."""

    def one(name: str, address: str | None) -> str:
        return f"{name} at {urlsplit(address).netloc.rpartition('@')[2]}" if address else name

    return f"{one('PostgreSQL', addresses['postgres_dsn'])}, {one('Redis', addresses['redis_url'])}"


def _direct_dsn(settings: Settings, servers: ServerAddresses) -> str:
    if settings.postgres_dsn and settings.postgres_direct_dsn:
        return settings.postgres_direct_dsn.get_secret_value()
    return servers.postgres_dsn


def _peppers(settings: Settings) -> Peppers:
    try:
        return Peppers.parse(settings.key_peppers.get_secret_value())
    except ValueError as error:
        raise DevServerError(f"PENSTOCK_KEY_PEPPERS: {error}") from None
