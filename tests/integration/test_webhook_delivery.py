"""Deliveries on a real Postgres to a real receiver: signed, tried again, given up, each webhook by itself."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admin.webhook_deliveries import WebhookDelivery, list_deliveries, ping_webhook, redeliver
from gateway.admin.webhooks import WebhookChange, change_webhook, find_webhook, rotate_webhook_secret
from gateway.domain.addresses import parse_network
from gateway.notify import delivery_store
from gateway.notify import post as post_module
from gateway.notify.courier import DISABLED_FAILURES_MIN, Courier
from gateway.notify.post import Post
from gateway.observe.webhooks import WebhookMetrics
from tests.support.postgres import ask
from tests.support.tls import Authority, TlsProxy
from tests.support.waiting import wait_until
from tests.support.webhooks import LOOPBACK, PEPPERS, Receiver, make_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gateway.admin.webhooks import CreatedWebhook
    from gateway.domain.addresses import Network

DAY = "1 day"
AGEING = {
    "webhook_delivery": ("next_attempt_at", "created_at", "delivered_at"),
    "webhook_event": ("created_at",),
    "webhook_health": ("resume_at", "failing_since"),
    "webhook_secret": ("created_at", "expires_at"),
}


class Bench:
    """A courier on a fresh database."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.dsn = dsn
        self.pool = pool
        self.registry = CollectorRegistry()
        self.metrics = WebhookMetrics(self.registry)
        self._tls = ssl.create_default_context()

    async def deliver(self, allowed: tuple[Network, ...] = LOOPBACK, tls: ssl.SSLContext | None = None) -> None:
        """Deliver what is due."""
        async with Post(PEPPERS, allowed, tls or self._tls) as post:
            await Courier(self.pool, post.send, self.metrics).run()

    async def ping(self, webhook: CreatedWebhook) -> WebhookDelivery:
        """Queue a ping."""
        async with transaction_on(self.dsn) as db:
            return await ping_webhook(db, PLATFORM, str(webhook.about.id))

    async def shown(self, webhook: CreatedWebhook) -> list[WebhookDelivery]:
        """Return the webhook's deliveries."""
        async with transaction_on(self.dsn) as db:
            return await list_deliveries(db, PLATFORM, str(webhook.about.id))

    async def status(self, webhook: CreatedWebhook) -> tuple[str, str | None]:
        """Return the webhook's status, and why it is disabled."""
        async with transaction_on(self.dsn) as db:
            found = await find_webhook(db, PLATFORM, str(webhook.about.id))
        return found.status, found.disabled_reason

    async def let_pass(self, interval: str) -> None:
        """Let time pass: what was written down is so much older."""
        for table, columns in AGEING.items():
            older = ", ".join(f"{column} = {column} - $1::text::interval" for column in columns)
            await ask(self.dsn, f"UPDATE {table} SET {older}", interval)  # noqa: S608 - names of this module

    def count(self, result: str) -> float:
        """Return how many attempts had a result."""
        return self.registry.get_sample_value("penstock_webhook_attempts_total", {"result": result}) or 0.0


