"""Usage reports: what the ledger says was used, summed as asked, exact to the last pico-USD.

Read from the rollups with their tail (`gateway.settle.sums`), so that a report of a year costs little more than one of
a day. Nothing is cut off silently: a report is whole, or says that there is more and how to get it.
"""

import asyncio
import datetime as dt
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from gateway.admin.database import Database
from gateway.admin.organizations import narrowed
from gateway.admin.scope import Scope
from gateway.admin.times import parse_moment
from gateway.admin.usage_filters import Filters, conditions
from gateway.admin.usage_sql import Bucket, Grouping, Order, Statement, statement
from gateway.errors import InvalidRequest, StorageUnavailable
from gateway.settle.sums import Cover, Cut
from gateway.units import PicoUsd, format_usd

SINCE_DEFAULT = "24h"
ROWS_MAX = 10_000
"""How many rows a page may have."""

REPORT_ROWS_MAX = 100_000
"""How many rows a report may have that does not come in pages."""

WORK_MEMORY_KB = 65_536
"""What Postgres may use for each sort and sum of a report before it goes to the disk; more where it is set to more."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` up to, but not including, `until`; both in UTC. An event counts when its request was opened."""

    since: dt.datetime
    until: dt.datetime

    @classmethod
    def parse(cls, since: str | None, until: str | None, now: dt.datetime) -> Self:
        """Read `2026-08-01`, `2026-08-01T12:00Z`, `24h` or `7d`; by default the 24 hours before `until`, which is now.

        Raises InvalidRequest, also when the period is empty.
        """
        end = now if until is None else parse_moment(until, now, "until")
        begin = parse_moment(SINCE_DEFAULT, end, "until") if since is None else parse_moment(since, now, "since")
        if begin >= end:
            raise InvalidRequest("since must lie before until, which is now unless it is given", param="since")
        return cls(begin, end)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is to tell.

    Args:
        by: what to have a row for each combination of; it may be empty where there is a bucket.
        bucket: hours, days, weeks (from Monday) or months in UTC to have rows for, too; None: the period as one. Where
            nothing was used there is no row. The first and the last bucket hold what of them is in the period.
        filters: what to leave out all else of.
        order: by id, which no request can change and pages need, or the largest first.
        limit: the most rows; None: all, up to REPORT_ROWS_MAX.
        after: the `next_after` of the page before.
    """

    period: Period
    by: tuple[Grouping, ...] = (Grouping.ORG,)
    bucket: Bucket | None = None
    filters: Filters = field(default_factory=Filters)
    order: Order = Order.COST
    limit: int | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        if not self.by and self.bucket is None:
            raise InvalidRequest(
                f"by must name at least one of {', '.join(Grouping)}, unless bucket is given", param="by"
            )
        if len(set(self.by)) < len(self.by):
            raise InvalidRequest("by names something twice", param="by")
        if self.limit is not None and not 1 <= self.limit <= ROWS_MAX:
            raise InvalidRequest(f"limit must be 1 to {ROWS_MAX}", param="limit")
        if self.after is not None and self.order is not Order.ID:
            raise InvalidRequest("after needs order=id: in any other order rows move between two pages", param="after")

    @property
    def cut(self) -> Cut:
        """How finely the period has to be cut to answer."""
        if Grouping.SESSION in self.by or self.filters.session is not None:
            return Cut.SESSION
        return Cut.HOUR if self.bucket is Bucket.HOUR else Cut.DAY


def groupings(text: str) -> tuple[Grouping, ...]:
    """Return what `team,model` means; nothing for nothing. Raises InvalidRequest."""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    try:
        return tuple(Grouping(name) for name in names)
    except ValueError:
        raise InvalidRequest(f"by must be one or several of {', '.join(Grouping)}, with commas", param="by") from None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row.

    `group` has what it is of: of a tenant or key its id and its name (`team_id`, `team`), else the name alone
    (`model`, the one that served, whose price applies; `engine`; `session`), and when its bucket begins (`bucket`).
    What there is none of is None: a key without a user, a request that told no session. `id` and `name` are those of
    the first in `by`. `prompt_tokens` include `cached_tokens`, `completion_tokens` include `reasoning_tokens`.
    `cost_usd` is an exact decimal number. `estimated` counts the requests whose tokens were estimated, because the
    engine never told. `opened_first` and `opened_last` are when the first and the last request of a session came, None
    for anything but sessions.
    """

    id: str | None
    name: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: str
    estimated: int
    reasoning_tokens: int
    group: dict[str, str | None]
    opened_first: dt.datetime | None
    opened_last: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """Rows, and how fresh they are.

    Everything that was in the ledger at `as_of` is in them, which is within a second after a request's end; requests
    that run, and records that wait in a replica's spool, are not. `rolled_up_at` is when the ledger was rolled up last:
    what came later was added from the ledger itself. `next_after` is what the next page starts after, None on the last
    one and in any order but that by id. `more` tells that there are more rows than these.
    """

    rows: list[UsageRow]
    as_of: dt.datetime
    rolled_up_at: dt.datetime | None
    next_after: str | None
    more: bool


