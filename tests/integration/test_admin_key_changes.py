"""How keys change on a real Postgres: what they may do, their secret, and who may change what."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from gateway.admin.database import Database, transaction_on
from gateway.admin.key_changes import GRACE_DEFAULT, GRACE_MAX, KeyChange, rotate_key, update_key
from gateway.admin.keys import ApiKey, KeyFilter, NewApiKey, create_key, find_key, list_keys, revoke_key
from gateway.admin.limit_values import REMOVED
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team
from gateway.admin.users import create_user
from gateway.authenticate.key import Peppers, parse_key
from gateway.errors import Conflict, Forbidden, GatewayError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD, NEW = os.urandom(32), os.urandom(32)
PEPPERS = Peppers({3: OLD})

AS_IT_WAS = """
    UPDATE api_key SET previous_secret_hmac = NULL, previous_pepper_version = NULL, previous_expires_at = NULL,
        rotated_at = NULL
"""
KEYS = (("A", "core", None), ("B", "core", "bob"), ("C", "core", None), ("D", "core", None), ("E", "web", "bob"))
"""Name, team and holder."""


@pytest.fixture
async def db(postgres_dsn: str) -> AsyncIterator[Database]:
    """A transaction on a fresh database, in which the clock of the database stands still."""
    async with transaction_on(postgres_dsn) as db:
        yield db


@dataclass(frozen=True)
class Company:
    """Two teams; ann administers the first, bob is a member of both, and eve of the second alone."""

    admin: Scope
    ann: Scope
    bob: Scope
    eve: Scope


async def company(db: Database) -> Company:
    organization = (await create_organization(db, PLATFORM, "acme")).id
    core, web = [await create_team(db, PLATFORM, name, organization="acme") for name in ("core", "web")]
    ann = await create_user(db, PLATFORM, "ann", organization="acme", teams=["core"])
    bob = await create_user(db, PLATFORM, "bob", organization="acme", teams=["core", "web"])
    eve = await create_user(db, PLATFORM, "eve", organization="acme", teams=["web"])
    return Company(
        Scope(organization),
        Scope(organization, ann.id, (core.id,), (core.id,)),
        Scope(organization, bob.id, (), (core.id, web.id)),
        Scope(organization, eve.id, (), (web.id,)),
    )


async def made(db: Database, scope: Scope = PLATFORM, team: str = "core", user: str | None = None) -> ApiKey:
    return (await create_key(db, scope, PEPPERS, NewApiKey(team=team, user=user))).about


async def secrets(db: Database, peppers: Peppers, *texts: str) -> list[bool]:
    """Return whether the texts stand for the present secret of the only key, and for the one before."""
    row = await db.fetchrow("SELECT * FROM api_key")
    assert row is not None
    stored = [(row["secret_hmac"], row["pepper_version"])]
    stored.append((row["previous_secret_hmac"] or b"", row["previous_pepper_version"] or 0))
    parsed = [parse_key(text) for text in texts]
    return [one is not None and peppers.matches(one.secret, *kept) for one, kept in zip(parsed, stored, strict=True)]


async def test_what_a_key_may_do_is_changed_and_taken_away(db: Database) -> None:
    await company(db)
    key = await made(db)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)
    networks = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "10.0.0.0/8", "::ffff:198.51.100.0/120")
    change = KeyChange(name="ci", models=("a", "b", "a"), addresses=networks, expires_at=end)
    changed = await update_key(db, PLATFORM, key.public_id, change)
    assert (changed.name, changed.models, changed.expires_at) == ("ci", ("a", "b"), end)
    assert changed.addresses == ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32", "198.51.100.0/24")
    renamed = await update_key(db, PLATFORM, str(key.id), KeyChange(name="ci 2"))
    assert renamed == replace(changed, name="ci 2")
    bare = await update_key(db, PLATFORM, key.public_id, KeyChange(REMOVED, REMOVED, REMOVED, REMOVED))
    assert bare == key


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (KeyChange(), None),
        (KeyChange(name=" x"), "name"),
        (KeyChange(models=()), "models"),
        (KeyChange(addresses=()), "addresses"),
        (KeyChange(addresses=("10.0.0.1/8",)), "addresses"),
        (KeyChange(addresses=("x",)), "addresses"),
        (KeyChange(addresses=tuple(f"10.0.0.{n}" for n in range(101))), "addresses"),
        (KeyChange(expires_at=dt.datetime.now(dt.UTC)), "expires_at"),
        (KeyChange(expires_at=dt.datetime(9999, 1, 1, tzinfo=dt.UTC)), "expires_at"),
    ],
)
async def test_what_cannot_be_is_refused(db: Database, change: KeyChange, param: str | None) -> None:
    await company(db)
    key = await made(db)
    with pytest.raises(InvalidRequest) as refused:
        await update_key(db, PLATFORM, key.public_id, change)
    assert refused.value.param == param
    assert await find_key(db, PLATFORM, key.public_id) == key


async def test_an_expired_key_is_prolonged_and_a_revoked_one_stays_so(db: Database) -> None:
    await company(db)
    key = await made(db)
    await db.execute("UPDATE api_key SET expires_at = now() - interval '1 day'")
    with pytest.raises(Conflict, match="has expired: prolong it first"):
        await rotate_key(db, PLATFORM, PEPPERS, key.public_id)
    assert (await update_key(db, PLATFORM, key.public_id, KeyChange(expires_at=REMOVED))).status == "active"
    await revoke_key(db, PLATFORM, key.public_id)
    with pytest.raises(Conflict, match="revoked, for ever"):
        await update_key(db, PLATFORM, key.public_id, KeyChange(name="x"))
    with pytest.raises(Conflict, match="revoked, for ever"):
        await rotate_key(db, PLATFORM, PEPPERS, key.public_id)


async def test_a_rotated_key_is_the_same_key_under_the_newest_pepper(db: Database) -> None:
    await company(db)
    first = await create_key(db, PLATFORM, PEPPERS, NewApiKey(team="core", name="ci", models=("m",)))
    peppers = Peppers({3: OLD, 4: NEW})
    rotated = await rotate_key(db, PLATFORM, peppers, first.about.public_id)
    now = await db.fetchval("SELECT now()")
    about = rotated.about
    assert (about.id, about.public_id, about.models) == (first.about.id, first.about.public_id, ("m",))
    assert (about.rotated_at, about.previous_expires_at) == (now, now + GRACE_DEFAULT)
    assert await secrets(db, peppers, rotated.key, first.key) == [True, True]
    assert not rotated.older_ended
    assert rotated.key not in repr(rotated)
    assert await find_key(db, PLATFORM, rotated.key) == await find_key(db, PLATFORM, first.key) == about


async def test_a_second_rotation_ends_the_oldest_secret_and_says_so(db: Database) -> None:
    await company(db)
    first = await create_key(db, PLATFORM, PEPPERS, NewApiKey(team="core"))
    reference = first.about.public_id
    second = await rotate_key(db, PLATFORM, PEPPERS, reference)
    third = await rotate_key(db, PLATFORM, PEPPERS, reference, grace=dt.timedelta(0))
    assert (second.older_ended, third.older_ended) == (False, True)
    assert await secrets(db, PEPPERS, third.key, second.key) == [True, True]
    assert await secrets(db, PEPPERS, first.key, first.key) == [False, False]
    assert third.about.previous_expires_at == third.about.rotated_at, "no grace"
    fourth = await rotate_key(db, PLATFORM, PEPPERS, reference, grace=GRACE_MAX)
    assert not fourth.older_ended, "what was over cannot end"
    for grace in (dt.timedelta(seconds=-1), GRACE_MAX + dt.timedelta(seconds=1)):
        with pytest.raises(InvalidRequest, match="0s to 30d"):
            await rotate_key(db, PLATFORM, PEPPERS, reference, grace=grace)
    assert await secrets(db, PEPPERS, fourth.key, third.key) == [True, True]


async def test_members_make_keys_of_their_own_where_they_are_members(db: Database) -> None:
    at = await company(db)
    own = await made(db, at.bob)
    assert (own.user, own.team) == ("bob", "core")
    assert (await made(db, at.bob, user="bob")).user == "bob"
    assert (await made(db, at.ann)).user is None, "who administers a team makes its service keys"
    assert (await made(db, at.ann, user="bob")).user == "bob"
    attempts = [(at.eve, "core", None), (at.ann, "web", None), (at.ann, "web", "ann")]
    attempts += [(at.bob, "core", "ann"), (at.bob, "core", "nobody")]
    for scope, team, user in attempts:
        with pytest.raises(NotFound):
            await made(db, scope, team, user)


async def test_everybody_sees_and_ends_what_it_administers_or_holds(db: Database) -> None:
    at = await company(db)
    service, bobs = await made(db), await made(db, user="bob")
    elsewhere, eves = await made(db, team="web", user="bob"), await made(db, team="web", user="eve")
    everything = [service, bobs, elsewhere, eves]
    reach = {at.admin: everything, at.ann: [service, bobs], at.bob: [bobs, elsewhere], at.eve: [eves]}
    for scope, seen in reach.items():
        assert await list_keys(db, scope) == sorted(seen, key=lambda key: key.id)
        for key in everything:
            if key in seen:
                assert await find_key(db, scope, key.public_id) == key
                assert (await rotate_key(db, scope, PEPPERS, key.public_id)).about.id == key.id
                await db.execute(AS_IT_WAS)
                continue
            for attempt in (
                find_key(db, scope, str(key.id)),
                update_key(db, scope, str(key.id), KeyChange(name="mine")),
                rotate_key(db, scope, PEPPERS, key.public_id),
                revoke_key(db, scope, key.public_id),
            ):
                with pytest.raises(NotFound):
                    await attempt
    assert (await revoke_key(db, at.bob, bobs.public_id)).status == "revoked"


async def test_holders_rename_their_keys_and_do_not_widen_them(db: Database) -> None:
    at = await company(db)
    key = await made(db, user="bob")
    held = KeyChange(models=("small",), addresses=("10.0.0.0/8",))
    await update_key(db, at.ann, key.public_id, held)
    assert (await update_key(db, at.bob, key.public_id, KeyChange(name="mine"))).models == ("small",)
    for change in (KeyChange(models=REMOVED), KeyChange(addresses=REMOVED), KeyChange(expires_at=REMOVED)):
        with pytest.raises(Forbidden, match="may not change what a key may do"):
            await update_key(db, at.bob, key.public_id, change)
    now = dt.datetime.now(dt.UTC)
    for days in (30, 10):
        sooner = KeyChange(expires_at=now + dt.timedelta(days=days))
        assert (await update_key(db, at.bob, key.public_id, sooner)).expires_at == sooner.expires_at
    for change in (KeyChange(expires_at=now + dt.timedelta(days=11)), KeyChange(models=(), expires_at=now)):
        with pytest.raises(Forbidden, match="may not change what a key may do"):
            await update_key(db, at.bob, key.public_id, change)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (KeyFilter(), "ABCDE"),
        (KeyFilter(status="active"), "ABE"),
        (KeyFilter(status="expired"), "C"),
        (KeyFilter(status="revoked"), "D"),
        (KeyFilter(team="web"), "E"),
        (KeyFilter(user="bob"), "BE"),
        (KeyFilter(name="KEY b"), "B"),
        (KeyFilter(name="%"), ""),
        (KeyFilter(name=""), "ABCDE"),
        (KeyFilter(model="small"), "ACDE"),
        (KeyFilter(model="large"), "CDE"),
        (KeyFilter(organization="acme", team="core", user="bob", status="active", name="b", model="tiny"), "B"),
    ],
)
async def test_lists_are_narrowed(db: Database, wanted: KeyFilter, names: str) -> None:
    await company(db)
    models = {"A": ("small",), "B": ("tiny",)}
    for name, team, user in KEYS:
        new = NewApiKey(team=team, user=user, name=f"Key {name}", models=models.get(name))
        await create_key(db, PLATFORM, PEPPERS, new)
    await db.execute("UPDATE api_key SET expires_at = now() WHERE name IN ('Key C', 'Key D')")
    await db.execute("UPDATE api_key SET revoked_at = now() WHERE name = 'Key D'")
    assert "".join(sorted(key.name[-1] for key in await list_keys(db, PLATFORM, wanted=wanted))) == names


@pytest.mark.parametrize("wanted", [KeyFilter("x"), KeyFilter(team="x"), KeyFilter(user="x")])
async def test_a_list_of_nothing_there_is_is_not_found(db: Database, wanted: KeyFilter) -> None:
    await company(db)
    with pytest.raises(GatewayError, match=r"no (organization|team|user) 'x'"):
        await list_keys(db, PLATFORM, wanted=wanted)
