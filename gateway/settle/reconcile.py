"""All accounts held against each other, and those that differ once more: what is in motion comes to rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.settle.drift import Findings
from gateway.settle.verify_engines import verify_engines
from gateway.settle.verify_ledger import verify_closes, verify_rollups
from gateway.settle.verify_replicas import verify_replicas

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Awaitable, Callable

    from gateway.domain.config import GatewayConfig
    from gateway.storage.postgres import Connection, PoolProxy

REST_S_MAX = 15.0
"""How long accounts that differ are looked at again: longer than two checkpoints of a replica are apart."""

LOOK_S = 1.0


async def reconcile(
    connection: Connection | PoolProxy,
    since: dt.datetime,
    until: dt.datetime,
    config: GatewayConfig | None,
    *,
    new_baseline: bool = False,
    rest_s_max: float = REST_S_MAX,
) -> Findings:
    """Compare all there is: openings with ends and rollups with the ledger of a time, replicas and engines as they are.

    Args:
        connection: outside any transaction.
        since: of requests, by when they were opened.
        until: likewise, not including it.
        config: whose engines are read; None: no engines.
        new_baseline: take what the engines count now as right.
        rest_s_max: how long to look again at what differs, in seconds.

    Raises what asyncpg raises when Postgres is away.
    """
    checks: list[Callable[[], Awaitable[Findings]]] = [
        lambda: verify_closes(connection, since, until),
        lambda: verify_rollups(connection, since, until),
        lambda: verify_replicas(connection),
    ]
    if config is not None:
        checks.append(lambda: verify_engines(connection, config, new_baseline=new_baseline))
    deadline_s = asyncio.get_running_loop().time() + rest_s_max
    done = Findings()
    while True:
        differ = []
        for check in checks:
            found = await check()
            if found.drifts and asyncio.get_running_loop().time() < deadline_s:
                differ.append(check)
            else:
                done.add(found)
        if not differ:
            return done
        checks = differ
        await asyncio.sleep(LOOK_S)
