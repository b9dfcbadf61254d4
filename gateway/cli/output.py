"""What commands answer with: one JSON document for scripts, or a table for people.

Names come from tenants, so nothing here interprets markup in them.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.answers import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_NUMERIC = (
    *("requests", "tokens", "prompt", "cached", "completion", "cost", "estimated"),
    *("input", "output", "reasoning", "request", "ledger", "other", "difference", "allowed"),
)
"""How the titles of columns begin that hold numbers."""

_TIMES = ("_at", "_from", "_until")
"""How the fields of the API end that hold moments."""

PIPE_COLUMNS = 1000
"""Width of a table that is not shown on a terminal: nothing is wrapped or cut."""


def answer(document: object, sentence: str, *, as_json: bool) -> None:
    """Write what a command did: the document for scripts, or the sentence for people, exactly as it is."""
    if as_json:
        emit_json(document)
    else:
        emit_line(sentence)


def answer_rows(rows: Sequence[object], columns: Mapping[str, str], *, empty: str, as_json: bool) -> None:
    """Write a list, as `emit_json` or as `emit_table` does; `empty` is what people read when there is nothing."""
    if as_json:
        emit_json(rows)
    else:
        emit_table(columns, rows, empty=empty)


def answer_new_key(made: Mapping[str, str], what: str, *, as_json: bool) -> None:
    """Write a key that cannot be shown again, beside what may be told of it at any time."""
    if as_json:
        emit_json(made)
    else:
        emit_line(f"{what} made; it is shown only now:")
        emit_line(made["key"])


def emit_json(document: object) -> None:
    """Write a document, dataclasses included, as indented JSON. Times are RFC 3339 in UTC."""
    emit_file(json_text(document), "-")


def json_text(document: object) -> bytes:
    """Return a document as `emit_json` writes it."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def emit_file(body: bytes, output: str) -> None:
    """Write a whole file to standard output (`-`), or to a path, where it is there whole or not at all."""
    if output == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    from gateway.admin.ledger_files import whole_file  # noqa: PLC0415 - what it needs, standard output does not

    with whole_file(Path(output)) as file:
        file.write(body)


def emit_table(columns: Mapping[str, str], rows: Iterable[object], *, empty: str) -> None:
    """Write one line per row. `columns` maps the title of a column to the attribute that it shows."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        numeric = title.startswith(_NUMERIC)
        table.add_column(title, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(cell(row, attribute)) for attribute in columns.values()))
    console = _console()
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(empty))


def cell(row: object, attribute: str) -> str:
    """Return what a column shows of a row, a dataclass or a document of the API, whose times are text."""
    if not isinstance(row, Mapping):
        return shown(getattr(row, attribute))
    value = row.get(attribute)
    if isinstance(value, str) and (attribute == "at" or attribute.endswith(_TIMES)):
        value = dt.datetime.fromisoformat(value)
    return shown(value)


def emit_line(text: str) -> None:
    """Write one line for people, exactly as it is."""
    _console().print(Text(text), soft_wrap=True)


def shown(value: object) -> str:
    """Return a value for people, printable: a dash for nothing, times to the minute in UTC, lists with commas."""
    if value in (None, "", (), []):
        return "-"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%MZ")
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)
