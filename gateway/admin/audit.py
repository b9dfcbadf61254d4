"""The audit log: who changed what, from where, and what it was before. Triggers write it; here it is only read.

An entry holds the changed row without its secrets. Platform administrators see all, an organization's administrators
what belongs to it, and nobody else anything.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from gateway.admin.database import Database
from gateway.admin.names import as_id
from gateway.admin.organizations import narrowed
from gateway.admin.scope import Scope

KINDS = ("organization", "team", "user", "membership", "key", "limit", "price", "admin_key", "webhook")
"""What entries are about."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change. `organization_id` None: of the whole platform. `subject_id` is the id of what was changed.

    `actor` has `kind` (`admin_key`, `user`, `local`: a command with access to Postgres, `database`: SQL by hand or
    the gateway itself), `id`, `name`, `credential` (public id of the admin key), `address`, `agent` and `request_id`,
    as far as there are any. `before` is null where the thing was made, `after` where its row was removed; of a change,
    both hold the whole row, and `changed` names the fields that differ.
    """

    id: int
    at: dt.datetime
    organization_id: UUID | None
    actor: dict[str, Any]
    action: Literal["create", "change", "delete"]
    subject_kind: str
    subject_id: str
    changed: tuple[str, ...]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; None: whatever it is. `actor` is a name, an id or a credential's public id."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    kind: str | None = None
    subject: str | None = None
    actor: str | None = None
    action: str | None = None


async def list_audit_events(
    db: Database,
    scope: Scope,
    wanted: AuditFilter,
    *,
    limit: int,
    before: int | None = None,
    organization: str | None = None,
) -> list[AuditEvent]:
    """Return what was changed, the latest first, at most `limit` entries older than the one with id `before`.

    Raises Forbidden for who administers neither the platform nor an organization, and NotFound when `organization`
    is not within the scope.
    """
    scope.require_organization("read the audit log")
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        """
        SELECT id, at, organization_id, actor, action, subject_kind, subject_id, before, after
        FROM audit_event
        WHERE ($1::uuid IS NULL OR organization_id = $1)
          AND ($2::bigint IS NULL OR id < $2)
          AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
          AND ($5::text IS NULL OR subject_kind = $5) AND ($6::text IS NULL OR subject_id = $6)
          AND ($7::text IS NULL OR $7 IN (actor ->> 'name', actor ->> 'id', actor ->> 'credential'))
          AND ($8::text IS NULL OR action = $8)
        ORDER BY id DESC LIMIT $9
        """,
        scope.organization_id,
        before,
        wanted.since,
        wanted.until,
        wanted.kind,
        _subject(wanted.subject),
        wanted.actor,
        wanted.action,
        limit,
    )
    return [_event(row) for row in rows]


def _subject(reference: str | None) -> str | None:
    """Return an id as the log has it, however it was spelled."""
    identifier = None if reference is None else as_id(reference)
    return str(identifier) if identifier else reference


def _event(row: asyncpg.Record) -> AuditEvent:
    before, after = _row(row["before"]), _row(row["after"])
    changed = [] if before is None or after is None else [name for name in after if before.get(name) != after[name]]
    fields = dict(row) | {"actor": _row(row["actor"]), "before": before, "after": after}
    return AuditEvent(**fields, changed=tuple(sorted(changed)))


def _row(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
