"""Keys that count no longer: who holds the secret is told why, Postgres is asked once, and revoked ones are told of.

And keys that were rotated: both texts count while the grace lasts, and a change takes both out of the cache.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.authenticate import refusals as refusals_module
from gateway.authenticate.key import make_key, rotated_key
from gateway.authenticate.refusals import (
    REFUSALS_PER_ID_MAX,
    REVOKED_USE_INTERVAL_S,
    Ended,
    EndedKey,
    Reason,
    RevokedUses,
)
from gateway.edge.errors import RETRIED_WORDS
from gateway.errors import InvalidKey, KeyStoreUnavailable
from tests.unit.authenticate.scripted import PEPPERS, POLICY, Desk, make_desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.authenticate.key import NewKey

GRACE_S = 3600.0


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """An authenticator on a scripted store."""
    desk = make_desk(monkeypatch)
    yield desk
    await desk.authenticator.close()


async def refusal(desk: Desk, key: NewKey, address: str = "10.0.0.1") -> InvalidKey:
    """Return how a key is refused."""
    with pytest.raises(InvalidKey) as refused:
        await desk.ask(key, address)
    return refused.value


@pytest.mark.parametrize(
    ("reason", "at_s", "said"),
    [
        (Reason.REVOKED, 1_790_000_000.0, "was revoked on 2026-09-21 at 14:13 UTC"),
        (Reason.EXPIRED, 1_790_000_000.0, "expired on 2026-09-21 at 14:13 UTC"),
        (Reason.REPLACED, 1_790_000_000.0, "was replaced by a new one, and counts no longer since 2026-09-21"),
        (Reason.ORPHANED, None, "its team is gone"),
    ],
)
async def test_who_holds_the_secret_is_told_why(desk: Desk, reason: Reason, at_s: float | None, said: str) -> None:
    key = desk.store.add()
    desk.store.end(key, reason, at_s)
    for _ in range(3):
        error = await refusal(desk, key)
        assert isinstance(error, EndedKey)
        assert error.reason is reason
        assert said in error.message
        assert not RETRIED_WORDS.search(error.message)
        assert (error.status, error.code) == (401, "invalid_api_key")
    assert len(desk.store.asked) == 1, "what is refused is remembered"
    assert desk.lookups(reason) == 3
    stranger = rotated_key(PEPPERS, key.public_id)
    assert not isinstance(await refusal(desk, stranger), EndedKey), "who only knows the id hears nothing"
    assert desk.lookups("unknown") == 1


async def test_a_refusal_holds_for_its_time_and_until_a_change(desk: Desk) -> None:
    key = desk.store.add()
    counts = desk.store.keys[key.public_id]
    desk.store.end(key, Reason.REVOKED, 0.0)
    await refusal(desk, key)
    desk.clock.passes(POLICY.negative_ttl_s)
    await refusal(desk, key)
    assert len(desk.store.asked) == 2
    desk.store.keys[key.public_id] = counts
    desk.authenticator.changed("key", key.public_id)
    assert await desk.ask(key)


async def test_guesses_at_a_public_id_are_remembered_within_a_bound(desk: Desk) -> None:
    key = desk.store.add()
    for _ in range(3 * REFUSALS_PER_ID_MAX):
        await refusal(desk, rotated_key(PEPPERS, key.public_id))
    ((refused),) = desk.authenticator._refusals._by_id.values()
    assert len(refused) == REFUSALS_PER_ID_MAX
    assert await desk.ask(key)


async def test_the_use_of_a_revoked_key_is_told_once_in_a_while(desk: Desk) -> None:
    key = desk.store.add()
    ended = desk.store.end(key, Reason.REVOKED, 0.0)
    told = (ended.organization_id, ended.key_id, key.public_id, "10.0.0.66")
    for _ in range(5):
        await refusal(desk, key, "10.0.0.66")
    assert desk.revoked == [told]
    desk.clock.passes(REVOKED_USE_INTERVAL_S - 0.001)
    await refusal(desk, key, "10.0.0.66")
    assert desk.revoked == [told]
    desk.clock.passes(0.001)
    await refusal(desk, key, "10.0.0.66")
    assert desk.revoked == [told, told]
    for reason in (Reason.EXPIRED, Reason.REPLACED, Reason.ORPHANED):
        desk.store.end(other := desk.store.add(), reason)
        await refusal(desk, other)
    await refusal(desk, make_key(PEPPERS))
    assert len(desk.revoked) == 2, "nothing else is a leak"


async def test_what_is_remembered_of_revoked_uses_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "REVOKED_KEYS_MAX", 2)
    ends = [desk.store.end(desk.store.add(), Reason.REVOKED) for _ in range(5)]
    told: list[Ended] = []
    uses = RevokedUses(lambda *of: told.append(of))  # type: ignore[arg-type] # all that is counted is how many
    for ended in ends:
        uses.used(ended, "")
    assert (len(told), len(uses._told_s)) == (5, 2)


async def test_a_hook_that_fails_is_no_fault_of_the_path(desk: Desk) -> None:
    def broken(*_told: object) -> None:
        raise RuntimeError("a bug")

    desk.authenticator._revoked_uses = RevokedUses(broken)
    key = desk.store.add()
    desk.store.end(key, Reason.REVOKED)
    assert isinstance(await refusal(desk, key), EndedKey)


async def test_both_texts_of_a_rotated_key_count_while_the_grace_lasts(desk: Desk) -> None:
    old = desk.store.add()
    new = desk.store.rotate(old, GRACE_S, desk.clock.unix_s)
    principal = desk.store.principal(old)
    for _ in range(2):
        assert (await desk.ask(old)).expires_at_s == desk.clock.unix_s + GRACE_S
        assert await desk.ask(new) == principal
    assert len(desk.store.asked) == 2
    desk.store.away = True
    desk.clock.passes(GRACE_S)
    with pytest.raises(KeyStoreUnavailable):  # not served from the cache: the grace is over by the clock
        await desk.ask(old)


async def test_a_change_takes_both_texts_of_a_key_out_of_the_cache(desk: Desk) -> None:
    old, other = desk.store.add(), desk.store.add()
    new = desk.store.rotate(old, GRACE_S, desk.clock.unix_s)
    for key in (old, new, other):
        await desk.ask(key)
    desk.store.end(old, Reason.REVOKED)
    desk.authenticator.changed("key", old.public_id)
    assert set(desk.authenticator._marks) == {other.public_id}
    assert len(desk.authenticator._known) == 1
    for key in (old, new):
        assert isinstance(await refusal(desk, key), EndedKey)
    assert await desk.ask(other)
    assert len(desk.store.asked) == 5


async def test_the_cache_knows_every_text_of_a_key_whichever_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, entries_max=2))
    old = desk.store.add()
    new = desk.store.rotate(old, GRACE_S, desk.clock.unix_s)
    authenticator = desk.authenticator
    for key in (old, new, desk.store.add()):
        await desk.ask(key)
    assert {mark for marks in authenticator._marks.values() for mark in marks} == set(authenticator._known)
    assert len(authenticator._known) == 2
    newest = desk.store.rotate(old, GRACE_S, desk.clock.unix_s)
    authenticator.changed("key", old.public_id)
    assert not isinstance(await refusal(desk, old), EndedKey), "the secret before the one before is nobody's"
    assert await desk.ask(newest)
    assert await desk.ask(new)
    assert {mark for marks in authenticator._marks.values() for mark in marks} == set(authenticator._known)
    await authenticator.close()
