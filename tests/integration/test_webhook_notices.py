"""Webhooks end to end: what replicas notice on the path of requests, told by the leader, also when it is killed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from gateway.domain.principal import Level
from gateway.notify import notices as notices_module
from gateway.notify.notices import Notices
from gateway.notify.outbox_store import WAITING_MAX
from gateway.observe.webhooks import WebhookMetrics
from tests.support.frozen import stopped
from tests.support.postgres import ask
from tests.support.servers import run_blocking
from tests.support.stack import running_stack
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for, wait_until, wait_until_asked
from tests.support.webhooks import Receiver, make_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from gateway.dev.servers import ServerAddresses
    from gateway.units import PicoUsd
    from tests.support.servers import Databases
    from tests.support.stack import Stack
    from tests.support.tenants import Tenant

TOLD_S_MAX = 30.0
BODY = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1000}
EVENTS = "SELECT count(*) FROM webhook_event"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas that take over from one another at once, and may send to this host."""
    folder: Path = tmp_path_factory.mktemp("webhooks")
    with running_stack(
        databases, servers, folder, replicas=2, webhook_private_addresses="127.0.0.1", leader_silence_max_s=1
    ) as running:
        yield running


def told(receiver: Receiver, secret: str, kind: str) -> list[dict[str, Any]]:
    """Return the data of all events of a kind, as they were received."""
    documents = [got.verified(secret) for got in receiver.received]
    return [document["data"] for document in documents if document["type"] == kind]


def test_a_budget_that_is_used_up_is_told(stack: Stack) -> None:
    tenant = stack.tenant()
    budget: PicoUsd = 400_000_000  # type: ignore[assignment]  # half of what a request may cost at most
    with Receiver() as receiver:
        secret = run_blocking(make_webhook(stack.dsn, receiver.url, tenant.organization_id)).secret
        tenant.limit(Level.TEAM, budget_day_pico_usd=budget)
        client = stack.gateway.http(tenant.key)
        wait_for(lambda: client.post("/v1/chat/completions", BODY).status == 402, "it is refused", TOLD_S_MAX)
        (refused,) = wait_for(lambda: told(receiver, secret, "budget.threshold"), "it is told", TOLD_S_MAX)
        assert (refused["reason"], refused["threshold_percent"], refused["level"]) == ("refused", 100, "team")
        assert (refused["organization"], refused["subject"]) == (tenant.organization, tenant.team)
        assert refused["budget_usd"] == "0.0004"
        while client.post("/v1/chat/completions", BODY | {"max_tokens": 100}).status == 200:
            pass
        wait_for(
            lambda: {data["threshold_percent"] for data in told(receiver, secret, "budget.threshold")} == {50, 80, 100},
            "what was spent is told, too",
            TOLD_S_MAX,
        )


def test_a_revoked_key_in_use_is_told_once(stack: Stack) -> None:
    tenant = stack.tenant()
    with Receiver() as receiver:
        secret = run_blocking(make_webhook(stack.dsn, receiver.url, tenant.organization_id)).secret
        clients = [gateway.http(tenant.key) for gateway in stack.gateways]
        assert [client.get("/v1/models").status for client in clients] == [200, 200]
        tenant.revoke()
        for client in clients:
            wait_for(lambda client=client: client.get("/v1/models").status == 401, "it is revoked")  # type: ignore[misc]  # bound now
        (use,) = wait_for(lambda: told(receiver, secret, "key.revoked_used"), "it is told", TOLD_S_MAX)
        assert (use["key_id"], use["public_id"]) == (str(tenant.key_id), tenant.key_public_id)
        assert (use["address"], use["team"]) == ("127.0.0.1", tenant.team)
        assert tenant.key not in receiver.received[0].body.decode()


