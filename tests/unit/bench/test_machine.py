"""Cores and the kernel's accounts: who runs where, and what a process used."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from bench.accounting import CpuSample, cpu_ns, memory_of, sample_cpu
from bench.errors import BenchError
from bench.machine import busy_caveat
from bench.pinning import Cores, parse_cores, pinned, split_cores, thread_siblings
from bench.processes import alone

if TYPE_CHECKING:
    from pathlib import Path

NO_SUCH_PID = 2**22 + 1  # above the highest that Linux ever gives out


def singles(_: int) -> frozenset[int]:
    """Return no siblings: every core is a physical one."""
    return frozenset()


def pairs(core: int) -> frozenset[int]:
    """Return the other thread of cores that come in pairs: 0 and 1, 2 and 3."""
    return frozenset({core ^ 1})


def test_the_gateway_has_a_core_to_itself() -> None:
    cores = split_cores(frozenset({2, 3, 5}), siblings_of=singles)
    assert cores.gateway == {2}
    assert cores.others == {3, 5}
    assert split_cores(frozenset({2, 3}), 3, singles).others == {2}


def test_the_other_thread_of_its_physical_core_stays_unused() -> None:
    cores = split_cores(frozenset({0, 1, 2, 3}), siblings_of=pairs)
    assert cores == Cores(frozenset({0}), frozenset({2, 3}), unused=frozenset({1}))


def test_two_threads_of_one_physical_core_are_used_with_a_caveat() -> None:
    cores = split_cores(frozenset({0, 1}), siblings_of=pairs)
    assert cores == Cores(frozenset({0}), frozenset({1}), shared=True)
    assert "two hardware threads of one physical core" in cores.caveats()[0]
    assert not any("physical" in caveat for caveat in split_cores(frozenset({0, 1}), siblings_of=singles).caveats())
    assert split_cores(frozenset(range(8)), siblings_of=pairs).caveats() == []


@pytest.mark.parametrize(("available", "core"), [({0}, None), ({0, 1}, 7)])
def test_refuses_cores_that_do_not_do(available: set[int], core: int | None) -> None:
    with pytest.raises(BenchError):
        split_cores(frozenset(available), core, singles)


def test_says_when_a_process_may_not_choose_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, cores: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(BenchError, match="may not choose its cores"), pinned(frozenset({0})):
        raise AssertionError("it runs unpinned")


def test_reads_lists_of_cores_as_linux_writes_them() -> None:
    assert parse_cores("0-2,5\n") == {0, 1, 2, 5}
    assert 0 not in thread_siblings(0)
    assert thread_siblings(10_000) == frozenset()


def test_shares_are_cpu_time_over_elapsed_time() -> None:
    before, after = CpuSample(10.0, {"a": 1.0, "gone": 5.0}), CpuSample(12.0, {"a": 2.0, "gone": 0.0})
    assert before.used_until(after) == {"a": 1.0, "gone": 0.0}
    assert before.shares_until(after) == {"a": 0.5, "gone": 0.0}


def test_cpu_time_is_the_kernels_own_count() -> None:
    before = time.process_time_ns()
    counted = cpu_ns(os.getpid())
    assert before <= counted <= time.process_time_ns()


def test_cpu_time_of_ended_threads_counts() -> None:
    used_ns: list[int] = []

    def work() -> None:
        while time.thread_time_ns() < 20_000_000:
            pass
        used_ns.append(time.thread_time_ns())

    before = cpu_ns(os.getpid())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert cpu_ns(os.getpid()) - before >= used_ns[0]


def test_a_sample_holds_groups_and_cores() -> None:
    sample = sample_cpu({"self": [os.getpid()], "gone": [NO_SUCH_PID]}, {"core": frozenset({0})})
    assert sample.used_s["self"] > 0
    assert sample.used_s["gone"] == 0
    assert "core" in sample.used_s


def test_memory_has_a_peak_at_least_as_high_as_now() -> None:
    memory = memory_of(os.getpid())
    assert 5 < memory.resident_mb <= memory.peak_mb
    assert memory_of(NO_SUCH_PID).peak_mb == 0


@pytest.mark.parametrize(("load", "told"), [(0.2, False), (4.9, True)])
def test_tells_when_the_machine_is_not_idle(load: float, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a case
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert (f"load average {load}" in (busy_caveat() or "")) is told


def test_only_one_benchmark_runs_at_a_time(tmp_path: Path) -> None:
    for _ in range(2):
        with alone(tmp_path / "build"), pytest.raises(BenchError, match="another benchmark"), alone(tmp_path / "build"):
            raise AssertionError("two at once")


def test_there_is_no_cpu_time_of_nobody() -> None:
    with pytest.raises(OSError, match="No such process"):
        cpu_ns(NO_SUCH_PID)
