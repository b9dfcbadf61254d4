"""Rerating: events of the past at the prices that Postgres has for their moments now, by adjustments.

An event never changes. What it should cost, less what it and its adjustments say already, is written as one more
adjustment, so that a run that was cut off and repeated, or two runs at once, come to the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from gateway.units import PicoUsd, format_usd, new_event_id

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator

    from gateway.admin.database import Database
    from gateway.admin.usage import Period

BATCH_EVENTS = 2000
"""Events that are looked at in one transaction."""

_LOCK = 0x726572617465

_FIRST = UUID(int=0)
_NOTHING = PicoUsd(0)

# A late close adds its tokens, and tells by its price which model served in truth. What costs nothing by rule is what
# `is_free` in gateway.settle.price says; an event closed for a dead replica may name no engine although one worked.
# unscoped: corrections are looked up by the event, which is held to the organization where there is one
_RERATE = """
WITH batch AS (
    SELECT * FROM usage_event
     WHERE event_id > $1 AND opened_at >= $2 AND opened_at < $3
       AND ($4::uuid IS NULL OR organization_id = $4)
     ORDER BY event_id LIMIT $6
), told AS (
    SELECT event.event_id, event.opened_at, event.organization_id, event.team_id, event.user_id, event.key_id,
           event.model, event.served_model,
           COALESCE((SELECT model FROM model_price WHERE id = late.price_id), event.served_model) AS priced_model,
           event.endpoint = 'messages.count_tokens' OR (event.engine IS NULL AND NOT event.reaped)
               OR (event.status <> 'ok' AND event.prompt_tokens + added.prompt_tokens = 0) AS free,
           event.prompt_tokens + added.prompt_tokens AS prompt, event.cached_tokens + added.cached_tokens AS cached,
           event.completion_tokens + added.completion_tokens AS completion,
           event.reasoning_tokens + added.reasoning_tokens AS reasoning,
           event.cost_pico_usd + added.cost_pico_usd AS cost
      FROM batch AS event
      CROSS JOIN LATERAL (
          SELECT COALESCE(sum(prompt_tokens), 0) AS prompt_tokens, COALESCE(sum(cached_tokens), 0) AS cached_tokens,
                 COALESCE(sum(completion_tokens), 0) AS completion_tokens,
                 COALESCE(sum(reasoning_tokens), 0) AS reasoning_tokens,
                 COALESCE(sum(cost_pico_usd), 0) AS cost_pico_usd
            FROM usage_adjustment AS one
           WHERE one.event_id = event.event_id AND one.opened_at = event.opened_at
      ) AS added
      LEFT JOIN usage_adjustment AS late ON late.event_id = event.event_id AND late.opened_at = event.opened_at
           AND late.batch_id = '00000000-0000-0000-0000-000000000000'
), priced AS (
    SELECT told.*, price.id AS price_id,
           CASE WHEN told.free THEN 0 ELSE
               greatest(prompt - cached, 0) * price.input_pico_usd + cached * price.cached_input_pico_usd
               + (completion - reasoning) * price.output_pico_usd + reasoning * price.reasoning_pico_usd
               + price.request_pico_usd
           END AS target
      FROM told LEFT JOIN LATERAL (
          SELECT * FROM model_price
           WHERE model_price.model = told.priced_model AND effective_from <= told.opened_at
           ORDER BY effective_from DESC LIMIT 1
      ) AS price ON true
     WHERE $5::text IS NULL OR told.priced_model = $5
), wrong AS (
    SELECT * FROM priced WHERE target <> cost
), written AS (
    INSERT INTO usage_adjustment (event_id, opened_at, batch_id, reason, organization_id, team_id, user_id, key_id,
        model, served_model, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, price_id, cost_pico_usd)
    SELECT event_id, opened_at, $7, 'rerate', organization_id, team_id, user_id, key_id,
        model, served_model, 0, 0, 0, 0, price_id, target - cost
      FROM wrong WHERE NOT $8::boolean
)
SELECT (SELECT count(*) FROM batch) AS looked_at,
       (SELECT event_id FROM batch ORDER BY event_id DESC LIMIT 1) AS last_id,
       (SELECT max(opened_at) FROM batch) AS last_at,
       (SELECT count(*) FROM priced) AS events,
       (SELECT count(*) FROM priced WHERE target IS NULL) AS unpriced,
       (SELECT count(*) FROM wrong) AS adjusted,
       (SELECT COALESCE(sum(target - cost) FILTER (WHERE target > cost), 0) FROM wrong) AS dearer,
       (SELECT COALESCE(sum(cost - target) FILTER (WHERE target < cost), 0) FROM wrong) AS cheaper
