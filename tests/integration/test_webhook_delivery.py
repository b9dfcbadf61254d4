"""Deliveries on a real Postgres to a real receiver: signed, tried again, given up, each webhook by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from standardwebhooks.webhooks import WebhookVerificationError

from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admin.webhook_deliveries import redeliver
from gateway.admin.webhooks import WebhookChange, change_webhook, rotate_webhook_secret
from gateway.notify import delivery_store
from gateway.notify import post as post_module
from gateway.notify.courier import DISABLED_FAILURES_MIN
from tests.support.postgres import ask
from tests.support.waiting import wait_until
from tests.support.webhooks import PEPPERS, Receiver, make_webhook

if TYPE_CHECKING:
    import pytest

    from tests.support.post_office import PostOffice

DAY = "1 day"


async def test_an_event_arrives_once_and_is_verified(office: PostOffice, receiver: Receiver) -> None:
    webhook = await make_webhook(office.dsn, receiver.url + "?token=1")
    queued = await office.ping(webhook)
    assert queued.status == "waiting"
    await office.deliver()
    await office.deliver()
    (got,) = receiver.received
    document = got.verified(webhook.secret)
    assert (got.id, got.path, got.headers["content-type"]) == (str(queued.id), "/hook?token=1", "application/json")
    assert (document["type"], document["data"]) == ("webhook.test", {"webhook_id": str(webhook.about.id)})
    assert got.headers["user-agent"].startswith("Penstock/")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    (delivery,) = await office.shown(webhook)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 1, 204)
    assert office.count("delivered") == 1


async def test_what_fails_comes_again_later_and_later(office: PostOffice, receiver: Receiver) -> None:
    webhook = await make_webhook(office.dsn, receiver.url)
    queued = await office.ping(webhook)
    before_s = 0
    for attempt, wait_s in enumerate((5, 15, 45), start=1):
        receiver.answers.append((500, {}))
        await office.deliver()
        (delivery,) = await office.shown(webhook)
        assert (delivery.status, delivery.attempts, delivery.last_error) == ("failing", attempt, "it answered 500")
        assert await office.status(webhook) == ("failing", None)
        await office.let_pass(f"{before_s} seconds")
        await office.deliver()
        assert len(receiver.received) == attempt, "not before its time, which is longer each time"
        await office.let_pass(f"{1.2 * wait_s - before_s} seconds")
        before_s = wait_s
    await office.deliver()
    assert len(receiver.of(queued.id)) == len(receiver.received) == 4, "the same id at each attempt"
    assert all(got.verified(webhook.secret) for got in receiver.received)
    assert await office.status(webhook) == ("active", None)
    assert (office.count("failed"), office.count("delivered")) == (3, 1)


async def test_a_receiver_says_when_to_come_again(office: PostOffice, receiver: Receiver) -> None:
    webhook = await make_webhook(office.dsn, receiver.url)
    await office.ping(webhook)
    receiver.answers.append((429, {"retry-after": "3600"}))
    await office.deliver()
    await office.let_pass("3500 seconds")
    await office.deliver()
    assert len(receiver.received) == 1
    await office.let_pass("200 seconds")
    await office.deliver()
    assert len(receiver.received) == 2


async def test_after_a_day_it_is_given_up_and_can_be_sent_again(office: PostOffice, receiver: Receiver) -> None:
    webhook = await make_webhook(office.dsn, receiver.url)
    queued = await office.ping(webhook)
    receiver.answers += [(503, {}), (503, {})]
    await office.deliver()
    await office.let_pass("25 hours")
    await office.deliver()
    (delivery,) = await office.shown(webhook)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("given_up", 2, 503)
    assert office.count("given_up") == 1
    async with transaction_on(office.dsn) as db:
        again = await redeliver(db, PLATFORM, str(webhook.about.id), str(queued.id))
    assert (again.status, again.attempts) == ("waiting", 0)
    await office.deliver()
    (delivery,) = await office.shown(webhook)
    assert delivery.status == "delivered"
    assert len(receiver.of(queued.id)) == 3


async def test_what_is_gone_or_fails_for_days_is_disabled(office: PostOffice, receiver: Receiver) -> None:
    gone, failing = [await make_webhook(office.dsn, receiver.url) for _ in range(2)]
    await office.ping(gone)
    receiver.answers.append((410, {}))
    await office.deliver()
    assert await office.status(gone) == ("disabled", "it answered 410: it is gone")
    waiting = [await office.ping(failing) for _ in range(2)]
    receiver.answers += [(500, {})] * 2
    await office.deliver()
    await ask(office.dsn, "UPDATE webhook_health SET failures = $1", DISABLED_FAILURES_MIN)
    await office.let_pass("73 hours")
    await office.deliver()
    status, reason = await office.status(failing)
    assert status == "disabled"
    assert reason is not None
    assert reason.startswith("it has failed since")
    assert [delivery.status for delivery in await office.shown(failing)] == ["given_up"] * len(waiting)
    async with transaction_on(office.dsn) as db:
        await change_webhook(db, PLATFORM, str(failing.about.id), WebhookChange(enabled=True))
    await office.ping(failing)
    await office.deliver()
    assert (await office.shown(failing))[0].status == "delivered"


async def test_who_does_not_answer_stands_in_nobodys_way(
    office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post_module, "ATTEMPT_S_MAX", 1.0)
    with Receiver(hang=True) as hanging:
        stuck = await make_webhook(office.dsn, hanging.url)
        for _ in range(5):
            await office.ping(stuck)
        running = asyncio.ensure_future(office.deliver())
        await wait_until(lambda: hanging.received, "one hangs")
        well = await make_webhook(office.dsn, receiver.url)
        for _ in range(3):
            await office.ping(well)
        await wait_until(lambda: len(receiver.received) == 3, "others are served meanwhile")
        await running
    assert len(hanging.received) == 1, "one attempt for the webhook, not one for each event"
    assert sorted(each.status for each in await office.shown(stuck)) == ["failing"] + ["waiting"] * 4
    assert [each.status for each in await office.shown(well)] == ["delivered"] * 3


async def test_two_leaders_at_once_lose_nothing(office: PostOffice, receiver: Receiver) -> None:
    """Another one that does not know yet that it leads no longer."""
    webhooks = [await make_webhook(office.dsn, receiver.url) for _ in range(3)]
    queued = {str((await office.ping(webhook)).id) for webhook in webhooks for _ in range(4)}
    await asyncio.gather(office.deliver(), office.deliver())
    assert {got.id for got in receiver.received} == queued
    for webhook in webhooks:
        assert [each.status for each in await office.shown(webhook)] == ["delivered"] * 4


async def test_nothing_that_one_webhook_makes_go_wrong_stops_others(office: PostOffice, receiver: Receiver) -> None:
    broken, fine = await make_webhook(office.dsn, receiver.url), await make_webhook(office.dsn, receiver.url)
    await ask(office.dsn, "UPDATE webhook SET url = 'https://[::1' WHERE id = $1", broken.about.id)
    for webhook in (broken, fine):
        await office.ping(webhook)
    await office.deliver()
    (delivered,), (failed,) = await office.shown(fine), await office.shown(broken)
    assert (delivered.status, failed.status, failed.attempts) == ("delivered", "failing", 1)
    assert failed.last_error == "a fault of the gateway (InvalidURL); its log tells more"


async def test_while_a_secret_is_exchanged_both_sign(office: PostOffice, receiver: Receiver) -> None:
    webhook = await make_webhook(office.dsn, receiver.url)
    secrets = [webhook.secret]
    for _ in range(2):
        async with transaction_on(office.dsn) as db:
            made = await rotate_webhook_secret(
                db, PLATFORM, PEPPERS, str(webhook.about.id), grace=delivery_store.DELIVERED_KEPT / 7
            )
        secrets.append(made.secret)
    assert len(set(secrets)) == 3
    await office.ping(webhook)
    await office.deliver()
    assert signs(receiver, secrets) == [False, True, True]
    await office.let_pass(DAY)
    await office.ping(webhook)
    await office.deliver()
    assert signs(receiver, secrets) == [False, False, True]


def signs(receiver: Receiver, secrets: list[str]) -> list[bool]:
    """Return which of the secrets the last delivery is signed with."""

    def verifies(secret: str) -> bool:
        try:
            return bool(receiver.received[-1].verified(secret))
        except WebhookVerificationError:
            return False

    return [verifies(secret) for secret in secrets]


async def test_what_is_over_is_removed_in_time(office: PostOffice, receiver: Receiver) -> None:
    done, waits = await make_webhook(office.dsn, receiver.url), await make_webhook(office.dsn, receiver.url)
    await office.ping(done)
    await office.deliver()

    async def left() -> tuple[Any, ...]:
        async with office.pool.acquire() as connection:
            await delivery_store.remove_old(connection)
            row = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM webhook_event), (SELECT count(*) FROM webhook_delivery)"
            )
        assert row is not None
        return tuple(row)

    assert await left() == (1, 1)
    await office.let_pass("8 days")
    await office.ping(waits)
    assert await left() == (2, 1), "the event is remembered, so that it is not told again"
    await office.let_pass("39 days")
    assert await left() == (1, 1)
