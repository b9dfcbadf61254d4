"""Ledger events written straight into Postgres, for tests of what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.units import new_event_id

if TYPE_CHECKING:
    import datetime as dt
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.admin.keys import ApiKey


async def write_usage(
    db: Database,
    key: ApiKey,
    at: dt.datetime,
    *,
    model: str = "qwen-coder",
    tokens: tuple[int, int, int] = (100, 40, 10),
    cost_pico_usd: int = 1,
    coverage: str = "exact",
) -> UUID:
    """Write one closed event of `key`, opened `at`; `tokens` are prompt, cached and completion. Return its id."""
    event_id = new_event_id()
    await db.execute(
        """
        INSERT INTO usage_event (event_id, opened_at, boot_id, organization_id, team_id, user_id, key_id, model,
            served_model, endpoint, streamed, attempts, prompt_tokens, cached_tokens, completion_tokens,
            reasoning_tokens, cost_pico_usd, status, coverage, duration_ms)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 'chat.completions', true, 1, $9, $10, $11, 0, $12, 'ok', $13, 5)
        """,
        event_id,
        at,
        uuid4(),
        key.organization_id,
        key.team_id,
        key.user_id,
        key.id,
        model,
        *tokens,
        cost_pico_usd,
        coverage,
    )
    return event_id
