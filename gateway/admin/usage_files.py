"""A usage report as a table: the columns that were asked for, then the sums."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gateway.admin.tabular import Column, Kind, to_csv, to_parquet
from gateway.admin.usage_sql import Grouping, ReportFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.admin.tabular import Cell
    from gateway.admin.usage import Asked, UsageRow

_SUMS = (
    Column("requests", Kind.COUNT),
    Column("prompt_tokens", Kind.COUNT),
    Column("cached_tokens", Kind.COUNT),
    Column("completion_tokens", Kind.COUNT),
    Column("reasoning_tokens", Kind.COUNT),
    Column("estimated", Kind.COUNT),
    Column("cost_usd", Kind.MONEY),
)
_TIMES = (Column("opened_first", Kind.TIME), Column("opened_last", Kind.TIME))


MEDIA_TYPES = {
    ReportFormat.JSON: "application/json",
    ReportFormat.CSV: "text/csv",
    ReportFormat.PARQUET: "application/vnd.apache.parquet",
}


def as_file(asked: Asked, rows: Sequence[UsageRow], form: ReportFormat) -> bytes:
    """Return a report as CSV or Parquet. Raises InvalidRequest where Parquet cannot be written."""
    bucket = Column("bucket", Kind.TEXT if form is ReportFormat.CSV else Kind.TIME)
    groups = [bucket] if asked.bucket is not None else []
    for by in asked.by:
        groups += [Column(name) for name in (by.id_field, by.field) if name is not None]
    columns = [*groups, *_SUMS, *(_TIMES if Grouping.SESSION in asked.by else ())]
    names = [column.name for column in columns[len(groups) :]]
    cells: list[list[Cell]] = [
        [*(_cell(column, row.group[column.name]) for column in groups), *(getattr(row, name) for name in names)]
        for row in rows
    ]
    return to_csv(columns, cells) if form is ReportFormat.CSV else to_parquet(columns, cells)


def _cell(column: Column, value: str | None) -> Cell:
    return dt.datetime.fromisoformat(value) if column.kind is Kind.TIME and value is not None else value
