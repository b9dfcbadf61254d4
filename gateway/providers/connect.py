"""Which connection an engine gets: bytes over HTTP, or litellm where a dialect must be translated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.config import EngineKind
from gateway.providers.http_client import HttpUpstream
from gateway.providers.litellm_connection import LitellmConnection

if TYPE_CHECKING:
    from gateway.domain.config import PoolConfig
    from gateway.domain.upstream import UpstreamConnection


def connect(pool: PoolConfig, endpoint: str) -> UpstreamConnection:
    """Return the connection to one endpoint of a pool; that of a litellm pool needs a running event loop."""
    if pool.engine_kind is EngineKind.LITELLM:
        return LitellmConnection(pool, endpoint)
    return HttpUpstream(endpoint, connect_s=pool.timeouts.connect_s)
