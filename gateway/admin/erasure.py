"""Erasing a deleted organization: everything that says who somebody is goes, what was used and what it cost stays.

Done in transactions of a bounded number of rows, so nothing waits for it; stopped at any moment and started again, it
goes on where it was, and doing it again is harmless. Needs the role that owns the schema: replicas cannot do it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.admin.names import id_and_name, quoted
from gateway.errors import Conflict, InvalidRequest, NotFound

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.admin.scope import Scope

BATCH_ROWS = 10_000
NAMESAKES_SHOWN_MAX = 10

_LEDGER = ("usage_event", "usage_adjustment", "usage_open")
_SAYS_WHO = {
    "usage_event": "session = NULL, user_id = NULL WHERE (session IS NOT NULL OR user_id IS NOT NULL)",
    "usage_adjustment": "user_id = NULL WHERE user_id IS NOT NULL",
    "usage_open": "session = NULL, user_id = NULL WHERE (session IS NOT NULL OR user_id IS NOT NULL)",
}
_DAYS = r"""
SELECT to_date(right(c.relname::text, 8), 'YYYYMMDD') AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = $1::text::regclass AND c.relname ~ '_\d{8}$' ORDER BY day
"""
_SUMS = "requests, estimated, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd"
_ROLLUPS = {"usage_hour": "hour", "usage_day": "day", "usage_session": "session, hour"}


@dataclass(slots=True)
class Erased:
    """What is gone so far.

    `removed` counts rows of tenants' tables (of teams, names). `cleared` counts rows of the ledger and its sums that
    said who and no longer do, or with `with_usage` those that are gone.
    """

    organization_id: UUID
    with_usage: bool
    removed: dict[str, int] = field(default_factory=dict)
    cleared: dict[str, int] = field(default_factory=dict)


async def erase_organization(
    db: Database, scope: Scope, reference: str, *, with_usage: bool = False, batch_rows: int = BATCH_ROWS
) -> AsyncIterator[Erased]:
    """Erase a deleted organization (id, or the name it had), yielding how far it is after each transaction.

    Its names, users, keys, memberships and limits go, its entries in the audit log, and sessions and users in its part
    of the ledger; with `with_usage` that part of the ledger goes altogether, sums and money included. What remains is
    a row each for the organization and its teams, under their ids.

    Args:
        db: a connection outside any transaction.
        batch_rows: how many rows of the ledger one transaction changes.

    Raises NotFound, InvalidRequest when several deleted organizations had that name, Conflict for one that is not
    deleted, Forbidden outside the platform.
    """
    scope.require_platform("erase organizations")
    erased = Erased(await _find_deleted(db, reference), with_usage)
    async with db.transaction():
        await _remove_tenant(db, erased)
    yield erased
    for table in _LEDGER:
        for (day,) in await db.fetch(_DAYS, table):
            async for _ in _clear_day(db, erased, table, day, batch_rows):
                yield erased
    for table, period in _ROLLUPS.items():
        statement = _delete(table) if with_usage else _merge(table, period)
        async for _ in _clear_batches(db, erased, table, statement, batch_rows):
            yield erased
    if with_usage:
        async for _ in _clear_batches(db, erased, "usage_total", _delete("usage_total"), batch_rows):
            yield erased
    await _clear_statements(db, erased)
    yield erased
    async for _ in _clear_audit(db, erased, batch_rows):
        yield erased


async def _find_deleted(db: Database, reference: str) -> UUID:
    identifier, name = id_and_name(reference)
    found: list[UUID] = [
        row["id"]
        for row in await db.fetch(
            # unscoped: a command of the platform's, which finds the organization here
            """
            SELECT id FROM organization WHERE deleted_at IS NOT NULL AND (id = $1 OR name = $2)
             ORDER BY deleted_at DESC LIMIT $3
            """,
            identifier,
            name,
            NAMESAKES_SHOWN_MAX,
        )
    ]
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        message = f"several deleted organizations were called {quoted(reference)}, the last first: {ids}; give an id"
        raise InvalidRequest(message, param="organization")
    if found:
        return found[0]
    # unscoped: a command of the platform's, which finds the organization here
    if await db.fetchval("SELECT true FROM organization WHERE id = $1 OR name = $2", identifier, name):
        message = f"organization {quoted(reference)} is not deleted; first: penstock org delete {reference[:80]}"
        raise Conflict(message, param="organization")
    raise NotFound(f"no deleted organization {quoted(reference)}", param="organization")


async def _remove_tenant(db: Database, erased: Erased) -> None:
    # In the order that foreign keys want.
    tenants = ("limit_rule", "membership", "api_key", "admin_credential", "app_user")
    for table in (*tenants, "webhook_event", "webhook", "webhook_budget_change"):
        # unscoped: tables are of this module; the organization is $1
        statement = f"DELETE FROM {table} WHERE organization_id = $1"  # noqa: S608 - names of this module alone
        erased.removed[table] = _rows(await db.execute(statement, erased.organization_id))
    renamed = await db.execute(
        """
        UPDATE team SET name = 'erased ' || id, deleted_at = coalesce(deleted_at, now())
         WHERE organization_id = $1 AND name <> 'erased ' || id
        """,
        erased.organization_id,
    )
    erased.removed["team"] = _rows(renamed)
    await db.execute("UPDATE organization SET name = 'erased ' || id WHERE id = $1", erased.organization_id)


async def _clear_day(db: Database, erased: Erased, table: str, day: dt.date, batch_rows: int) -> AsyncIterator[None]:
    """Clear or delete one day's rows of one table, batch by batch."""
    change = _SAYS_WHO[table]
    # unscoped: a part of the statement below
    action = f"DELETE FROM {table} WHERE true"  # noqa: S608 - names of this module alone
    if not erased.with_usage:
        # unscoped: a part of the statement below
        action = f"UPDATE {table} SET {change}"  # noqa: S608 - names of this module alone
    condition = "true" if erased.with_usage else change.partition(" WHERE ")[2]
    within = (
        "opened_at >= $2::date::timestamp AT TIME ZONE 'UTC' AND opened_at < ($2 + 1)::timestamp AT TIME ZONE 'UTC'"
    )
    # unscoped: tables are of this module; the organization is $1
    statement = f"""
        {action} AND {within} AND (event_id, opened_at) IN (
            SELECT event_id, opened_at FROM {table} WHERE organization_id = $1 AND {within} AND {condition} LIMIT $3)
    """  # noqa: S608 - names of this module alone
    count = batch_rows
    while count == batch_rows:
        count = _rows(await db.execute(statement, erased.organization_id, day, batch_rows))
        erased.cleared[table] = erased.cleared.get(table, 0) + count
        yield


