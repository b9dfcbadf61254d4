"""`python -m bench` from end to end, very short: what it prints and stores, and what it leaves behind (nothing)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest

from bench.nginx import find_nginx
from bench.pinning import available_cores
from bench.storage import read_document
from tests.support.process_ids import descendants, left_after
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses

RUN_S_MAX = 100.0


@contextmanager
def bench(*arguments: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the benchmark; kill what is left of it at the end of the block."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def addresses(servers: ServerAddresses) -> tuple[str, str]:
    return f"--postgres-dsn={servers.postgres_dsn}", f"--redis-url={servers.redis_url}"


def program_of(process: psutil.Process) -> str:
    """Return the name of the program that a process runs, or of the command of `penstock`."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return ""
    return words[3] if words[1:3] == ["-m", "gateway"] else Path(words[0]).name if words else ""


def wait_for_programs(pid: int, *names: str) -> list[psutil.Process]:
    """Return all descendants of a process, once these programs are among them."""

    def look() -> list[psutil.Process]:
        running = descendants(pid)
        return running if set(names) <= {program_of(process) for process in running} else []

    return wait_for(look, f"{names} run", RUN_S_MAX)


def leftover_databases(dsn: str) -> list[str]:
    """Return the names of the benchmark's databases on a server."""

    async def read() -> list[str]:
        connection = await asyncpg.connect(dsn)
        try:
            rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'penstock_bench_%'")
        finally:
            await connection.close()
        return [row["datname"] for row in rows]

    return asyncio.run(read())


def test_a_short_run_measures_prints_and_stores(servers: ServerAddresses, redis_url: str, tmp_path: Path) -> None:
    assert len(available_cores()) >= 2, "the benchmark needs two cores, as its documentation says"
    output, results = tmp_path / "output", tmp_path / "results"
    scenarios = ("answers-2k", "latency-streams", "start-up")
    chosen = [f"--scenario={name}" for name in scenarios]
    short = ("--runs=1", "--seconds=0.5", f"--results-dir={results}")
    with bench(*addresses(servers), *short, *chosen, output=output) as process:
        code = process.wait(RUN_S_MAX)
    said = output.read_text()
    (path,) = results.glob("*.json")
    document = read_document(path)
    # Other tests may take the processors for longer than Redis may take to answer: told, and the only reason for a 1.
    assert code == (0 if all(scenario.limited_by_redis for scenario in document.scenarios) else 1), said
    assert [scenario.scenario["name"] for scenario in document.scenarios] == list(scenarios)
    assert document.error is None
    assert document.machine["cores"] >= 2
    assert set(document.machine["servers"]) == {"postgres", "redis"}
    assert "commit" in document.machine
    nginx = find_nginx()
    assert document.nginx == (nginx.version if nginx else None)
    assert (document.nginx_missing_because is None) is (nginx is not None)

    answers, streams, start_up = document.scenarios
    for scenario in (answers, streams):
        assert set(scenario.runs) == {"direct", "gateway", *(["nginx"] if nginx else [])}
        (run,) = scenario.runs["gateway"]
        assert run["cpu_s"]["gateway"] > 0
        assert run["memory"]["peak_mb"] >= scenario.idle_memory["gateway"]["resident_mb"] * 0.9 > 0
        assert scenario.ledger is not None
        assert scenario.ledger["is_exact"], said
    figures = {
        (figure.scenario, figure.name): figure for figure in answers.figures + streams.figures + start_up.figures
    }
    transit = figures["latency-streams", "chunk transit p50"]
    assert transit.direct is not None
    assert transit.gateway is not None
    assert transit.difference == pytest.approx(transit.gateway - transit.direct)
    assert figures["answers-2k", "CPU per request"].met is not None
    assert len(figures["start-up", "time to ready"].values["gateway"]) == len(start_up.starts) == 2
    assert "answers-2k" in said
    assert str(path) in said
    assert leftover_databases(servers.postgres_dsn) == []


def test_an_interrupt_ends_everything_and_drops_the_database(
    servers: ServerAddresses, redis_url: str, tmp_path: Path
) -> None:
    output, endless = tmp_path / "output", ("--runs=1", "--seconds=600", "--scenario=answers-2k")
    with bench(*addresses(servers), *endless, f"--results-dir={tmp_path / 'results'}", output=output) as process:
        running = wait_for_programs(process.pid, "engine", "load", "serve")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # impatience does not cut the cleaning up short
        assert process.wait(RUN_S_MAX) == 130, output.read_text()
    assert left_after(running, 0) == []
    assert leftover_databases(servers.postgres_dsn) == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_everything_too(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with bench("--direct-only", "--seconds=600", "--runs=900", "--scenario=answers-2k", output=output) as process:
        running = wait_for_programs(process.pid, "engine", "load")
        process.send_signal(number)
        assert process.wait(RUN_S_MAX) == 130, output.read_text()
    assert left_after(running, 0) == []
    assert "interrupted: nothing is stored, nothing is left running" in output.read_text()


def test_even_a_killed_benchmark_takes_its_processes_along(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with bench("--direct-only", "--runs=900", "--scenario=answers-2k", output=output) as process:
        running = wait_for_programs(process.pid, "engine", "load")
        process.kill()
        process.wait()
        assert left_after(running, RUN_S_MAX) == []


def test_a_scenario_that_fails_ends_with_an_error_and_what_was_measured(tmp_path: Path) -> None:
    output, results = tmp_path / "output", tmp_path / "results"
    chosen = ("--scenario=latency-answers", "--scenario=answers-2k", "--direct-only", "--no-nginx")
    with bench(*chosen, "--runs=1", "--seconds=1", f"--results-dir={results}", output=output) as process:
        wait_for(
            lambda: "latency-answers" in output.read_text().partition("Ctrl-C")[2], "the first scenario", RUN_S_MAX
        )
        (engine,) = [one for one in wait_for_programs(process.pid, "engine") if program_of(one) == "engine"]
        engine.kill()
        assert process.wait(RUN_S_MAX) == 1
    (path,) = results.glob("*.json")
    stored = json.loads(path.read_text())
    assert [scenario["scenario"]["name"] for scenario in stored["scenarios"]] == ["latency-answers"]
    assert " ".join(stored["error"].split()) in " ".join(output.read_text().split())
    assert stored["nginx"] is None
    assert "--no-nginx" in stored["nginx_missing_because"]
