"""Children end with their owner, however it ends, and in an order that their dependencies allow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest

from gateway.dev.children import LOG_BYTES_MAX, Child, ChildSpec, wait_until
from gateway.dev.errors import DevServerError
from gateway.dev.postgres import start_postgres
from tests.support.process_ids import descendants, left_after, running
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
END_S_MAX = 30
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


def python(tmp_path: Path, code: str, *, stop_grace_s: float = 10.0) -> ChildSpec:
    """Return a child that runs a piece of Python."""
    argv = (sys.executable, "-I", "-c", code)
    return ChildSpec("child", argv, tmp_path / "logs" / "child.log", tmp_path, stop_grace_s=stop_grace_s)


def says_up(child: Child) -> bool:
    """Return whether the child has written that it runs."""
    return "up" in child.log_tail()


@pytest.fixture
def owner(reachable_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own that owns PostgreSQL, Redis and a child which depends on both; and the DSN."""
    argv = [sys.executable, "-m", "tests.support.owner", str(reachable_dir)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield process, told["postgres_dsn"]
        process.kill()


def test_kill_9_of_the_owner_ends_every_child_cleanly(
    owner: tuple[subprocess.Popen[str], str], reachable_dir: Path
) -> None:
    process, dsn = owner
    family = descendants(process.pid)
    assert len(family) > 6  # three guards, three programs, PostgreSQL's own processes

    async def insert() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()

    run_blocking(insert())
    process.kill()
    assert left_after(family, END_S_MAX) == []
    logs = reachable_dir / "logs"
    assert "the server runs" in (logs / "dependant.log").read_text(), "what depends on a server ends before it"
    assert "database system is shut down" in (logs / "postgres.log").read_text()

    async def select() -> object:
        connection = await asyncpg.connect(server.address)
        try:
            return await connection.fetchval("SELECT answer FROM kept")
        finally:
            await connection.close()

    server = start_postgres(reachable_dir, logs)
    with server.child:
        assert server.address == dsn
        assert run_blocking(select()) == 42
    assert "was not properly shut down" not in (logs / "postgres.log").read_text()


def test_an_owner_that_ends_by_itself_leaves_nothing(owner: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = owner
    family = descendants(process.pid)
    process.communicate(timeout=END_S_MAX)
    assert process.returncode == 0
    assert [each for each in family if running(each.pid)] == []


def test_a_killed_guard_takes_its_child_along(tmp_path: Path) -> None:
    with Child(python(tmp_path, "import signal; print('up', flush=True); signal.pause()")) as child:
        assert wait_until(lambda: says_up(child), child, END_S_MAX)
        psutil.Process(child.pid).parent().kill()  # type: ignore[union-attr]  # it has a parent: its guard
        assert child.wait(END_S_MAX) == -signal.SIGKILL
        assert not running(child.pid)


def test_stop_uses_the_child_s_own_signal_and_reports_its_exit_code(tmp_path: Path) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); "
        "signal.pause()"
    )
    with Child(python(tmp_path, code)) as child:
        assert wait_until(lambda: says_up(child), child, END_S_MAX)
        assert child.poll() is None
        assert child.stop() == 7
        assert child.stop() == 7


def test_a_child_that_does_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    with Child(python(tmp_path, STUBBORN, stop_grace_s=0.2)) as child:
        assert wait_until(lambda: says_up(child), child, END_S_MAX)
        assert child.stop() == -signal.SIGKILL
        assert not running(child.pid)


def test_a_child_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    with Child(python(tmp_path, STUBBORN, stop_grace_s=0.1)) as child:
        assert wait_until(lambda: says_up(child), child, END_S_MAX)
        with pytest.raises(DevServerError, match=r"child was not ready after 0 s; the end of .*child\.log:\nup"):
            wait_until(lambda: False, child, 0.1)


def test_a_child_that_ends_is_noticed_and_shows_its_last_words(tmp_path: Path) -> None:
    with Child(python(tmp_path, "import sys; print('first', flush=True); sys.exit('last words')")) as child:
        assert not wait_until(lambda: False, child, END_S_MAX)
        assert child.exit_code == 1
        assert child.log_tail() == "first\nlast words"
        assert child.log_tail(lines_max=1) == "last words"
        child.signal(signal.SIGTERM)  # to nobody


def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with Child(ChildSpec("nothing", ("/no/such/program",), tmp_path / "logs" / "nothing.log", tmp_path)) as child:
        assert child.wait(END_S_MAX) == 127
        assert "cannot run /no/such/program" in child.log_tail()


def test_a_child_sees_its_environment_and_no_descriptor_of_the_owner(tmp_path: Path) -> None:
    code = "import os; print(os.environ['PENSTOCK_WORD'], sorted(int(each) for each in os.listdir('/proc/self/fd')))"
    reading, writing = os.pipe()
    try:
        spec = python(tmp_path, code)
        with (
            Child(python(tmp_path, STUBBORN, stop_grace_s=0.1)) as other,
            Child(
                ChildSpec(spec.name, spec.argv, tmp_path / "seen.log", tmp_path, {"PENSTOCK_WORD": "said"}), [other]
            ) as child,
        ):
            assert child.wait(END_S_MAX) == 0
            assert child.log_tail() == "said [0, 1, 2, 3]"  # 3 lists the folder
    finally:
        os.close(reading)
        os.close(writing)


def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(LOG_BYTES_MAX + 1)
    with Child(python(tmp_path, "print('new')")) as child:
        assert child.wait(END_S_MAX) == 0
        assert child.log_tail() == "new"
    assert log.with_name("child.log.1").stat().st_size == LOG_BYTES_MAX + 1
