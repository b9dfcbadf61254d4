"""Usage reports by several things at once: groups, buckets, filters, orders and pages, exact however they are cut."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from gateway.admin.scope import PLATFORM
from gateway.admin.usage import Asked, Period, UsageRow, usage_report
from gateway.admin.usage_sql import Bucket, Grouping, Order
from gateway.errors import InvalidRequest
from tests.support.postgres import connected
from tests.support.rollups import Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Connection

NOW = dt.datetime.now(dt.UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
DAYS = 40
EVENTS = 100
ALL = Period(MIDNIGHT - DAYS * DAY, MIDNIGHT + DAY)
OWNERS = [Owner(), Owner(user_id=UUID(int=7))]
BEGIN = {
    Bucket.HOUR: lambda at: at.replace(minute=0, second=0, microsecond=0),
    Bucket.DAY: lambda at: at.replace(hour=0, minute=0, second=0, microsecond=0),
    Bucket.WEEK: lambda at: (at - at.weekday() * DAY).replace(hour=0, minute=0, second=0, microsecond=0),
    Bucket.MONTH: lambda at: at.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
}


@pytest.fixture
async def db(postgres_dsn: str) -> AsyncIterator[Connection]:
    """A connection to a fresh database with places for the last days."""
    async with connected(postgres_dsn) as connection:
        await connection.execute("SELECT penstock_make_partitions($1, $2)", ALL.since.date(), DAYS + 2)
        yield connection


async def write(db: Connection, dice: random.Random) -> list[dict[str, Any]]:
    """Write events and corrections, some rolled up; return what is to be reported of each."""
    written: list[dict[str, Any]] = []
    for _ in range(EVENTS):
        owner = dice.choice(OWNERS)
        at = ALL.since + dt.timedelta(milliseconds=dice.randrange(DAYS * 86_400_000))
        event: dict[str, Any] = {
            "at": at,
            Grouping.ORG: str(owner.organization_id),
            Grouping.USER: str(owner.user_id) if owner.user_id else None,
            Grouping.MODEL: dice.choice(("small", "=large()")),
            Grouping.ENGINE: dice.choice(("e1", "e2", None)),
            Grouping.SESSION: dice.choice(("morning", "evening", None)),
            "cost": dice.randrange(10**15),
        }
        event_id = await owner.event(
            db, at, model=str(event[Grouping.MODEL]), engine=event[Grouping.ENGINE],
            session=event[Grouping.SESSION], cost=event["cost"],
        )  # fmt: skip
        if dice.random() < 0.3:
            await owner.adjustment(db, event_id, at, -3, model=str(event[Grouping.MODEL]))
            event["cost"] -= 3
        if dice.random() < 0.1:
            await db.execute("SELECT penstock_roll_up(40)")
        written.append(event)
    return written


async def test_any_combination_adds_up_as_the_events_do(db: Connection) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)  # noqa: S311 - a test's choices; the seed is in its messages
    events = await write(db, dice)
    for _ in range(15):
        things = (Grouping.ORG, Grouping.USER, Grouping.MODEL, Grouping.ENGINE, Grouping.SESSION)
        by = tuple(dice.sample(things, dice.randint(0, 3)))
        bucket = dice.choice((*Bucket, None)) if by else dice.choice(list(Bucket))
        since, until = sorted(ALL.since + dt.timedelta(milliseconds=dice.randrange(DAYS * 86_400_000)) for _ in "ab")
        if dice.random() < 0.5:
            since, until = BEGIN[Bucket.HOUR](since), BEGIN[Bucket.DAY](until) + DAY
        expected: dict[tuple[str | None, ...], list[int]] = defaultdict(lambda: [0, 0])
        for event in events:
            if since <= event["at"] < until:
                begin = (f"{BEGIN[bucket](event['at']):%Y-%m-%dT%H:%M:%SZ}",) if bucket else ()
                sums = expected[(*begin, *(event[each] for each in by))]
                sums[0] += 1
                sums[1] += event["cost"]
        report = await usage_report(db, PLATFORM, Asked(Period(since, until), by, bucket, order=Order.ID))
        names = (("bucket",) if bucket else ()) + tuple(each.id_field or each.field for each in by)
        found = {
            tuple(row.group[name] for name in names): [row.requests, int(Decimal(row.cost_usd).scaleb(12))]
            for row in report.rows
        }
        assert found == expected, (seed, by, bucket, since, until)


async def test_pages_of_several_things_are_the_whole(db: Connection) -> None:
    await write(db, random.Random(1))  # noqa: S311 - the same each time
    by = (Grouping.SESSION, Grouping.ENGINE, Grouping.USER)
    whole = await usage_report(db, PLATFORM, Asked(ALL, by, Bucket.MONTH, order=Order.ID))
    assert (whole.next_after, whole.more) == (None, False)
    for limit in (1, 2, 7, len(whole.rows), len(whole.rows) + 1):
        rows: list[UsageRow] = []
        after = None
        while True:
            asked = Asked(ALL, by, Bucket.MONTH, order=Order.ID, limit=limit, after=after)
            page = await usage_report(db, PLATFORM, asked)
            rows += page.rows
            if (after := page.next_after) is None:
                break
        assert rows == whole.rows
    dearest = await usage_report(db, PLATFORM, Asked(ALL, by, Bucket.MONTH, order=Order.COST, limit=3))
    assert dearest.rows == sorted(whole.rows, key=lambda row: -Decimal(row.cost_usd))[:3]
    assert (dearest.more, dearest.next_after) == (True, None)
    assert dearest.as_of > NOW - HOUR
    for after in ("x", "[1,2,3,4]", '["a"]', '["a",null,"\\u0000","b"]', "[" * 5000):
        with pytest.raises(InvalidRequest, match="after is not the `next_after`"):
            await usage_report(db, PLATFORM, Asked(ALL, by, Bucket.MONTH, order=Order.ID, after=after))


async def test_a_session_tells_when_it_began_and_ended(db: Connection) -> None:
    minutes = [MIDNIGHT - DAY + dt.timedelta(minutes=minute) for minute in (70, 5, 300)]
    for at in minutes:
        await OWNERS[0].event(db, at, session="s")
        await db.execute("SELECT penstock_roll_up(40)")
    await OWNERS[0].event(db, minutes[0], session=None)
    for period in (ALL, Period(minutes[1], minutes[2] + HOUR)):
        report = await usage_report(db, PLATFORM, Asked(period, (Grouping.SESSION,), order=Order.ID))
        assert [(row.id, row.opened_first, row.opened_last) for row in report.rows] == [
            ("s", minutes[1], minutes[2]), (None, None, None)
        ]  # fmt: skip


async def test_sums_of_more_than_64_bits_are_exact_when_rolled_up(db: Connection) -> None:
    for _ in range(3):
        await OWNERS[0].event(db, MIDNIGHT - DAY, cost=2**62)
    await db.execute("SELECT penstock_roll_up(40)")
    (row,) = (await usage_report(db, PLATFORM, Asked(ALL))).rows
    assert row.cost_usd.replace(".", "") == str(3 * 2**62)
