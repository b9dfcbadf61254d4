"""Usage reports: what the ledger says was used, summed by tenant or model, exact to the last pico-USD."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.admin.organizations import narrowed
from gateway.admin.times import parse_moment
from gateway.errors import InvalidRequest
from gateway.units import PicoUsd, format_usd

if TYPE_CHECKING:
    import datetime as dt

    from gateway.admin.database import Database
    from gateway.admin.scope import Scope

SINCE_DEFAULT = "24h"
ROWS_MAX = 10_000
"""How many rows a report may have: the most expensive ones."""


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
        begin = parse_moment(SINCE_DEFAULT, end, "since") if since is None else parse_moment(since, now, "since")
        if begin >= end:
            raise InvalidRequest("since must lie before until", param="since")
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


# Deleted tenants keep their names here: the ledger outlives them.
_ID = {
    Grouping.ORG: "event.organization_id",
    Grouping.TEAM: "event.team_id",
    Grouping.USER: "event.user_id",
    Grouping.KEY: "event.key_id",
    Grouping.MODEL: "event.served_model",
}
_NAME = {
    Grouping.ORG: "(SELECT name FROM organization WHERE organization.id = used.id)",
    Grouping.TEAM: "(SELECT name FROM team WHERE team.id = used.id)",
    Grouping.USER: "(SELECT name FROM app_user WHERE app_user.id = used.id)",
    Grouping.KEY: "(SELECT COALESCE(NULLIF(name, ''), public_id) FROM api_key WHERE api_key.id = used.id)",
    Grouping.MODEL: "used.id",
}


async def usage_report(
    db: Database, scope: Scope, by: Grouping, period: Period, *, organization: str | None = None
) -> list[UsageRow]:
    """Return what was used within the scope in a period, the most expensive first, at most `ROWS_MAX` rows.

    Args:
        organization: id or name of one organization to report on. Raises NotFound when it is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"""
        WITH used AS (
            SELECT {_ID[by]} AS id, count(*) AS requests,
                sum(prompt_tokens)::numeric AS prompt_tokens, sum(cached_tokens)::numeric AS cached_tokens,
                sum(completion_tokens)::numeric AS completion_tokens, sum(cost_pico_usd)::numeric AS cost_pico_usd,
                count(*) FILTER (WHERE coverage = 'estimated') AS estimated
            FROM usage_event AS event
            WHERE opened_at >= $2 AND opened_at < $3 AND ($1::uuid IS NULL OR organization_id = $1)
            GROUP BY 1
        )
        SELECT id::text, {_NAME[by]} AS name, requests, prompt_tokens, cached_tokens, completion_tokens,
            cost_pico_usd, estimated
        FROM used ORDER BY cost_pico_usd DESC, requests DESC, id LIMIT {ROWS_MAX}
        """,  # noqa: S608 - made of the constants above
        scope.organization_id,
        period.since,
        period.until,
    )
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
