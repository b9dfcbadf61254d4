"""What losing Redis costs, counted over several replicas: the published bounds of the policy `local`."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from gateway.dev.redis import start_redis
from tests.support.chat import chat
from tests.support.engine import EngineProcess
from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config
from tests.support.proxy import Proxy
from tests.support.redis_setups import kill
from tests.support.servers import dedicated_redis
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.children import RunningServer
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
FALLBACK = "penstock_limiter_fallback"
REPLICAS = 3
CAPACITY = 12


class Replicas:
    """Some that share one Redis, of which the last one's way there can be blocked."""

    def __init__(self, gateways: list[GatewayProcess], proxy: Proxy, redis: RunningServer, dsn: str) -> None:
        self.gateways = gateways
        self.dsn = dsn
        self.proxy = proxy
        self.redis = redis
        self.begun_s = time.monotonic()

    @property
    def refilled(self) -> int:
        """How much of a limit of one a minute has come back since the test began, shares of it included."""
        return 1 + math.ceil((time.monotonic() - self.begun_s) / 60)

    def tenant(self) -> Tenant:
        """Begin: make a tenant with a burst of CAPACITY."""
        self.begun_s = time.monotonic()
        return make_tenant(self.dsn, requests_per_minute=1, requests_burst=CAPACITY)

    def granted(self, tenant: Tenant, rounds: int = 1) -> int:
        """Ask each of them once a round; return how often it was granted."""
        clients = [gateway.http(tenant.key) for gateway in self.gateways]
        statuses = [client.post(CHAT, chat()).status for _ in range(rounds) for client in clients]
        assert set(statuses) <= {200, 429}
        return statuses.count(200)

    def granted_until_refused(self, tenant: Tenant) -> int:
        """Ask until all of them refuse; return how often it was granted."""
        total = 0
        while some := self.granted(tenant):
            total += some
            assert total < 10 * CAPACITY, "it ends"
        return total

    def know_of_each_other(self) -> bool:
        """Whether each has counted all of them: their shares depend on it."""
        return all(gateway.metrics()["penstock_replicas_live"] == REPLICAS for gateway in self.gateways)

    def fall_back(self, count: int) -> bool:
        """Whether so many of them limit by themselves."""
        return sum(gateway.metrics()[FALLBACK] for gateway in self.gateways) == count


@pytest.fixture(scope="module")
def replicas(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Three of them, which know of each other."""
    with ExitStack() as stack:
        redis, dsn = stack.enter_context(dedicated_redis()), stack.enter_context(databases.migrated())
        proxy, engine = stack.enter_context(Proxy(redis.address)), stack.enter_context(EngineProcess("sim"))
        config = write_config(tmp_path_factory.mktemp("bounds") / "penstock.yaml", [engine.url])
        ways = [redis.address] * (REPLICAS - 1) + [proxy.address]
        gateways = [stack.enter_context(GatewayProcess(config, dsn, way, **AS_SHIPPED)) for way in ways]
        running = Replicas(gateways, proxy, redis, dsn)
        wait_for(running.know_of_each_other, "all know how many they are")
        yield running
        running.redis.child.stop()


@pytest.mark.parametrize("spent", [0, 6])
def test_losing_redis_costs_at_most_one_capacity(replicas: Replicas, spent: int) -> None:
    """It is gone, then back and empty: what was granted before, meanwhile and after, together."""
    tenant = replicas.tenant()
    total = replicas.granted(tenant, spent // REPLICAS)
    assert total == spent
    kill(replicas.redis)
    total += replicas.granted_until_refused(tenant)
    assert replicas.fall_back(REPLICAS)
    assert total <= 2 * CAPACITY + replicas.refilled
    replicas.redis = start_redis(replicas.redis.data, replicas.redis.data / "logs")
    wait_for(lambda: replicas.fall_back(0), "all of them use Redis again")
    total += replicas.granted_until_refused(tenant)
    assert CAPACITY < total <= 2 * CAPACITY + replicas.refilled


def test_while_some_have_lost_redis_at_most_twice_the_limit_is_granted(replicas: Replicas) -> None:
    tenant = replicas.tenant()
    total = replicas.granted(tenant)
    replicas.proxy.freeze()
    total += replicas.granted_until_refused(tenant)
    assert replicas.fall_back(1)
    assert CAPACITY <= total <= 2 * CAPACITY + replicas.refilled
    replicas.proxy.cut()
    replicas.proxy.thaw()
    wait_for(lambda: replicas.fall_back(0), "it uses Redis again")
    assert replicas.granted(tenant) <= replicas.refilled, "nothing was handed out for it"
