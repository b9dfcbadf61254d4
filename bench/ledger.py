"""Counts what the ledger holds, to compare it with what the load client was answered and what the engine counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from bench.pair import EngineCounters

TOTALS = """
SELECT (SELECT count(*) FROM usage_open) AS opened,
       count(*) AS closed,
       count(*) FILTER (WHERE status = 'ok' AND coverage = 'exact') AS exact,
       coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
       coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens
FROM usage_event
"""


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """OPEN and CLOSE records, those closed `ok` with exact tokens, and the tokens of all CLOSE records."""

    opened: int
    closed: int
    exact: int
    prompt_tokens: int
    completion_tokens: int

    def since(self, earlier: LedgerTotals) -> LedgerTotals:
        """Return what was added after `earlier`."""
        return LedgerTotals(*(getattr(self, name) - getattr(earlier, name) for name in LedgerTotals.__slots__))


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """One scenario's ledger against the answers that the load client got and the tokens that the engine produced."""

    answered: int
    engine: EngineCounters
    ledger: LedgerTotals

    @property
    def exact(self) -> bool:
        """Whether every answer has one OPEN and one exact CLOSE, and not a token is missing or too many."""
        engine, ledger = self.engine, self.ledger
        counts = {self.answered, engine.finished, ledger.opened, ledger.closed, ledger.exact}
        prompt, completion = engine.prompt_tokens, engine.completion_tokens
        return len(counts) == 1 and (ledger.prompt_tokens, ledger.completion_tokens) == (prompt, completion)


def read_totals(postgres_dsn: str) -> LedgerTotals:
    """Read the totals of the whole ledger. The gateway should have stopped, so that all it knows is written."""
    return asyncio.run(_read(postgres_dsn))


async def _read(dsn: str) -> LedgerTotals:
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(TOTALS)
    finally:
        await connection.close()
    assert row is not None
    return LedgerTotals(**dict(row))