@pytest.fixture
async def bench(postgres_dsn: str) -> AsyncIterator[Bench]:
    """A courier on a fresh database."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as pool:
        yield Bench(postgres_dsn, pool)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with Receiver() as running:
        yield running


async def test_an_event_arrives_once_and_is_verified(bench: Bench, receiver: Receiver) -> None:
    webhook = await make_webhook(bench.dsn, receiver.url + "?token=1")
    queued = await bench.ping(webhook)
    assert queued.status == "waiting"
    await bench.deliver()
    await bench.deliver()
    (got,) = receiver.received
    document = got.verified(webhook.secret)
    assert (got.id, got.path, got.headers["content-type"]) == (str(queued.id), "/hook?token=1", "application/json")
    assert (document["type"], document["data"]) == ("webhook.test", {"webhook_id": str(webhook.about.id)})
    assert got.headers["user-agent"].startswith("Penstock/")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    (delivery,) = await bench.shown(webhook)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 1, 204)
    assert bench.count("delivered") == 1


async def test_what_fails_comes_again_later_and_later(bench: Bench, receiver: Receiver) -> None:
    webhook = await make_webhook(bench.dsn, receiver.url)
    queued = await bench.ping(webhook)
    for attempt, wait_s in enumerate((5, 15, 45), start=1):
        receiver.answers.append((500, {}))
        await bench.deliver()
        (delivery,) = await bench.shown(webhook)
        assert (delivery.status, delivery.attempts, delivery.last_error) == ("failing", attempt, "it answered 500")
        assert await bench.status(webhook) == ("failing", None)
        await bench.let_pass(f"{wait_s * 0.79} seconds")
        await bench.deliver()
        assert len(receiver.received) == attempt, "not before its time"
        await bench.let_pass(f"{wait_s} seconds")
    await bench.deliver()
    assert len(receiver.of(queued.id)) == len(receiver.received) == 4, "the same id at each attempt"
    assert all(got.verified(webhook.secret) for got in receiver.received)
    assert await bench.status(webhook) == ("active", None)
    assert (bench.count("failed"), bench.count("delivered")) == (3, 1)


async def test_a_receiver_says_when_to_come_again(bench: Bench, receiver: Receiver) -> None:
    webhook = await make_webhook(bench.dsn, receiver.url)
    await bench.ping(webhook)
    receiver.answers.append((429, {"retry-after": "3600"}))
    await bench.deliver()
    await bench.let_pass("3500 seconds")
    await bench.deliver()
    assert len(receiver.received) == 1
    await bench.let_pass("200 seconds")
    await bench.deliver()
    assert len(receiver.received) == 2


async def test_after_a_day_it_is_given_up_and_can_be_sent_again(bench: Bench, receiver: Receiver) -> None:
    webhook = await make_webhook(bench.dsn, receiver.url)
    queued = await bench.ping(webhook)
    receiver.answers += [(503, {}), (503, {})]
    await bench.deliver()
    await bench.let_pass("25 hours")
    await bench.deliver()
    (delivery,) = await bench.shown(webhook)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("given_up", 2, 503)
    assert bench.count("given_up") == 1
    async with transaction_on(bench.dsn) as db:
        again = await redeliver(db, PLATFORM, str(webhook.about.id), str(queued.id))
    assert (again.status, again.attempts) == ("waiting", 0)
    await bench.deliver()
    (delivery,) = await bench.shown(webhook)
    assert delivery.status == "delivered"
    assert len(receiver.of(queued.id)) == 3


async def test_what_is_gone_or_fails_for_days_is_disabled(bench: Bench, receiver: Receiver) -> None:
    gone, failing = [await make_webhook(bench.dsn, receiver.url) for _ in range(2)]
    await bench.ping(gone)
    receiver.answers.append((410, {}))
    await bench.deliver()
    assert await bench.status(gone) == ("disabled", "it answered 410: it is gone")
    waiting = [await bench.ping(failing) for _ in range(2)]
    receiver.answers += [(500, {})] * 2
    await bench.deliver()
    await ask(bench.dsn, "UPDATE webhook_health SET failures = $1", DISABLED_FAILURES_MIN)
    await bench.let_pass("73 hours")
    await bench.deliver()
    status, reason = await bench.status(failing)
    assert status == "disabled"
    assert reason is not None
    assert reason.startswith("it has failed since")
    assert [delivery.status for delivery in await bench.shown(failing)] == ["given_up"] * len(waiting)
    async with transaction_on(bench.dsn) as db:
        await change_webhook(db, PLATFORM, str(failing.about.id), WebhookChange(enabled=True))
    await bench.ping(failing)
    await bench.deliver()
    assert (await bench.shown(failing))[0].status == "delivered"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_lead_nowhere(bench: Bench, receiver: Receiver, status: int) -> None:
    with Receiver() as inside:
        webhook = await make_webhook(bench.dsn, receiver.url)
        await bench.ping(webhook)
        receiver.answers.append((status, {"location": inside.url}))
        await bench.deliver()
        (delivery,) = await bench.shown(webhook)
        assert "redirects are not followed" in str(delivery.last_error)
        assert inside.received == []


async def test_what_is_not_public_is_not_even_connected_to(bench: Bench, receiver: Receiver) -> None:
    urls = [receiver.url, f"https://127.0.0.1:{receiver.port}/", f"https://localhost:{receiver.port}/"]
    webhooks = [await make_webhook(bench.dsn, url) for url in urls]
    for webhook in webhooks:
        await bench.ping(webhook)
    await bench.deliver(allowed=())
    for webhook in webhooks:
        (delivery,) = await bench.shown(webhook)
        assert "no public address" in str(delivery.last_error)
        assert delivery.status == "failing"
    assert receiver.received == []


async def test_a_proxy_of_the_environment_is_not_asked(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await bench.ping(await make_webhook(bench.dsn, receiver.url))
        await bench.deliver()
        assert (len(receiver.received), len(proxy.received)) == (1, 0)


async def test_who_does_not_answer_stands_in_nobodys_way(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post_module, "ATTEMPT_S_MAX", 1.0)
    with Receiver(hang=True) as hanging:
        stuck = await make_webhook(bench.dsn, hanging.url)
        for _ in range(5):
            await bench.ping(stuck)
        running = asyncio.ensure_future(bench.deliver())
        await wait_until(lambda: hanging.received, "one hangs")
        well = await make_webhook(bench.dsn, receiver.url)
        for _ in range(3):
            await bench.ping(well)
        await wait_until(lambda: len(receiver.received) == 3, "others are served meanwhile")
        await running
    assert len(hanging.received) == 1, "one attempt for the webhook, not one for each event"
    assert sorted(each.status for each in await bench.shown(stuck)) == ["failing"] + ["waiting"] * 4
    assert [each.status for each in await bench.shown(well)] == ["delivered"] * 3


async def test_the_certificate_is_held_against_the_name(bench: Bench, receiver: Receiver, tmp_path: Path) -> None:
    """Although the connection is to an address, which is in no certificate."""
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with TlsProxy(receiver.url, authority.context(authority.issue("localhost"))) as front:
        named, by_address = [
            await make_webhook(bench.dsn, f"https://{host}:{front.port}/hook") for host in ("localhost", "127.0.0.1")
        ]
        for webhook in (named, by_address):
            await bench.ping(webhook)
        await bench.deliver(allowed=(*LOOPBACK, parse_network("::1")), tls=trusting)
    (got,) = receiver.received
    assert got.verified(named.secret)
    assert got.headers["host"] == f"localhost:{front.port}"
    (refused,) = await bench.shown(by_address)
    assert "certificate" in str(refused.last_error).lower()


async def test_two_leaders_at_once_lose_nothing(bench: Bench, receiver: Receiver) -> None:
    """Another one that does not know yet that it leads no longer."""
    webhooks = [await make_webhook(bench.dsn, receiver.url) for _ in range(3)]
    queued = {str((await bench.ping(webhook)).id) for webhook in webhooks for _ in range(4)}
    await asyncio.gather(bench.deliver(), bench.deliver())
    assert {got.id for got in receiver.received} == queued
    for webhook in webhooks:
        assert [each.status for each in await bench.shown(webhook)] == ["delivered"] * 4


async def test_while_a_secret_is_exchanged_both_sign(bench: Bench, receiver: Receiver) -> None:
    webhook = await make_webhook(bench.dsn, receiver.url)
    secrets = [webhook.secret]
    for _ in range(2):
        async with transaction_on(bench.dsn) as db:
            made = await rotate_webhook_secret(
                db, PLATFORM, PEPPERS, str(webhook.about.id), grace=delivery_store.DELIVERED_KEPT / 7
            )
        secrets.append(made.secret)
    assert len(set(secrets)) == 3
    await bench.ping(webhook)
    await bench.deliver()
    assert signs(receiver, secrets) == [False, True, True]
    await bench.let_pass(DAY)
    await bench.ping(webhook)
    await bench.deliver()
    assert signs(receiver, secrets) == [False, False, True]


def signs(receiver: Receiver, secrets: list[str]) -> list[bool]:
    """Return which of the secrets the last delivery is signed with."""

    def verifies(secret: str) -> bool:
        try:
            return bool(receiver.received[-1].verified(secret))
        except WebhookVerificationError:
            return False

    return [verifies(secret) for secret in secrets]


async def test_what_is_over_is_removed_in_time(bench: Bench, receiver: Receiver) -> None:
    done, waits = await make_webhook(bench.dsn, receiver.url), await make_webhook(bench.dsn, receiver.url)
    await bench.ping(done)
    await bench.deliver()

    async def left() -> tuple[Any, ...]:
        async with bench.pool.acquire() as connection:
            await delivery_store.remove_old(connection)
            row = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM webhook_event), (SELECT count(*) FROM webhook_delivery)"
            )
        assert row is not None
        return tuple(row)

    assert await left() == (1, 1)
    await bench.let_pass("8 days")
    await bench.ping(waits)
    assert await left() == (2, 1), "the event is remembered, so that it is not told again"
    await bench.let_pass("39 days")
    assert await left() == (1, 1)
