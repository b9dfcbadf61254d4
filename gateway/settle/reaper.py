"""Closes what nobody else will: openings of replicas that are gone, and those long past their deadline.

A duty of the leader. A replica counts as gone when the leader has itself seen its heartbeat unchanged for a while over
one unbroken connection, the same that it closes the replica's events over: a Postgres that was away, or a lead that is
lost, makes nobody dead. What a request had used is known from its replica's last checkpoint; one that no checkpoint
mentions began after it. When the replica turns out to live, its own records become adjustments (`late_closes`).
"""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import structlog

from gateway.domain.usage import Coverage, Status, TokenUsage
from gateway.settle.checkpoints import UsedSoFar
from gateway.settle.price import cost
from gateway.settle.records import INSERT_REAPED, CloseRecord, OpenRecord
from gateway.settle.unclosed import Unclosed
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from gateway.settle.price import EffectivePrice
    from gateway.settle.unclosed import Opening
    from gateway.storage.leader import Term
    from gateway.storage.postgres import Connection

DEADLINE_GRACE = dt.timedelta(minutes=5)
"""After its deadline a request has ended in every replica that runs at all."""

BATCH_MAX = 500
"""Events closed by one statement."""

BATCHES_MAX = 20
"""Batches of one run; the others come with the next one."""

REPLICAS_KEPT = dt.timedelta(days=2)
"""How long what a replica said of itself is kept after its last heartbeat."""

FORGOTTEN_MAX = 500
"""Replicas forgotten by one run."""

UNKNOWN_ENGINE = "unknown"
"""The engine of an event whose replica took with it which one it was."""

_HEARTBEATS = "SELECT boot_id, heartbeat_at FROM replica"
_OPENED = f"""
SELECT {", ".join(f"o.{name}" for name in OpenRecord._fields)}
  FROM unnest($1::uuid[], $2::timestamptz[]) AS due (event_id, opened_at)
 CROSS JOIN LATERAL (
       SELECT * FROM usage_open WHERE event_id = due.event_id AND opened_at = due.opened_at LIMIT 1) AS o
"""  # noqa: S608 - columns are names of a class
_CHECKPOINTS = "SELECT boot_id, live FROM replica_checkpoint WHERE boot_id = ANY ($1::uuid[])"
_FORGET = """
WITH forgotten AS (
    DELETE FROM replica WHERE boot_id = ANY (ARRAY(
        SELECT boot_id FROM replica WHERE heartbeat_at < now() - $1::interval AND boot_id = ANY ($2::uuid[]) LIMIT $3))
    RETURNING boot_id
)
DELETE FROM replica_checkpoint AS c USING forgotten WHERE c.boot_id = forgotten.boot_id
"""

_log = structlog.get_logger("penstock.reaper")


class Prices(Protocol):
    """Who knows what a model cost when."""

    def at(self, model: str, when: dt.datetime) -> EffectivePrice | None:
        """Return the price of a model that was in force at a moment, None when it had none."""
        ...


class Counts(Protocol):
    """Whoever exports how many events were closed for others."""

    def reaped(self, reason: str, events: int) -> None:
        """Events were closed because their replica is gone (`replica_gone`), or past their deadline (`deadline`)."""


class _Heartbeat(NamedTuple):
    at: dt.datetime
    first_seen_s: float


