"""/livez, /readyz and /health, for Kubernetes and load balancers; none of them waits for anything.

Readiness is about this replica: it stays ready when Postgres or Redis blink, since cached keys are served then and
taking every replica out would turn a blink into an outage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.edge.asgi import send_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from gateway.edge.asgi import Receive, Scope, Send


class Liveness:
    """200 while the event loop turns."""

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        await send_json(send, 200, b'{"status":"alive"}', [])


class Readiness:
    """200 while the replica takes requests, 503 before it does and from the moment it drains."""

    def __init__(self, draining: Callable[[], bool], parts: Callable[[], dict[str, str]]) -> None:
        self._draining = draining
        self._parts = parts

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        draining = self._draining()
        body = msgspec.json.encode({"status": "draining" if draining else "ready", **self._parts()})
        await send_json(send, 503 if draining else 200, body, [(b"cache-control", b"no-store")])
