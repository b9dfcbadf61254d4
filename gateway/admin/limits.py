"""Limits of an organization, a team, a user or a key: requests and tokens per minute, requests at once, length of
answers, and money per day, week, month and session.

A rule is a row of its own per subject and model; what is not given is not limited. All rules that apply to a request
must pass, so a narrower rule never widens a wider one.
"""

import datetime as dt
from dataclasses import dataclass, fields, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.keys import find_key
from gateway.admin.limit_values import COLUMNS, RATE_UNITS, LimitValues, budget_column
from gateway.admin.names import checked_name
from gateway.admin.organizations import find_organization, narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.teams import find_team
from gateway.admin.users import find_user
from gateway.domain.principal import BudgetPeriod, Level
from gateway.errors import InvalidRequest, NotFound
from gateway.units import PicoUsd, format_usd

# A person is told of the rules that bind it, and of those of the members and keys of teams that it administers.
_SELECT = f"""
    SELECT rule.id, rule.level, rule.subject_id,
        CASE rule.level
            WHEN 'organization' THEN organization.name
            WHEN 'team' THEN (
                SELECT name FROM team WHERE organization_id = rule.organization_id AND team.id = rule.subject_id)
            WHEN 'user' THEN (
                SELECT name
                FROM app_user WHERE organization_id = rule.organization_id AND app_user.id = rule.subject_id)
            ELSE (
                SELECT COALESCE(NULLIF(name, ''), public_id)
                FROM api_key WHERE organization_id = rule.organization_id AND api_key.id = rule.subject_id)
        END AS subject,
        rule.organization_id, organization.name AS organization, NULLIF(rule.model, '') AS model,
        {", ".join(f"rule.{column}" for column in COLUMNS)}, rule.created_at
    FROM limit_rule AS rule JOIN organization ON organization.id = rule.organization_id
    WHERE ($1::uuid IS NULL OR rule.organization_id = $1)
        AND ($2::uuid[] IS NULL OR rule.level = 'organization'
            OR (rule.level = 'team' AND rule.subject_id = ANY ($3))
            OR (rule.level = 'user' AND (rule.subject_id = $4 OR rule.subject_id IN (
                SELECT user_id FROM membership WHERE organization_id = $1 AND team_id = ANY ($2))))
            OR (rule.level = 'key' AND rule.subject_id IN (
                SELECT api_key.id FROM api_key
                WHERE api_key.organization_id = $1 AND (api_key.team_id = ANY ($2) OR api_key.user_id = $4))))
"""  # noqa: S608 - the columns are names of this package
_LOCK = "FOR UPDATE OF rule"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A rule as it stands. `subject` is the name of what it limits; `model` None: every model.

    Budgets are exact amounts in US dollars, as text.
    """

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
    input_tokens_per_minute: int | None
    input_tokens_burst: int | None
    output_tokens_per_minute: int | None
    output_tokens_burst: int | None
    concurrent_requests: int | None
    output_tokens_max: int | None
    budget_day_usd: str | None
    budget_week_usd: str | None
    budget_month_usd: str | None
    budget_session_usd: str | None
    budget_stops_streams: bool
    created_at: dt.datetime

    @property
    def has_budget(self) -> bool:
        """Whether it bounds what may be spent in some period."""
        return any(self.budget_usd(period) is not None for period in BudgetPeriod)

    def budget_usd(self, period: BudgetPeriod) -> str | None:
        """Return how much may be spent in a period (or a session), None when the rule does not say."""
        amount: str | None = getattr(self, f"budget_{period}_usd")
        return amount

    @property
    def limits_nothing(self) -> bool:
        """Whether no value is left; bursts and what happens to streams go with one of the others."""
        kinds = ("_per_minute", "_requests", "_max", "_usd")
        return all(getattr(self, one.name) is None for one in fields(self) if one.name.endswith(kinds))


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

    A rule whose last value is taken away goes with it. Raises InvalidRequest when nothing is given, a burst would stand
    without its rate, or streams would be stopped by no budget; NotFound for the subject; Forbidden for an organization
    outside the platform, for a team or user unless the caller administers the organization, for a key its team.
    """
    given = values.given()
    if not given:
        raise InvalidRequest("say what to allow: give at least one limit, such as tokens_per_minute")
    if model is not None:
        checked_name(model, "model")
    organization_id, subject_id = await _changeable(db, scope, subject)
    placeholders = ", ".join(f"${number}" for number in range(5, 5 + len(given)))
    row = await db.fetchrow(
        f"""
        INSERT INTO limit_rule (organization_id, level, subject_id, model, {", ".join(given)})
        VALUES ($1, $2, $3, $4, {placeholders})
        ON CONFLICT (subject_id, level, model) DO UPDATE SET
            {", ".join(f"{column} = EXCLUDED.{column}" for column in given)}
        RETURNING id
        """,  # noqa: S608 - names of columns, numbers of parameters # unscoped: the organization is the first value
        organization_id,
        subject.level.value,
        subject_id,
        model or "",
        *given.values(),
    )
    assert row is not None, "RETURNING returns"
    rule = await find_limit(db, Scope(organization_id), row["id"])
    _check_whole(rule, values)
    if rule.limits_nothing:
        await db.execute("DELETE FROM limit_rule WHERE organization_id = $1 AND id = $2", organization_id, rule.id)
        return replace(rule, budget_stops_streams=False)
    if rule.budget_stops_streams and not rule.has_budget:
        await db.execute(
            "UPDATE limit_rule SET budget_stops_streams = false WHERE organization_id = $1 AND id = $2",
            organization_id,
            rule.id,
        )
        return replace(rule, budget_stops_streams=False)
    return rule


