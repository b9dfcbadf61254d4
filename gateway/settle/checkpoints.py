"""What a replica would take with it if it died now: the use so far of each request in flight, and its running totals.

Both go into one row of Postgres every few seconds, beside the requests: a request only enters and leaves a dictionary.
Whoever closes the events of a dead replica (`gateway.settle.reaper`) finds there what they had used.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import asyncpg
import msgspec

from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from gateway.domain.usage import TokenUsage
    from gateway.settle.ledger import Ledger
    from gateway.settle.records import CloseRecord
    from gateway.storage.postgres import Pool
    from gateway.units import PicoUsd

LIVE_MAX = 20_000
"""Requests in one checkpoint, the oldest first; what was generated for others would be lost with the replica."""

WRITE_S_MAX = 2.0

RETRY_S = 0.5
"""After a checkpoint that Postgres did not take: what a replica loses grows with every moment."""

_BETWEEN_TURNS = 500
"""Requests that are read before others get their turn on the event loop."""

_UPSERT = """
INSERT INTO replica_checkpoint (boot_id, live, counters) VALUES ($1, $2::jsonb, $3::jsonb)
ON CONFLICT (boot_id) DO UPDATE SET taken_at = now(), live = excluded.live, counters = excluded.counters
"""


class UsedSoFar(msgspec.Struct, frozen=True, array_like=True):
    """What a request has used up to a moment. Tokens are zero, and exactly so, until an engine has begun on it."""

    begun: bool
    prompt: int
    cached: int
    completion: int
    reasoning: int
    served_model: str | None
    engine: str | None
    session: str | None
    attempts: int
    ttft_ms: int | None


class InFlight(Protocol):
    """A request that is being served."""

    def used_so_far(self, now_s: float) -> UsedSoFar:
        """Return what would be billed if it were cut off now, at `now_s` of the monotonic clock."""
        ...


@dataclass(slots=True)
class Totals:
    """What this process has opened and closed since its start; tokens and money are those of what was closed."""

    opened: int = 0
    closed: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    cost_pico_usd: int = 0

    def add(self, usage: TokenUsage, cost: PicoUsd) -> None:
        """A request has ended."""
        self.closed += 1
        self.prompt += usage.prompt
        self.cached += usage.cached
        self.completion += usage.completion
        self.reasoning += usage.reasoning
        self.cost_pico_usd += cost


class Checkpoints:
    """Writes a checkpoint every `every_s` seconds, unless nothing has happened since the last one."""

    def __init__(
        self,
        pool: Pool,
        boot_id: UUID,
        live: Mapping[UUID, InFlight],
        ledger: Ledger,
        totals: Totals,
        *,
        every_s: float,
    ) -> None:
        """Prepare to take checkpoints.

        Args:
            pool: where they are written.
            boot_id: of this replica.
            live: requests in flight by event id, oldest first; read again for each checkpoint.
            ledger: what has ended and is not written yet is lost with the replica, too.
            totals: read again for each checkpoint.
            every_s: seconds between two of them.
        """
        self._pool = pool
        self._boot_id = boot_id
        self._live = live
        self._ledger = ledger
        self._totals = totals
        self._every_s = every_s
        self._written = ("{}", _counters(Totals()))
        """What Postgres has, or need not have: a replica that was never asked anything has nothing to tell."""

    async def run(self) -> None:
        """Take checkpoints until cancelled, and then a last one. One that fails is taken again soon."""
        wait_s = self._every_s
        try:
            while True:
                await asyncio.sleep(wait_s)
                wait_s = min(self._every_s, RETRY_S)
                with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):
                    await self.take()
                    wait_s = self._every_s
        finally:
            with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):
                await self.take()

    async def take(self) -> None:
        """Write a checkpoint of this moment. Raises what asyncpg raises when Postgres is away."""
        counters = _counters(self._totals)
        live = await self._read()
        now = (msgspec.json.encode(live).decode(), counters)
        if now == self._written:
            return
        async with borrowed(self._pool, WRITE_S_MAX) as connection:
            await connection.execute(_UPSERT, self._boot_id, *now)
        self._written = now

    async def _read(self) -> dict[str, UsedSoFar]:
        """Return what is in flight, and what has ended but is in this process' memory alone."""
        # Those that end while this waits for its turn are in the list, too: their use is final by then.
        in_flight = list(islice(self._live.items(), LIVE_MAX))
        found = {str(close.event_id): _as_closed(close) for close in self._ledger.group().closes}
        for count, (event_id, request) in enumerate(in_flight, 1):
            found.setdefault(str(event_id), request.used_so_far(time.monotonic()))
            if not count % _BETWEEN_TURNS:
                await asyncio.sleep(0)
        return found


def _counters(totals: Totals) -> str:
    return msgspec.json.encode(asdict(totals)).decode()


def _as_closed(close: CloseRecord) -> UsedSoFar:
    return UsedSoFar(
        begun=close.engine is not None,
        prompt=close.prompt_tokens,
        cached=close.cached_tokens,
        completion=close.completion_tokens,
        reasoning=close.reasoning_tokens,
        served_model=close.served_model,
        engine=close.engine,
        session=close.session,
        attempts=close.attempts,
        ttft_ms=close.ttft_ms,
    )
