"""Keys while Postgres is away: recently verified ones work, others get 503, and nobody waits for what does not come."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.authenticate.key import make_key
from gateway.errors import InvalidKey, KeyStoreUnavailable
from gateway.settings import Settings
from tests.support.guarantees import measured
from tests.support.waiting import wait_until
from tests.unit.authenticate.scripted import PEPPERS, POLICY, make_desk

AWAY_PAUSE_S = 0.5
STEP_S = 1.0


async def test_a_key_that_was_verified_recently_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch)
    key = desk.store.add()
    principal = await desk.ask(key)
    desk.store.away = True
    desk.authenticator.trust(trusted=False)
    desk.clock.passes(POLICY.stale_s_max)
    assert await desk.ask(key) is principal
    assert desk.lookups("stale") == 1
    desk.clock.passes(0.001)
    with pytest.raises(KeyStoreUnavailable):
        await desk.ask(key)
    assert desk.lookups("unavailable") == 1


async def test_a_key_is_served_without_postgres_for_as_long_as_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, stale_s_max=Settings.model_fields["key_stale_max_s"].default))
    key = desk.store.add()
    await desk.ask(key)
    desk.store.away = True
    desk.authenticator.trust(trusted=False)
    served_s = 0.0
    with pytest.raises(KeyStoreUnavailable):  # noqa: PT012 - it is asked until it is refused
        while True:
            desk.clock.passes(STEP_S)
            await desk.ask(key)
            served_s += STEP_S
    assert served_s > 0
    measured("revocation-away", served_s, "by a clock of the test's own")


async def test_an_unknown_key_is_unavailable_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch)
    key = desk.store.add()
    desk.store.away = True
    with pytest.raises(KeyStoreUnavailable) as refused:
        await desk.ask(key)
    assert refused.value.status == 503
    desk.store.away = False
    desk.clock.passes(AWAY_PAUSE_S)
    assert await desk.ask(key), "and that is not remembered"


async def test_after_a_failure_postgres_is_left_alone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch)
    known = desk.store.add()
    await desk.ask(known)
    desk.authenticator.trust(trusted=False)
    desk.store.away = True
    for _ in range(50):
        await desk.ask(known)
        with pytest.raises(KeyStoreUnavailable):
            await desk.ask(make_key(PEPPERS))
    assert len(desk.store.asked) == 2
    assert len(desk.away) == 1, "the failure is told, what follows from it is not"
    desk.clock.passes(AWAY_PAUSE_S)
    await desk.ask(known)
    assert len(desk.store.asked) == 3


async def test_a_postgres_that_does_not_answer_costs_a_deadline_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, first_lookup_timeout_s=0.01))
    key = desk.store.add()
    desk.store.gate.clear()
    for _ in range(3):
        with pytest.raises(KeyStoreUnavailable):
            await desk.ask(key)
    assert len(desk.store.asked) == len(desk.away) == 1
    desk.store.gate.set()
    await wait_until(lambda: desk.authenticator.cached(key.text), "the answer that came late is kept")


async def test_a_key_that_is_known_is_served_as_it_was_after_the_shorter_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, lookup_timeout_s=0.01, first_lookup_timeout_s=3600))
    key = desk.store.add()
    principal = await desk.ask(key)
    desk.authenticator.trust(trusted=False)
    desk.store.gate.clear()
    assert await desk.ask(key) is principal


async def test_a_key_that_is_not_known_has_the_longer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch, replace(POLICY, lookup_timeout_s=0, first_lookup_timeout_s=3600))
    desk.store.gate.clear()
    asking = asyncio.ensure_future(desk.ask(desk.store.add()))
    await desk.is_asked(1)
    desk.store.gate.set()
    assert await asking


async def test_closing_ends_the_lookups_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch)
    desk.store.gate.clear()
    asking = asyncio.ensure_future(desk.ask(desk.store.add()))
    await desk.is_asked(1)
    await desk.authenticator.close()
    with pytest.raises(KeyStoreUnavailable):
        await asking
    assert desk.authenticator._tasks == set()


async def test_a_revoked_key_is_refused_as_soon_as_postgres_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(monkeypatch)
    key = desk.store.add()
    await desk.ask(key)
    desk.store.away = True
    desk.authenticator.trust(trusted=False)
    await desk.ask(key)
    del desk.store.keys[key.public_id]
    desk.store.away = False
    desk.clock.passes(AWAY_PAUSE_S)
    with pytest.raises(InvalidKey):
        await desk.ask(key)
    desk.store.away = True
    desk.clock.passes(POLICY.negative_ttl_s)
    with pytest.raises(KeyStoreUnavailable):
        await desk.ask(key)
