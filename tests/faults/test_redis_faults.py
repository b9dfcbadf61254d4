"""Every way in which Redis fails, through the gateway: answered by the policy, told once, and healed by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.proxy import Proxy
from tests.support.redis_faults import FAULTS, Faulty
from tests.support.servers import dedicated_redis
from tests.support.tenants import Tenant, make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
FALLBACK = "penstock_limiter_fallback"
GRANTED = 'penstock_limiter_decisions_total{decision="granted"}'
BURST = 4
PATIENCE_MS = 500
"""More than the default: on a busy machine a Redis that is well may take 50 ms, and is away then."""


class Stand:
    """One replica before a Redis that fails in one way after another."""

    def __init__(self, gateway: GatewayProcess, faulty: Faulty, dsn: str) -> None:
        self.gateway = gateway
        self.faulty = faulty
        self.dsn = dsn
        self._seen = 0

    def tenant(self, burst: int = BURST) -> Tenant:
        """Return somebody whose limit brings next to nothing back."""
        return make_tenant(self.dsn, requests_per_minute=1, requests_burst=burst)

    def ask(self, tenant: Tenant, times: int = 1) -> list[int]:
        """Ask so often; return the statuses."""
        client = self.gateway.http(tenant.key)
        return [client.post(CHAT, chat()).status for _ in range(times)]

    def granted_by_redis(self, tenant: Tenant) -> bool:
        """Ask once; whether Redis granted it."""
        before = self.gateway.metrics().get(GRANTED, 0)
        self.ask(tenant)
        return self.gateway.metrics()[GRANTED] > before

    def told(self) -> list[str]:
        """Return the events above `info` that were logged since the last look; none of them a traceback."""
        assert "Traceback" not in self.gateway.log.read_text()
        lines = self.gateway.log_lines()
        new, self._seen = lines[self._seen :], len(lines)
        return [line["event"] for line in new if line["level"] not in {"debug", "info"}]

    def reservations(self) -> list[bytes]:
        """Return what is still reserved."""
        with self.faulty.client() as client:
            kept = [client.get(key) for key in client.scan_iter("pst:*:r:*")]
        return [each for each in kept if each not in {None, b"-"}]


@pytest.fixture(scope="module")
def stand(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A replica, and a Redis behind a proxy."""
    config = tmp_path_factory.mktemp("faults") / "penstock.yaml"
    with databases.migrated() as dsn, dedicated_redis() as server, Proxy(server.address) as proxy:
        faulty = Faulty(server, proxy)
        with EngineProcess("sim") as engine:
            write_config(config, [engine.url])
            with GatewayProcess(config, dsn, proxy.address, redis_timeout_ms=PATIENCE_MS) as gateway:
                yield Stand(gateway, faulty, dsn)
        faulty.server.child.stop()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_replica_limits_by_itself_until_redis_is_back(stand: Stand, fault: str) -> None:
    tenant, regular = stand.tenant(), stand.tenant(burst=1_000)
    assert stand.ask(regular, 6) == [200] * 6, "Redis has been well for a while"
    assert stand.ask(tenant) == [200]
    stand.told()
    with FAULTS[fault](stand.faulty):
        # Answered while Redis cannot answer: one of four was used, and the replica goes on from there.
        assert stand.ask(tenant, BURST) == [200] * (BURST - 1) + [429]
        assert stand.ask(regular, 10) == [200] * 10
        assert stand.gateway.metrics()[FALLBACK] == 1
        assert stand.told() == ["redis_away"]
    wait_for(lambda: stand.gateway.metrics()[FALLBACK] == 0, "Redis is used again")
    wait_for(lambda: stand.granted_by_redis(regular), "Redis decides")
    wait_for(lambda: not stand.reservations(), "what waited to be settled has been")
    assert stand.told() == ["redis_back"]


def test_connections_that_are_cut_cost_no_answer(stand: Stand) -> None:
    tenant = stand.tenant(burst=100)
    stand.told()
    for left in (99, 98, 97, 96):
        answer = stand.gateway.http(tenant.key).post(CHAT, chat())
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        wait_for(lambda: not stand.reservations(), "it is settled: nothing is cut twice")
        stand.faulty.proxy.cut()
    assert stand.told() == [], stand.gateway.log_lines()[-20:]


def test_an_emptied_redis_hands_out_one_capacity_more_and_tells_nothing(stand: Stand) -> None:
    tenant = stand.tenant()
    stand.told()
    assert stand.ask(tenant, BURST + 1) == [200] * BURST + [429]
    wait_for(lambda: not stand.reservations(), "all is settled")
    with stand.faulty.client() as client:
        client.flushall()
        client.script_flush()
    assert stand.ask(tenant, BURST + 1) == [200] * BURST + [429]
    assert stand.told() == []


def test_a_user_who_lacks_a_right_is_told_once_and_the_policy_applies(stand: Stand) -> None:
    tenant = stand.tenant()
    with stand.faulty.client() as client:
        try:
            stand.told()
            client.execute_command("ACL", "SETUSER", "default", "-set")
            assert stand.ask(tenant, BURST + 1) == [200] * BURST + [429]
            (line,) = [line for line in stand.gateway.log_lines()[-50:] if line["event"] == "redis_away"][-1:]
            assert "run this command" in line["reason"] or "'set'" in line["reason"]
            assert stand.told() == ["redis_away"]
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+set")
    wait_for(lambda: stand.gateway.metrics()[FALLBACK] == 0, "Redis is used again")


def test_what_redis_answers_is_what_it_was_asked(stand: Stand) -> None:
    """After all of that: no late answer of one request became another's."""
    for burst in (3, 2):
        assert stand.ask(stand.tenant(burst), 5) == [200] * burst + [429] * (5 - burst)
