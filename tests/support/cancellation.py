"""One request through a replica in this process, cancelled where a test says, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.support.chat import chat
from tests.support.paced_engine import WHOLE, PacedEngine, head, pieces
from tests.support.waiting import near

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis.asyncio
    from structlog.typing import EventDict

    from gateway.patience import Deadline
    from gateway.settle.ledger_store import Group
    from gateway.storage.postgres import Connection
    from tests.support.replica_here import ReplicaHere
    from tests.support.stepping import Plan, Probe, Seen
    from tests.support.tenants import Tenant

NO_EVENT = UUID(int=0)
BURST = 1_000_000
"""What the buckets of the tenant hold when they are full; their refill is too slow to notice."""
CHAT = "/v1/chat/completions"
TURNS_STUCK = 12
"""Turns of the loop for which a client that does not read keeps a writer waiting."""
READ_S_MAX = 30.0
WAITS_FOR_OPEN = "Ledger.hold: await entry.waiter"
LARGE = "large"
"""A model whose answer fills every buffer between the gateway and a client that does not read."""
LARGE_ANSWER = [head(), *pieces(WHOLE.replace("x" * 64, "x" * 100_000))]
WHOLE_ANSWER = [head(), *pieces(WHOLE)]


@dataclass
class Scenario:
    """How a request goes when nobody cancels it. `first` and `second` are the engines' answers, in pieces."""

    name: str
    first: list[bytes]
    second: list[bytes] = field(default_factory=lambda: WHOLE_ANSWER)
    stream: bool = False
    status: str = "ok"
    """How the ledger says that it ended."""
    breaks_off: bool = False
    """The first engine's connection ends where its answer does."""
    cold: bool = False
    """No connection to an engine is kept."""
    redis_cold: bool = False
    """No connection to Redis is kept."""
    unread: bool = False
    """It comes behind another answer, which its client does not read for a while."""
    keep_alive_s: float = 10.0
    begins_after: str = ""
    """The first engine answers when the request has been suspended at a place whose source contains this."""


@dataclass
class Ended:
    """One request after its end: what was seen, its ledger row if it was admitted, and what its client got."""

    seen: Seen
    row: dict[str, Any] | None
    answer: bytes


