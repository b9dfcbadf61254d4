"""What an export is written to: CSV or Parquet, to a file that is there whole or not at all, or to standard output."""

from __future__ import annotations

import csv
import datetime as dt
import errno
import io
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Any, Protocol

from gateway.admin.ledger_export import Line
from gateway.errors import ConfigError
from gateway.units import format_usd, usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COLUMNS = (*Line._fields[:-1], "cost_usd")
"""The columns of a file: those of a line, with the cost in US dollars."""

ROW_GROUP_LINES = 50_000
"""Lines of a Parquet file that are in memory at a time."""

MONEY_DIGITS, MONEY_PLACES = 38, 12


class Format(StrEnum):
    """The format of an export."""

    CSV = "csv"
    PARQUET = "parquet"


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: Sequence[Line]) -> None:
        """Write some lines."""

    def close(self) -> None:
        """Write what is left, and what ends the format; the file stays open."""


class CsvSink:
    """RFC 4180 in UTF-8, names first. Times are RFC 3339 in UTC, money is a plain decimal number; empty is nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def write(self, lines: Sequence[Line]) -> None:
        """Write some lines."""
        for line in lines:
            self._writer.writerow((*map(_text, line[:-1]), format_usd(line.cost_pico_usd)))

    def close(self) -> None:
        """Write what is left."""
        self._text.flush()
        self._text.detach()


class ParquetSink:
    """Parquet with exact types: times in UTC to the microsecond, money as decimal128(38, 12), ids as text."""

    def __init__(self, file: IO[bytes]) -> None:
        arrow, parquet = pyarrow()
        kinds = {"opened_at": arrow.timestamp("us", tz="UTC"), "cost_usd": arrow.decimal128(MONEY_DIGITS, MONEY_PLACES)}
        kinds["ingested_at"] = kinds["opened_at"]
        kinds |= {name: arrow.int64() for name in COLUMNS if name.endswith("_tokens") or name == "price_id"}
        self._schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
        self._batch = arrow.RecordBatch
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._lines: list[Line] = []

    def write(self, lines: Sequence[Line]) -> None:
        """Take some lines; they are written in groups."""
        self._lines += lines
        if len(self._lines) >= ROW_GROUP_LINES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows = [(*line[:-1], usd(line.cost_pico_usd)) for line in self._lines]
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        self._writer.write_batch(self._batch.from_arrays(self._arrays(columns), schema=self._schema))
        self._lines = []

    def _arrays(self, columns: Sequence[Sequence[object]]) -> list[Any]:
        arrow, _ = pyarrow()
        return [arrow.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]


def sink(form: Format, file: IO[bytes]) -> Sink:
    """Return what writes lines of a format into an open file. Raises ConfigError when a package is missing for it."""
    return CsvSink(file) if form is Format.CSV else ParquetSink(file)


def check_format(form: Format) -> None:
    """Raise ConfigError, saying how to install it, when what writes a format is missing."""
    if form is Format.PARQUET:
        pyarrow()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write that gets its name, in one step, only when the body has ended well.

    Raises OSError; what no file can be made of is told before the body, by the name that was asked for.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            opened = partial.open("xb")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _text(cell: object) -> object:
    """Return a cell as CSV shows it: times in UTC to the microsecond, nothing as nothing."""
    return cell.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(cell, dt.datetime) else cell


def pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet half, loaded where they are needed first. Raises ConfigError when missing."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra that only this format needs
        from pyarrow import parquet  # noqa: PLC0415 - see above
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'penstock[parquet]', or take --format csv"
        ) from None
    return pa, parquet
