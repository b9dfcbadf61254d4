"""Pools, models and calls for tests of routing, and a clock that stands still until it is moved."""

from __future__ import annotations

from gateway.domain.call import Call, Endpoint
from gateway.domain.config import EngineKind, GatewayConfig, HealthCheck, ModelConfig, PoolConfig
from gateway.units import new_event_id

NEVER_PROBED = HealthCheck(path=None, interval_s=1.0)


def pool(name: str, *ports: int, concurrency: int | None = None, health: HealthCheck = NEVER_PROBED) -> PoolConfig:
    """Return a pool of engines at these ports, which nobody listens on."""
    endpoints = tuple(f"http://127.0.0.1:{port}" for port in ports)
    return PoolConfig(name, EngineKind.VLLM, endpoints, concurrency=concurrency, health=health)


def model(name: str, *pools: str) -> ModelConfig:
    """Return a model that these pools serve, in this order."""
    return ModelConfig(name=name, pool=pools[0], upstream=f"upstream-{name}", fallbacks=pools[1:])


def config(*pools: PoolConfig) -> GatewayConfig:
    """Return a configuration with these pools; what models there are does not matter to routing."""
    return GatewayConfig.of(pools, [])


def call(of: ModelConfig) -> Call:
    """Return a call for a model."""
    return Call(
        event_id=new_event_id(),
        endpoint=Endpoint.CHAT_COMPLETIONS,
        requested_model=of.name,
        model=of,
        fields={},
        body=b"",
        stream=False,
        usage_wanted=False,
        output_max=None,
        choices=1,
        session=None,
        started_s=0.0,
    )
