"""The embedded servers: they keep their data and address, and keep strangers out; leftovers do not stop them."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest
import redis

from gateway.dev.accounts import run_as, unprivileged_account
from gateway.dev.errors import DevServerError
from gateway.dev.files import LOOPBACK, read_json
from gateway.dev.postgres import start_postgres
from gateway.dev.postgres_home import prepare_home
from gateway.dev.postgres_programs import find_programs
from gateway.dev.redis import start_redis
from gateway.dev.servers import running_servers
from tests.support.process_ids import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.children import Child, RunningServer


async def fetch(dsn: str, statement: str) -> object:
    """Run one statement on a connection of its own and return the single value it answers."""
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def listening(child: Child) -> set[str]:
    """Return the addresses that a process and its descendants listen on, paths of Unix sockets included."""
    process = psutil.Process(child.pid)
    sockets = [each for one in (process, *process.children(recursive=True)) for each in one.net_connections("all")]
    addresses = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN and each.laddr}
    return addresses | {str(each.laddr) for each in sockets if each.family == socket.AF_UNIX and each.laddr}


async def test_data_and_addresses_survive_a_restart(reachable_dir: Path) -> None:
    with running_servers(reachable_dir) as first:
        await fetch(first.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    with running_servers(reachable_dir) as second:
        assert second == first
        assert await fetch(second.postgres_dsn, "SELECT answer FROM kept") == 42
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.ping()


def test_a_given_address_starts_nothing(reachable_dir: Path) -> None:
    with running_servers(reachable_dir, postgres_dsn="postgresql://db/a", redis_url="redis://cache/1") as servers:
        assert (servers.postgres_dsn, servers.redis_url) == ("postgresql://db/a", "redis://cache/1")
        assert servers.children == ()


async def test_a_port_that_somebody_took_is_given_up(reachable_dir: Path) -> None:
    with running_servers(reachable_dir):
        taken = {name: int(read_json(reachable_dir / f"{name}.json")["port"]) for name in ("postgres", "redis")}
    with (
        socket.create_server((LOOPBACK, taken["postgres"])),
        socket.create_server((LOOPBACK, taken["redis"])),
        running_servers(reachable_dir) as servers,
    ):
        assert await fetch(servers.postgres_dsn, "SELECT 1") == 1
        for name, port in taken.items():
            assert read_json(reachable_dir / f"{name}.json")["port"] != port


async def test_strangers_stay_out(reachable_dir: Path) -> None:
    """Loopback only, no Unix socket, a password even there, and that in nothing which others can read."""
    with running_servers(reachable_dir) as servers:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fetch(servers.postgres_dsn.replace("penstock:", "penstock:wrong", 1), "SELECT 1")
        anonymous = redis.Redis.from_url("redis://" + servers.redis_url.rpartition("@")[2])
        with anonymous, pytest.raises(redis.AuthenticationError):
            anonymous.get("key")
        assert [listening(child) for child in servers.children] == [{LOOPBACK}, {LOOPBACK}]
        private = ("postgres.json", "redis.json", "redis.conf", "logs/postgres.log", "logs/redis.log")
        assert {stat.S_IMODE((reachable_dir / name).stat().st_mode) for name in private} == {0o600}
        passwords = [read_json(reachable_dir / name)["password"] for name in ("postgres.json", "redis.json")]
        commands = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands if any(password in command for password in passwords)]


def test_redis_never_evicts_and_keeps_nothing(own_redis: RunningServer) -> None:
    with redis.Redis.from_url(own_redis.address, decode_responses=True) as client:
        wanted = {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


async def test_a_lost_password_is_replaced(reachable_dir: Path) -> None:
    """Whoever can delete the 0600 file owns the data: it is kept, and gets a new password."""
    with running_servers(reachable_dir) as first:
        await fetch(first.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    (reachable_dir / "postgres.json").unlink()
    with running_servers(reachable_dir) as second:
        assert second.postgres_dsn != first.postgres_dsn
        assert await fetch(second.postgres_dsn, "SELECT answer FROM kept") == 42


def test_an_interrupted_creation_is_done_again(reachable_dir: Path) -> None:
    half_made = reachable_dir / "postgres" / "data.part"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with start_postgres(reachable_dir, reachable_dir / "logs").child as child:
        assert child.poll() is None
    assert not half_made.exists()


@pytest.fixture
def left_running(reachable_dir: Path) -> Iterator[Path]:
    """Data on which a server runs that nobody owns any more; stopped at the end at the latest."""
    account = unprivileged_account()
    server = start_postgres(reachable_dir, reachable_dir / "logs")
    server.child.stop()
    pg_ctl = str(find_programs(account, None).folder / "pg_ctl")
    port = read_json(reachable_dir / "postgres.json")["port"]
    options = f"-c listen_addresses={LOOPBACK} -c port={port} -c unix_socket_directories="
    log = server.data.parent / "orphan.log"
    start = [pg_ctl, "start", "-w", "-D", str(server.data), "-l", str(log), "-o", options]
    assert run_as(account, start, timeout_s=60).returncode == 0
    yield reachable_dir
    run_as(account, [pg_ctl, "stop", "-D", str(server.data), "-m", "immediate"], timeout_s=60)


async def test_a_server_left_running_is_replaced(left_running: Path) -> None:
    orphan = int((left_running / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
    server = start_postgres(left_running, left_running / "logs")
    with server.child:
        assert not running(orphan)
        assert await fetch(server.address, "SELECT 1") == 1


def test_a_pid_file_with_the_number_of_another_program_is_ignored(reachable_dir: Path) -> None:
    """After a crash of the machine, the number in the file may belong to anything; that must not be touched."""
    account = unprivileged_account()
    server = start_postgres(reachable_dir, reachable_dir / "logs")
    server.child.stop()
    with subprocess.Popen(["/bin/sleep", "60"], user=account.uid if account else None) as stranger:
        pid_file = server.data / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{server.data}\n1\n{5432}\n\n{LOOPBACK}\n0 0\nready\n")
        try:
            with start_postgres(reachable_dir, reachable_dir / "logs").child:
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_data_that_the_account_cannot_reach_lies_outside(reachable_dir: Path) -> None:
    """As root below a private folder: that stays private and the files go elsewhere. Otherwise they stay inside."""
    account = unprivileged_account()
    data_dir = reachable_dir / "private" / "data"
    data_dir.mkdir(parents=True)
    data_dir.parent.chmod(0o700)
    shared_home = reachable_dir / "shared"
    home = prepare_home(data_dir, account, keep=False, shared_home=shared_home)
    assert home.is_relative_to(data_dir if account is None else shared_home)
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700

    (home / "kept").touch()
    assert (prepare_home(data_dir, account, keep=True, shared_home=shared_home) / "kept").exists()
    if account is not None:  # a data directory that was deleted leaves files behind that nobody has the password of
        assert not (prepare_home(data_dir, account, keep=False, shared_home=shared_home) / "kept").exists()
        (home / "belongs-to").write_text("/somewhere/else\n")
        with pytest.raises(DevServerError, match="was not made for"):
            prepare_home(data_dir, account, keep=False, shared_home=shared_home)


def test_programs_that_the_account_cannot_run_are_copied(reachable_dir: Path) -> None:
    """As root with a virtual environment below a private folder."""
    account = unprivileged_account()
    original = find_programs(None, None).folder.parent
    site = original.parents[1]
    private = reachable_dir / "private"
    install = private / original.relative_to(site)
    shutil.copytree(original, install, symlinks=True)
    for libraries in site.glob(f"{original.parent.name}.libs"):
        shutil.copytree(libraries, private / libraries.name)
    private.chmod(0o700)
    shared_home = reachable_dir / "shared"
    found = [find_programs(account, None, folders=[install / "bin"], shared_home=shared_home).folder for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].is_relative_to(install if account is None else shared_home)
    assert run_as(account, [found[0] / "initdb", "--version"], timeout_s=20).returncode == 0


def test_data_of_another_version_is_refused(reachable_dir: Path) -> None:
    data = reachable_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(DevServerError, match="written by PostgreSQL 9"):
        start_postgres(reachable_dir, reachable_dir / "logs")


def test_a_server_that_ends_at_once_shows_its_log(reachable_dir: Path) -> None:
    with start_postgres(reachable_dir, reachable_dir / "logs").child:
        pass
    configuration = reachable_dir / "postgres" / "data" / "postgresql.conf"
    configuration.write_text("no_such_setting = on\n")
    with pytest.raises(DevServerError, match="no_such_setting"):
        start_postgres(reachable_dir, reachable_dir / "logs")


def test_redis_starts_again_where_it_was(reachable_dir: Path) -> None:
    addresses = set()
    for _ in range(2):
        server = start_redis(reachable_dir, reachable_dir / "logs")
        with server.child, redis.Redis.from_url(server.address) as client:
            assert client.dbsize() == 0
            client.set("key", "value")
            addresses.add(server.address)
    assert len(addresses) == 1
