"""Redis stopped, frozen, emptied and back: the policy decides meanwhile, and it heals by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest
import redis

from gateway.dev.redis import start_redis
from tests.support.chat import chat
from tests.support.frozen import frozen
from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config
from tests.support.ledger import all_closed
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.engine import EngineProcess

HANG_S_MAX = 5.0
CHAT = "/v1/chat/completions"
FALLBACK = "penstock_limiter_fallback"


@pytest.mark.parametrize("policy", ["local", "deny", "allow"])
def test_the_policy_decides_while_redis_is_frozen_and_it_heals_by_itself(
    policy: str, engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn, requests_per_minute=4)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED, redis_away_policy=policy) as gateway:
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        with frozen(own_redis):
            began_s = time.monotonic()
            statuses = [client.post(CHAT, chat()).status for _ in range(6)]
            assert time.monotonic() - began_s < HANG_S_MAX
            # One of four was used while Redis answered, and the replica goes on from there.
            expected = {"local": [200] * 3 + [429] * 3, "deny": [503] * 6, "allow": [200] * 6}
            assert statuses == expected[policy]
            assert gateway.metrics()[FALLBACK] == 1
        wait_for(lambda: gateway.metrics()[FALLBACK] == 0, "Redis is used again")
        served = 1 + statuses.count(200)
        rows = all_closed(postgres_dsn, tenant, served)
        assert {row["status"] for row in rows} == {"ok"}
        # What was withdrawn was never charged: three of four are left, but for what refill added.
        granted = [client.post(CHAT, chat()).status for _ in range(4)]
        assert granted[:3] == [200, 200, 200]
        assert not [line for line in gateway.log_lines() if "exception" in line]
        assert sum(line["event"] == "redis_away" for line in gateway.log_lines()) == 1


def test_a_restarted_empty_redis_gets_its_scripts_again(
    engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn, requests_per_minute=2)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED) as gateway:
        client = gateway.http(tenant.key)
        assert [client.post(CHAT, chat()).status for _ in range(3)] == [200, 200, 429]
        own_redis.child.stop()
        again = start_redis(own_redis.data, own_redis.data / "logs")
        with again.child:
            assert again.address == own_redis.address

            def limited_by_redis() -> bool:
                before = gateway.metrics().get('penstock_limiter_decisions_total{decision="granted"}', 0)
                client.post(CHAT, chat())
                return gateway.metrics().get('penstock_limiter_decisions_total{decision="granted"}', 0) > before

            wait_for(limited_by_redis, "Redis decides again")
            assert gateway.metrics()[FALLBACK] == 0
            assert not [line for line in gateway.log_lines() if "exception" in line]


def test_flushed_scripts_cost_no_request(
    engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn, requests_per_minute=100)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED) as gateway:
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        with redis.Redis.from_url(own_redis.address) as server:
            server.script_flush()
        assert client.post(CHAT, chat()).headers["x-ratelimit-remaining-requests"] == "98"
        assert gateway.metrics()[FALLBACK] == 0


def test_a_replica_starts_without_redis(
    engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn, requests_per_minute=2)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    own_redis.child.stop()
    with GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED) as gateway:
        client = gateway.http(tenant.key)
        assert [client.post(CHAT, chat()).status for _ in range(3)] == [200, 200, 429]


def test_a_redis_that_cannot_be_written_is_away_until_it_can(
    engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    """It answers pings all the while: a replica after a failover, or one that is full and does not evict."""
    tenant = make_tenant(postgres_dsn, requests_per_minute=100)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with (
        GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED) as gateway,
        redis.Redis.from_url(own_redis.address) as server,
    ):
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        server.config_set("maxmemory", "1")
        assert [client.post(CHAT, chat()).status for _ in range(3)] == [200] * 3
        wait_for(lambda: gateway.metrics()[FALLBACK] == 1, "the replica limits by itself")
        probes = commands(server)
        wait_for(lambda: commands(server) >= probes + 3, "Redis was tried several times")
        assert gateway.metrics()[FALLBACK] == 1
        server.config_set("maxmemory", "0")
        wait_for(lambda: gateway.metrics()[FALLBACK] == 0, "Redis is used again")
        events = [line["event"] for line in gateway.log_lines()]
        assert events.count("redis_away") == events.count("redis_back") == 1
        assert "exception" not in " ".join(events)


def test_one_tenants_broken_key_costs_nobody_else_their_limits(
    engine: EngineProcess, postgres_dsn: str, own_redis: RunningServer, tmp_path: Path
) -> None:
    broken, well = (make_tenant(postgres_dsn, requests_per_minute=1) for _ in range(2))
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with (
        GatewayProcess(config, postgres_dsn, own_redis.address, **AS_SHIPPED) as gateway,
        redis.Redis.from_url(own_redis.address) as server,
    ):
        client = gateway.http(broken.key)
        assert client.post(CHAT, chat()).status == 200
        keys = [key for key in server.scan_iter("pst:*:b:*") if server.type(key) == b"string"]
        for key in keys:
            server.delete(key)
            server.lpush(key, "not a bucket")
        # This replica's own count goes on for the one whose keys are broken.
        assert client.post(CHAT, chat()).status == 429
        assert [gateway.http(well.key).post(CHAT, chat()).status for _ in range(2)] == [200, 429]
        assert gateway.metrics()[FALLBACK] == 0
        events = [line["event"] for line in gateway.log_lines()]
        assert "redis_script_failed" in events
        assert "redis_away" not in events


def commands(server: redis.Redis) -> int:
    """Return how many scripts a Redis was asked to run."""
    stats = cast("dict[str, dict[str, int]]", server.info("commandstats"))
    return stats.get("cmdstat_evalsha", {}).get("calls", 0)
