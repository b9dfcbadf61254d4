"""Redis as operators run it: a cluster, a primary that sentinels watch over; real processes, up in a second or two.

Every server has the loopback address and a port of its own; a fault is made by the process, as elsewhere.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import redis
import redis.cluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from gateway.dev.children import Child, ChildSpec, RunningServer
from gateway.dev.children import wait_until as started
from gateway.dev.files import LOOPBACK, free_port, new_password, write_private, write_private_json
from gateway.dev.redis import STATE_FILE, find_program, start_redis
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BUS_OFFSET = 10_000
"""How far above its own port a node of a cluster has its second one."""

DOWN_AFTER_MS = 500
START_S_MAX = 20.0
FAILOVER_S_MAX = 20.0
_CLUSTER = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "1000",
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
}
_REPLICA = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}


@dataclass(frozen=True)
class RedisCluster:
    """A running cluster: the address for a gateway, its primaries in the order of their slots, and their replicas."""

    address: str
    primaries: Sequence[RunningServer]
    replicas: Sequence[RunningServer]
    settings: Mapping[str, str]
    """Which a node is started again with."""

    def index_of(self, key: str) -> int:
        """Return which of the primaries had a key at the start."""
        return key_slot(key.encode()) * len(self.primaries) // SLOTS

    def move(self, key: str, to: int, *, leave: str | None = None, finish: bool = True) -> None:
        """Move the slot of a key, and the keys there but `leave`, to another primary; unless `finish`, half of it."""
        slot = key_slot(key.encode())
        with client_of(self.primaries[self.index_of(key)]) as source, client_of(self.primaries[to]) as target:
            ids = [each.execute_command("CLUSTER", "MYID").decode() for each in (source, target)]
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            parts = urlsplit(self.primaries[to].address)
            for each in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
                if each.decode() != leave:
                    source.execute_command("MIGRATE", LOOPBACK, parts.port, each, 0, 1_000, "AUTH", parts.password)
            if finish:
                for client in (target, source):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


@dataclass(frozen=True)
class RedisGuarded:
    """A primary and a replica, and the sentinels that know which is which."""

    address: str
    primary: RunningServer
    replica: RunningServer
    sentinels: Sequence[Child]


def redis_nodes(url: str) -> list[str]:
    """Return the URLs of all servers that keys of `url` are on."""
    parts = urlsplit(url.partition(",")[0])
    if "cluster" not in parts.scheme:
        return [url]
    with looking(url) as client:
        nodes = cast("Any", client).get_primaries()
        places = [(node.host, node.port) for node in nodes]
    return [f"redis://:{parts.password}@{host}:{port}/0" for host, port in places]


def looking(url: str, *, decode_responses: bool = False) -> redis.Redis:
    """Return a client to look into the Redis at `url` with, a cluster too."""
    parts = urlsplit(url.partition(",")[0])
    if "cluster" not in parts.scheme:
        return redis.Redis.from_url(url, decode_responses=decode_responses)
    cluster = redis.cluster.RedisCluster(
        host=str(parts.hostname), port=int(parts.port or 0), password=parts.password, decode_responses=decode_responses
    )
    return cast("redis.Redis", cluster)  # which has the same commands


def client_of(server: RunningServer) -> redis.Redis:
    """Return a client of one server."""
    return redis.Redis.from_url(server.address, socket_timeout=START_S_MAX)


@contextmanager
def running_cluster(primaries: int = 3, *, replicas: int = 0) -> Iterator[RedisCluster]:
    """Yield a cluster whose slots are shared out evenly; the first `replicas` primaries have a replica each."""
    with ExitStack() as stack:
        folder, password = _folder(stack), new_password()
        settings = {**_CLUSTER, "masterauth": password}
        servers = [
            _start(stack, folder / f"node-{number}", password, settings, bus=True)
            for number in range(primaries + replicas)
        ]
        clients = [stack.enter_context(client_of(server)) for server in servers]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", LOOPBACK, urlsplit(servers[0].address).port)
        for number, client in enumerate(clients[:primaries]):
            first, last = -(-number * SLOTS // primaries), -(-(number + 1) * SLOTS // primaries)
            client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
        for client in clients:
            wait_for(partial(_knows, client, len(clients)), "the nodes know each other", START_S_MAX)
        for number, client in enumerate(clients[primaries:]):
            client.execute_command("CLUSTER", "REPLICATE", clients[number].execute_command("CLUSTER", "MYID"))
            wait_for(partial(_replicates, client), "a replica is in step", START_S_MAX)
        places = [urlsplit(server.address).netloc.rpartition("@")[2] for server in servers]
        address = f"redis+cluster://:{password}@{','.join(places)}"
        yield RedisCluster(address, servers[:primaries], servers[primaries:], settings)


@contextmanager
def guarded_redis(sentinels: int = 3) -> Iterator[RedisGuarded]:
    """Yield a primary with a replica, watched by sentinels that replace it after DOWN_AFTER_MS of silence."""
    with ExitStack() as stack:
        folder, password = _folder(stack), new_password()
        settings = {**_REPLICA, "masterauth": password}
        primary, replica = (_start(stack, folder / name, password, settings) for name in ("primary", "replica"))
        port = urlsplit(primary.address).port
        with client_of(replica) as client:
            client.replicaof(LOOPBACK, port)
            wait_for(partial(_replicates, client), "the replica is in step", START_S_MAX)
        watching = []
        ports: list[int] = []
        for number in range(sentinels):
            (home := folder / f"sentinel-{number}").mkdir()
            ports.append(free_port())
            lines = (
                f"port {ports[-1]}\nbind {LOOPBACK}\ndir {home}\n"
                f"sentinel monitor mymaster {LOOPBACK} {port} {sentinels // 2 + 1}\n"
                f"sentinel auth-pass mymaster {password}\n"
                f"sentinel down-after-milliseconds mymaster {DOWN_AFTER_MS}\n"
                "sentinel failover-timeout mymaster 3000\n"
            )
            write_private(home / "sentinel.conf", lines)
            argv = (str(find_program()), str(home / "sentinel.conf"), "--sentinel")
            spec = ChildSpec("redis-sentinel", argv, log=home / "log", cwd=home, stop_grace_s=START_S_MAX)
            watching.append(stack.enter_context(Child(spec)))
        for child, each in zip(watching, ports, strict=True):
            assert started(partial(_watches, each, sentinels), child, START_S_MAX), child.log_tail()
        hosts = ",".join(f"{LOOPBACK}:{each}" for each in ports)
        yield RedisGuarded(f"redis+sentinel://:{password}@{hosts}/mymaster/0", primary, replica, watching)


def kill(server: RunningServer) -> None:
    """End a server as a lost machine does, at once."""
    server.child.signal(signal.SIGKILL)
    server.child.wait(START_S_MAX)


def _folder(stack: ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _start(
    stack: ExitStack, folder: Path, password: str, settings: dict[str, str], *, bus: bool = False
) -> RunningServer:
    folder.mkdir()
    port = free_port()
    while bus and free_port(port + BUS_OFFSET) != port + BUS_OFFSET:
        port = free_port()
    write_private_json(folder / STATE_FILE, {"password": password, "port": port})
    server = start_redis(folder, folder / "logs", settings)
    stack.enter_context(server.child)
    return server


def _knows(client: redis.Redis, nodes: int) -> bool:
    info = cast("Any", client).execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes


def _replicates(client: redis.Redis) -> bool:
    info = cast("dict[str, str]", client.info("replication"))
    return info["role"] == "slave" and info["master_link_status"] == "up"


def _watches(port: int, sentinels: int) -> bool:
    with redis.Redis(LOOPBACK, port, socket_timeout=1) as client:
        try:
            state = client.sentinel_master("mymaster")
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False
        return bool(state["num-other-sentinels"] == sentinels - 1 and state["num-slaves"] == 1)