async def _clear_batches(
    db: Database, erased: Erased, table: str, statement: str, batch_rows: int
) -> AsyncIterator[None]:
    """Run a statement on one rollup until it finds nothing more.

    Nobody rolls up meanwhile: what a pass has read of the ledger before it was cleared, it has added by now.
    """
    count = batch_rows
    while count:
        async with db.transaction():
            await db.execute("SELECT FROM rollup_state FOR UPDATE")
            count = await db.fetchval(statement, erased.organization_id, batch_rows)
        erased.cleared[table] = erased.cleared.get(table, 0) + count
        yield


async def _clear_statements(db: Database, erased: Erased) -> None:
    """Take the names out of the organization's statements; with its usage, the statements altogether.

    After the ledger's sums: a statement that was closed meanwhile goes, too.
    """
    says_who = {"statement_line": ("team_name", "team_id"), "statement": ("organization_name", "organization_id")}
    async with db.transaction():
        for table, (name, identifier) in says_who.items():
            await db.execute("SELECT set_config('penstock.erasing', $1, true)", table)
            # unscoped: tables are of this module; the organization is $1
            statement = f"DELETE FROM {table} WHERE organization_id = $1"  # noqa: S608 - names of this module alone
            if not erased.with_usage:
                # unscoped: as in the line above
                statement = f"""
                    UPDATE {table} SET {name} = 'erased ' || {identifier}
                     WHERE organization_id = $1 AND {name} <> 'erased ' || {identifier}
                """  # noqa: S608 - as above
            erased.cleared[table] = _rows(await db.execute(statement, erased.organization_id))


async def _clear_audit(db: Database, erased: Erased, batch_rows: int) -> AsyncIterator[None]:
    """Take the organization's entries out of the audit log, which tell names, also of what was just erased.

    The last thing that is done, so that an entry of the platform says that, and by whom; it has ids alone.
    """
    count = batch_rows
    while count == batch_rows:
        async with db.transaction():
            await db.execute("SELECT set_config('penstock.erasing', 'audit_event', true)")
            # unscoped: the entries to delete are chosen by organization
            statement = """
                DELETE FROM audit_event WHERE id IN (
                    SELECT id FROM audit_event WHERE organization_id = $1 ORDER BY id LIMIT $2)
            """
            count = _rows(await db.execute(statement, erased.organization_id, batch_rows))
        erased.cleared["audit_event"] = erased.cleared.get("audit_event", 0) + count
        yield
    if any((*erased.removed.values(), *erased.cleared.values())):
        await db.execute(
            # unscoped: an entry of the platform's, that the organization is erased
            """
            INSERT INTO audit_event (actor, action, subject_kind, subject_id, after)
            VALUES (jsonb_build_object('kind', 'database', 'name', session_user), 'delete', 'organization', $1,
                    jsonb_build_object('erased', true, 'with_usage', $2::boolean))
            """,
            str(erased.organization_id),
            erased.with_usage,
        )


def _delete(table: str) -> str:
    """Return what deletes a batch of the organization's sums, and counts them."""
    # unscoped: tables are of this module; the organization is $1
    return f"""
        WITH gone AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE organization_id = $1 LIMIT $2)) RETURNING 1)
        SELECT count(*) FROM gone
    """  # noqa: S608 - names of this module alone


def _merge(table: str, cut: str) -> str:
    """Return what adds a batch of the sums of users and sessions to those of nobody in particular, and counts them."""
    key = f"organization_id, {cut}, key_id, team_id, user_id, model, served_model, engine"
    cleared = {"user_id": "NULL::uuid", "session": "NULL::text"}
    says_who = [name for name in cleared if name in key.split(", ")]
    of_nobody = ", ".join(cleared.get(name, name) for name in key.split(", "))
    left = ", ".join(name for name in key.split(", ") if name not in cleared)
    condition = " OR ".join(f"{name} IS NOT NULL" for name in says_who)
    names = _SUMS.split(", ")
    # unscoped: tables are of this module; the organization is $1
    return f"""
        WITH gone AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE organization_id = $1 AND ({condition}) LIMIT $2)) RETURNING *
        ), added AS (
            INSERT INTO {table} AS kept ({key}, {_SUMS})
            SELECT {of_nobody}, {", ".join(f"sum({name})" for name in names)} FROM gone GROUP BY {left}
            ON CONFLICT ({key}) DO UPDATE SET {", ".join(f"{name} = kept.{name} + excluded.{name}" for name in names)}
        )
        SELECT count(*) FROM gone
    """  # noqa: S608 - names of this module alone


def _rows(status: str) -> int:
    """Return how many rows a command's status tells: `DELETE 5`."""
    return int(status.rpartition(" ")[2])
