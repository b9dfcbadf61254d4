"""The key cache: what is known is not asked again, what changed is, and nobody is refused because Postgres is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.authenticate import authenticator as authenticator_module
from gateway.authenticate import refusals as refusals_module
from gateway.authenticate.authenticator import LOOKUPS_PER_ADDRESS_MAX, UNHEARD_TTL_S
from gateway.authenticate.key import Peppers, make_key
from gateway.authenticate.key_store import StoredKey
from gateway.errors import InvalidKey, KeyStoreUnavailable
from tests.unit.authenticate.scripted import PEPPERS, POLICY, Desk, make_desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """An authenticator on a scripted store."""
    desk = make_desk(monkeypatch)
    yield desk
    await desk.authenticator.close()


async def test_a_known_key_is_asked_for_once_in_its_time(desk: Desk) -> None:
    key = desk.store.add()
    principal = await desk.ask(key)
    assert principal.key_public_id == key.public_id
    for _ in range(3):
        desk.clock.passes(POLICY.ttl_s / 3)
        assert await desk.ask(key) is principal
    assert len(desk.store.asked) == 1
    desk.clock.passes(0.001)
    assert await desk.ask(key) is principal, "the same object: what was derived from it stays valid"
    assert len(desk.store.asked) == 2
    assert (desk.lookups("miss"), desk.lookups("hit")) == (2, 3)


async def test_what_is_no_key_is_never_looked_up(desk: Desk) -> None:
    key = desk.store.add()
    for token in ("", "x", key.text[:-1], key.text + "x", key.text.swapcase(), "Bearer " + key.text):
        with pytest.raises(InvalidKey):
            await desk.ask(token)
    assert desk.store.asked == []


async def test_an_unknown_key_is_asked_for_once_in_its_time(desk: Desk) -> None:
    key = make_key(PEPPERS)
    for _ in range(5):
        with pytest.raises(InvalidKey):
            await desk.ask(key)
    assert len(desk.store.asked) == 1
    desk.clock.passes(POLICY.negative_ttl_s)
    (secret,) = desk.store.keys[desk.store.add().public_id].secrets
    desk.store.keys[key.public_id] = StoredKey((replace(secret, hmac=key.secret_hmac),))
    assert await desk.ask(key)
    assert desk.lookups("unknown") == 5


@pytest.mark.parametrize("wrong", ["secret", "pepper"])
async def test_the_right_id_with_the_wrong_secret_is_refused(desk: Desk, wrong: str) -> None:
    key = desk.store.add()
    other = make_key(PEPPERS if wrong == "secret" else Peppers({1: b"q" * 32}))
    (secret,) = desk.store.keys[key.public_id].secrets
    wrong_hmac = key.secret_hmac if wrong == "secret" else other.secret_hmac
    wrong_secret = replace(secret, hmac=wrong_hmac, pepper_version=other.pepper_version)
    desk.store.keys[other.public_id] = StoredKey((wrong_secret,))
    with pytest.raises(InvalidKey):
        await desk.ask(other)
    assert await desk.ask(key), "whoever holds the right one is not locked out by that"


async def test_a_key_expires_by_the_clock_without_anybody_being_asked(desk: Desk) -> None:
    key = desk.store.add(expires_at_s=desk.clock.unix_s + 10)
    await desk.ask(key)
    desk.clock.passes(9.999)
    await desk.ask(key)
    desk.clock.passes(0.001)
    with pytest.raises(InvalidKey):
        await desk.ask(key)
    desk.store.away = True
    desk.clock.passes(1)
    with pytest.raises(KeyStoreUnavailable):
        await desk.ask(key)


async def test_a_changed_key_is_verified_again_at_its_next_use(desk: Desk) -> None:
    key, other = desk.store.add(), desk.store.add()
    await desk.ask(key)
    await desk.ask(other)
    del desk.store.keys[key.public_id]
    desk.authenticator.changed("key", key.public_id)
    with pytest.raises(InvalidKey):
        await desk.ask(key)
    await desk.ask(other)
    assert desk.store.asked == [key.public_id, other.public_id, key.public_id]


async def test_a_revoked_key_is_not_served_by_the_cache_when_postgres_goes_away(desk: Desk) -> None:
    key = desk.store.add()
    await desk.ask(key)
    desk.authenticator.changed("key", key.public_id)
    desk.store.away = True
    with pytest.raises(KeyStoreUnavailable):
        await desk.ask(key)


async def test_a_new_key_works_at_once_although_it_was_tried_too_early(desk: Desk) -> None:
    key = desk.store.add()
    stored = desk.store.keys.pop(key.public_id)
    with pytest.raises(InvalidKey):
        await desk.ask(key)
    desk.store.keys[key.public_id] = stored
    desk.authenticator.changed("key", key.public_id)
    assert await desk.ask(key) == desk.store.principal(key)


async def test_a_change_of_an_organization_is_seen_by_all_of_its_keys(desk: Desk) -> None:
    key, other = desk.store.add(), desk.store.add()
    before = await desk.ask(key)
    await desk.ask(other)
    desk.store.change(key, models_allowed=frozenset({"m"}))
    desk.authenticator.changed("organization", str(before.organization_id))
    after = await desk.ask(key)
    assert after.models_allowed == frozenset({"m"})
    await desk.ask(other)
    assert await desk.ask(key) is after
    assert len(desk.store.asked) == 3
    desk.authenticator.changed("prices", "")
    await desk.ask(key)
    assert len(desk.store.asked) == 3


async def test_many_changed_organizations_are_remembered_within_a_bound(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator_module, "TENANTS_CHANGED_MAX", 2)
    keys = [desk.store.add() for _ in range(4)]
    for key in keys:
        principal = await desk.ask(key)
        desk.authenticator.changed("organization", str(principal.organization_id))
        assert len(desk.authenticator._tenant_changes) <= 2
    desk.store.asked.clear()
    for key in keys:
        await desk.ask(key)
    assert len(desk.store.asked) == 4, "forgetting who changed never trusts what may have changed"


@pytest.mark.parametrize("stored_then", [True, False], ids=["revoked", "made"])
@pytest.mark.parametrize("event", ["key", "organization", "trust"])
async def test_an_answer_from_before_a_change_is_not_kept(desk: Desk, stored_then: bool, event: str) -> None:  # noqa: FBT001 - pytest passes by name
    """The lookup was on its way when the change came, and may say what was before it."""
    key = desk.store.add()
    stored, organization_id = desk.store.keys[key.public_id], desk.store.principal(key).organization_id
    if not stored_then:
        del desk.store.keys[key.public_id]
    desk.store.gate.clear()
    asking = asyncio.ensure_future(desk.ask(key))
    await desk.is_asked(1)
    if stored_then:
        del desk.store.keys[key.public_id]
    else:
        desk.store.keys[key.public_id] = stored
    if event == "trust":
        desk.authenticator.trust(trusted=True)
    else:
        subject = key.public_id if event == "key" else str(organization_id)
        desk.authenticator.changed(event, subject)
    desk.store.gate.set()
    before = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(before[0], InvalidKey) != stored_then
    after = await asyncio.gather(desk.ask(key), return_exceptions=True)
    assert isinstance(after[0], InvalidKey) == stored_then


@pytest.mark.parametrize("trusted", [True, False])
async def test_all_keys_are_verified_again_when_changes_may_have_been_missed(desk: Desk, trusted: bool) -> None:  # noqa: FBT001 - pytest passes by name
    key = desk.store.add()
    await desk.ask(key)
    desk.authenticator.trust(trusted=trusted)
    await desk.ask(key)
    assert len(desk.store.asked) == 2
    desk.clock.passes(UNHEARD_TTL_S + 0.001)
    await desk.ask(key)
    assert len(desk.store.asked) == (2 if trusted else 3), "unheard, a key is trusted for a moment only"


async def test_requests_that_miss_the_same_key_share_one_question(desk: Desk) -> None:
    key, unknown = desk.store.add(), make_key(PEPPERS)
    desk.store.gate.clear()
    asking = [asyncio.ensure_future(desk.ask(each)) for each in [key, unknown] * 20]
    await desk.is_asked(2)
    asking[0].cancel()
    desk.store.gate.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert len({id(each) for each in outcomes[2::2]}) == 1, "one client that gives up leaves the others their answer"
    assert all(isinstance(each, InvalidKey) for each in outcomes[1::2])
    assert len(desk.store.asked) == 2


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, entries_max=3))
    monkeypatch.setattr(refusals_module, "IDS_MAX", 3)
    keys = [desk.store.add() for _ in range(5)]
    for key in keys:
        await desk.ask(key)
        with pytest.raises(InvalidKey):
            await desk.ask(make_key(PEPPERS))
    desk.store.asked.clear()
    for key in keys[2:]:
        await desk.ask(key)
    assert desk.store.asked == []
    authenticator = desk.authenticator
    assert len(authenticator._known) == len(authenticator._marks) == len(authenticator._refusals) == 3
    assert (authenticator._lookups, authenticator._lookups_by_address) == ({}, {})
    assert authenticator._tasks == set()


async def test_lookups_are_bounded_by_address(desk: Desk) -> None:
    """Whoever tries keys at random takes nobody else's turn."""
    desk.store.gate.clear()
    tokens = [make_key(PEPPERS) for _ in range(LOOKUPS_PER_ADDRESS_MAX)]
    asking = [asyncio.ensure_future(desk.ask(each, "10.0.0.66")) for each in tokens]
    await desk.is_asked(LOOKUPS_PER_ADDRESS_MAX)
    with pytest.raises(KeyStoreUnavailable):
        await desk.ask(desk.store.add(), "10.0.0.66")
    other = asyncio.ensure_future(desk.ask(desk.store.add(), "10.0.0.1"))
    await asyncio.sleep(0)
    desk.store.gate.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert await other
    assert await desk.ask(desk.store.add(), "10.0.0.66")


async def test_a_bug_is_no_statement_about_the_key(desk: Desk) -> None:
    desk.store.broken = True
    key = desk.store.add()
    with pytest.raises(RuntimeError):
        await desk.ask(key)
    desk.store.broken = False
    assert await desk.ask(key)
