"""Keys, limits and admin credentials on a real Postgres."""

from __future__ import annotations

import datetime as dt
import os
from uuid import uuid4

import pytest

from gateway.admin.bootstrap import DemoKeys, ensure_demo_tenant
from gateway.admin.credentials import (
    create_admin_credential,
    list_admin_credentials,
    revoke_admin_credential,
    verify_admin_credential,
)
from gateway.admin.database import Database, transaction_on
from gateway.admin.keys import CreatedKey, KeyFilter, NewApiKey, create_key, find_key, list_keys, revoke_key
from gateway.admin.limit_values import LimitValues
from gateway.admin.limits import Subject, clear_limit, list_limits, set_limit
from gateway.admin.memberships import add_member
from gateway.admin.organizations import create_organization, list_organizations
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team, list_teams
from gateway.admin.users import create_user, list_users
from gateway.authenticate.key import KEY_PREFIX, Peppers, make_key, parse_key
from gateway.domain.principal import Level
from gateway.errors import Conflict, InvalidKey, InvalidRequest, NotFound

PEPPERS = Peppers({3: os.urandom(32)})


async def tenant(db: Database) -> None:
    await create_organization(db, PLATFORM, "acme")
    await create_team(db, PLATFORM, "core", organization="acme")
    await create_user(db, PLATFORM, "bob", organization="acme", teams=["core"])


async def new_key(db: Database, **wanted: object) -> CreatedKey:
    return await create_key(db, PLATFORM, PEPPERS, NewApiKey(**({"team": "core", "user": "bob"} | wanted)))  # type: ignore[arg-type]  # the tests choose


