"""A replica's own CLOSE that comes after the event was closed in its place: what the two differ by is an adjustment.

Such a replica was frozen or cut off, and its spool or its memory told the truth later. The event stays as it is; events
never change. An adjustment is of the event's own tenant and model, so that sums by those stay sums of what was used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.settle.records import CloseRecord
    from gateway.storage.postgres import PoolProxy

LATE_CLOSE_BATCH = UUID(int=0)
"""The `batch_id` of such an adjustment: an event has one at most, however often its CLOSE comes."""

# The event that was meant is found by its key, one probe a record. One that no other has closed is the same record.
_ADJUST = """
INSERT INTO usage_adjustment (event_id, opened_at, batch_id, reason, organization_id, team_id, user_id, key_id, model,
    served_model, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, price_id, cost_pico_usd)
SELECT e.event_id, e.opened_at, $9, 'late_close', e.organization_id, e.team_id, e.user_id, e.key_id, e.model,
       e.served_model, late.prompt - e.prompt_tokens, late.cached - e.cached_tokens,
       late.completion - e.completion_tokens, late.reasoning - e.reasoning_tokens, late.price_id,
       late.cost - e.cost_pico_usd
  FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
              $8::numeric[]) AS late (event_id, opened_at, prompt, cached, completion, reasoning, price_id, cost)
 CROSS JOIN LATERAL (
       SELECT * FROM usage_event WHERE event_id = late.event_id AND opened_at = late.opened_at LIMIT 1) AS e
 WHERE e.reaped
   AND (e.prompt_tokens, e.cached_tokens, e.completion_tokens, e.reasoning_tokens, e.cost_pico_usd)
       <> (late.prompt, late.cached, late.completion, late.reasoning, late.cost)
ON CONFLICT DO NOTHING
"""

_log = structlog.get_logger("penstock.ledger")


async def adjust_reaped(connection: PoolProxy, closes: Sequence[CloseRecord]) -> None:
    """Write adjustments for those of these records whose event was closed in the replica's place.

    Writing them again changes nothing. Raises what asyncpg raises when Postgres is away.
    """
    columns = zip(
        *(
            (
                close.event_id,
                close.opened_at,
                close.prompt_tokens,
                close.cached_tokens,
                close.completion_tokens,
                close.reasoning_tokens,
                close.price_id,
                close.cost_pico_usd,
            )
            for close in closes
        ),
        strict=True,
    )
    said = await connection.execute(_ADJUST, *columns, LATE_CLOSE_BATCH)
    adjusted = int(said.rpartition(" ")[2])
    if adjusted:
        _log.info("late_closes", adjusted=adjusted)