def test_a_leader_killed_while_it_delivers_has_lost_nothing(stack: Stack) -> None:
    """Its receiver has the event and has not answered yet: it gets it again, under the same id."""
    (leader,) = wait_for(
        lambda: [each for each in stack.gateways if each.metrics().get("penstock_leader") == 1],
        "one leads",
        TOLD_S_MAX,
    )
    tenant = stack.tenant()
    with Receiver(hang=True) as receiver:
        webhook = run_blocking(make_webhook(stack.dsn, receiver.url, tenant.organization_id))
        tenant.revoke()
        client = stack.gateway.http(tenant.key)
        wait_for(lambda: client.get("/v1/models").status == 401, "the key is revoked")
        (first,) = wait_for(lambda: list(receiver.received), "it is on its way", TOLD_S_MAX)
        leader.kill()
        receiver.hang = False
        wait_for(lambda: len(receiver.received) > 1, "the other one sends it again", TOLD_S_MAX)
        leader.start()
    assert {got.id for got in receiver.received} == {first.id}
    assert {got.body for got in receiver.received} == {first.body}
    assert receiver.received[-1].verified(webhook.secret)["type"] == "key.revoked_used"


@pytest.fixture
async def pool(own_postgres: RunningServer) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    """A pool on a server of one's own."""
    async with asyncpg.create_pool(own_postgres.address, min_size=0, max_size=2) as opened:
        yield opened


async def test_nobody_waits_for_a_notice(
    own_postgres: RunningServer, pool: asyncpg.Pool[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Postgres is away notices are lost, and counted; when it is back they are written again."""
    monkeypatch.setattr(notices_module, "WRITE_S_MAX", 1.0)
    tenants: list[Tenant] = [await asyncio.to_thread(make_tenant, own_postgres.address) for _ in range(2)]
    for tenant in tenants:
        await asyncio.to_thread(tenant.revoke)
    await make_webhook(own_postgres.address, "https://hooks.example.com/", tenants[0].organization_id)
    registry = CollectorRegistry()
    notices = Notices(pool, WebhookMetrics(registry))

    def lost(reason: str) -> float:
        return registry.get_sample_value("penstock_webhook_dropped_total", {"reason": reason}) or 0.0

    def use(tenant: Tenant) -> None:
        notices.revoked_key_used(tenant.organization_id, tenant.key_id, tenant.key_public_id, "192.0.2.1")

    for _ in range(notices_module.QUEUE_MAX + 5):
        notices.revoked_key_used(uuid4(), uuid4(), "nobody", "192.0.2.1")
    assert lost("queue_full") == 5
    writing = asyncio.ensure_future(notices.run())
    # The last of them may be out of the queue and not yet in Postgres: then a connection is in use.
    done = "all of that is nobody's"
    await wait_until(lambda: notices.waiting == 0 and pool.get_idle_size() == pool.get_size(), done)
    with stopped(own_postgres):
        use(tenants[0])
        await wait_until(lambda: lost("postgres_away") == 1, "it is lost")
    for tenant in (*tenants, *tenants):
        use(tenant)
    assert await wait_until_asked(lambda: ask(own_postgres.address, EVENTS), "it is written") == 1
    payload = json.loads(await ask(own_postgres.address, "SELECT payload::text FROM webhook_event"))
    assert payload["data"]["key_id"] == str(tenants[0].key_id), "what nobody wants to hear is not kept"
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_who_has_too_much_waiting_gets_no_more(postgres_dsn: str) -> None:
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    await asyncio.to_thread(tenant.revoke)
    webhook = await make_webhook(postgres_dsn, "https://hooks.example.com/", tenant.organization_id)
    await ask(
        postgres_dsn,
        """
        WITH event AS (INSERT INTO webhook_event (id, kind, payload, once)
            SELECT gen_random_uuid(), 'webhook.test', '{}', n::text FROM generate_series(1, $2::integer) n RETURNING id)
        INSERT INTO webhook_delivery (event_id, webhook_id) SELECT id, $1 FROM event
        """,
        webhook.about.id,
        WAITING_MAX,
    )
    registry = CollectorRegistry()
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1) as opened:
        notices = Notices(opened, WebhookMetrics(registry))
        notices.revoked_key_used(tenant.organization_id, tenant.key_id, tenant.key_public_id, "192.0.2.1")
        writing = asyncio.ensure_future(notices.run())
        labels = {"reason": "too_many_waiting"}
        await wait_until(lambda: registry.get_sample_value("penstock_webhook_dropped_total", labels), "it is counted")
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert await ask(postgres_dsn, "SELECT count(*) FROM webhook_delivery") == WAITING_MAX
