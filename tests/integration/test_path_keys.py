"""What changes about a key, its tenant or its limits acts on every replica within a second, whoever wrote it."""

from __future__ import annotations

import datetime as dt
import time
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.domain.principal import TENANT_LEVELS, Level
from tests.support.chat import chat
from tests.support.effects import CHAT, assert_acts, clients_of, hears, refused
from tests.support.gateway import GatewayProcess, write_config
from tests.support.proxy import Proxy
from tests.support.refusals import assert_refused
from tests.support.servers import run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http
    from tests.support.servers import Databases


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas on one database."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("keys"), replicas=2) as running:
        wait_for(lambda: all(hears(replica.log_lines()) for replica in running.gateways), "changes are heard")
        yield running


def execute(dsn: str, statement: str, *arguments: object) -> None:
    """Run one statement in a transaction of its own, past all of the gateway's code."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    run_blocking(run())


def refusals(client: Http) -> list[Answer]:
    """Ask once and return the answer if it is a refusal."""
    return [answer for answer in (client.post(CHAT, chat(max_tokens=1)),) if answer.status != 200]


REVOCATIONS = {
    "key": "UPDATE api_key SET revoked_at = now() WHERE id = $1",
    "expiry": "UPDATE api_key SET expires_at = now() WHERE id = $1",
    "key row": "DELETE FROM api_key WHERE id = $1",
    "organization": (
        "UPDATE organization o SET deleted_at = now() FROM api_key k WHERE k.id = $1 AND k.organization_id = o.id"
    ),
    "team": "UPDATE team SET deleted_at = now() FROM api_key k WHERE k.id = $1 AND k.team_id = team.id",
    "user": "UPDATE app_user SET deleted_at = now() FROM api_key k WHERE k.id = $1 AND k.user_id = app_user.id",
    "membership": "DELETE FROM membership USING api_key k WHERE k.id = $1 AND k.user_id = membership.user_id",
}


@pytest.mark.parametrize("statement", REVOCATIONS.values(), ids=REVOCATIONS)
def test_a_key_that_stops_counting_is_refused_within_a_second(stack: Stack, statement: str) -> None:
    tenant = stack.tenant()
    clients = clients_of(stack, tenant.key)
    assert_acts(clients, lambda: execute(stack.dsn, statement, tenant.key_id), refused)
    for client in clients:
        assert_refused(client.post(CHAT, chat()), 401, "invalid_api_key")
        assert_refused(client.get("/v1/models"), 401, "invalid_api_key")


def test_the_service_function_revokes_within_a_second(stack: Stack) -> None:
    tenant = stack.tenant()
    assert_acts(clients_of(stack, tenant.key), tenant.revoke, refused)


def test_a_revocation_acts_within_a_second_although_nobody_is_told(stack: Stack) -> None:
    """The listeners' connections are cut in the moment of the change, so that its notification is lost."""
    tenant = stack.tenant()
    clients = clients_of(stack, tenant.key)

    def cut_and_revoke() -> None:
        statement = """
            WITH cut AS (SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                          WHERE datname = current_database() AND pid <> pg_backend_pid()
                            AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%'))
            UPDATE api_key SET revoked_at = now() WHERE id = $1 AND (SELECT count(*) FROM cut) = 2
        """
        execute(stack.dsn, statement, tenant.key_id)

    assert_acts(clients, cut_and_revoke, refused)
    wait_for(lambda: all(hears(gateway.log_lines()) for gateway in stack.gateways), "changes are heard again")


def test_a_revocation_acts_within_a_second_although_the_network_swallows_it(stack: Stack, tmp_path: Path) -> None:
    """A replica whose listening connection is dead without a sign, while everything else works."""
    config = write_config(tmp_path / "penstock.yaml", [stack.engine.url])
    with (
        Proxy(stack.dsn) as proxy,
        GatewayProcess(config, stack.dsn, stack.redis_url, postgres_direct_dsn=proxy.address) as deaf,
    ):
        tenant = stack.tenant()
        wait_for(lambda: hears(deaf.log_lines()), "changes are heard")
        client = deaf.http(tenant.key)
        assert client.post(CHAT, chat(max_tokens=1)).status == 200
        proxy.freeze()
        assert_acts([client], tenant.revoke, refused)
        other = stack.tenant()
        assert deaf.http(other.key).post(CHAT, chat(max_tokens=1)).status == 200, "the rest of it works"
        proxy.thaw()
        wait_for(lambda: hears(deaf.log_lines()), "changes are heard again")


def test_a_key_that_counts_again_works_within_a_second(stack: Stack) -> None:
    """What is refused is remembered too."""
    tenant = stack.tenant()
    clients = clients_of(stack, tenant.key)
    assert_acts(clients, tenant.revoke, refused)
    again = "UPDATE api_key SET revoked_at = NULL WHERE id = $1"
    assert_acts(clients, lambda: execute(stack.dsn, again, tenant.key_id), lambda answer: answer.status == 200)


def test_a_key_expires_by_itself(stack: Stack) -> None:
    tenant = stack.tenant(expires_in=dt.timedelta(seconds=1.5))
    expires_s = time.monotonic() + 1.5
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]
    assert [client.post(CHAT, chat(max_tokens=1)).status for client in clients] == [200, 200]
    for client in clients:
        (answer,) = wait_for(partial(refusals, client), "the key expires", 5.0)
        assert_refused(answer, 401, "invalid_api_key")
    assert time.monotonic() >= expires_s - 0.5


@pytest.mark.parametrize("level", TENANT_LEVELS)
def test_a_new_limit_acts_within_a_second(stack: Stack, level: Level) -> None:
    tenant = stack.tenant()
    assert_acts(
        clients_of(stack, tenant.key),
        lambda: tenant.limit(level, requests_per_minute=1000),
        lambda answer: answer.headers.get("x-ratelimit-limit-requests") == "1000",
        "limit-change",
    )


def test_a_changed_limit_acts_within_a_second(stack: Stack) -> None:
    tenant = stack.tenant(requests_per_minute=1, requests_burst=4)
    clients = clients_of(stack, tenant.key)
    assert [client.post(CHAT, chat()).status for client in clients] == [429, 429]
    assert_acts(
        clients,
        lambda: tenant.limit(Level.KEY, requests_per_minute=6000, requests_burst=100),
        lambda answer: answer.status == 200 and answer.headers["x-ratelimit-limit-requests"] == "6000",
        "limit-change",
    )


def test_models_taken_from_a_key_are_refused_within_a_second(stack: Stack) -> None:
    tenant = stack.tenant()
    statement = "UPDATE api_key SET models_allowed = ARRAY['other'] WHERE id = $1"
    assert_acts(
        clients_of(stack, tenant.key),
        lambda: execute(stack.dsn, statement, tenant.key_id),
        lambda answer: answer.status == 403,
    )


def test_a_change_does_not_touch_other_tenants(stack: Stack) -> None:
    one, other = stack.tenant(), stack.tenant()
    clients = clients_of(stack, other.key)
    misses = [gateway.metrics()['penstock_key_lookups_total{result="miss"}'] for gateway in stack.gateways]
    assert_acts([gateway.http(one.key) for gateway in stack.gateways], one.revoke, refused)
    assert [client.post(CHAT, chat(max_tokens=1)).status for client in clients] == [200, 200]
    after = [gateway.metrics()['penstock_key_lookups_total{result="miss"}'] for gateway in stack.gateways]
    assert after == misses, "their keys were not even looked up again"
