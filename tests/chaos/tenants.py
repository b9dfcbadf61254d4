"""The tenants of a run: organizations, teams, users and keys, with limits at all four levels, and one client a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admin.database import transaction_on
from gateway.admin.keys import NewApiKey, create_key
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team
from gateway.admin.users import create_user
from gateway.domain.principal import Level
from tests.chaos.clients import Caller
from tests.support.tenants import NO_PEPPERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from gateway.admin.database import Database
    from tests.chaos.plan import Form

ORGANIZATIONS = 3
TEAMS_OF_EACH = 2
PICO = 10**12
SECONDS_OF_BUDGET = 10.0
"""What the budgets below are for; those of users and keys are used up in the course of a run."""
WIDE = {"requests_per_minute": 60_000, "requests_burst": 10_000, "tokens_per_minute": 10_000_000}

# What is given to each level, by the organization's number: the first is held by rates, the second by leases and
# budgets, the third is hardly held at all.
RULES: dict[tuple[int, Level], dict[str, int | bool]] = {
    (0, Level.ORGANIZATION): {"requests_per_minute": 150, "requests_burst": 15},
    (0, Level.TEAM): {"tokens_per_minute": 9000, "tokens_burst": 1500},
    (0, Level.USER): {"requests_per_minute": 60, "requests_burst": 6},
    (0, Level.KEY): {"output_tokens_per_minute": 2400, "output_tokens_burst": 900, "tokens_per_minute": 60_000},
    (1, Level.ORGANIZATION): {"budget_day_pico_usd": PICO, "concurrent_requests": 6},
    (1, Level.TEAM): {"concurrent_requests": 3, "input_tokens_per_minute": 30_000, "input_tokens_burst": 6000},
    (1, Level.USER): {"budget_week_pico_usd": PICO // 1500, "budget_stops_streams": True},
    (1, Level.KEY): {"budget_month_pico_usd": PICO // 1200},
    (2, Level.ORGANIZATION): {**WIDE, "budget_month_pico_usd": PICO},
    (2, Level.TEAM): WIDE,
    (2, Level.USER): WIDE,
    (2, Level.KEY): {**WIDE, "concurrent_requests": 1},
}


@dataclass(frozen=True)
class Rule:
    """What one subject is limited to: the columns of `limit_rule` that are set."""

    level: Level
    subject_id: UUID
    values: dict[str, int | bool]


@dataclass(frozen=True)
class Tenants:
    """Who calls, and what holds them."""

    callers: list[Caller]
    rules: list[Rule]


async def make_tenants(dsn: str, form: Form) -> Tenants:
    """Write the tenants of so many clients, evenly over all teams; each client has its own key and its own user."""
    tenants = Tenants([], [])
    each = form.clients // (ORGANIZATIONS * TEAMS_OF_EACH)
    async with transaction_on(dsn) as db:
        for number in range(ORGANIZATIONS):
            organization = await create_organization(db, PLATFORM, f"org-{number}")
            await _limit(db, tenants, form, organization.id, number, Level.ORGANIZATION, organization.id)
            for team_number in range(TEAMS_OF_EACH):
                team = await create_team(db, PLATFORM, f"team-{team_number}", organization=str(organization.id))
                await _limit(db, tenants, form, organization.id, number, Level.TEAM, team.id)
                for member in range(each):
                    name = f"user-{team_number}-{member}"
                    user = await create_user(db, PLATFORM, name, organization=str(organization.id), teams=[team.name])
                    wanted = NewApiKey(team=str(team.id), user=str(user.id))
                    created = await create_key(db, PLATFORM, NO_PEPPERS, wanted)
                    await _limit(db, tenants, form, organization.id, number, Level.USER, user.id)
                    await _limit(db, tenants, form, organization.id, number, Level.KEY, created.about.id)
                    tenants.callers.append(Caller(len(tenants.callers), created.key, str(created.about.id)))
    return tenants


async def _limit(
    db: Database, tenants: Tenants, form: Form, organization_id: UUID, number: int, level: Level, subject_id: UUID
) -> None:
    rule = RULES[number, level]
    scale = form.load_s / SECONDS_OF_BUDGET
    values = {name: int(value * scale) if name.endswith("_pico_usd") else value for name, value in rule.items()}
    columns = ", ".join(values)
    places = ", ".join(f"${position}" for position in range(4, 4 + len(values)))
    await db.execute(
        f"INSERT INTO limit_rule (organization_id, level, subject_id, {columns}) VALUES ($1, $2, $3, {places})",  # noqa: S608 - names of RULES
        organization_id,
        level.value,
        subject_id,
        *values.values(),
    )
    tenants.rules.append(Rule(level, subject_id, values))


def buckets_of(rules: list[Rule]) -> Iterator[tuple[Rule, str, int, float]]:
    """Yield each bucket: its rule, unit (`requests`, `tokens`, `input_tokens`, `output_tokens`), capacity, and refill
    a second."""
    for rule in rules:
        for unit in ("requests", "tokens", "input_tokens", "output_tokens"):
            if rate := rule.values.get(f"{unit}_per_minute"):
                yield rule, unit, int(rule.values.get(f"{unit}_burst", rate)), rate / 60
