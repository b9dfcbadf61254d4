"""What people and their clients fetch to begin: OpenCode's two addresses, and the setup page.

All of it speaks of the gateway by its public address from the settings, never by the Host header, which whoever sends
the request may choose.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from gateway.edge.opencode import CONFIG, SETUP, WELL_KNOWN, Home, RemoteConfig, WellKnown
from gateway.edge.opencode_config import Provider
from gateway.edge.setup import Guide, Setup

if TYPE_CHECKING:
    from gateway.domain.config import Price
    from gateway.edge.asgi import Scope
    from gateway.edge.stages import Stages
    from gateway.edge.surface import Handler
    from gateway.settings import Settings
    from gateway.settle.price import PriceTable

_LOOPBACK = "127.0.0.1"

_log = structlog.get_logger("penstock.edge")


def onboarding(settings: Settings, stages: Stages, prices: PriceTable) -> dict[str, Handler]:
    """Return what answers GET at these addresses, and say in the log when nobody elsewhere could use the answers.

    Args:
        settings: the public address, what OpenCode is told, and how people get a key, if they need one.
        stages: whose models and keys are asked.
        prices: what the models cost now.
    """
    known = settings.public_url or (f"http://{_LOOPBACK}:{settings.port}" if settings.port else None)
    if settings.public_url is None and not _is_loopback(settings.host):
        _log.warning("public_url_not_set", told=known, hint="set PENSTOCK_PUBLIC_URL to the address that clients use")
    signs_in, needs_key = settings.oidc_issuer is not None, settings.auth == "keys"
    provider = Provider(
        url=known or "",
        id=settings.opencode_provider_id,
        name=settings.opencode_provider_name,
        model=settings.opencode_model,
        small_model=settings.opencode_small_model,
        only=settings.opencode_only,
    )

    def address(scope: Scope) -> str:
        # With port 0 the port is known once it is bound: where the connection came in.
        return known or f"http://{_LOOPBACK}:{scope['server'][1]}"

    def guide(scope: Scope) -> Guide:
        return Guide(address(scope), provider.name, provider.id, signs_in, needs_key)

    def price(model: str) -> Price | None:
        effective = prices.current(model)
        return None if effective is None else effective.price

    # Made now where that can be, so that no request waits for it.
    first = None if known is None else Guide(known, provider.name, provider.id, signs_in, needs_key)
    well_known = WellKnown(address, signs_in=signs_in, needs_key=needs_key)
    return {
        "/": Home(well_known),
        WELL_KNOWN: well_known,
        CONFIG: RemoteConfig(stages, lambda scope: replace(provider, url=address(scope)), price),
        SETUP: Setup.page(guide, first),
        f"{SETUP}.md": Setup.text(guide, first),
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
