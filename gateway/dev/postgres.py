"""Starts a private PostgreSQL on the loopback address, from a wheel or an installed server, with data that persists.

Works as root (the server then runs under an unprivileged account) and as anybody else. Only who can read the data
directory's 0600 file knows the password, so other users of the machine stay out.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING

import psutil

from gateway.dev.accounts import Account, run_as, unprivileged_account
from gateway.dev.children import Child, ChildSpec, RunningServer, wait_until
from gateway.dev.errors import DevServerError
from gateway.dev.files import LOOPBACK, free_port, new_password, port_is_free, read_json, write_private_json
from gateway.dev.postgres_home import prepare_home
from gateway.dev.postgres_programs import PostgresPrograms, find_programs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "postgres"
USER = DATABASE = "penstock"
STATE_FILE = "postgres.json"
INITDB_S_MAX = 120.0
READY_S_MAX = 60.0  # recovery after a crash of the machine included
STOP_S_MAX = 30.0
PORT_ATTEMPTS_MAX = 3
INITDB_OPTIONS = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "on",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # needs /dev/shm, which is tiny in containers
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def start_postgres(data_dir: Path, log_dir: Path, settings: Mapping[str, str] = SETTINGS) -> RunningServer:
    """Start PostgreSQL with the data of `data_dir`, making it first when there is none; return once it answers.

    `settings` are the server's own, by name; the port is added. Port and password are kept in `data_dir`, so the DSN
    stays the same while the port is free. A server that an earlier owner left running on the same data is stopped.
    Raises DevServerError with what to do about it.
    """
    account = unprivileged_account()
    state_file = data_dir / STATE_FILE
    state = read_json(state_file)
    home = prepare_home(data_dir, account, keep=bool(state.get("password")))
    data = home / "data"
    programs = find_programs(account, _data_major(data))
    _stop_leftover(programs, account, data)
    if not state.get("password"):
        state = {"password": new_password(), "port": free_port()}
        if data.exists():  # somebody deleted the state file alone
            _single_user(programs, account, data, f"ALTER ROLE {USER} PASSWORD '{state['password']}'")
        write_private_json(state_file, state)
    if not data.exists():
        _create(programs, account, home, str(state["password"]))
    for _ in range(PORT_ATTEMPTS_MAX):
        port = free_port(int(state["port"]))
        if port != state["port"]:
            state["port"] = port
            write_private_json(state_file, state)
        child = Child(_spec(programs, account, data, dict(settings) | {"port": str(port)}, log_dir / "postgres.log"))
        try:
            ready = wait_until(partial(_is_ready, data, child.pid), child, READY_S_MAX)
        except BaseException:
            child.stop()
            raise
        if ready:
            return RunningServer(f"postgresql://{USER}:{state['password']}@{LOOPBACK}:{port}/{DATABASE}", child, data)
        if port_is_free(port):  # the port was not the reason
            break
    raise child.failure(f"ended with exit code {child.exit_code}")


def _spec(
    programs: PostgresPrograms, account: Account | None, data: Path, settings: Mapping[str, str], log: Path
) -> ChildSpec:
    options = [f"--{name}={value}" for name, value in settings.items()]
    return ChildSpec(
        name=NAME,
        argv=(str(programs.folder / "postgres"), "-D", str(data), *options),
        log=log,
        cwd=data,
        account=account,
        stop_signal=signal.SIGINT,  # "fast" shutdown: ends sessions, writes everything down
        stop_grace_s=STOP_S_MAX,
    )


def _create(programs: PostgresPrograms, account: Account | None, home: Path, password: str) -> None:
    """Run initdb in a folder of its own and rename it when complete: an interrupted one leaves nothing half-made."""
    part = home / "data.part"
    password_file = home / "password.part"
    shutil.rmtree(part, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
            if account:
                os.fchown(descriptor, account.uid, account.gid)
        argv: list[str | Path] = [
            programs.folder / "initdb",
            "-D",
            part,
            "-U",
            USER,
            "--pwfile",
            password_file,
            *INITDB_OPTIONS,
        ]
        done = run_as(account, argv, timeout_s=INITDB_S_MAX)
        if done.returncode != 0:
            raise DevServerError(f"initdb failed:\n{done.stdout}{done.stderr}")
        _single_user(programs, account, part, f"CREATE DATABASE {DATABASE}")
    finally:
        password_file.unlink(missing_ok=True)
    part.replace(home / "data")


def _single_user(programs: PostgresPrograms, account: Account | None, data: Path, statement: str) -> None:
    """Run a statement without a server and so without a password. The data must not be in use."""
    argv: list[str | Path] = [programs.folder / "postgres", "--single", "-D", data, "postgres"]
    done = run_as(account, argv, timeout_s=INITDB_S_MAX, stdin=f"{statement};\n")
    if done.returncode != 0 or "ERROR:" in done.stderr:
        raise DevServerError(f"PostgreSQL refused to prepare {data}:\n{done.stderr}")


def _data_major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text().strip())
    except FileNotFoundError:
        return None


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_ready(data: Path, pid: int) -> bool:
    """Return whether the server says that it takes connections, as `pg_ctl` reads it: line 8 of its pid file."""
    lines = _pid_file(data)
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _stop_leftover(programs: PostgresPrograms, account: Account | None, data: Path) -> None:
    """Stop a server that still runs on this data, and remove a pid file whose number another program has by now."""
    lines = _pid_file(data)
    if not lines:
        return
    servers = _server_processes(data)
    try:
        pid = int(lines[0])
    except ValueError:
        pid = 0
    if any(process.pid == pid for process in servers):
        stop: list[str | Path] = [
            programs.folder / "pg_ctl",
            "stop",
            "-D",
            data,
            "-m",
            "fast",
            "-w",
            "-t",
            f"{STOP_S_MAX:.0f}",
        ]
        done = run_as(account, stop, timeout_s=STOP_S_MAX + 10)
        if done.returncode != 0 and _server_processes(data):
            raise DevServerError(f"a PostgreSQL server still runs on {data} and does not stop:\n{done.stderr}")
        return
    # Without their parent the server's other processes end by themselves; the data must not be touched before.
    _, alive = psutil.wait_procs(servers, timeout=STOP_S_MAX)
    if alive:
        raise DevServerError(f"processes of a PostgreSQL server still run on {data}: {[each.pid for each in alive]}")
    if psutil.pid_exists(pid):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _server_processes(data: Path) -> list[psutil.Process]:
    """Return the processes of a PostgreSQL server on this data: they all have the data as their working directory."""
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data)
    ]
