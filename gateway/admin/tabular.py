"""Tables for other programs: CSV and Parquet, from rows of plain values.

What people and their programs have named comes from tenants. A spreadsheet takes a cell that begins with `=` for a
formula and runs it, so in CSV such text begins with an apostrophe, which spreadsheets show as text. Parquet needs none.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from gateway.admin.ledger_files import MONEY_DIGITS, MONEY_PLACES, pyarrow
from gateway.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""How what a spreadsheet calculates may begin, in any of the usual ones (OWASP, CSV injection)."""

COUNT_MAX = 2**63 - 1


class Kind(Enum):
    """What a column has: text (also ids), a moment, a whole number, or an exact amount of US dollars as text."""

    TEXT = "text"
    TIME = "time"
    COUNT = "count"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class Column:
    """A column and what it has; None is allowed in all."""

    name: str
    kind: Kind = Kind.TEXT


Cell = str | int | dt.datetime | None


def to_csv(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> bytes:
    """Return RFC 4180 in UTF-8, names first. Times are RFC 3339 in UTC, money is a plain decimal number."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(column.name for column in columns)
    kinds = [column.kind for column in columns]
    for row in rows:
        writer.writerow(map(_shown, row, kinds))
    return text.getvalue().encode()


def to_parquet(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> bytes:
    """Return Parquet with exact types: times in UTC to the microsecond, money as decimal128(38, 12), counts as int64.

    A count that has more than 64 bits is refused: nothing is rounded. Raises InvalidRequest, also where pyarrow is not
    installed.
    """
    try:
        arrow, parquet = pyarrow()
    except ConfigError:
        raise InvalidRequest(
            "Parquet needs pyarrow, which is not installed where this runs: have it installed there"
            " (pip install 'penstock[parquet]'), or take csv",
            param="format",
        ) from None
    types = {
        Kind.TEXT: arrow.string(),
        Kind.TIME: arrow.timestamp("us", tz="UTC"),
        Kind.COUNT: arrow.int64(),
        Kind.MONEY: arrow.decimal128(MONEY_DIGITS, MONEY_PLACES),
    }
    schema = arrow.schema([(column.name, types[column.kind]) for column in columns])
    cells = list(zip(*rows, strict=True)) or [()] * len(columns)
    if any(
        isinstance(cell, int) and abs(cell) > COUNT_MAX
        for column, values in zip(columns, cells, strict=True)
        if column.kind is Kind.COUNT
        for cell in values
    ):
        raise InvalidRequest("a sum has more than 64 bits, which Parquet does not hold: take csv", param="format")
    arrays = [
        arrow.array(
            [None if cell is None else Decimal(str(cell)) for cell in values] if column.kind is Kind.MONEY else values,
            type=types[column.kind],
        )
        for column, values in zip(columns, cells, strict=True)
    ]
    file = io.BytesIO()
    parquet.write_table(arrow.table(arrays, schema=schema), file, compression="zstd")
    return file.getvalue()


def _shown(cell: Cell, kind: Kind) -> Cell:
    if isinstance(cell, dt.datetime):
        return cell.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if kind is Kind.TEXT and isinstance(cell, str) and cell.startswith(_FORMULA):
        return f"'{cell}"
    return cell