async def usage_report(db: Database, scope: Scope, asked: Asked, *, organization: str | None = None) -> Report:
    """Return what was used within the scope; a person sees the teams that it administers, and what is its own.

    It is one statement, so that every row is of the same view of the ledger, however many there are. Of pages, each
    tells the ledger as it is then: a request of the period that ends between two pages is counted on the later ones
    alone. A period whose requests have all ended reads the same at any time.

    Args:
        organization: id or name of one organization to report on. Raises NotFound when it is not within the scope.

    Raises InvalidRequest, also for a report of more than REPORT_ROWS_MAX rows; NotFound for whom a filter names;
    Forbidden when somebody else than the platform asks for engines.
    """
    if Grouping.ENGINE in asked.by or asked.filters.engine is not None:
        scope.require_platform("see engines: ask by model")  # their addresses are of networks inside
    scope = await narrowed(db, scope, organization)
    own, values = await conditions(db, scope, asked.filters)
    cover = Cover.of(asked.period.since, asked.period.until, asked.cut)
    state = await _state(db, cover)
    limit = REPORT_ROWS_MAX if asked.limit is None else asked.limit
    query = statement(
        asked.by, asked.bucket, asked.cut, asked.order, own=own, parameters=len(values), later=asked.after is not None
    )
    values += [limit + 1] if asked.after is None else [limit + 1, query.place_of(asked.after)]
    try:
        rows = await _rows(db, query, *cover.parameters, *values)
    except TimeoutError as error:
        raise StorageUnavailable("the report takes too long: ask for a shorter time, or try again later") from error
    more = len(rows) > limit
    if more and asked.limit is None:
        raise InvalidRequest(
            f"the report has more than {REPORT_ROWS_MAX} rows: ask for a shorter time, filter, or set limit",
            param="limit",
        )
    rows = rows[:limit]
    next_after = query.cursor_of(rows[-1]["place"]) if more and asked.order is Order.ID else None
    # Beside the requests that a replica is serving meanwhile.
    made = await asyncio.to_thread(lambda: [_row(row, asked) for row in rows])
    return Report(made, state["as_of"], state["rolled_up_at"], next_after, more)


async def _rows(db: Database, query: Statement, *values: object) -> list[asyncpg.Record]:
    try:
        async with db.transaction():
            return await db.fetch(query.sql, *values)
    except asyncpg.NumericValueOutOfRangeError:
        return await db.fetch(query.for_huge_numbers, *values)


def _row(row: asyncpg.Record, asked: Asked) -> UsageRow:
    group: dict[str, str | None] = {} if asked.bucket is None else {"bucket": row["bucket"]}
    for by in asked.by:
        if by.id_field is not None:
            group[by.id_field] = row[f"id_of_{by}"]
        group[by.field] = row[f"name_of_{by}"]
    first = asked.by[0] if asked.by else None
    return UsageRow(
        id=row[f"id_of_{first}"] if first else None,
        name=row[f"name_of_{first}"] if first else None,
        requests=row["requests"],
        prompt_tokens=int(row["prompt_tokens"]),
        cached_tokens=int(row["cached_tokens"]),
        completion_tokens=int(row["completion_tokens"]),
        cost_usd=format_usd(PicoUsd(int(row["cost_pico_usd"]))),
        estimated=row["estimated"],
        reasoning_tokens=int(row["reasoning_tokens"]),
        group=group,
        opened_first=row["opened_first"],
        opened_last=row["opened_last"],
    )


async def _state(db: Database, cover: Cover) -> asyncpg.Record:
    """Return how far the ledger is rolled up, and as of when the report will be.

    Also keeps Postgres from compiling the report, which takes longer than running it, and from summing up on the disk.
    Raises InvalidRequest where parts of hours or days are asked for of which only whole ones are kept.
    """
    row = await db.fetchrow(
        """
        SELECT retired_before, hours_retired_before, rolled_up_at, clock_timestamp() AS as_of,
               set_config('jit', 'off', true),
               set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, $1) || 'kB', true)
          FROM rollup_state
        """,
        WORK_MEMORY_KB,
    )
    assert row is not None, "the migration made it"
    for needed, before, whole in (
        (cover.needs_events_since, row["retired_before"], "hours"),
        (cover.needs_hours_since, row["hours_retired_before"], "days"),
    ):
        if needed is not None and before is not None and needed.date() < before:
            raise InvalidRequest(
                f"of the time before {before} only whole {whole} (UTC) are kept: let the report begin and end with one"
                + (", and not be by hour or session" if whole == "days" else ""),
                param="since",
            )
    return row
