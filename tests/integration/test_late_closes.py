"""A CLOSE that comes after the reaper's: together with its adjustment the event tells what was used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.units import PicoUsd
from tests.support.openings import Replica
from tests.support.postgres import ask, connected
from tests.support.records import close_record

if TYPE_CHECKING:
    from gateway.settle.records import CloseRecord

SUMS = """
SELECT count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(reasoning_tokens),
       sum(cost_pico_usd) FROM (
    SELECT event_id, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd FROM usage_event
    UNION ALL
    SELECT event_id, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd
      FROM usage_adjustment) AS all_of_it
"""


def reaped_of(close: CloseRecord) -> CloseRecord:
    """Return what the reaper might have said of an event."""
    return close._replace(
        prompt_tokens=80, cached_tokens=0, completion_tokens=9, reasoning_tokens=0, cost_pico_usd=PicoUsd(5),
        served_model="m", engine="unknown", status="interrupted", coverage="estimated",
    )  # fmt: skip


async def reap(replica: Replica, *closes: CloseRecord) -> None:
    """Close events in a replica's place."""
    await replica.close(*closes)
    await ask(
        replica.dsn, "UPDATE usage_event SET reaped = true WHERE event_id = ANY ($1)", [c.event_id for c in closes]
    )


async def test_an_adjustment_makes_up_the_difference_once(postgres_dsn: str) -> None:
    replica = Replica(postgres_dsn)
    late, timely = close_record(await replica.open()), close_record(await replica.open())
    await reap(replica, reaped_of(late))
    for _ in range(3):  # an answer that is lost has the group come again
        await replica.close(late, timely)
    async with connected(postgres_dsn) as connection:
        rows, *sums = (await connection.fetch(SUMS))[0]
        (adjustment,) = await connection.fetch("SELECT * FROM usage_adjustment")
    assert rows == 3
    expected = [
        late.prompt_tokens + timely.prompt_tokens,
        late.cached_tokens + timely.cached_tokens,
        late.completion_tokens + timely.completion_tokens,
        late.reasoning_tokens + timely.reasoning_tokens,
        late.cost_pico_usd + timely.cost_pico_usd,
    ]
    assert [int(value) for value in sums] == expected
    assert (adjustment["event_id"], adjustment["opened_at"]) == (late.event_id, late.opened_at)
    assert (adjustment["reason"], adjustment["batch_id"].int) == ("late_close", 0)
    assert adjustment["served_model"] == "m", "that of the event it corrects"
    for name in ("organization_id", "team_id", "user_id", "key_id", "model", "price_id"):
        assert adjustment[name] == getattr(late, name)


async def test_what_was_said_right_needs_no_adjustment(postgres_dsn: str) -> None:
    replica = Replica(postgres_dsn)
    close = close_record(await replica.open())
    await reap(replica, close)
    await replica.close(close)
    assert await ask(postgres_dsn, "SELECT count(*) FROM usage_adjustment") == 0


async def test_who_closed_it_before_is_believed(postgres_dsn: str) -> None:
    """The same event with other figures can only be the same record, unless the reaper wrote it."""
    replica = Replica(postgres_dsn)
    close = close_record(await replica.open())
    await replica.close(close)
    await replica.close(close._replace(prompt_tokens=1))
    assert await ask(postgres_dsn, "SELECT count(*) FROM usage_adjustment") == 0
