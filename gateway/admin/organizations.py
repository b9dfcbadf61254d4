"""Organizations: the outermost tenants. Only the platform makes, renames and deletes them; each sees itself."""

import datetime as dt
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import id_and_name, quoted, tenant_name
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.errors import Conflict, NotFound

_SELECT = """
    SELECT id, name, created_at FROM organization
    WHERE deleted_at IS NULL AND ($1::uuid IS NULL OR id = $1)
"""
_LOCK = "FOR UPDATE"


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant. Its name is unique among those that are not deleted."""

    id: UUID
    name: str
    created_at: dt.datetime


async def create_organization(db: Database, scope: Scope, name: str) -> Organization:
    """Make an organization. Raises InvalidRequest, Conflict when the name is taken, Forbidden outside the platform."""
    scope.require_platform("create organizations")
    try:
        row = await db.fetchrow(
            "INSERT INTO organization (name) VALUES ($1) RETURNING id, name, created_at", tenant_name(name)
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(name) from error
    assert row is not None, "RETURNING returns"
    return Organization(**row)


async def find_organization(db: Database, scope: Scope, reference: str, *, lock: bool = False) -> Organization:
    """Return the organization with this id or name, with `lock` held until the transaction ends.

    Raises NotFound when there is none within the scope.
    """
    row = await db.fetchrow(
        f"{_SELECT} AND (id = $2 OR name = $3) {_LOCK if lock else ''}",
        scope.organization_id,
        *id_and_name(reference),
    )
    if row is None:
        raise NotFound(f"no organization {quoted(reference)}", param="organization")
    return Organization(**row)


async def list_organizations(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, *, name: str | None = None
) -> list[Organization]:
    """Return the organizations within the scope, one page, by id; with `name` those whose name holds it."""
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($2::uuid IS NULL OR id > $2) AND ($3::text IS NULL OR position(lower($3) IN lower(name)) > 0)
        ORDER BY id LIMIT $4
        """,
        scope.organization_id,
        page.after,
        name,
        page.limit,
    )
    return [Organization(**row) for row in rows]


async def rename_organization(db: Database, scope: Scope, organization: Organization, name: str) -> Organization:
    """Give an organization, held by a lock, another name.

    Raises InvalidRequest, Conflict when the name is taken, and Forbidden outside the platform: names are unique beyond
    what an organization can see.
    """
    scope.require_platform("rename organizations")
    try:
        await db.execute(
            "UPDATE organization SET name = $2 WHERE id = $1 AND deleted_at IS NULL",
            organization.id,
            tenant_name(name),
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(name) from error
    return replace(organization, name=name)


async def delete_organization(db: Database, scope: Scope, reference: str) -> Organization:
    """Delete an organization (id or name) for ever: its keys stop within a second, its name is free again.

    What it used stays in the ledger, under its name in reports. Raises NotFound, Forbidden outside the platform.
    """
    found = await find_organization(db, scope, reference)
    scope.require_platform("delete organizations")
    await db.execute("UPDATE organization SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL", found.id)
    return found


async def narrowed(db: Database, scope: Scope, reference: str | None) -> Scope:
    """Return the scope of one organization within `scope`; `scope` itself for None. Raises NotFound."""
    if reference is None:
        return scope
    return scope.within((await find_organization(db, scope, reference)).id)


def _taken(name: str) -> Conflict:
    return Conflict(f"an organization named {quoted(name)} exists already", param="name")
