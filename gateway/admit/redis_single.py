"""One Redis for everything: a server of its own, or the primary that sentinels know."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.admit.redis_node import RedisNode
from gateway.errors import LimiterUnavailable
from gateway.storage.redis_check import evicts_nothing

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.admit.script_call import ScriptCall
    from gateway.observe.metrics import Metrics


class RedisSingle:
    """Runs every script on one node. What it offers is `RedisCluster`'s too."""

    def __init__(self, client: Redis, *, timeout_s: float, metrics: Metrics) -> None:
        self._metrics = metrics
        self._node = RedisNode(client, self, timeout_s=timeout_s)
        self.call = self._node.call
        self.send_soon = self._node.send_soon

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._node.available

    @property
    def nodes(self) -> tuple[RedisNode, ...]:
        """All the nodes there are."""
        return (self._node,)

    async def run(self) -> None:
        """Watch over Redis until cancelled."""
        await self._node.run()

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines."""
        await self._node.close()

    async def check(self) -> None:
        """Tell how Redis is set up, where that puts limits at risk."""
        well = await evicts_nothing(self._node.client)
        if well is not None:
            self._metrics.redis_noeviction.set(1 if well else 0)

    # --- what the node tells

    def changed(self, node: RedisNode) -> None:
        """See `Whole`."""
        self._metrics.limiter_fallback.set(0 if node.available else 1)

    def failing(self, node: RedisNode) -> None:
        """See `Whole`: there is no other."""

    def dropped(self) -> None:
        """See `Whole`."""
        self._metrics.settles_dropped.inc()

    def elsewhere(self, node: RedisNode, call: ScriptCall, text: str) -> None:
        """It is one of a cluster, which the address does not say."""
        del text
        node.away("it is a node of a cluster: PENSTOCK_REDIS_URL must begin with redis+cluster:// or rediss+cluster://")
        call.fail(LimiterUnavailable("Redis has other nodes"))

    def probe_key(self, node: RedisNode) -> str:
        """See `Whole`."""
        del node
        return f"pst:{{probe}}:{uuid4().hex}"
