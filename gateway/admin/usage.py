"""Usage reports: what the ledger says was used, summed by tenant or model, exact to the last pico-USD.

Read from the rollups with their tail (`gateway.settle.sums`), so that a report of a year costs little more than one of
a day. Nothing is cut off silently: a report is whole, and a page says what the next one starts after.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.admin.organizations import narrowed
from gateway.admin.times import parse_moment
from gateway.errors import InvalidRequest, StorageUnavailable
from gateway.settle.sums import USED, Cover
from gateway.units import PicoUsd, format_usd

if TYPE_CHECKING:
    import datetime as dt

    from gateway.admin.database import Database
    from gateway.admin.scope import Scope

SINCE_DEFAULT = "24h"
ROWS_MAX = 10_000
"""How many rows a page may have."""


class Grouping(StrEnum):
    """What a report has a row for each of. A model is the one that served, whose price applies."""

    ORG = "org"
    TEAM = "team"
    USER = "user"
    KEY = "key"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` up to, but not including, `until`; both in UTC. An event counts when its request was opened."""

    since: dt.datetime
    until: dt.datetime

    @classmethod
    def parse(cls, since: str | None, until: str | None, now: dt.datetime) -> Period:
        """Read `2026-08-01`, `2026-08-01T12:00Z`, `24h` or `7d`; by default the 24 hours before `until`, which is now.

        Raises InvalidRequest, also when the period is empty.
        """
        end = now if until is None else parse_moment(until, now, "until")
        begin = parse_moment(SINCE_DEFAULT, end, "until") if since is None else parse_moment(since, now, "since")
        if begin >= end:
            raise InvalidRequest("since must lie before until, which is now unless it is given", param="since")
        return cls(begin, end)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row. `id` is a tenant's or key's id or a model's name, None (with `name` None) for keys without a user.

    `prompt_tokens` include `cached_tokens`. `cost_usd` is an exact decimal number. `estimated` counts the requests
    whose tokens were estimated, because the engine never told.
    """

    id: str | None
    name: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: str
    estimated: int


_USED = USED.format(
    organization="$1",
    since="$2::timestamptz",
    hours="$3::timestamptz",
    days="$4::timestamptz",
    days_end="$5::timestamptz",
    rest="$6::timestamptz",
    until="$7::timestamptz",
)

# Deleted tenants keep their names here: the ledger outlives them.
_ID = {
    Grouping.ORG: "part.organization_id",
    Grouping.TEAM: "part.team_id",
    Grouping.USER: "part.user_id",
    Grouping.KEY: "part.key_id",
    Grouping.MODEL: "part.served_model",
}
_NAME = {
    Grouping.ORG: "(SELECT name FROM organization WHERE organization.id = used.id)",
    Grouping.TEAM: "(SELECT name FROM team WHERE team.id = used.id)",
    Grouping.USER: "(SELECT name FROM app_user WHERE app_user.id = used.id)",
    Grouping.KEY: "(SELECT COALESCE(NULLIF(name, ''), public_id) FROM api_key WHERE api_key.id = used.id)",
    Grouping.MODEL: "used.id",
}


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Part of a report, ordered by id. `next_after` is what the next page starts after, None on the last one."""

    rows: list[UsageRow]
    next_after: str | None


async def usage_report(
    db: Database, scope: Scope, by: Grouping, period: Period, *, organization: str | None = None
) -> list[UsageRow]:
    """Return all that was used within the scope in a period, the most expensive first.

    It is one statement, so that every row is of the same view of the ledger, however many there are.

    Args:
        organization: id or name of one organization to report on. Raises NotFound when it is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    return await _rows(db, scope, by, period, "ORDER BY cost_pico_usd DESC, requests DESC, text_id")


async def usage_page(
    db: Database,
    scope: Scope,
    by: Grouping,
    period: Period,
    *,
    limit: int = ROWS_MAX,
    after: str | None = None,
    organization: str | None = None,
) -> UsagePage:
    """Return the part of a report that starts after the row with id `after`, of at most `limit` rows.

    Pages are ordered by id, which no request can change: whoever was in the ledger when the first page was read is on
    exactly one page. Each page tells the ledger as it is then: a request of the period that ends between two pages is
    counted on the later ones alone. A period whose requests have all ended reads the same at any time.

    Raises InvalidRequest, and NotFound when `organization` is not within the scope.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise InvalidRequest(f"limit must be 1 to {ROWS_MAX}", param="limit")
    if after is not None and not after.isprintable():
        raise InvalidRequest("after is not the `next_after` of a page", param="after")
    scope = await narrowed(db, scope, organization)
    # Rows without an id come last, so nothing has to start after them. One row more tells whether there is a next page.
    part = "WHERE $8::text IS NULL OR text_id > $8 OR text_id IS NULL ORDER BY text_id NULLS LAST LIMIT $9"
    rows = await _rows(db, scope, by, period, part, after, limit + 1)
    return UsagePage(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)


async def _rows(
    db: Database, scope: Scope, by: Grouping, period: Period, part: str, *arguments: object
) -> list[UsageRow]:
    """Return the rows of a report that the end of a statement, `part`, asks for. Its parameters start at $8."""
    cover = Cover.of(period.since, period.until)
    await _check_kept(db, cover)
    statement = f"""
        WITH summed AS (
            SELECT {_ID[by]} AS id, sum(requests)::bigint AS requests,
                sum(prompt_tokens)::numeric AS prompt_tokens, sum(cached_tokens)::numeric AS cached_tokens,
                sum(completion_tokens)::numeric AS completion_tokens, sum(cost_pico_usd)::numeric AS cost_pico_usd,
                sum(estimated)::bigint AS estimated
            FROM ({_USED}) AS part
            GROUP BY 1
        ), used AS (SELECT *, id::text COLLATE "C" AS text_id FROM summed)
        SELECT text_id AS id, {_NAME[by]} AS name, requests, prompt_tokens, cached_tokens, completion_tokens,
            cost_pico_usd, estimated
        FROM used {part}
    """  # noqa: S608 - made of the constants above and of what this module passes
    try:
        rows = await db.fetch(statement, scope.organization_id, *cover, *arguments)
    except TimeoutError as error:
        raise StorageUnavailable("the report takes too long: ask for a shorter time, or try again later") from error
    return [
        UsageRow(
            id=row["id"],
            name=row["name"],
            requests=row["requests"],
            prompt_tokens=int(row["prompt_tokens"]),
            cached_tokens=int(row["cached_tokens"]),
            completion_tokens=int(row["completion_tokens"]),
            cost_usd=format_usd(PicoUsd(int(row["cost_pico_usd"]))),
            estimated=row["estimated"],
        )
        for row in rows
    ]


async def _check_kept(db: Database, cover: Cover) -> None:
    """Raise InvalidRequest where parts of hours or days are asked for of which only whole ones are kept."""
    row = await db.fetchrow("SELECT retired_before, hours_retired_before FROM rollup_state")
    assert row is not None, "the migration made it"
    for needed, before, whole in (
        (cover.needs_events_since, row["retired_before"], "hours"),
        (cover.needs_hours_since, row["hours_retired_before"], "days"),
    ):
        if needed is not None and before is not None and needed.date() < before:
            raise InvalidRequest(
                f"of the time before {before} only whole {whole} (UTC) are kept: let the report begin and end with one",
                param="since",
            )
