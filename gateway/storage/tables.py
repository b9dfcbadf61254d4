"""The schema of Postgres as SQLAlchemy tables: the reference that migrations are held against.

The data path never goes through SQLAlchemy; it reads and writes these tables with asyncpg and plain SQL. Every tenant
row carries its organization, and composite foreign keys make a reference across organizations impossible.
"""

from __future__ import annotations

from gateway.storage.control_tables import audit_event, idempotency_record
from gateway.storage.ledger_tables import (
    model_price,
    reaper_state,
    replica,
    replica_checkpoint,
    usage_adjustment,
    usage_event,
    usage_open,
)
from gateway.storage.reconcile_tables import reconcile_baseline
from gateway.storage.rollup_tables import (
    rollup_state,
    usage_day,
    usage_hour,
    usage_session,
    usage_total,
)
from gateway.storage.statement_tables import statement, statement_line, statement_state
from gateway.storage.table_parts import metadata
from gateway.storage.tenant_tables import (
    admin_credential,
    api_key,
    app_user,
    limit_rule,
    membership,
    organization,
    team,
)
from gateway.storage.webhook_tables import (
    webhook,
    webhook_budget_change,
    webhook_delivery,
    webhook_event,
    webhook_health,
    webhook_secret,
    webhook_watch,
)

__all__ = [
    "admin_credential",
    "api_key",
    "app_user",
    "audit_event",
    "idempotency_record",
    "limit_rule",
    "membership",
    "metadata",
    "model_price",
    "organization",
    "reaper_state",
    "reconcile_baseline",
    "replica",
    "replica_checkpoint",
    "rollup_state",
    "statement",
    "statement_line",
    "statement_state",
    "team",
    "usage_adjustment",
    "usage_day",
    "usage_event",
    "usage_hour",
    "usage_open",
    "usage_session",
    "usage_total",
    "webhook",
    "webhook_budget_change",
    "webhook_delivery",
    "webhook_event",
    "webhook_health",
    "webhook_secret",
    "webhook_watch",
]
