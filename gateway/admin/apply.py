"""Brings tenants and prices to what a document declares, all of it or nothing, and tells what that changes.

Everything is done by the functions that single changes are made with, under the caller's reach and in one transaction;
a dry run does the same and takes it back, so that its plan is what would happen. One application runs at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.admin.apply_keys import apply_keys
from gateway.admin.apply_limits import Rules, apply_limits
from gateway.admin.apply_people import apply_members, apply_teams, apply_users, prune_people
from gateway.admin.apply_plan import Change, MadeKey, Run, at, every
from gateway.admin.apply_prices import apply_prices
from gateway.admin.apply_webhooks import apply_webhooks
from gateway.admin.limits import list_limits
from gateway.admin.organizations import Organization, create_organization, find_organization
from gateway.domain.principal import Level
from gateway.errors import Conflict, NotFound

if TYPE_CHECKING:
    from gateway.admin.apply_document import DeclaredOrganization, Document
    from gateway.admin.database import Database

LOCK_WAIT_MS_MAX = 10_000
"""How long an application waits for the one before it."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was changed, or in a dry run would be, in the order in which it is done; and the keys that were made."""

    dry_run: bool
    changes: list[Change]
    keys: list[MadeKey] = field(repr=False)


async def apply_document(run: Run, document: Document, *, dry_run: bool) -> Applied:
    """Apply a document inside the caller's transaction.

    What is refused takes back the caller's transaction, and names its place in the document as a JSON Pointer in
    `param`. Raises GatewayError as the functions of single changes do, and Conflict while another application runs.
    """
    await _one_at_a_time(run.db)
    tried = run.db.transaction()  # inside the caller's: a savepoint
    await tried.start()
    for name, declared in document.organizations.items():
        await _apply_organization(run, name, declared)
    await apply_prices(run, document.prices)
    if dry_run:
        await tried.rollback()
        return Applied(dry_run=True, changes=run.changes, keys=[])
    await tried.commit()
    return Applied(dry_run=False, changes=run.changes, keys=run.made_keys)


async def _one_at_a_time(db: Database) -> None:
    await db.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS_MAX}")
    try:
        await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('penstock apply', 0))")
    except asyncpg.LockNotAvailableError:
        raise Conflict("another file is being applied: try again when it is done") from None
    await db.execute("SET LOCAL lock_timeout = DEFAULT")


async def _apply_organization(run: Run, name: str, declared: DeclaredOrganization | None) -> None:
    place = ("organizations", name)
    with at(*place):
        owner = await _organization(run, name)
    if declared is None:
        return
    found = await every(lambda page: list_limits(run.db, run.scope, page, organization=str(owner.id)))
    rules = Rules(found)
    await apply_limits(run, rules, (Level.ORGANIZATION, owner.id), declared.limits, path=(name,), place=place)
    users = await apply_users(run, owner, declared.users or {}, place)
    for user, wanted in (declared.users or {}).items():
        limits: Any = None if wanted is None else wanted.limits
        subject = (Level.USER, users[user].id)
        await apply_limits(run, rules, subject, limits, path=(name, user), place=(*place, "users", user))
    teams = await apply_teams(run, owner, declared.teams or {}, place)
    for team, one in (declared.teams or {}).items():
        if one is None:
            continue
        inner = (*place, "teams", team)
        await apply_members(run, teams[team], one.members, inner)
        subject = (Level.TEAM, teams[team].id)
        await apply_limits(run, rules, subject, one.limits, path=(name, team), place=inner)
        await apply_keys(run, teams[team], one.keys, rules, inner)
    await prune_people(
        run, owner, users, teams, declared_users=declared.users, declared_teams=declared.teams, place=place
    )
    await apply_webhooks(run, owner, declared.webhooks, place)


async def _organization(run: Run, name: str) -> Organization:
    try:
        return await find_organization(run.db, run.scope, name)
    except NotFound:
        made = await create_organization(run.db, run.scope, name)
        run.created("organization", (name,), {})
        return made
