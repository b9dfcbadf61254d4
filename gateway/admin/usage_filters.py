"""Whose usage a report is of: the caller's reach and the report's filters, as conditions in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admin.names import NAME_CHARS_MAX, id_and_name, quoted
from gateway.errors import InvalidRequest, NotFound
from gateway.settle.sums import PARAMETERS

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.admin.scope import Scope


@dataclass(frozen=True, slots=True)
class Filters:
    """What a report leaves out all else of; None: nothing.

    `team`, `user` and `key` are ids or names (of a key: also its public id), also of what is deleted; `model` is the
    one that served.
    """

    team: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    engine: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        for field in ("team", "user", "key", "model", "engine", "session"):
            value = getattr(self, field)
            if value is not None and not (0 < len(value) <= NAME_CHARS_MAX and value.isprintable()):
                raise InvalidRequest(f"{field} must have 1 to {NAME_CHARS_MAX} printable characters", param=field)


# Whom a name may mean: whoever has or had it, a thousand at most, as far as the caller sees. A key goes by its public
# id, too.
_FIND = {
    "team": """
        SELECT id, organization_id FROM team
         WHERE ($1::uuid IS NULL OR organization_id = $1) AND name = $4
           AND ($2::uuid[] IS NULL OR id = ANY ($2) OR EXISTS (
               SELECT FROM membership WHERE membership.organization_id = team.organization_id
                  AND membership.team_id = team.id AND membership.user_id = $3))
         LIMIT 1000
    """,
    "user": """
        SELECT id, organization_id FROM app_user
         WHERE ($1::uuid IS NULL OR organization_id = $1) AND name = $4
           AND ($2::uuid[] IS NULL OR id = $3 OR EXISTS (
               SELECT FROM membership WHERE membership.organization_id = app_user.organization_id
                  AND membership.team_id = ANY ($2) AND membership.user_id = app_user.id))
         LIMIT 1000
    """,
    "key": """
        SELECT id, organization_id FROM api_key
         WHERE ($1::uuid IS NULL OR organization_id = $1) AND (name = $4 OR public_id = $4)
           AND ($2::uuid[] IS NULL OR team_id = ANY ($2) OR user_id = $3::uuid)
         LIMIT 1000
    """,
}
_COLUMNS = {"model": "served_model", "engine": "engine", "session": "session"}


async def conditions(db: Database, scope: Scope, filters: Filters) -> tuple[str, list[object]]:
    """Return SQL that a row of the ledger or its rollups has to meet, and its values, numbered after those of `used`.

    Conditions that do not apply are left out, so that Postgres plans each report for what it asks. Raises NotFound for
    a name that nobody within reach has or had, InvalidRequest for one of several organizations.
    """
    wanted: list[str] = []
    values: list[object] = []

    def add(value: object) -> str:
        values.append(value)
        return f"${PARAMETERS + len(values)}"

    if scope.organization_id is not None:
        wanted.append(f"organization_id = {add(scope.organization_id)}::uuid")
    if scope.teams is not None:
        wanted.append(f"(team_id = ANY ({add(scope.teams)}::uuid[]) OR user_id = {add(scope.user_id)}::uuid)")
    for kind in _FIND:
        reference = getattr(filters, kind)
        if reference is not None:
            wanted.append(f"{kind}_id = ANY ({add(await _ids(db, scope, kind, reference))}::uuid[])")
    for field, column in _COLUMNS.items():
        value = getattr(filters, field)
        if value is not None:
            wanted.append(f"{column} = {add(value)}::text")
    return " AND ".join(wanted) or "true", values


async def _ids(db: Database, scope: Scope, kind: str, reference: str) -> list[UUID]:
    """Return whom a reference means; an id means itself, whoever that was."""
    identifier, name = id_and_name(reference)
    if identifier is not None:
        return [identifier]
    rows = await db.fetch(_FIND[kind], scope.organization_id, scope.teams, scope.user_id, name)
    if not rows:
        raise NotFound(f"no {kind} {quoted(reference)}", param=kind)
    if len({row["organization_id"] for row in rows}) > 1:
        message = f"several organizations have a {kind} {quoted(reference)}: name the organization too, or give the id"
        raise InvalidRequest(message, param=kind)
    return [row["id"] for row in rows]
