"""A ledger of many events, made by Postgres itself: agents' sessions of many tenants over the last thirty days."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg

DAYS = 30
ORGANIZATIONS, TEAMS, KEYS = 20, 200, 2_000
MODELS, ENGINES = 6, 12
EVENTS_PER_SESSION = 25
"""A coding agent works for some minutes at a task, a request every half minute."""

DAY_MS, MINUTE_MS = 85_000_000, 60_000
"""Within which time sessions begin, so that their last request is of the same day, or has been."""

ADJUSTED_EVERY = 100
TAIL = 5_000
"""Events that are not rolled up yet: of two seconds at 2,500 requests a second."""

ROLL_UP_ROWS = 100_000

_UUID = "md5('{kind}' || {number})::uuid"


def _id(kind: str, number: str) -> str:
    return _UUID.format(kind=kind, number=number)


ORGANIZATION_ID, TEAM_ID = _id("organization", f"t % {ORGANIZATIONS}"), _id("team", "t")
TENANTS = f"""
INSERT INTO organization (id, name)
SELECT {_id("organization", "o")}, 'organization-' || o FROM generate_series(0, {ORGANIZATIONS - 1}) AS o;
INSERT INTO team (id, organization_id, name)
SELECT {TEAM_ID}, {ORGANIZATION_ID}, 'team-' || t FROM generate_series(0, {TEAMS - 1}) AS t;
INSERT INTO app_user (id, organization_id, name)
SELECT {_id("user", "k")}, {ORGANIZATION_ID}, 'user-' || k
  FROM generate_series(0, {KEYS - 1}) AS k, LATERAL (SELECT k % {TEAMS} AS t) AS of_team;
INSERT INTO api_key (id, organization_id, team_id, user_id, public_id, secret_hmac, pepper_version)
SELECT {_id("key", "k")}, {ORGANIZATION_ID}, {TEAM_ID}, {_id("user", "k")}, 'key' || k,
       decode(repeat('00', 32), 'hex'), 1
  FROM generate_series(0, {KEYS - 1}) AS k, LATERAL (SELECT k % {TEAMS} AS t) AS of_team;
"""  # noqa: S608 - constants

# Whose session it is, when it began on its day and what it asks for follow from its number alone.
EVENTS = f"""
INSERT INTO usage_event (event_id, opened_at, boot_id, organization_id, team_id, user_id, key_id, model, served_model,
    engine, endpoint, session, streamed, attempts, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    cost_pico_usd, status, coverage, duration_ms)
SELECT (lpad(to_hex(ms), 12, '0') || '7' || left(noise, 3) || '8' || substr(noise, 4, 15))::uuid,
       'epoch'::timestamptz + ms * interval '1 millisecond', md5('boot')::uuid, {ORGANIZATION_ID}, {TEAM_ID},
       {_id("user", "k")}, {_id("key", "k")}, 'model-' || k % {MODELS}, 'model-' || k % {MODELS},
       'http://engine-' || s % {ENGINES}, 'chat.completions', 'session-' || s, true, 1, 50000 + n % 1000, 40000,
       300 + n % 100, 50, 1000000 + n % 1000000, 'ok', CASE n % 50 WHEN 0 THEN 'estimated' ELSE 'exact' END, 900
  FROM generate_series($1::bigint, $2::bigint) AS n,
       LATERAL (SELECT n / {EVENTS_PER_SESSION} AS s, md5(n::text) AS noise) AS one,
       LATERAL (SELECT abs(hashint8(s)::bigint) % {KEYS} AS k, abs(hashint8(s + 1)::bigint) AS began) AS of_session,
       LATERAL (SELECT k % {TEAMS} AS t, (extract(epoch FROM $3::timestamptz) * 1000)::bigint + began % $5::bigint
                       + n % {EVENTS_PER_SESSION} * 30000 AS ms) AS of_event
 WHERE ms < extract(epoch FROM $4::timestamptz) * 1000
"""  # noqa: S608 - constants
ADJUSTMENTS = f"""
INSERT INTO usage_adjustment (event_id, opened_at, batch_id, reason, organization_id, team_id, user_id, key_id, model,
    served_model, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd)
SELECT event_id, opened_at, md5('batch')::uuid, 'rerate', organization_id, team_id, user_id, key_id, model,
       served_model, 0, 0, 0, 0, -1
  FROM usage_event WHERE opened_at >= $1 AND opened_at < $2 AND prompt_tokens % {ADJUSTED_EVERY} = 0
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Filled:
    """What there is to report on: how many events, from when to when, and whose there are among others."""

    events: int
    since: dt.datetime
    until: dt.datetime
    organization_id: UUID
    session: str


async def fill(
    connection: asyncpg.Connection[asyncpg.Record], events: int, *, days: int = DAYS, now: dt.datetime | None = None
) -> Filled:
    """Write about so many events of the last days and of today so far, one in a hundred corrected, and roll them up.

    Those of the last moments stay in the tail, as they do under traffic. The database has to be a fresh one; `now` may
    be a moment of the past.
    """
    now = now or dt.datetime.now(dt.UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - dt.timedelta(days=days)
    await connection.execute("SELECT penstock_make_partitions($1, $2)", first.date(), days + 2)
    await connection.execute(TENANTS)
    a_day = max(events // days, 1)
    for number in range(days + 1):
        day = first + dt.timedelta(days=number)
        await connection.execute(EVENTS, number * a_day, (number + 1) * a_day - 1, day, now, DAY_MS, timeout=None)
        await connection.execute(ADJUSTMENTS, day, day + dt.timedelta(days=2), timeout=None)
        await roll_up(connection)
    first_of_tail, ago = (days + 1) * a_day, now - dt.timedelta(minutes=15)
    await connection.execute(EVENTS, first_of_tail, first_of_tail + TAIL - 1, ago, now, MINUTE_MS, timeout=None)
    await connection.execute("VACUUM ANALYZE", timeout=None)
    written: int = await connection.fetchval("SELECT count(*) FROM usage_event", timeout=None)
    organization_id = await connection.fetchval(f"SELECT {ORGANIZATION_ID} FROM (SELECT 0 AS t) AS first")  # noqa: S608 - constants
    return Filled(written, first, now, organization_id, "session-0")


async def roll_up(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Roll up all that there is."""
    while await connection.fetchval("SELECT behind FROM penstock_roll_up($1)", ROLL_UP_ROWS, timeout=None):
        pass
