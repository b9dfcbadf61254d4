"""The stages of the path, as the endpoints hold them; put together by `gateway.app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.domain.addresses import TrustedProxies
from gateway.edge.identity import token_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from gateway.admit.admitter import Admitter
    from gateway.authenticate.authenticator import Authenticator
    from gateway.domain.call import Call
    from gateway.domain.config import GatewayConfig
    from gateway.edge.live import LiveRequest
    from gateway.observe.metrics import Metrics
    from gateway.relay.relay import Relay
    from gateway.route.router import Router
    from gateway.settings import Settings
    from gateway.settle.ledger import Ledger
    from gateway.settle.settler import Settler


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bounds of the edge; see the settings of the same names."""

    body_bytes_max: int
    body_timeout_s: float
    requests_in_flight_max: int
    keep_alive_s: float

    @classmethod
    def of(cls, settings: Settings) -> EdgeLimits:
        """Return those that were set."""
        return cls(
            body_bytes_max=settings.body_bytes_max,
            body_timeout_s=settings.body_timeout_s,
            requests_in_flight_max=settings.requests_in_flight_max,
            keep_alive_s=settings.stream_keep_alive_s,
        )


@dataclass(slots=True)
class Stages:
    """What a request meets on its way. `config` is replaced whole when penstock.yaml changes."""

    authenticator: Authenticator
    admitter: Admitter
    router: Router
    relay: Relay
    ledger: Ledger
    settler: Settler
    metrics: Metrics
    limits: EdgeLimits
    config: GatewayConfig
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    token_of: Callable[[dict[bytes, bytes]], str] = token_of
    """Returns the token that a request shows, by its headers; without keys, the one that it is taken to show."""
    draining: bool = False
    live: dict[UUID, LiveRequest] = field(default_factory=dict)
    """Admitted requests that are being served, by event id, oldest first."""

    @property
    def in_flight(self) -> int:
        """How many requests are being served."""
        return len(self.live)

    def total_s(self, call: Call) -> float:
        """Return how long a call may take in all: the longest of its pools' bounds."""
        return max(self.config.pools[name].timeouts.total_s for name in call.model.pools)
