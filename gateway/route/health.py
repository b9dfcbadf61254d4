"""Probes the engines of all pools, each at its pool's interval, so that a dead one is known before a request is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from gateway.domain.upstream import UpstreamRequest
from gateway.errors import GatewayError, UpstreamStale, reason_of

if TYPE_CHECKING:
    from gateway.route.engine import Engine

PROBE_S_MAX = 2.0
PROBES_TO_FAIL = 2
PROBE_BYTES_MAX = 64 * 1024

_log = structlog.get_logger("penstock.health")


async def watch(engine: Engine) -> None:
    """Probe one engine until cancelled: two misses in a row take it out, one answer brings it back."""
    health = engine.pool.health
    if health.path is None:
        return
    request = UpstreamRequest(b"GET", health.path, engine.headers, b"", PROBE_S_MAX, PROBE_S_MAX)
    missed = 0
    while True:
        healthy, reason = await _probe(engine, request)
        missed = 0 if healthy else missed + 1
        if healthy != engine.up and (healthy or missed >= PROBES_TO_FAIL):
            engine.probed(healthy=healthy)
            _log.warning("engine_up" if healthy else "engine_down", engine=engine.endpoint, reason=reason)
        # A first miss is checked again soon: waiting a whole interval would send requests into it meanwhile.
        await asyncio.sleep(min(health.interval_s, 0.5) if 0 < missed < PROBES_TO_FAIL else health.interval_s)


async def _probe(engine: Engine, request: UpstreamRequest) -> tuple[bool, str]:
    try:
        try:
            response = await engine.connection.send(request)
        except UpstreamStale:  # that its kept connections have ended says nothing of the engine
            response = await engine.connection.send(request)
    except GatewayError as error:
        return False, error.message
    try:
        size = 0
        async with asyncio.timeout(PROBE_S_MAX):
            while piece := await response.read():
                size += len(piece)
                if size > PROBE_BYTES_MAX:
                    break
    except (GatewayError, TimeoutError) as error:
        return False, reason_of(error)
    finally:
        response.abort()
    return response.status < 400, f"status {response.status}"
