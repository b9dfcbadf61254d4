"""Organizations, teams and users on a real Postgres: uniqueness, references, membership."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway.admin.database import transaction_on
from gateway.admin.memberships import add_member
from gateway.admin.organizations import Organization, create_organization, find_organization, list_organizations
from gateway.admin.page import Page
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team, find_team, list_teams
from gateway.admin.users import create_user, find_user, list_users
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound


async def organization(dsn: str, name: str) -> Organization:
    async with transaction_on(dsn) as db:
        return await create_organization(db, PLATFORM, name)


async def test_an_organization_is_found_by_id_and_by_name(postgres_dsn: str) -> None:
    made = await organization(postgres_dsn, "acme")
    async with transaction_on(postgres_dsn) as db:
        assert await find_organization(db, PLATFORM, "acme") == made
        assert await find_organization(db, PLATFORM, str(made.id)) == made
        for unknown in ("Acme", "", "a\x00", str(uuid4())):
            with pytest.raises(NotFound):
                await find_organization(db, PLATFORM, unknown)


async def test_a_taken_name_is_a_conflict_that_says_which(postgres_dsn: str) -> None:
    await organization(postgres_dsn, "acme")
    with pytest.raises(Conflict, match="'acme' exists already"):
        await organization(postgres_dsn, "acme")


async def test_the_name_of_a_deleted_organization_is_free(postgres_dsn: str) -> None:
    first = await organization(postgres_dsn, "acme")
    async with transaction_on(postgres_dsn) as db:
        await db.execute("UPDATE organization SET deleted_at = now() WHERE id = $1", first.id)
    second = await organization(postgres_dsn, "acme")
    async with transaction_on(postgres_dsn) as db:
        assert await list_organizations(db, PLATFORM) == [second]


async def test_of_creators_at_once_one_wins(postgres_dsn: str) -> None:
    results = await asyncio.gather(*(organization(postgres_dsn, "acme") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Organization) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 4


async def test_only_the_platform_makes_organizations(postgres_dsn: str) -> None:
    made = await organization(postgres_dsn, "acme")
    async with transaction_on(postgres_dsn) as db:
        with pytest.raises(Forbidden):
            await create_organization(db, Scope(made.id), "other")


async def test_team_names_are_unique_within_an_organization_only(postgres_dsn: str) -> None:
    await organization(postgres_dsn, "acme")
    await organization(postgres_dsn, "globex")
    async with transaction_on(postgres_dsn) as db:
        first = await create_team(db, PLATFORM, "core", organization="acme")
        assert await find_team(db, PLATFORM, "core") == first
        second = await create_team(db, PLATFORM, "core", organization="globex")
        with pytest.raises(InvalidRequest, match="several organizations"):
            await find_team(db, PLATFORM, "core")
        assert await find_team(db, PLATFORM, "core", organization="globex") == second
        assert await find_team(db, PLATFORM, str(first.id)) == first
        assert {team.id for team in await list_teams(db, PLATFORM)} == {first.id, second.id}
        assert await list_teams(db, PLATFORM, organization="acme") == [first]
        with pytest.raises(Conflict, match="'core' exists already in organization 'acme'"):
            await create_team(db, PLATFORM, "core", organization="acme")


async def test_a_user_is_a_member_of_many_teams(postgres_dsn: str) -> None:
    await organization(postgres_dsn, "acme")
    async with transaction_on(postgres_dsn) as db:
        for name in ("core", "web", "data"):
            await create_team(db, PLATFORM, name, organization="acme")
        made = await create_user(db, PLATFORM, "bob", organization="acme", teams=["web", "core", "web"])
        assert made.teams == ("core", "web")
        joined = await add_member(db, PLATFORM, team="data", user="bob", organization="acme")
        again = await add_member(db, PLATFORM, team="data", user=str(made.id), organization="acme")
        assert joined.teams == again.teams == ("core", "data", "web")
        assert await find_user(db, PLATFORM, "bob") == joined
        assert await list_users(db, PLATFORM, organization="acme") == [joined]


async def test_a_user_that_cannot_join_is_not_made(postgres_dsn: str) -> None:
    await organization(postgres_dsn, "acme")
    with pytest.raises(NotFound, match="no team 'nowhere'"):
        async with transaction_on(postgres_dsn) as db:
            await create_user(db, PLATFORM, "bob", organization="acme", teams=["nowhere"])
    async with transaction_on(postgres_dsn) as db:
        assert await list_users(db, PLATFORM) == []
        with pytest.raises(InvalidRequest, match="at most 100 teams"):
            await create_user(db, PLATFORM, "bob", organization="acme", teams=["core"] * 101)


async def test_the_same_user_name_is_ambiguous_across_organizations(postgres_dsn: str) -> None:
    await organization(postgres_dsn, "acme")
    await organization(postgres_dsn, "globex")
    async with transaction_on(postgres_dsn) as db:
        bob = await create_user(db, PLATFORM, "bob", organization="acme")
        await create_user(db, PLATFORM, "bob", organization="globex")
        with pytest.raises(InvalidRequest, match="several organizations have a user 'bob'"):
            await find_user(db, PLATFORM, "bob")
        assert await find_user(db, PLATFORM, "bob", organization="acme") == bob
    with pytest.raises(Conflict, match="user named 'bob' exists already"):
        async with transaction_on(postgres_dsn) as db:
            await create_user(db, PLATFORM, "bob", organization="acme")


async def test_pages_together_are_the_whole_list(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        made = {(await create_organization(db, PLATFORM, f"org-{number}")).id for number in range(5)}
        seen: list[UUID] = []
        after = None
        while rows := await list_organizations(db, PLATFORM, Page(2, after)):
            seen += [row.id for row in rows]
            after = rows[-1].id
    assert len(seen) == 5
    assert set(seen) == made


async def test_a_foreign_member_is_refused_by_the_tables_too(postgres_dsn: str) -> None:
    """Should a query ever forget its scope, a composite foreign key still stands in the way."""
    acme = await organization(postgres_dsn, "acme")
    await organization(postgres_dsn, "globex")
    async with transaction_on(postgres_dsn) as db:
        team = await create_team(db, PLATFORM, "core", organization="acme")
        stranger = await create_user(db, PLATFORM, "eve", organization="globex")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await db.execute(
                "INSERT INTO membership (organization_id, team_id, user_id) VALUES ($1, $2, $3)",
                acme.id,
                team.id,
                stranger.id,
            )
