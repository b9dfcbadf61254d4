"""What a Redis says of itself at the start, held against what limits need of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from gateway.errors import reason_of
from gateway.patience import Deadline

if TYPE_CHECKING:
    from redis.asyncio import Redis

VERSION_MIN = (6, 2)
CHECK_S = 1.0

_log = structlog.get_logger("penstock.storage")


async def evicts_nothing(client: Redis, *, name: str = "", in_cluster: bool = False) -> bool | None:
    """Whether a server runs with `maxmemory-policy noeviction`; None when it does not say, within CHECK_S.

    Any other policy may drop buckets, which hands out full ones. What is wrong is logged: that, a version below
    VERSION_MIN, and a node of a cluster whose address is not a cluster's.
    """
    which = {"node": name} if name else {}
    try:
        async with Deadline(CHECK_S):
            info = await client.info()
    except (RedisError, OSError, TimeoutError) as error:
        advice = "see that Redis answers, and that its user may run INFO"
        _log.warning("redis_unchecked", reason=reason_of(error), advice=advice, **which)
        return None
    version = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if version and (int(version[1]), int(version[2])) < VERSION_MIN:
        _log.error("redis_too_old", version=version[0], advice="use Redis 6.2 or newer, or Valkey", **which)
    if bool(info.get("cluster_enabled")) is not in_cluster:
        begin = "redis:// or rediss://" if in_cluster else "redis+cluster:// or rediss+cluster://"
        _log.error("redis_address_misleads", advice=f"PENSTOCK_REDIS_URL must begin with {begin}", **which)
    policy = info.get("maxmemory_policy")
    if policy is None:
        _log.warning("redis_unchecked", reason="it does not tell its maxmemory-policy", **which)
        return None
    if policy != "noeviction":
        advice = "set maxmemory-policy to noeviction: limits live in Redis"
        _log.error("redis_evicts", policy=policy, advice=advice, **which)
    return bool(policy == "noeviction")
