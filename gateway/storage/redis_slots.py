"""What a node of a Redis Cluster is asked beside scripts: which node has which slots, and keys that are moving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.storage.redis_link import Command

Place: TypeAlias = "tuple[str, int]"
SlotMap: TypeAlias = "list[tuple[int, int, Place]]"
"""First and last slot of a range, and where its primary is."""

_UNKNOWN = ("", "?")
"""A node that has not been told how it is called: it is where it was asked."""

ASK_ERRORS = (RedisError, OSError, TimeoutError, ValueError)
"""What asking may fail with; ValueError for an answer that is none."""


async def read_slots(client: Redis, asked: Place) -> SlotMap:
    """Return which primary has which slots, as the node at `asked` knows it; empty where it knows none."""
    answer = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call] # untyped there
    slots: SlotMap = []
    try:
        for first, last, (host, port, *_), *_ in answer:
            known = host.decode() if host else ""
            slots.append((int(first), int(last), (asked[0] if known in _UNKNOWN else known, int(port))))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"CLUSTER SLOTS was answered with something else: {error}") from None
    return [(first, last, place) for first, last, place in slots if 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS]


async def run_asking(client: Redis, script: tuple[str, str], arguments: Command) -> Any:
    """Run a script, given by source and SHA-1, on the node that is just getting its keys."""
    source, sha1 = script
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.script_load(source)
        pipeline.execute_command("ASKING")
        pipeline.execute_command("EVALSHA", sha1, *arguments)
        return (await pipeline.execute())[2]