class Reaper:
    """One replica's readiness to close for others. What it has observed counts within one term of its lead alone."""

    def __init__(self, prices: Prices, counts: Counts, *, patience_s: float) -> None:
        """Prepare.

        Args:
            prices: of the models.
            counts: is told what was closed.
            patience_s: how long a heartbeat must have been seen unchanged, and an opening be there, in seconds.
        """
        self._prices = prices
        self._counts = counts
        self._patience_s = patience_s
        self._term: Term | None = None
        self._unclosed: Unclosed | None = None
        self._heartbeats: dict[UUID, _Heartbeat] = {}

    async def run(self, term: Term) -> None:
        """Close what is due now. Raises what asyncpg raises when Postgres is away."""
        if term is not self._term:
            self._term, self._unclosed, self._heartbeats = term, None, {}
        if self._unclosed is None:
            async with term.connection() as connection:
                self._unclosed = await Unclosed.begin(connection, dt.timedelta(seconds=self._patience_s))
        await self._unclosed.read(term)
        async with term.connection() as connection:
            # After the openings: a replica has a heartbeat before it opens anything.
            gone = await self._observe(connection)
            now: dt.datetime = await connection.fetchval("SELECT now()")
        abandoned = [opening for opening in self._unclosed if self._is_abandoned(opening.boot_id, gone)]
        late = [
            opening
            for opening in self._unclosed
            if opening.deadline_at + DEADLINE_GRACE < now and not self._is_abandoned(opening.boot_id, gone)
        ]
        for reason, due in (("replica_gone", abandoned), ("deadline", late)):
            for start in range(0, min(len(due), BATCHES_MAX * BATCH_MAX), BATCH_MAX):
                batch = due[start : start + BATCH_MAX]
                async with term.connection() as connection:
                    await self._close(connection, batch, reason)
                self._unclosed.drop(opening.event_id for opening in batch)
        if gone and not abandoned:
            async with term.connection() as connection:
                await connection.execute(_FORGET, REPLICAS_KEPT, list(gone), FORGOTTEN_MAX)

    async def _observe(self, connection: Connection) -> set[UUID]:
        """Read the heartbeats; return the replicas whose own has stood still for long enough."""
        asked_s = time.monotonic()
        rows = await connection.fetch(_HEARTBEATS)
        answered_s = time.monotonic()
        known = self._heartbeats
        self._heartbeats = {
            boot_id: before
            if (before := known.get(boot_id)) is not None and before.at == at
            else _Heartbeat(at, answered_s)
            for boot_id, at in rows
        }
        return {
            boot_id for boot_id, seen in self._heartbeats.items() if asked_s - seen.first_seen_s >= self._patience_s
        }

    def _is_abandoned(self, boot_id: UUID, gone: set[UUID]) -> bool:
        # One without any heartbeat was forgotten, long after its last one.
        return boot_id in gone or boot_id not in self._heartbeats

    async def _close(self, connection: Connection, batch: Sequence[Opening], reason: str) -> None:
        ids, moments = zip(*((opening.event_id, opening.opened_at) for opening in batch), strict=True)
        opened = [OpenRecord(*row) for row in await connection.fetch(_OPENED, ids, moments)]
        if not opened:
            return
        checkpoints = await _checkpoints(connection, {record.boot_id for record in opened})
        closes = [self._closing(record, checkpoints.get(record.boot_id)) for record in opened]
        said = await connection.execute(INSERT_REAPED, *zip(*closes, strict=True))
        reaped = int(said.rpartition(" ")[2])
        if reaped:
            _log.warning("reaped", reason=reason, events=reaped, replicas=len({record.boot_id for record in opened}))
            self._counts.reaped(reason, reaped)

    def _closing(self, opened: OpenRecord, live: Mapping[str, UsedSoFar] | None) -> CloseRecord:
        """Return the end of an event as far as it is known."""
        used = None if live is None else live.get(str(opened.event_id))
        if used is None:  # it began after the checkpoint: what it asked for is known, what was generated is not
            used = UsedSoFar(True, opened.estimate_prompt_tokens, 0, 0, 0, None, None, None, 0, None)
        usage = TokenUsage(used.prompt, used.cached, used.completion, used.reasoning, Coverage.ESTIMATED)
        served = used.served_model or opened.model
        price = self._prices.at(served, opened.opened_at)
        return CloseRecord(
            event_id=opened.event_id,
            opened_at=opened.opened_at,
            boot_id=opened.boot_id,
            organization_id=opened.organization_id,
            team_id=opened.team_id,
            user_id=opened.user_id,
            key_id=opened.key_id,
            model=opened.model,
            served_model=served,
            engine=used.engine or (UNKNOWN_ENGINE if used.begun else None),
            endpoint=opened.endpoint or "unknown",
            session=used.session or opened.session,
            streamed=bool(opened.streamed),
            attempts=used.attempts,
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            price_id=None if price is None else price.price_id,
            cost_pico_usd=PicoUsd(0) if price is None or not usage.prompt else cost(price.price, usage),
            status=Status.INTERRUPTED.value,
            coverage=usage.coverage.value,
            http_status=None,
            error_code=None,
            ttft_ms=used.ttft_ms,
            duration_ms=self._duration_ms(opened),
        )

    def _duration_ms(self, opened: OpenRecord) -> int:
        """Return how long the request can have run: until its replica's last heartbeat, or its deadline."""
        last = self._heartbeats.get(opened.boot_id)
        ended_at = opened.opened_at if last is None else min(last.at, opened.deadline_at)
        return max(round((ended_at - opened.opened_at).total_seconds() * 1000), 0)


async def _checkpoints(connection: Connection, boot_ids: set[UUID]) -> dict[UUID, Mapping[str, UsedSoFar]]:
    """Return what replicas last said of their requests; nothing for one whose words another release cannot read."""
    found: dict[UUID, Mapping[str, UsedSoFar]] = {}
    for boot_id, live in await connection.fetch(_CHECKPOINTS, list(boot_ids)):
        try:
            found[boot_id] = msgspec.json.decode(live, type=dict[str, UsedSoFar])
        except msgspec.DecodeError as error:
            _log.warning("checkpoint_unreadable", boot_id=str(boot_id), reason=str(error))
    return found