@dataclass
class Stand:
    """A replica, its engines, and the accounts of one tenant."""

    replica: ReplicaHere
    engines: list[PacedEngine]
    probe: Probe
    tenant: Tenant
    bystander: Tenant
    postgres: Connection
    redis: redis.asyncio.Redis
    loop_faults: list[dict[str, Any]]
    log: list[EventDict]
    expiries: list[tuple[asyncio.TimerHandle, Callable[[], None]]]
    """The timers of requests' time-outs, newest last."""
    last_event: UUID = NO_EVENT

    def write_late(self) -> None:
        """From now on, the request's OPEN record is written when the request waits for it, or does so no more.

        Which is faster, Postgres or the engine, would else decide whether it waits at all.
        """
        store = self.replica.gateway.books.store
        commit = store.commit

        async def commit_late(group: Group, deadline: Deadline) -> None:
            if any(record.key_id == self.tenant.key_id for record in group.opens):
                await near(self._open_may_be_written, "the request waits for its OPEN record, or has ended")
            await commit(group, deadline)

        store.commit = commit_late  # type: ignore[method-assign] # of this one store

    def _open_may_be_written(self) -> bool:
        waits = any(WAITS_FOR_OPEN in str(place) for place in self.probe.seen.places)
        return waits or self.probe.struck or self.probe.ended() or self.probe.task is None

    # --- the ways in which a request is cancelled

    def hang_up(self) -> None:
        """The client is gone: what the loop tells the connection then, at this moment."""
        (connection,) = self.replica.connections
        connection.transport.abort()
        connection.connection_lost(None)

    def time_out(self) -> None:
        """The request's time is over."""
        timer, expire = self.expiries[-1]
        if not timer.cancelled():
            timer.cancel()
            expire()

    def shut_down(self) -> None:
        """The server ends: it cancels what still runs."""
        assert self.probe.task is not None
        self.probe.task.cancel()

    # --- one request

    async def run(self, scenario: Scenario, plan: Plan) -> Ended:
        """Send the request, cancel it as planned, and assert that nothing of it is left."""
        levels = await self._levels()
        await self._prepare(scenario)  # last, as something else may need the connections that it ends
        tasks = asyncio.all_tasks()
        seen = self.probe.arm(plan, after=1 if scenario.unread else 0)
        answer = await self._ask(scenario)
        await near(lambda: not self.replica.server.server_state.tasks, f"the request has ended ({seen})")
        self.probe.disarm()
        await self._nothing_is_left(tasks)
        self._no_complaints()
        assert not seen.strangers, f"suspended where no place was found: {seen.strangers}, answered {answer[:200]!r}"
        row = await self._row()
        await self._buckets_hold(levels, row)
        return Ended(seen, row, answer)

    async def further_request(self) -> None:
        """Assert that another one works, on whatever connections the last one left."""
        self.replica.renew_pools()
        for engine in self.engines:
            engine.answer, engine.breaks_off, engine.begins, engine.silent = WHOLE_ANSWER, False, lambda: True, bool
        answer = await self._exchange([request(self.bystander.key)], paused=False)
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    async def _prepare(self, scenario: Scenario) -> None:
        replica = self.replica
        replica.renew_pools()
        stages = replica.gateway.stages
        stages.limits = dataclasses.replace(stages.limits, keep_alive_s=scenario.keep_alive_s)
        for engine, answer in zip(self.engines, (scenario.first, scenario.second, LARGE_ANSWER), strict=True):
            engine.answer, engine.breaks_off, engine.begins = answer, False, lambda: True
            engine.silent = lambda: self.probe.struck
        self.engines[0].breaks_off = scenario.breaks_off
        if scenario.begins_after:
            self.engines[0].begins = lambda: any(scenario.begins_after in str(p) for p in self.probe.seen.places)
        if scenario.cold:
            for upstream in replica.upstreams:
                while upstream._idle:
                    upstream._idle.pop().close()
            await near(lambda: not any(engine.connections for engine in self.engines), "they are closed")
        if scenario.redis_cold:
            channels = replica.gateway.store.redis.nodes[0]._batch._channels
            for channel in channels:
                assert channel.link._transport is not None
                channel.link._transport.abort()
            await near(lambda: not channels, "the connections to Redis have ended")

    async def _ask(self, scenario: Scenario) -> bytes:
        asked = request(self.tenant.key, stream=scenario.stream)
        if not scenario.unread:
            return await self._exchange([asked], paused=False)
        return await self._exchange([request(self.bystander.key, model=LARGE, last=False), asked], paused=True)

    async def _exchange(self, requests: list[bytes], *, paused: bool) -> bytes:
        """Send requests on a connection of their own and return all that comes, up to its end.

        `paused`: nothing is read before the last of them waits for that, and little at a time from then on.
        """
        loop = asyncio.get_running_loop()
        answer = b""
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            await loop.sock_connect(client, ("127.0.0.1", self.replica.port))
            await loop.sock_sendall(client, b"".join(requests))
            if paused:
                ended = self.probe.ended
                await near(lambda: self.probe.seen.stuck or self.probe.struck or ended(), "it waits to be read")
                for _ in range(TURNS_STUCK):
                    await asyncio.sleep(0)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(READ_S_MAX):
                    while piece := await loop.sock_recv(client, 512 if paused else 65_536):
                        answer += piece
        return answer

    # --- what must be true afterwards

    async def _nothing_is_left(self, tasks: set[asyncio.Task[Any]]) -> None:
        gateway = self.replica.gateway
        own = asyncio.current_task()

        def left() -> set[asyncio.Task[Any]]:
            kept = {task for engine in self.engines for task in engine.tasks}  # one for each connection
            return asyncio.all_tasks() - tasks - kept - {own}

        await near(lambda: not self.replica.connections, "the client's connection has ended")
        await near(lambda: not any(engine.running for engine in self.engines), "no engine works any more")
        await near(self._engines_and_pools_agree, "connections are closed or kept")
        await near(lambda: gateway.books.ledger.pending == 0, "the ledger is written")
        await near(lambda: not left(), f"no task is left: {left()}")
        assert gateway.stages.in_flight == 0
        assert gateway.books.ledger._entries == 0, "a slot is still reserved"
        pools = gateway.router._pools.values()
        assert [engine.in_flight for pool in pools for engine in pool.engines] == [0] * len(self.engines)

    def _engines_and_pools_agree(self) -> bool:
        upstreams = self.replica.upstreams
        return all(upstream._open == set(upstream._idle) for upstream in upstreams) and sum(
            len(upstream._idle) for upstream in upstreams
        ) == sum(engine.connections for engine in self.engines)

    async def _row(self) -> dict[str, Any] | None:
        """Return the event of this request, which was opened once and closed once, None when it was not admitted."""
        key, last = self.tenant.key_id, self.last_event
        ask = "SELECT * FROM {} WHERE key_id = $1 AND event_id > $2"
        opened = await self.postgres.fetch(ask.format("usage_open"), key, last)
        closed = await self.postgres.fetch(ask.format("usage_event"), key, last)
        assert len(opened) <= 1
        assert [row["event_id"] for row in opened] == [row["event_id"] for row in closed]
        if not closed:
            return None
        self.last_event = closed[0]["event_id"]
        return dict(closed[0])

    async def _levels(self) -> dict[str, float]:
        keys = sorted([key async for key in self.redis.scan_iter(f"pst:{{{self.tenant.organization_id.hex}}}:b:*")])
        return {key: float(level.split()[0]) for key in keys if (level := await self.redis.get(key))}

    async def _buckets_hold(self, before: dict[str, float], row: dict[str, Any] | None) -> None:
        """Assert that what the row says was taken from the buckets, and nothing else is."""
        pattern = f"pst:{{{self.tenant.organization_id.hex}}}:r:*"
        await self.replica.gateway.store.redis.nodes[0]._batch._quiet.wait()
        held = {key: await self.redis.get(key) async for key in self.redis.scan_iter(pattern)}
        # A withdrawal is remembered for a while, as "-": what it took back may have been on its way.
        assert {key for key, taken in held.items() if taken != "-"} == set(), "a reservation is left"
        assert [key async for key in self.redis.scan_iter("pst:{*}:l:*")] == [], "a place is still taken"
        assert len(self.replica.gateway.store.leases) == 0, "a place is still renewed"
        used = {"requests": 1, "tokens": row["prompt_tokens"] + row["completion_tokens"]} if row else {}
        after = await self._levels()
        for key, level in after.items():
            (unit,) = [unit for unit in ("requests", "tokens") if unit in key]
            was = before.get(key, BURST)
            assert abs(was - level - used.get(unit, 0)) < 0.5, (key, was, level, row)

    def _no_complaints(self) -> None:
        assert self.loop_faults == []
        faults = [line for line in self.log if line["log_level"] != "info" or line.get("exc_info")]
        assert faults == []
        self.log.clear()


def request(key: str, *, model: str = "sim", stream: bool = False, last: bool = True) -> bytes:
    """Return the bytes of a chat request; the connection ends after the `last` one."""
    body = json.dumps(chat(model=model, stream=stream)).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {key}", f"content-length: {len(body)}"]
    if last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body
