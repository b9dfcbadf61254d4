"""`penstock ledger rerate`: exact, repeatable, by adjustments alone."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

from gateway.admin import ledger_rerate
from gateway.admin.database import session_on
from gateway.admin.ledger_rerate import Rerating, rerate
from gateway.admin.usage import Period
from gateway.domain.config import Price
from gateway.domain.usage import Status, TokenUsage
from gateway.settle.price import cost, is_free
from gateway.units import PicoUsd
from tests.support.billing import costs, events_at, rows, set_rates, write_events, write_late_close
from tests.support.postgres import ask
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    import pytest

    from gateway.settle.records import CloseRecord
    from tests.support.command import Penstock

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
OLD = (10, 1, 20, 30, 7)
NEW = (1_000_000_000_001, 100, 3_000, 4_000, 13)
SINCE = str((NOW - 20 * DAY).date())


def exact(event: CloseRecord, rates: tuple[int, ...], **more: int) -> int:
    """Return what an event costs, by the function that the gateway bills with."""
    usage = TokenUsage(
        prompt=event.prompt_tokens + more.get("prompt", 0),
        cached=event.cached_tokens,
        completion=event.completion_tokens + more.get("completion", 0),
        reasoning=event.reasoning_tokens,
    )
    if is_free(event.engine, Status(event.status), usage.prompt):
        return 0
    return cost(Price(*map(PicoUsd, rates)), usage)


def test_events_cost_what_was_in_force_when_they_were_opened(penstock: Penstock, postgres_dsn: str) -> None:
    change = NOW - 3 * DAY
    moments = (NOW - 4 * DAY, change - dt.timedelta(milliseconds=1), change, NOW - 3 * HOUR)
    events = events_at(*moments, cost_pico_usd=PicoUsd(5), price_id=None)
    free = [
        *events_at(NOW - HOUR, engine=None, cost_pico_usd=PicoUsd(0)),
        *events_at(NOW - HOUR, endpoint="messages.count_tokens", cost_pico_usd=PicoUsd(0)),
        *events_at(NOW - HOUR, status="upstream_error", prompt_tokens=0, cached_tokens=0, cost_pico_usd=PicoUsd(0)),
    ]
    unknown = events_at(NOW - HOUR, served_model="unpriced", cost_pico_usd=PicoUsd(0), price_id=None)
    before = events_at(NOW - 9 * DAY, cost_pico_usd=PicoUsd(3), price_id=None)
    write_events(postgres_dsn, [*events, *free, *unknown, *before])
    untouched = rows(postgres_dsn, "SELECT * FROM usage_event ORDER BY event_id")
    set_rates(postgres_dsn, "served", NOW - 5 * DAY, *OLD)
    set_rates(postgres_dsn, "served", change, *NEW)

    planned = penstock("ledger", "rerate", "--since", SINCE, "--dry-run", "--json").document
    assert rows(postgres_dsn, "SELECT * FROM usage_adjustment") == []
    done = penstock("ledger", "rerate", "--since", SINCE, "--json").document
    assert (done["events"], done["adjusted"], done["unpriced"], done["dry_run"]) == (9, 4, 2, False)
    same = set(done) - {"run_id", "dry_run"}
    assert {name: done[name] for name in same} == {name: planned[name] for name in same}
    right = {event.event_id: exact(event, OLD if event.opened_at < change else NEW) for event in events}
    now = costs(postgres_dsn)
    assert {event: now[event] for event in right} == right
    assert [now[event.event_id] for event in (*free, *unknown, *before)] == [0, 0, 0, 0, 3]
    assert {row["batch_id"] for row in rows(postgres_dsn, "SELECT * FROM usage_adjustment")} == {
        type(events[0].event_id)(done["run_id"])
    }
    assert rows(postgres_dsn, "SELECT * FROM usage_event ORDER BY event_id") == untouched, "events never change"

    again = penstock("ledger", "rerate", "--since", SINCE)
    assert again.out.startswith("0 of 9 events were adjusted, by 0 USD in all")
    assert "2 have no price in force at their moment; see: penstock price list --all" in again.out
    assert costs(postgres_dsn) == now


def test_a_late_close_counts_and_a_price_may_change_again_and_again(penstock: Penstock, postgres_dsn: str) -> None:
    (event,) = reaped = events_at(NOW - HOUR, engine=None, status="interrupted", cost_pico_usd=PicoUsd(0))
    write_events(postgres_dsn, reaped, reaped=True)
    write_late_close(postgres_dsn, event, tokens=(10, 0, -2, 0), cost=17)
    for days, rates in ((5, OLD), (4, NEW), (3, OLD)):
        set_rates(postgres_dsn, "served", NOW - days * DAY, *rates)
        done = penstock("ledger", "rerate", "--since", "2d", "--model", "served", "--json").document
        assert done["adjusted"] == 1
        told = event._replace(engine="http://engine")
        assert costs(postgres_dsn)[event.event_id] == exact(told, rates, prompt=10, completion=-2)
    assert done["difference_usd"].startswith("-"), "dearer before"
    kinds = [row["reason"] for row in rows(postgres_dsn, "SELECT reason FROM usage_adjustment")]
    assert sorted(kinds) == ["late_close", "rerate", "rerate", "rerate"]


def test_it_keeps_to_what_is_asked_for(penstock: Penstock, postgres_dsn: str) -> None:
    one, two = events_at(NOW - HOUR, NOW - 30 * HOUR, cost_pico_usd=PicoUsd(0))
    (three,) = events_at(NOW - HOUR, cost_pico_usd=PicoUsd(0), served_model="other")
    write_events(postgres_dsn, [one, two, three])
    for model in ("served", "other"):
        set_rates(postgres_dsn, model, NOW - 5 * DAY, *OLD)
    assert penstock("ledger", "rerate", "--since", "2d", "--org", "nobody").code == 1
    done = penstock("ledger", "rerate", "--since", "24h", "--model", "served", "--json").document
    assert (done["events"], done["adjusted"]) == (1, 1)
    assert [costs(postgres_dsn)[each.event_id] for each in (one, two, three)] == [exact(one, OLD), 0, 0]
    assert penstock("ledger", "rerate").err == "error: Missing option '--since' (see: penstock ledger rerate --help)\n"
    assert "since must lie before until" in penstock("ledger", "rerate", "--since", "1h", "--until", "2h").err


def test_a_model_that_nobody_knows_is_told(penstock: Penstock, postgres_dsn: str) -> None:
    """A price, or an event of any time, is enough for it to be known."""
    asked = ("ledger", "rerate", "--since", "1h", "--model")
    unknown = penstock(*asked, "nosuch")
    assert unknown.code == 0
    assert unknown.out.startswith("0 of 0 events")
    assert unknown.err.startswith("note: model 'nosuch' has no price and has served nothing: it must be a name of")
    set_rates(postgres_dsn, "priced", NOW - 5 * DAY, *OLD)
    assert penstock(*asked, "priced").err == ""
    write_events(postgres_dsn, events_at(NOW - DAY))
    assert penstock(*asked, "served").err == ""
    run_blocking(ask(postgres_dsn, "SELECT (penstock_roll_up(1000)).rolled_up"))
    assert penstock(*asked, "served").err == ""


def test_runs_that_are_stopped_and_runs_at_once_never_double(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = events_at(*(NOW - HOUR - n * dt.timedelta(seconds=1) for n in range(23)), cost_pico_usd=PicoUsd(0))
    write_events(postgres_dsn, events)
    set_rates(postgres_dsn, "served", NOW - 5 * DAY, *NEW)
    monkeypatch.setattr(ledger_rerate, "BATCH_EVENTS", 4)
    period = Period(NOW - DAY, NOW)

    async def run(batches_max: int = 100) -> Rerating:
        async with session_on(postgres_dsn) as db:
            steps = rerate(db, period, model=None, organization_id=None, dry_run=False)
            done = [await anext(steps)]
            async for step in steps:
                done.append(step)
                if len(done) == batches_max:
                    break
        return done[-1]

    async def at_once() -> list[Rerating]:
        return list(await asyncio.gather(run(), run(), run()))

    stopped = run_blocking(run(2))
    assert (stopped.events, stopped.adjusted) == (8, 8)
    finished = run_blocking(at_once())
    assert sum(each.adjusted for each in finished) == 23 - 8
    assert [each.events for each in finished] == [23, 23, 23]
    assert costs(postgres_dsn) == {event.event_id: exact(event, NEW) for event in events}