async def test_a_key_is_kept_as_an_hmac_under_the_newest_pepper(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        made = await new_key(db, name="ci", models=("a", "b", "a"), expires_in=dt.timedelta(days=30))
        row = await db.fetchrow("SELECT * FROM api_key")
    assert row is not None
    parsed = parse_key(made.key)
    assert parsed is not None
    assert parsed.public_id == made.about.public_id == row["public_id"]
    assert row["pepper_version"] == 3
    assert PEPPERS.matches(parsed.secret, row["secret_hmac"], 3)
    assert parsed.secret not in repr(dict(row)) + repr(made)
    about = made.about
    assert (about.name, about.organization, about.team, about.user) == ("ci", "acme", "core", "bob")
    assert about.models == ("a", "b")
    assert about.status == "active"
    assert about.expires_at == about.created_at + dt.timedelta(days=30)


async def test_a_key_of_a_user_needs_membership(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        await create_user(db, PLATFORM, "eve", organization="acme")
        with pytest.raises(Conflict, match="'eve' is not a member of team 'core'"):
            await new_key(db, user="eve")
        await add_member(db, PLATFORM, team="core", user="eve")
        assert (await new_key(db, user="eve")).about.user == "eve"
        assert (await new_key(db, user=None)).about.user is None
        with pytest.raises(NotFound, match="no team"):
            await new_key(db, team="nowhere")
        with pytest.raises(InvalidRequest, match="models"):
            await new_key(db, models=("",))


async def test_a_key_is_found_in_every_form_and_revoked_once(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        made = await new_key(db)
        about = made.about
        for form in (str(about.id), about.public_id, f"{KEY_PREFIX}{about.public_id}", made.key):
            assert await find_key(db, PLATFORM, form) == about
    async with transaction_on(postgres_dsn) as db:
        revoked = await revoke_key(db, PLATFORM, made.key)
    async with transaction_on(postgres_dsn) as db:
        assert await revoke_key(db, PLATFORM, str(about.id)) == revoked
        assert await list_keys(db, PLATFORM, wanted=KeyFilter(team="core")) == [revoked]
    assert revoked.status == "revoked"
    assert revoked.revoked_at is not None


async def test_an_unknown_key_is_not_quoted(postgres_dsn: str) -> None:
    unknown = make_key(PEPPERS).text
    async with transaction_on(postgres_dsn) as db:
        for reference in (unknown, unknown[:-1], str(uuid4()), "x", "\x00"):
            with pytest.raises(NotFound) as refused:
                await revoke_key(db, PLATFORM, reference)
            assert "sk-pst" not in refused.value.message


async def test_expired_keys_say_so(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        made = await new_key(db)
        await db.execute("UPDATE api_key SET expires_at = now() - interval '1 second'")
        assert (await find_key(db, PLATFORM, made.key)).status == "expired"


async def test_a_limit_keeps_what_is_not_given(postgres_dsn: str) -> None:
    team = Subject(Level.TEAM, "core", organization="acme")
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        first = await set_limit(db, PLATFORM, team, LimitValues(requests_per_minute=60, requests_burst=10))
        second = await set_limit(db, PLATFORM, team, LimitValues(tokens_per_minute=1000))
        narrowed = await set_limit(db, PLATFORM, team, LimitValues(tokens_per_minute=7), model="qwen")
        assert second.id == first.id
        assert (second.requests_per_minute, second.requests_burst, second.tokens_per_minute) == (60, 10, 1000)
        assert (second.level, second.subject, second.model) == (Level.TEAM, "core", None)
        assert (narrowed.requests_per_minute, narrowed.model) == (None, "qwen")
        assert {rule.id for rule in await list_limits(db, PLATFORM, subject=team)} == {first.id, narrowed.id}
        assert await clear_limit(db, PLATFORM, team) == 1
        assert await clear_limit(db, PLATFORM, team) == 0
        assert await list_limits(db, PLATFORM, organization="acme") == [narrowed]


async def test_every_level_can_be_limited(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
        key = (await new_key(db)).about
        subjects = [
            Subject(Level.ORGANIZATION, "acme"),
            Subject(Level.TEAM, "core"),
            Subject(Level.USER, "bob"),
            Subject(Level.KEY, key.public_id),
        ]
        rules = [await set_limit(db, PLATFORM, subject, LimitValues(1)) for subject in subjects]
        assert [rule.subject for rule in rules] == ["acme", "core", "bob", key.public_id]
        assert {rule.organization for rule in rules} == {"acme"}
        await revoke_key(db, PLATFORM, key.public_id)
        with pytest.raises(NotFound, match="revoked"):
            await set_limit(db, PLATFORM, subjects[3], LimitValues(2))


async def test_a_burst_needs_its_rate(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await tenant(db)
    with pytest.raises(InvalidRequest, match="tokens_burst needs tokens_per_minute"):
        async with transaction_on(postgres_dsn) as db:
            await set_limit(db, PLATFORM, Subject(Level.TEAM, "core"), LimitValues(tokens_burst=5))
    async with transaction_on(postgres_dsn) as db:
        assert await list_limits(db, PLATFORM) == []
        with pytest.raises(InvalidRequest, match="at least one"):
            await set_limit(db, PLATFORM, Subject(Level.TEAM, "core"), LimitValues())


async def test_admin_credentials_verify_until_revoked_or_expired(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        made = await create_admin_credential(db, PLATFORM, PEPPERS, name="ops")
        brief = await create_admin_credential(db, PLATFORM, PEPPERS, expires_in=dt.timedelta(hours=1))
        assert (await verify_admin_credential(db, PEPPERS, made.key)).scope == PLATFORM
        assert (await verify_admin_credential(db, PEPPERS, brief.key)).scope == PLATFORM
        for wrong in (
            "",
            made.key[:-1] + ("0" if made.key[-1] != "0" else "1"),
            make_key(PEPPERS, "adm-pst-").text,
            make_key(PEPPERS).text,
        ):
            with pytest.raises(InvalidKey):
                await verify_admin_credential(db, PEPPERS, wrong)
        with pytest.raises(InvalidKey):  # another pepper: the row alone is worth nothing
            await verify_admin_credential(db, Peppers({3: os.urandom(32)}), made.key)
        assert (await revoke_admin_credential(db, PLATFORM, made.about.public_id)).status == "revoked"
        assert (await revoke_admin_credential(db, PLATFORM, str(made.about.id))).status == "revoked"
        await db.execute("UPDATE admin_credential SET expires_at = now() WHERE id = $1", brief.about.id)
        for ended in (made.key, brief.key):
            with pytest.raises(InvalidKey):
                await verify_admin_credential(db, PEPPERS, ended)
        assert {row.status for row in await list_admin_credentials(db, PLATFORM)} == {"revoked", "expired"}
        with pytest.raises(NotFound):
            await revoke_admin_credential(db, PLATFORM, "nothing\x00")
        assert await list_admin_credentials(db, Scope(uuid4())) == []


async def test_the_demo_tenant_is_made_once_and_its_keys_are_kept(postgres_dsn: str) -> None:
    peppers = Peppers({})
    first = await ensure_demo_tenant(postgres_dsn, peppers)
    assert await ensure_demo_tenant(postgres_dsn, peppers, first) == first
    assert first.api_key not in repr(first)
    async with transaction_on(postgres_dsn) as db:
        assert [one.name for one in await list_organizations(db, PLATFORM)] == ["demo"]
        assert [one.name for one in await list_teams(db, PLATFORM)] == ["demo"]
        assert [one.teams for one in await list_users(db, PLATFORM)] == [("demo",)]
        key = await find_key(db, PLATFORM, first.api_key)
        (limit,) = await list_limits(db, PLATFORM)
        assert (limit.subject_id, limit.requests_per_minute, limit.tokens_per_minute) == (key.id, 600, 2_000_000)
        await revoke_key(db, PLATFORM, first.api_key)
    replaced = await ensure_demo_tenant(postgres_dsn, peppers, first)
    assert replaced.api_key != first.api_key
    assert replaced.admin_key == first.admin_key
    garbage = await ensure_demo_tenant(postgres_dsn, peppers, DemoKeys("x", "y"))
    async with transaction_on(postgres_dsn) as db:
        assert (await find_key(db, PLATFORM, garbage.api_key)).status == "active"
        assert (await verify_admin_credential(db, peppers, garbage.admin_key)).scope == PLATFORM