async def clear_limit(db: Database, scope: Scope, subject: Subject, *, model: str | None = None) -> int:
    """Remove the rule of a subject (for one model, or the one for all models); return how many were removed: 0 or 1.

    Raises NotFound for the subject, and Forbidden as `set_limit` does.
    """
    organization_id, subject_id = await _changeable(db, scope, subject)
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


async def find_limit(db: Database, scope: Scope, rule_id: UUID, *, lock: bool = False) -> LimitRule:
    """Return one rule, with `lock` held until the transaction ends. Raises NotFound."""
    row = await db.fetchrow(f"{_SELECT} AND rule.id = $5 {_LOCK if lock else ''}", *_reach(scope), rule_id)
    if row is None:
        raise NotFound("no limit with this id", param="limit")
    return _rule(row)


async def list_limits(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    organization: str | None = None,
    subject: Subject | None = None,
    level: Level | None = None,
    model: str | None = None,
) -> list[LimitRule]:
    """Return the rules within the scope, of one organization, subject, level or model if given; one page, by id.

    Raises NotFound when the organization or the subject is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    subject_id = None if subject is None else (await _resolved(db, scope, subject))[1]
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($5::uuid IS NULL OR rule.subject_id = $5) AND ($6::text IS NULL OR rule.level = $6)
            AND ($7::text IS NULL OR rule.model = $7) AND ($8::uuid IS NULL OR rule.id > $8)
        ORDER BY rule.id LIMIT $9
        """,
        *_reach(scope),
        subject_id,
        level if subject is None else subject.level,
        model,
        page.after,
        page.limit,
    )
    return [_rule(row) for row in rows]


def _reach(scope: Scope) -> tuple[UUID | None, tuple[UUID, ...] | None, tuple[UUID, ...], UUID | None]:
    return scope.organization_id, scope.teams, scope.member_of, scope.user_id


async def _changeable(db: Database, scope: Scope, subject: Subject) -> tuple[UUID, UUID]:
    """Return the ids of a subject's organization and of the subject, whose rules are the caller's to change.

    Nobody changes what limits itself: an organization's rules are the platform's, those of teams and users their
    organization's, those of keys their team's. Raises NotFound, Forbidden.
    """
    organization_id, subject_id, team_id = await _resolved(db, scope, subject)
    if subject.level is Level.ORGANIZATION:
        scope.require_platform("change limits of an organization")
    elif team_id is None:
        scope.require_organization(f"change limits of a {subject.level}")
    else:
        scope.require_team(team_id, "change limits of its keys")
    return organization_id, subject_id


async def _resolved(db: Database, scope: Scope, subject: Subject) -> tuple[UUID, UUID, UUID | None]:
    """Return the ids of a subject's organization, of the subject, and of a key's team. Raises NotFound."""
    scope = await narrowed(db, scope, subject.organization)
    if subject.level is Level.ORGANIZATION:
        organization = await find_organization(db, scope, subject.reference)
        return organization.id, organization.id, None
    if subject.level is Level.TEAM:
        team = await find_team(db, scope, subject.reference)
        return team.organization_id, team.id, None
    if subject.level is Level.USER:
        user = await find_user(db, scope, subject.reference)
        return user.organization_id, user.id, None
    key = await find_key(db, scope, subject.reference)
    if key.status == "revoked":
        raise NotFound("the key is revoked", param="key")
    return key.organization_id, key.id, key.team_id


def _check_whole(rule: LimitRule, given: LimitValues) -> None:
    """Raise InvalidRequest for a value without the one that it belongs to."""
    for unit in RATE_UNITS:
        if getattr(rule, f"{unit}_burst") is not None and getattr(rule, f"{unit}_per_minute") is None:
            raise InvalidRequest(f"{unit}_burst needs {unit}_per_minute", param=f"{unit}_burst")
    if given.budget_stops_streams and not rule.has_budget:
        raise InvalidRequest("budget_stops_streams needs a budget", param="budget_stops_streams")


def _rule(row: asyncpg.Record) -> LimitRule:
    values = dict(row)
    for period in BudgetPeriod:
        amount = values.pop(budget_column(period))
        values[f"budget_{period}_usd"] = None if amount is None else format_usd(PicoUsd(int(amount)))
    return LimitRule(**values | {"level": Level(row["level"])})
