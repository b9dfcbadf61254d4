"""No service function reaches across organizations: what belongs to another one is not found, by id or by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from gateway.admin.database import Database, transaction_on
from gateway.admin.keys import ApiKey, KeyFilter, NewApiKey, create_key, find_key, list_keys, revoke_key
from gateway.admin.limit_values import LimitValues
from gateway.admin.limits import Subject, clear_limit, list_limits, set_limit
from gateway.admin.memberships import add_member
from gateway.admin.organizations import create_organization, find_organization, list_organizations
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import Team, create_team, find_team, list_teams
from gateway.admin.users import User, create_user, find_user, list_users
from gateway.authenticate.key import Peppers
from gateway.domain.principal import Level
from gateway.errors import NotFound

PEPPERS = Peppers({})


@dataclass(frozen=True)
class Tenant:
    scope: Scope
    team: Team
    user: User
    key: ApiKey


async def tenant(db: Database, name: str) -> Tenant:
    organization = await create_organization(db, PLATFORM, name)
    scope = Scope(organization.id)
    team = await create_team(db, scope, f"team-{name}", organization=name)
    user = await create_user(db, scope, f"user-{name}", organization=name, teams=[team.name])
    key = await create_key(db, scope, PEPPERS, NewApiKey(team=team.name, user=user.name))
    for subject in (
        Subject(Level.ORGANIZATION, name),
        Subject(Level.TEAM, team.name),
        Subject(Level.USER, user.name),
        Subject(Level.KEY, key.about.public_id),
    ):
        await set_limit(db, PLATFORM, subject, LimitValues(requests_per_minute=5))
    return Tenant(scope, team, user, key.about)


Attempt = Callable[[Database, Scope, Tenant], Awaitable[object]]


def subjects(victim: Tenant) -> list[Subject]:
    return [
        Subject(Level.ORGANIZATION, str(victim.scope.organization_id)),
        Subject(Level.ORGANIZATION, victim.team.organization),
        Subject(Level.TEAM, str(victim.team.id)),
        Subject(Level.TEAM, victim.team.name),
        Subject(Level.USER, str(victim.user.id)),
        Subject(Level.USER, victim.user.name),
        Subject(Level.KEY, str(victim.key.id)),
        Subject(Level.KEY, victim.key.public_id),
        Subject(Level.TEAM, str(victim.team.id), organization=victim.team.organization),
    ]


ATTEMPTS: dict[str, Attempt] = {
    "organization by id": lambda db, scope, victim: find_organization(db, scope, str(victim.scope.organization_id)),
    "organization by name": lambda db, scope, victim: find_organization(db, scope, victim.team.organization),
    "team by id": lambda db, scope, victim: find_team(db, scope, str(victim.team.id)),
    "team by name": lambda db, scope, victim: find_team(db, scope, victim.team.name),
    "new team": lambda db, scope, victim: create_team(db, scope, "new", organization=victim.team.organization),
    "teams": lambda db, scope, victim: list_teams(db, scope, organization=victim.team.organization),
    "user by id": lambda db, scope, victim: find_user(db, scope, str(victim.user.id)),
    "user by name": lambda db, scope, victim: find_user(db, scope, victim.user.name),
    "new user": lambda db, scope, victim: create_user(db, scope, "new", organization=victim.team.organization),
    "new user in team": lambda db, scope, victim: create_user(
        db, scope, "new", organization=str(scope.organization_id), teams=[str(victim.team.id)]
    ),
    "users": lambda db, scope, victim: list_users(db, scope, organization=victim.team.organization),
    "own user in foreign team": lambda db, scope, victim: add_member(
        db, scope, team=str(victim.team.id), user="user-acme"
    ),
    "foreign user in own team": lambda db, scope, victim: add_member(
        db, scope, team="team-acme", user=str(victim.user.id)
    ),
    "new key": lambda db, scope, victim: create_key(db, scope, PEPPERS, NewApiKey(team=str(victim.team.id))),
    "new key of foreign user": lambda db, scope, victim: create_key(
        db, scope, PEPPERS, NewApiKey(team="team-acme", user=str(victim.user.id))
    ),
    "key by id": lambda db, scope, victim: find_key(db, scope, str(victim.key.id)),
    "key by public id": lambda db, scope, victim: find_key(db, scope, victim.key.public_id),
    "revoke key": lambda db, scope, victim: revoke_key(db, scope, str(victim.key.id)),
    "keys": lambda db, scope, victim: list_keys(db, scope, wanted=KeyFilter(team=str(victim.team.id))),
    "limits": lambda db, scope, victim: list_limits(db, scope, organization=victim.team.organization),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_what_belongs_to_another_organization_is_not_found(postgres_dsn: str, attempt: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        acme, victim = await tenant(db, "acme"), await tenant(db, "globex")
        with pytest.raises(NotFound):
            await ATTEMPTS[attempt](db, acme.scope, victim)
        await ATTEMPTS["team by id"](db, victim.scope, victim)
        assert (await find_key(db, PLATFORM, str(victim.key.id))).status == "active"


async def test_limits_of_another_organization_are_out_of_reach(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        acme, victim = await tenant(db, "acme"), await tenant(db, "globex")
        before = await list_limits(db, victim.scope)
        assert len(before) == 4
        for subject in subjects(victim):
            with pytest.raises(NotFound):
                await set_limit(db, acme.scope, subject, LimitValues(tokens_per_minute=1))
            with pytest.raises(NotFound):
                await clear_limit(db, acme.scope, subject)
            with pytest.raises(NotFound):
                await list_limits(db, acme.scope, subject=subject)
        assert await list_limits(db, victim.scope) == before


async def test_lists_hold_the_own_organization_only(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        acme, _victim = await tenant(db, "acme"), await tenant(db, "globex")
        scope = acme.scope
        assert [one.name for one in await list_organizations(db, scope)] == ["acme"]
        assert await list_teams(db, scope) == [acme.team]
        assert await list_users(db, scope) == [acme.user]
        assert await list_keys(db, scope) == [acme.key]
        assert {rule.organization_id for rule in await list_limits(db, scope)} == {scope.organization_id}
