"""A Redis Cluster: each script goes to the node that has its keys, found by the hash slot of the first of them.

Every primary has a batch and a breaker of its own, so one node's absence is felt by its keys alone. A node that is
away, or says that keys are elsewhere, makes the map of the slots be read anew: one reading at a time, with pauses.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from gateway.admit.redis_node import RedisNode
from gateway.admit.redis_single import RedisSingle
from gateway.errors import LimiterUnavailable, reason_of
from gateway.patience import Deadline
from gateway.storage.redis_address import Setup
from gateway.storage.redis_check import evicts_nothing
from gateway.storage.redis_slots import ASK_ERRORS, read_slots, run_asking

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.admit.script import Script
    from gateway.admit.script_call import ScriptCall
    from gateway.observe.metrics import Metrics
    from gateway.storage.redis import RedisClients
    from gateway.storage.redis_link import Command
    from gateway.storage.redis_slots import Place, SlotMap

NODES_MAX = 1_000
READ_PAUSE_S = 0.25
"""Between two readings of the map, however many calls were sent elsewhere meanwhile."""

READ_INTERVAL_S = 60.0
READ_S = 1.0
AGAIN_S = 0.01
"""After which keys that are on their way between two nodes are asked for again, once."""

ASKING_MAX = 64
"""Calls on their way to nodes that are just getting their keys."""

_PROBE_TAGS_MAX = 4 * SLOTS

_log = structlog.get_logger("penstock.admit")


class RedisCluster:
    """Runs scripts on a cluster. What it offers is `RedisSingle`'s too; `available` while any node is."""

    def __init__(self, clients: RedisClients, *, timeout_s: float, metrics: Metrics) -> None:
        self._clients = clients
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._nodes: dict[Place, RedisNode] = {}
        self._watching: dict[RedisNode, asyncio.Task[None]] = {}
        self._running = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = 0
        self._readable = True
        self._stale = asyncio.Event()
        self._probe_tags: dict[RedisNode, str] = {}
        seeds = [self._node(place) for place in clients.address.hosts]
        # Until the map was read, any node will do: it says where the keys are.
        self._slots: list[RedisNode] = [seeds[slot % len(seeds)] for slot in range(SLOTS)]

    @property
    def available(self) -> bool:
        """Whether some node answered when it was last asked."""
        return any(node.available for node in self._nodes.values())

    @property
    def nodes(self) -> tuple[RedisNode, ...]:
        """All primaries that are known."""
        return tuple(self._nodes.values())

    def call(self, script: Script, arguments: Command) -> asyncio.Future[Any]:
        """Do as `RedisNode.call` does, on the node that has the keys."""
        return self._slots[_slot(arguments)].call(script, arguments)

    def send_soon(self, script: Script, arguments: Command, lasts_s: float) -> None:
        """Do as `RedisNode.send_soon` does, on the node that has the keys."""
        self._slots[_slot(arguments)].send_soon(script, arguments, lasts_s)

    async def run(self) -> None:
        """Watch over every node, and keep the map of the slots, until cancelled."""
        self._running = True
        for node in self._nodes.values():
            self._watch(node)
        try:
            while True:
                try:
                    async with asyncio.timeout(READ_INTERVAL_S):
                        await self._stale.wait()
                except TimeoutError:
                    pass
                self._stale.clear()
                await self._read()
                await asyncio.sleep(READ_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
        finally:
            self._running = False
            watching = list(self._watching.values())
            self._watching.clear()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines."""
        await asyncio.gather(*(node.close() for node in self._nodes.values()), *self._tasks)

    async def check(self) -> None:
        """Read the map, and tell how the nodes are set up, where that puts limits at risk."""
        await self._read()
        told = await asyncio.gather(
            *(evicts_nothing(node.client, name=node.name, in_cluster=True) for node in self._nodes.values())
        )
        known = [well for well in told if well is not None]
        if known:
            self._metrics.redis_noeviction.set(1 if all(known) else 0)

    # --- what nodes tell

    def changed(self, node: RedisNode) -> None:
        """See `Whole`."""
        del node
        self._metrics.limiter_fallback.set(0 if all(each.available for each in self._nodes.values()) else 1)

    def failing(self, node: RedisNode) -> None:
        """See `Whole`: perhaps another node has taken over from it."""
        del node
        self._stale.set()

    def dropped(self) -> None:
        """See `Whole`."""
        self._metrics.settles_dropped.inc()

    def elsewhere(self, node: RedisNode, call: ScriptCall, text: str) -> None:
        """Ask the other node, once; see https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/."""
        self._stale.set()
        if call.sent_elsewhere:
            call.fail(LimiterUnavailable("the keys are on their way between nodes"))
            return
        call.sent_elsewhere = True
        word, *rest = text.split()
        if word not in {"MOVED", "ASK"}:  # TRYAGAIN, or a slot that nobody serves just now
            asyncio.get_running_loop().call_later(AGAIN_S, self._again, call)
            return
        host, _, port = rest[1].rpartition(":")
        place = (host or node.name.rpartition(":")[0], int(port))
        if place not in self._nodes and len(self._nodes) >= NODES_MAX:
            call.fail(LimiterUnavailable("the cluster has too many nodes"))
            return
        target = self._node(place)
        if word == "MOVED":
            self._slots[int(rest[0])] = target
            target.take(call)
        elif self._asking >= ASKING_MAX:
            call.fail(LimiterUnavailable("too many keys are on their way between nodes"))
        else:
            self._asking += 1
            self._begin(self._ask(target, call))

    def probe_key(self, node: RedisNode) -> str:
        """See `Whole`: of a slot that the map says is the node's."""
        tag = self._probe_tags.get(node)
        if tag is None or self._slots[key_slot(tag.encode())] is not node:
            some = (f"probe{number}" for number in range(_PROBE_TAGS_MAX))
            tag = next((tag for tag in some if self._slots[key_slot(tag.encode())] is node), "probe")
            self._probe_tags[node] = tag
        return f"pst:{{{tag}}}:{uuid4().hex}"

    # --- the nodes

    def _node(self, place: Place) -> RedisNode:
        node = self._nodes.get(place)
        if node is None:
            name = f"{place[0]}:{place[1]}"
            node = RedisNode(self._clients.at(*place), self, timeout_s=self._timeout_s, name=name)
            self._nodes[place] = node
            if self._running:
                self._watch(node)
        return node

    def _watch(self, node: RedisNode) -> None:
        self._watching[node] = asyncio.get_running_loop().create_task(node.run(), name=f"redis {node.name}")

    def _again(self, call: ScriptCall) -> None:
        self._slots[_slot(call.arguments)].take(call)

    async def _ask(self, node: RedisNode, call: ScriptCall) -> None:
        try:
            async with Deadline(self._timeout_s):
                answer = await run_asking(node.client, (call.script.source, call.script.sha1), call.arguments)
        except ASK_ERRORS as error:
            what = f"the keys are on their way to a node that does not take them yet: {type(error).__name__}"
            call.fail(LimiterUnavailable(what))
        else:
            call.resolve(answer)
        finally:
            self._asking -= 1

    async def _read(self) -> None:
        """Read the map from the first node that knows one, those that answer before the others."""
        places = random.sample(list(self._nodes), len(self._nodes))
        places.sort(key=lambda place: not self._nodes[place].available)
        places += [place for place in self._clients.address.hosts if place not in self._nodes]
        reason = "no node is known"
        for place in places:
            known = self._nodes.get(place)
            client = known.client if known else self._clients.at(*place)
            try:
                async with Deadline(READ_S):
                    slots = await read_slots(client, place)
            except ASK_ERRORS as error:
                reason = reason_of(error)
                continue
            finally:
                if known is None:
                    await self._clients.forget(client)
            if slots:
                self._apply(slots)
                self._readable = True
                return
            reason = "no slot is anybody's"
        if self._readable:
            self._readable = False
            _log.warning(
                "redis_map_unread", reason=reason, advice="see that a node runs, and its user may CLUSTER SLOTS"
            )

    def _apply(self, slots: SlotMap) -> None:
        primaries = {place for _, _, place in slots}
        if len(primaries) > NODES_MAX:
            _log.error("redis_cluster_too_large", nodes=len(primaries), nodes_max=NODES_MAX)
            return
        for first, last, place in slots:
            self._slots[first : last + 1] = [self._node(place)] * (last + 1 - first)
        gone = {place: node for place, node in self._nodes.items() if place not in primaries}
        others = [self._nodes[place] for place in primaries]
        if not gone:
            return
        away = set(gone.values())
        for slot, node in enumerate(self._slots):
            if node in away:  # nobody serves it: any node says so
                self._slots[slot] = others[slot % len(others)]
        for place, node in gone.items():
            del self._nodes[place]
            self._begin(self._retire(node))
        self.changed(others[0])

    async def _retire(self, node: RedisNode) -> None:
        """End a node that has no keys any more; what waits for it goes to those that have them."""
        watching = self._watching.pop(node, None)
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self._probe_tags.pop(node, None)
        self._resend(node)
        await node.close()
        self._resend(node)
        await self._clients.forget(node.client)

    def _resend(self, node: RedisNode) -> None:
        for unsent in node.take_unsent():
            self._slots[_slot(unsent.arguments)].send(unsent)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def scripts_on(clients: RedisClients, *, timeout_s: float, metrics: Metrics) -> RedisSingle | RedisCluster:
    """Return what runs scripts on the servers of an address, each answered within `timeout_s` or failed."""
    if clients.address.setup is Setup.CLUSTER:
        return RedisCluster(clients, timeout_s=timeout_s, metrics=metrics)
    return RedisSingle(clients.only(), timeout_s=timeout_s, metrics=metrics)


def _slot(arguments: Command) -> int:
    """Return the hash slot of a call's first key; keys of one call share it by their tag."""
    key = arguments[1]
    return key_slot(key.encode() if isinstance(key, str) else bytes(key))
