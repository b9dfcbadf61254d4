"""`penstock ledger export` at work: from one snapshot of Postgres to a file, a few thousand lines at a time."""

from __future__ import annotations

import sys
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gateway.admin.database import session_on
from gateway.admin.ledger_export import Line, Selection, end_of_export, lines
from gateway.admin.ledger_files import Format, sink, whole_file
from gateway.admin.organizations import narrowed
from gateway.admin.scope import PLATFORM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from gateway.cli.progress import Tell


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written. `next_after` is the cursor that the next one goes on from."""

    lines: int
    next_after: str
    output: str


async def write_export(
    address: str, asked: Selection, form: Format, output: str, organization: str | None, tell: Tell
) -> Exported:
    """Write the lines that are asked for to `output` (`-`: standard output).

    Raises GatewayError, ConfigError, OSError; then there is no new file.
    """
    async with aclosing(_read(address, asked, organization)) as batches:
        end, batch = await anext(batches)  # what is asked in vain leaves no trace
        with _opened(output) as file:
            target = sink(form, file)
            target.write(batch)
            written = len(batch)
            async for _, batch in batches:
                target.write(batch)
                written += len(batch)
                tell(f"{written:,} lines")
            target.close()
    return Exported(written, str(end), output)


async def _read(address: str, asked: Selection, organization: str | None) -> AsyncGenerator[tuple[int, list[Line]]]:
    """Yield the lines, at least once, each time with the end of the export. What fails here is Postgres, no file."""
    async with session_on(address) as db, db.transaction(isolation="repeatable_read", readonly=True):
        scope = await narrowed(db, PLATFORM, organization)
        selection = replace(asked, organization_id=scope.organization_id)
        end = await end_of_export(db, selection)
        async for batch in lines(db, selection, end):
            yield end, batch


@contextmanager
def _opened(output: str) -> Iterator[IO[bytes]]:
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(output)) as file:
        yield file
