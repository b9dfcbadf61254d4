"""The statement of a usage report: `gateway.settle.sums` says what is summed, this how it is grouped and ordered."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import InvalidRequest
from gateway.settle.sums import PARAMETERS, Cut, used

if TYPE_CHECKING:
    from collections.abc import Sequence

AFTER_CHARS_MAX = 2_000


class Grouping(StrEnum):
    """What a report has a row for each of. A model is the one that served, whose price applies."""

    ORG = "org"
    TEAM = "team"
    USER = "user"
    KEY = "key"
    MODEL = "model"
    ENGINE = "engine"
    SESSION = "session"

    @property
    def field(self) -> str:
        """The column that shows it: a name."""
        return "organization" if self is Grouping.ORG else self.value

    @property
    def id_field(self) -> str | None:
        """The column of its id; None where the name is all there is."""
        return f"{self.field}_id" if self in _TENANTS else None


_TENANTS = frozenset({Grouping.ORG, Grouping.TEAM, Grouping.USER, Grouping.KEY})


class Bucket(StrEnum):
    """How long the times are that a report has rows for; all in UTC, weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Order(StrEnum):
    """Which rows come first: by bucket and id, or those with the most of something."""

    ID = "id"
    COST = "cost"
    REQUESTS = "requests"
    TOKENS = "tokens"


class ReportFormat(StrEnum):
    """How a report is written."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


_ID = {
    Grouping.ORG: "organization_id",
    Grouping.TEAM: "team_id",
    Grouping.USER: "user_id",
    Grouping.KEY: "key_id",
    Grouping.MODEL: "served_model",
    Grouping.ENGINE: "engine",
    Grouping.SESSION: "session",
}

# Deleted tenants keep their names here: the ledger outlives them. What is looked up are ids of rows within reach.
_NAME = {
    Grouping.ORG: "(SELECT name FROM organization WHERE organization.id = page.org)",
    Grouping.TEAM: "(SELECT name FROM team WHERE team.id = page.team)",
    Grouping.USER: '(SELECT name FROM app_user WHERE app_user.id = page."user")',
    Grouping.KEY: "(SELECT COALESCE(NULLIF(name, ''), public_id) FROM api_key WHERE api_key.id = page.key)",
}
_ORDERS = {
    Order.ID: "",
    Order.COST: "cost_pico_usd DESC, requests DESC, ",
    Order.REQUESTS: "requests DESC, cost_pico_usd DESC, ",
    Order.TOKENS: "prompt_tokens + completion_tokens DESC, cost_pico_usd DESC, ",
}
_NUMBER = "bigint"
_SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_pico_usd")


@dataclass(frozen=True, slots=True)
class Statement:
    """A report's SQL. Its last parameters are the most rows, and the place to start after where it is a later page.

    A place is an array of texts, one for the bucket and for each thing that rows are of: in this order, and by bytes,
    with None after all else.
    """

    sql: str
    places: int

    @property
    def for_huge_numbers(self) -> str:
        """The same for rollups of which a single row has more than 64 bits, which Postgres refuses otherwise.

        Sums have any number of digits either way; of 64-bit numbers Postgres makes them sooner and in less memory.
        """
        return self.sql.replace(f"::{_NUMBER})", "::numeric)")

    def cursor_of(self, place: Sequence[str | None]) -> str:
        """Return a place as a page tells it."""
        if self.places == 1:
            assert place[0] is not None, "nothing comes after None"
            return place[0]
        return msgspec.json.encode(list(place)).decode()

    def place_of(self, cursor: str) -> list[str | None]:
        """Return the place that a page told. Raises InvalidRequest."""
        place: list[str | None] | None = None
        with contextlib.suppress(msgspec.DecodeError):
            if len(cursor) <= AFTER_CHARS_MAX:
                place = [cursor] if self.places == 1 else msgspec.json.decode(cursor, type=list[str | None])
        if place is None or len(place) != self.places or not all(part is None or part.isprintable() for part in place):
            raise InvalidRequest("after is not the `next_after` of a page of this report", param="after")
        return place


def statement(
    by: Sequence[Grouping], bucket: Bucket | None, cut: Cut, order: Order, *, own: str, parameters: int, later: bool
) -> Statement:
    """Return the statement of a report.

    Args:
        own: SQL that every row of the rollups has to meet; its parameters follow those of `used`.
        parameters: how many those are.
        later: whether it is a page that starts after a place.
    """
    sums = ", ".join(f"sum({name}::{_NUMBER})::numeric AS {name}" for name in _SUMMED)
    things = [f"{_ID[each]} AS {_quoted(each)}" for each in by]
    places = [f"{_quoted(each)}::text" for each in by]
    shown = [f"page.{_quoted(each)}::text AS id_of_{each}, {_name(each)} AS name_of_{each}" for each in by]
    # As places do, by bytes and with nothing last, but without making the place of each row that there is.
    ordered = [_quoted(each) if each in _TENANTS else f'{_quoted(each)} COLLATE "C"' for each in by]
    if bucket is not None:
        things.insert(0, f"date_trunc('{bucket}', moment, 'UTC') AS bucket")
        places.insert(0, """to_char(bucket AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""")
        shown.insert(0, f"{places[0]} AS bucket")
        ordered.insert(0, "page.bucket")
    groups = ", ".join(str(number + 1) for number in range(len(things)))
    first = PARAMETERS + parameters + 1
    place = f'ARRAY[{", ".join(places)}] COLLATE "C"'
    after = f"WHERE {place} > ${first + 1}::text[]" if later else ""
    ordering = _ORDERS[order] + ", ".join(ordered)
    times = "min(opened_first) AS opened_first, max(opened_last) AS opened_last"
    if Grouping.SESSION not in by:
        times = "NULL::timestamptz AS opened_first, NULL::timestamptz AS opened_last"
    sql = f"""
        WITH summed AS (
            SELECT {", ".join(things)}, sum(requests)::bigint AS requests, sum(estimated)::bigint AS estimated, {sums},
                   {times} FROM ({used(cut, own)}) AS part GROUP BY {groups}
        ), page AS (
            SELECT * FROM summed AS page {after} ORDER BY {ordering} LIMIT ${first}
        )
        SELECT {", ".join(shown)}, requests, estimated, prompt_tokens, cached_tokens, completion_tokens,
               reasoning_tokens, cost_pico_usd, opened_first, opened_last, {place} AS place
          FROM page ORDER BY {ordering}
    """  # noqa: S608 - made of the constants above # unscoped: reads of parts that are held to the organization
    return Statement(sql, len(places))


def _name(by: Grouping) -> str:
    return _NAME.get(by, f"page.{_quoted(by)}")


def _quoted(by: Grouping) -> str:
    return f'"{by}"'  # `user` means something else to Postgres
