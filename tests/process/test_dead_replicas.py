"""Replicas that are killed and frozen with requests in flight: each event is closed once, and says what was used."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat
from tests.support.gateway import GatewayProcess, write_config
from tests.support.http import DONE
from tests.support.ledger import all_closed, both_events
from tests.support.postgres import ask, connected
from tests.support.servers import run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.tenants import Tenant, make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.engine import EngineProcess
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
SETTINGS: Mapping[str, Any] = {"checkpoint_interval_s": 0.2, "reaper_patience_s": 3, "leader_silence_max_s": 2}
REAPED_S_MAX = 30.0
TOKENS = 40
STALLS = {"output_tokens": TOKENS, "stall_after_chunks": 9}
SLOW = {"output_tokens": TOKENS, "tokens_per_second": 20}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas with little patience."""
    folder = tmp_path_factory.mktemp("dead-replicas")
    with running_stack(databases, servers, folder, replicas=2, **SETTINGS) as running:
        yield running


def leader(stack: Stack) -> GatewayProcess:
    """Wait until a replica leads, and return it."""

    def leading() -> list[GatewayProcess]:
        return [gateway for gateway in stack.gateways if gateway.metrics()["penstock_leader"] == 1]

    (one,) = wait_for(leading, "a replica leads")
    return one


def checkpointed(dsn: str, tenant: Tenant) -> dict[str, list[Any]]:
    """Return what the last checkpoints say of a tenant's events, by event id."""

    async def fetch() -> dict[str, list[Any]]:
        async with connected(dsn) as connection:
            rows = await connection.fetch("SELECT live FROM replica_checkpoint")
        return {event_id: used for row in rows for event_id, used in json.loads(row["live"]).items()}

    own = {str(event_id) for event_id, _ in both_events(dsn, tenant)}
    return {event_id: used for event_id, used in run_blocking(fetch()).items() if event_id in own}


def sums(dsn: str, event_id: object) -> tuple[int, ...]:
    """Return how many events there are of an id, their adjustments, and prompt and completion tokens of all of them."""

    async def fetch() -> tuple[int, ...]:
        async with connected(dsn) as connection:
            row = await connection.fetchrow(
                """
                SELECT count(*) FILTER (WHERE kind = 'event'), count(*) FILTER (WHERE kind = 'adjustment'),
                       sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint
                  FROM (SELECT 'event' AS kind, event_id, prompt_tokens, completion_tokens FROM usage_event
                         UNION ALL
                        SELECT 'adjustment', event_id, prompt_tokens, completion_tokens FROM usage_adjustment) AS said
                 WHERE event_id = $1
                """,
                event_id,
            )
        return tuple(row or ())

    return run_blocking(fetch())


def test_what_a_killed_leader_had_in_flight_is_closed_by_the_other(stack: Stack) -> None:
    """Its streams have stood still for longer than a checkpoint: what was generated is known to the token."""
    victim = leader(stack)
    (other,) = [gateway for gateway in stack.gateways if gateway is not victim]
    tenant = stack.tenant()
    client = victim.http(tenant.key)
    before = stack.engine.counters()
    with ExitStack() as open_requests:
        for _ in range(3):
            stream = open_requests.enter_context(client.stream(CHAT, chat(stream=True, sim=STALLS)))
            events = stream.data()
            for _ in range(5):
                next(events)
        for _ in range(2):
            open_requests.enter_context(client.asked(CHAT, chat(max_tokens=TOKENS, sim={"delay_ms": 600_000})))
        stack.engine.wait_for(lambda now: now["received"] == before["received"] + 5)
        streams = [record for record in stack.engine.state()["requests"][-5:] if record["body"].get("stream")]
        generated = [record["generated_tokens"] for record in streams]

        def known() -> bool:
            said = [used[3] for used in checkpointed(stack.dsn, tenant).values()]
            return len(said) == 5 and sorted(said)[-3:] == sorted(generated)

        wait_for(known, "a checkpoint has all of it")
        victim.kill()
    last = checkpointed(stack.dsn, tenant)
    wait_for(lambda: other.metrics()["penstock_leader"] == 1, "the other leads")
    rows = wait_for(lambda: ended(stack.dsn, tenant, 5), "all are closed", REAPED_S_MAX)
    for row in rows:
        assert (row["status"], row["coverage"], row["reaped"]) == ("interrupted", "estimated", True)
        assert row["engine"] == stack.engine.url
        assert row["endpoint"] == "chat.completions"
        assert row["completion_tokens"] == last[str(row["event_id"])][3]
        assert row["cost_pico_usd"] > 0
    assert sorted(row["completion_tokens"] for row in rows if row["streamed"]) == sorted(generated)
    assert all(1 <= row["completion_tokens"] <= TOKENS for row in rows if not row["streamed"])
    assert other.metrics()['penstock_reaped_events_total{reason="replica_gone"}'] == 5
    victim.start()


def ended(dsn: str, tenant: Tenant, count: int) -> list[dict[str, Any]]:
    """Return the closed events of a tenant when all of them are."""
    rows = [row for _, row in both_events(dsn, tenant) if row is not None]
    return rows if len(rows) == count else []


def test_a_frozen_leader_that_goes_on_corrects_what_was_said_of_it(stack: Stack) -> None:
    victim = leader(stack)
    (other,) = [gateway for gateway in stack.gateways if gateway is not victim]
    tenant = stack.tenant()
    with victim.http(tenant.key).stream(CHAT, chat(stream=True, sim=SLOW)) as stream:
        events = stream.data()
        next(events)
        victim.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: other.metrics()["penstock_leader"] == 1, "the other leads")
            (row,) = wait_for(lambda: ended(stack.dsn, tenant, 1), "its event is closed", REAPED_S_MAX)
        finally:
            victim.signal(signal.SIGCONT)
        assert (row["status"], row["coverage"], row["reaped"]) == ("interrupted", "estimated", True)
        assert row["completion_tokens"] < TOKENS
        assert list(events)[-1] == DONE, "its client has lost nothing"
    (record,) = stack.engine.state()["requests"][-1:]
    exact = (1, 1, record["prompt_tokens"], TOKENS)
    wait_for(lambda: sums(stack.dsn, row["event_id"]) == exact, "the replica's own word is an adjustment")
    assert leader(stack) is other, "there is one leader, and it is not he"


def test_a_replica_that_ends_cleanly_leaves_nothing_to_do(
    engine: EngineProcess, postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, redis_url, **SETTINGS) as gateway:
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        with client.stream(CHAT, chat(stream=True, sim=SLOW)) as stream:
            events = stream.data()
            next(events)
            gateway.signal(signal.SIGTERM)
            assert list(events)[-1] == DONE
        assert gateway.wait() == 0
    rows = all_closed(postgres_dsn, tenant, 2)
    assert not any(row["reaped"] for row in rows)
    assert checkpointed(postgres_dsn, tenant) == {}
    counters = json.loads(run_blocking(ask(postgres_dsn, "SELECT counters FROM replica_checkpoint")))
    assert counters["opened"] == counters["closed"] == 2
    assert counters["completion"] == sum(row["completion_tokens"] for row in rows)
    assert counters["cost_pico_usd"] == sum(row["cost_pico_usd"] for row in rows)