"""

# What is not in the sums of all time yet is what later transactions wrote: an index finds it.
# unscoped: whether anybody has used a model at all; a command of the platform's
_KNOWN = """
SELECT EXISTS (SELECT FROM model_price WHERE model = $1)
    OR EXISTS (SELECT FROM usage_total WHERE served_model = $1)
    OR EXISTS (SELECT FROM usage_event
                WHERE served_model = $1 AND ingest_xid >= (SELECT watermark FROM rollup_state))
"""


@dataclass(frozen=True, slots=True)
class Rerating:
    """What a run has done so far, or with `dry_run` would do. `run_id` is the `batch_id` of its adjustments.

    `events` were looked at; of them `adjusted` cost something else than they said, and `unpriced` have no price in
    force at their moment, so that they stay as they are. `dearer` and `cheaper` add up the differences of each kind.
    """

    run_id: UUID
    dry_run: bool
    events: int = 0
    adjusted: int = 0
    unpriced: int = 0
    dearer_pico_usd: PicoUsd = _NOTHING
    cheaper_pico_usd: PicoUsd = _NOTHING
    reached: dt.datetime | None = None

    def document(self) -> dict[str, object]:
        """Return it for scripts, amounts as exact decimal numbers of US dollars."""
        return {
            "run_id": self.run_id,
            "dry_run": self.dry_run,
            "events": self.events,
            "adjusted": self.adjusted,
            "unpriced": self.unpriced,
            "dearer_usd": format_usd(self.dearer_pico_usd),
            "cheaper_usd": format_usd(self.cheaper_pico_usd),
            "difference_usd": format_usd(PicoUsd(self.dearer_pico_usd - self.cheaper_pico_usd)),
        }


async def is_known_model(db: Database, model: str) -> bool:
    """Return whether a model ever had a price, or served anybody: a name without either is probably misspelt."""
    known: bool = await db.fetchval(_KNOWN, model)
    return known


async def rerate(
    db: Database, period: Period, *, model: str | None, organization_id: UUID | None, dry_run: bool
) -> AsyncIterator[Rerating]:
    """Rerate the events that were opened in a period, batch by batch; yield how far it is after each, at least once.

    Each batch is one transaction under a lock, so a run may be stopped at any moment and started again, and two at
    once only take turns.

    Args:
        db: a connection outside any transaction.
        period: by `opened_at`.
        model: only what this model served; None: all.
        organization_id: only this organization's; None: all.
        dry_run: only say what would be done.
    """
    done = Rerating(new_event_id(), dry_run)
    after = _FIRST
    while True:
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            row = await db.fetchrow(
                _RERATE,
                after,
                period.since,
                period.until,
                organization_id,
                model,
                BATCH_EVENTS,
                done.run_id,
                dry_run,
            )
        assert row is not None, "an aggregate has a row"
        done = replace(
            done,
            events=done.events + row["events"],
            adjusted=done.adjusted + row["adjusted"],
            unpriced=done.unpriced + row["unpriced"],
            dearer_pico_usd=PicoUsd(done.dearer_pico_usd + int(row["dearer"])),
            cheaper_pico_usd=PicoUsd(done.cheaper_pico_usd + int(row["cheaper"])),
            reached=row["last_at"] or done.reached,
        )
        yield done
        if row["looked_at"] < BATCH_EVENTS:
            return
        after = row["last_id"]
