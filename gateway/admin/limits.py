"""Limits: how many requests and tokens per minute an organization, team, user or key may use.

A rule is a row of its own per subject and model; what is not given is not limited. All rules that apply to a request
must pass, so a narrower rule never widens a wider one.
"""

import datetime as dt
from dataclasses import astuple, dataclass, fields
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.keys import find_key
from gateway.admin.names import checked_name
from gateway.admin.organizations import find_organization, narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.teams import find_team
from gateway.admin.users import find_user
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest, NotFound

LIMIT_MAX = 10**12

_SELECT = """
    SELECT rule.id, rule.level, rule.subject_id,
        CASE rule.level
            WHEN 'organization' THEN organization.name
            WHEN 'team' THEN (SELECT name FROM team WHERE team.id = rule.subject_id)
            WHEN 'user' THEN (SELECT name FROM app_user WHERE app_user.id = rule.subject_id)
            ELSE (SELECT COALESCE(NULLIF(name, ''), public_id) FROM api_key WHERE api_key.id = rule.subject_id)
        END AS subject,
        rule.organization_id, organization.name AS organization, NULLIF(rule.model, '') AS model,
        rule.requests_per_minute, rule.requests_burst, rule.tokens_per_minute, rule.tokens_burst, rule.created_at
    FROM limit_rule AS rule JOIN organization ON organization.id = rule.organization_id
    WHERE ($1::uuid IS NULL OR rule.organization_id = $1)
"""


@dataclass(frozen=True, slots=True)
class LimitValues:
    """What a rule allows; None leaves a value as it is. A burst is a bucket's capacity, by default one minute's worth.

    Raises InvalidRequest unless every value is a whole number from 1 to 10^12.
    """

    requests_per_minute: int | None = None
    requests_burst: int | None = None
    tokens_per_minute: int | None = None
    tokens_burst: int | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 1 <= value <= LIMIT_MAX:
                raise InvalidRequest(f"{one.name} must be 1 to {LIMIT_MAX:,}", param=one.name)

    def __bool__(self) -> bool:
        return any(value is not None for value in astuple(self))


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A rule as it stands. `subject` is the name of what it limits; `model` None: every model."""

    id: UUID
    level: Level
    subject_id: UUID
    subject: str
    organization_id: UUID
    organization: str
    model: str | None
    requests_per_minute: int | None
    requests_burst: int | None
    tokens_per_minute: int | None
    tokens_burst: int | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule is attached to: the level, and the id or name of the thing there.

    `organization` (id or name) tells teams and users of the same name apart; ids need none.
    """

    level: Level
    reference: str
    organization: str | None = None


async def set_limit(
    db: Database, scope: Scope, subject: Subject, values: LimitValues, *, model: str | None = None
) -> LimitRule:
    """Make or change the rule of a subject (for one model, or for all), and return it. Values not given are kept.

    Raises InvalidRequest when nothing is given or a burst would stand without its rate, NotFound for the subject.
    """
    if not values:
        raise InvalidRequest("give at least one of requests_per_minute and tokens_per_minute")
    if model is not None:
        checked_name(model, "model")
    organization_id, subject_id = await _resolved(db, scope, subject)
    row = await db.fetchrow(
        """
        INSERT INTO limit_rule (organization_id, level, subject_id, model,
            requests_per_minute, requests_burst, tokens_per_minute, tokens_burst)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (subject_id, level, model) DO UPDATE SET
            requests_per_minute = COALESCE(EXCLUDED.requests_per_minute, limit_rule.requests_per_minute),
            requests_burst = COALESCE(EXCLUDED.requests_burst, limit_rule.requests_burst),
            tokens_per_minute = COALESCE(EXCLUDED.tokens_per_minute, limit_rule.tokens_per_minute),
            tokens_burst = COALESCE(EXCLUDED.tokens_burst, limit_rule.tokens_burst)
        RETURNING id
        """,
        organization_id,
        subject.level.value,
        subject_id,
        model or "",
        *astuple(values),
    )
    assert row is not None, "RETURNING returns"
    rule = await db.fetchrow(f"{_SELECT} AND rule.id = $2", organization_id, row["id"])
    assert rule is not None, "written in this transaction"
    changed = _rule(rule)
    for unit in ("requests", "tokens"):
        if getattr(changed, f"{unit}_burst") is not None and getattr(changed, f"{unit}_per_minute") is None:
            raise InvalidRequest(f"{unit}_burst needs {unit}_per_minute", param=f"{unit}_burst")
    return changed


async def clear_limit(db: Database, scope: Scope, subject: Subject, *, model: str | None = None) -> int:
    """Remove the rule of a subject (for one model, or the one for all models); return how many were removed: 0 or 1.

    Raises NotFound for the subject.
    """
    organization_id, subject_id = await _resolved(db, scope, subject)
    removed = await db.fetch(
        """
        DELETE FROM limit_rule WHERE organization_id = $1 AND level = $2 AND subject_id = $3 AND model = $4
        RETURNING id
        """,
        organization_id,
        subject.level.value,
        subject_id,
        model or "",
    )
    return len(removed)


async def list_limits(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    organization: str | None = None,
    subject: Subject | None = None,
) -> list[LimitRule]:
    """Return the rules within the scope, of one organization or one subject if given; one page, by id.

    Raises NotFound when the organization or the subject is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    subject_id = None if subject is None else (await _resolved(db, scope, subject))[1]
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($2::uuid IS NULL OR (rule.subject_id = $2 AND rule.level = $3))
            AND ($4::uuid IS NULL OR rule.id > $4)
        ORDER BY rule.id LIMIT $5
        """,
        scope.organization_id,
        subject_id,
        None if subject is None else subject.level.value,
        page.after,
        page.limit,
    )
    return [_rule(row) for row in rows]


async def _resolved(db: Database, scope: Scope, subject: Subject) -> tuple[UUID, UUID]:
    """Return the ids of a subject's organization and of the subject. Raises NotFound."""
    scope = await narrowed(db, scope, subject.organization)
    if subject.level is Level.ORGANIZATION:
        organization = await find_organization(db, scope, subject.reference)
        return organization.id, organization.id
    if subject.level is Level.TEAM:
        team = await find_team(db, scope, subject.reference)
        return team.organization_id, team.id
    if subject.level is Level.USER:
        user = await find_user(db, scope, subject.reference)
        return user.organization_id, user.id
    key = await find_key(db, scope, subject.reference)
    if key.status == "revoked":
        raise NotFound("the key is revoked", param="key")
    return key.organization_id, key.id


def _rule(row: asyncpg.Record) -> LimitRule:
    return LimitRule(**{**row, "level": Level(row["level"])})
