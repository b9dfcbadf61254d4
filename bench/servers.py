"""What the gateway is measured with: real Postgres and Redis, its own database, a tenant with limits on all levels.

Tenants are made and the gateway is started through its command line, as an operator would.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from bench.errors import BenchError
from bench.pinning import pinned
from bench.processes import Background
from gateway.dev.files import free_port, write_private
from gateway.dev.servers import running_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MODEL = "bench"
# Another name upstream, so that the gateway has to restore the model's name in every answer, as it usually has to.
UPSTREAM_MODEL = "bench/engine"
REQUESTS_PER_MINUTE = 1_000_000_000
TOKENS_PER_MINUTE = 1_000_000_000_000
POOL_CONCURRENCY = 10_000
COMMAND_S_MAX = 60.0
READY_S_MAX = 60.0
READY_POLL_S = 0.01
PROBE_S_MAX = 1.0
DECISIONS = "penstock_limiter_decisions"
DATABASE_PREFIX = "penstock_bench_"
REPOSITORY = Path(__file__).parent.parent

CONFIG = f"""\
pools:
  engines:
    engine: vllm
    endpoints: ["http://127.0.0.1:{{engine_port}}"]
    concurrency: {POOL_CONCURRENCY}
models:
  {MODEL}:
    pool: engines
    upstream: {UPSTREAM_MODEL}
    context: 1000000
    output: 65536
    price: {{{{input: "0.20", cached_input: "0.02", output: "0.80"}}}}
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """Postgres, Redis and a tenant. `pids` are the servers' process ids by name, for those that were started here.

    `versions` is what the two servers say of themselves.
    """

    postgres_dsn: str
    redis_url: str
    key: str
    pids: Mapping[str, Sequence[int]]
    directory: Path
    versions: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """Return the environment of the gateway: its addresses and nothing that this shell happens to hold."""
        return _environment(self.postgres_dsn, self.redis_url)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One running replica, and the seconds from its start to its first good answer on /readyz."""

    port: int
    metrics_port: int
    process: Background
    ready_s: float


@contextmanager
def running_stack(directory: Path, postgres_dsn: str | None = None, redis_url: str | None = None) -> Iterator[Stack]:
    """Start what is not given, make a database and a tenant in it; drop the database when left."""
    with running_servers(directory, postgres_dsn=postgres_dsn, redis_url=redis_url) as servers:
        pids = {child.spec.name: [child.pid] for child in servers.children}
        if postgres_dsn is None:  # nobody else uses it: what is there was left by a benchmark that was killed
            asyncio.run(_drop_databases(servers.postgres_dsn))
        name = f"{DATABASE_PREFIX}{secrets.token_hex(4)}"
        dsn = _with_database(servers.postgres_dsn, name)
        asyncio.run(_execute(servers.postgres_dsn, f"CREATE DATABASE {name}"))
        try:
            environment = _environment(dsn, servers.redis_url)
            _command(environment, "migrate")
            versions = asyncio.run(_versions(dsn, servers.redis_url))
            yield Stack(dsn, servers.redis_url, create_tenant(environment), pids, directory, versions)
        finally:
            asyncio.run(_execute(servers.postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)"))


def create_tenant(environment: Mapping[str, str]) -> str:
    """Make an organization, a team, a user and a key, each with limits far above the load; return the key."""
    limits = (f"--requests-per-minute={REQUESTS_PER_MINUTE}", f"--tokens-per-minute={TOKENS_PER_MINUTE}")
    org = _command(environment, "org", "create", "bench", "--json")["id"]
    team = _command(environment, "team", "create", "bench", f"--org={org}", "--json")["id"]
    user = _command(environment, "user", "create", "bench", f"--org={org}", f"--team={team}", "--json")["id"]
    for subject in (f"--org={org}", f"--team={team}", f"--user={user}"):
        _command(environment, "limit", "set", subject, *limits)
    owner = (f"--org={org}", f"--team={team}", f"--user={user}")
    return str(_command(environment, "key", "create", *owner, *limits, "--json")["key"])


@contextmanager
def running_gateway(stack: Stack, engine_port: int, cores: frozenset[int], log: Path) -> Iterator[Gateway]:
    """Run one replica on `cores` in front of an engine; return once it is ready. Leaving stops it with SIGTERM."""
    config = stack.directory / "penstock.yaml"
    write_private(config, CONFIG.format(engine_port=engine_port))
    port = free_port()
    metrics_port = free_port(taken=frozenset({port}))
    argv = [sys.executable, "-m", "gateway", "serve", f"--config={config}", f"--port={port}"]
    started_s = time.monotonic()
    with pinned(cores):
        process = Background([*argv, f"--metrics-port={metrics_port}"], log, stack.environment())
    with process:
        _wait_ready(process, port)
        yield Gateway(port, metrics_port, process, time.monotonic() - started_s)


def limiter_decisions(metrics_port: int) -> dict[str, int]:
    """Return how many admissions a replica decided, by decision, from its metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=COMMAND_S_MAX)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {
        sample.labels["decision"]: int(sample.value)
        for family in text_string_to_metric_families(page)
        if family.name == DECISIONS
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _wait_ready(process: Background, port: int) -> None:
    deadline_s = time.monotonic() + READY_S_MAX
    while not _is_ready(port):
        process.check_running()
        if time.monotonic() > deadline_s:
            raise BenchError(f"the gateway was not ready after {READY_S_MAX:.0f} s:\n{process.tail()}")
        time.sleep(READY_POLL_S)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_S_MAX)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _environment(postgres_dsn: str, redis_url: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PENSTOCK_POSTGRES_DSN": postgres_dsn,
        "PENSTOCK_REDIS_URL": redis_url,
    }


def _command(environment: Mapping[str, str], *arguments: str) -> dict[str, str]:
    """Run one `penstock` command; return its JSON object, if it prints one. Raises BenchError when it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(arguments)
        raise BenchError(f"`penstock {shown}` failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    answer = json.loads(done.stdout) if "--json" in arguments else {}
    return answer if isinstance(answer, dict) else {}


def _with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _versions(postgres_dsn: str, redis_url: str) -> dict[str, str]:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        postgres = str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()
    async with Redis.from_url(redis_url) as redis:
        info = await redis.info("server")
    return {"postgres": postgres, "redis": str(info["redis_version"])}


async def _drop_databases(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for row in await connection.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", DATABASE_PREFIX
        ):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
