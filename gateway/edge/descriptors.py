"""How many files a replica may have open: each client, and each engine that works for one, is one.

A process begins with the soft limit, which is often 1,024 and meant for programs that use `select`; it may raise it to
the hard limit by itself. Without descriptors nobody is accepted, and nobody is told why.
"""

from __future__ import annotations

import resource

import structlog

SPARE = 512
"""For Postgres, Redis, probes, metrics, logs and libraries."""

_log = structlog.get_logger("penstock.edge")


def allow_descriptors(connections: int, requests: int) -> None:
    """Raise the process's soft limit to what so many clients need, and say so when the hard limit is lower.

    Args:
        connections: clients at once.
        requests: requests at once, each of which may have a connection to an engine.
    """
    wanted = connections + requests + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("too_few_descriptors", allowed=allowed, wanted=wanted, connections_max=connections)
