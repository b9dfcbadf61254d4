"""Leadership on a real Postgres: one leads at a time, another takes over, and duties do not stop one another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gateway.observe.duties import DutyMetrics
from gateway.storage.leader import LOCK, Duty, Leadership, Term
from gateway.storage.partitions import make_partitions_ahead
from tests.support.frozen import frozen
from tests.support.postgres import ask, connected
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.dev.children import RunningServer

SILENCE_S = 1.0
HOLDERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted"
END_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'penstock-leader'"
)


class Candidate:
    """A replica that stands, with one duty that notes the terms it ran in; `trouble` is what its other duty raises."""

    def __init__(self, dsn: str) -> None:
        self.terms: list[Term] = []
        self.runs = 0
        self.active = 0
        self.trouble: Exception | None = None
        self.registry = CollectorRegistry()
        duties = (Duty("troubled", 0.01, 5.0, self._raise), Duty("noted", 0.01, 5.0, self._note))
        self.leadership = Leadership(dsn, duties, DutyMetrics(self.registry), silence_s_max=SILENCE_S)
        self.task = asyncio.ensure_future(self.leadership.run())

    @property
    def leads(self) -> bool:
        """What its metric says."""
        return self.sample("penstock_leader") == 1

    def sample(self, name: str, **labels: str) -> float:
        """Return one of its metrics."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _raise(self, _term: Term) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def _note(self, term: Term) -> None:
        self.active += 1
        try:
            async with term.connection() as connection:
                await connection.execute("SELECT 1")
                if not self.terms or self.terms[-1] is not term:
                    self.terms.append(term)
                self.runs += 1
            await asyncio.sleep(0)
        finally:
            self.active -= 1


@asynccontextmanager
async def candidates(*addresses: str) -> AsyncIterator[list[Candidate]]:
    """Yield replicas that stand, the first of which leads already."""
    standing: list[Candidate] = []
    try:
        for address in addresses:
            standing.append(Candidate(address))
            await wait_until(lambda: standing[0].leads, "the first leads")
        yield standing
    finally:
        await asyncio.gather(*(each.stop() for each in standing))


async def works(candidate: Candidate, runs: int = 3) -> None:
    """Wait until the duties of a candidate have run a few times more."""
    before = candidate.runs
    await wait_until(lambda: candidate.runs >= before + runs, "its duties run")


async def test_one_leads_and_the_next_one_does_when_it_stops(postgres_dsn: str) -> None:
    async with candidates(postgres_dsn, postgres_dsn, postgres_dsn) as (first, *others):
        await works(first, runs=100)
        assert await ask(postgres_dsn, HOLDERS, LOCK & 0xFFFFFFFF) == 1
        assert [each.runs for each in others] == [0, 0]
        await first.stop()
        assert not first.leads
        assert first.active == 0
        await wait_until(lambda: any(each.leads for each in others), "another leads")
        assert len(first.terms) == 1
        assert sorted(each.leads for each in others) == [False, True]


async def test_a_clean_end_frees_the_lead_at_once(postgres_dsn: str) -> None:
    async with candidates(postgres_dsn) as (first,):
        await first.stop()
        async with connected(postgres_dsn) as connection:
            assert await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK)


async def test_a_session_that_postgres_ends_ends_all_duties_and_a_new_term_begins(postgres_dsn: str) -> None:
    async with candidates(postgres_dsn) as (only,):
        await works(only)
        assert await ask(postgres_dsn, END_SESSIONS) == 1
        await wait_until(lambda: len(only.terms) == 2, "it leads again")
        assert only.terms[0] is not only.terms[1]


@pytest.mark.parametrize("cut", [False, True])
async def test_who_is_cut_off_stops_before_another_takes_over(postgres_dsn: str, *, cut: bool) -> None:
    """Not cut, its connection stands as far as either end can tell: both must give it up by themselves."""
    with Proxy(postgres_dsn) as proxy:
        async with candidates(proxy.address, postgres_dsn) as (first, second):
            await works(first)
            proxy.freeze()
            if cut:
                proxy.cut()
            both: list[bool] = []

            def taken_over() -> bool:
                both.append(bool(first.active and second.active))
                return second.leads

            await wait_until(taken_over, "the other takes over")
            await works(second)
            assert not any(both)
            assert first.active == 0
            proxy.thaw()


async def test_a_leader_with_nothing_to_do_notices_too(postgres_dsn: str) -> None:
    registry = CollectorRegistry()
    with Proxy(postgres_dsn) as proxy:
        leadership = Leadership(proxy.address, (), DutyMetrics(registry), silence_s_max=SILENCE_S)
        running = asyncio.ensure_future(leadership.run())
        await wait_until(lambda: registry.get_sample_value("penstock_leader") == 1, "it leads")
        proxy.freeze()
        await wait_until(lambda: registry.get_sample_value("penstock_leader") == 0, "it gives up")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        proxy.thaw()


async def test_a_frozen_postgres_ends_the_term(own_postgres: RunningServer) -> None:
    async with candidates(own_postgres.address) as (only,):
        await works(only)
        with frozen(own_postgres):
            await wait_until(lambda: not only.leads, "it gives up")
            assert only.active == 0
        await wait_until(lambda: len(only.terms) == 2, "it leads again")


async def test_a_duty_that_fails_is_counted_told_once_and_stops_no_other(postgres_dsn: str) -> None:
    async with candidates(postgres_dsn) as (only,):
        with capture_logs() as logs:
            for only.trouble in (ValueError("a"), ValueError("b"), None):
                await works(only, runs=20)
            told = [(line["event"], line.get("reason")) for line in logs]
        assert told == [
            ("duty_failed", "ValueError: a"),
            ("duty_failed", "ValueError: b"),
            ("duty_works_again", None),
        ]
        assert only.sample("penstock_duty_failures_total", duty="troubled") >= 2
        assert only.sample("penstock_duty_failures_total", duty="noted") == 0
        assert only.sample("penstock_duty_seconds_count", duty="noted") >= 60
        assert len(only.terms) == 1


async def test_a_statement_that_takes_too_long_fails_its_duty_and_not_the_term(postgres_dsn: str) -> None:
    async def sleep_long(term: Term) -> None:
        async with term.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    registry = CollectorRegistry()
    duty = Duty("slow", 0.01, 30.0, sleep_long)
    running = asyncio.ensure_future(
        Leadership(postgres_dsn, (duty,), DutyMetrics(registry), silence_s_max=SILENCE_S).run()
    )
    failures = ("penstock_duty_failures_total", {"duty": "slow"})
    with capture_logs() as logs:
        await wait_until(lambda: (registry.get_sample_value(*failures) or 0) >= 2, "it was given up twice")
    assert registry.get_sample_value("penstock_leader") == 1
    assert [line["event"] for line in logs if line["event"].startswith("lead")] == ["leads"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_partitions_are_made_ahead(postgres_dsn: str) -> None:
    last = "SELECT to_regclass('usage_event_' || to_char((now() AT TIME ZONE 'UTC')::date + 7, 'YYYYMMDD'))"
    name = await ask(postgres_dsn, last)
    await ask(postgres_dsn, f"DROP TABLE IF EXISTS {name or 'nothing'}")
    assert await ask(postgres_dsn, last) is None
    async with connected(postgres_dsn) as connection:
        await make_partitions_ahead(connection)
    assert await ask(postgres_dsn, last) is not None
