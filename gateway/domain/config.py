"""What penstock.yaml says, as frozen objects: pools of engines, models, prices.

Built by `gateway.settings.load_config`, read by routing, pricing and the model list. A changed file makes a new
`GatewayConfig`; nothing here is ever modified.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.domain.sign_in import SignInConfig
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import SecretStr


class EngineKind(StrEnum):
    """Which server a pool's engines are: decides the health path, the metrics' names and the privileged fields."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMACPP = "llamacpp"
    OLLAMA = "ollama"
    OPENAI = "openai"
    LITELLM = "litellm"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream request may take, in seconds."""

    connect_s: float = 1.0
    first_byte_s: float = 300.0
    """From the request being sent to the first byte of the answer: covers the engine's queue and the prefill."""
    idle_s: float = 300.0
    """Between two chunks: long, because engines hold a tool call back until it is complete."""
    total_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an engine is probed. `path` None: never actively, only by what requests see."""

    path: str | None
    interval_s: float


_FREE = PicoUsd(0)


@dataclass(frozen=True, slots=True)
class Price:
    """Exact rates in pico-USD per token; `request_pico_usd` is per request. 0.20 USD per million tokens is 200000."""

    input_pico_usd: PicoUsd
    cached_input_pico_usd: PicoUsd
    output_pico_usd: PicoUsd
    reasoning_pico_usd: PicoUsd
    request_pico_usd: PicoUsd = _FREE


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """How much one token of each class counts for token limits: uncached input, cached input, output."""

    input: float = 1.0
    cached_input: float = 1.0
    output: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model takes from all tenants together, per minute and at once; None: no limit. A burst is a capacity."""

    requests_per_minute: int | None = None
    requests_burst: int | None = None
    tokens_per_minute: int | None = None
    tokens_burst: int | None = None
    input_tokens_per_minute: int | None = None
    input_tokens_burst: int | None = None
    output_tokens_per_minute: int | None = None
    output_tokens_burst: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What clients are told that a model can do."""

    tools: bool = True
    reasoning: bool = False
    images: bool = False


PROVIDER_ADDRESS = "litellm"
"""Stands where an endpoint does, in metrics and the ledger too, for a provider that is called at its own address."""


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Engines of one kind that serve the same models.

    `endpoints` are base addresses without a trailing slash and without a trailing `/v1`: a path such as
    `/v1/chat/completions` is appended as it is. Those of a litellm pool are `api_base` as litellm wants it, `/v1`
    included, or PROVIDER_ADDRESS alone. `concurrency` bounds the requests in flight on each engine (None: the
    engine's own queue decides). `headers` are sent with every upstream request, names in lower case.
    """

    name: str
    engine_kind: EngineKind
    endpoints: tuple[str, ...]
    concurrency: int | None = None
    api_key: SecretStr | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeouts: Timeouts = Timeouts()
    health: HealthCheck = HealthCheck(path="/health", interval_s=5.0)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model as clients name it. `upstream` is what the engine calls it; `fallbacks` are pools, in order.

    `context_tokens` bounds prompt and completion together, `output_tokens` the completion; None: not stated.
    `media_hosts` may be fetched from by engines for a prompt, beside `data:` (see `gateway.edge.images`).
    """

    name: str
    pool: str
    upstream: str
    fallbacks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    output_tokens: int | None = None
    price: Price | None = None
    weights: TokenWeights = TokenWeights()
    capabilities: Capabilities = Capabilities()
    media_hosts: tuple[str, ...] = ()
    limits: ModelLimits = ModelLimits()

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools that may serve the model, in the order in which they are tried."""
        return (self.pool, *self.fallbacks)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The whole of penstock.yaml. `by_name` finds a model by its name or by any of its aliases."""

    pools: Mapping[str, PoolConfig]
    models: Mapping[str, ModelConfig]
    by_name: Mapping[str, ModelConfig]
    secret_files: tuple[Path, ...] = ()
    """Files that credentials were read from: when one changes, the configuration is read again."""
    sign_in: SignInConfig = field(default_factory=SignInConfig)

    @classmethod
    def of(
        cls,
        pools: Iterable[PoolConfig],
        models: Iterable[ModelConfig],
        secret_files: Iterable[Path] = (),
        sign_in: SignInConfig | None = None,
    ) -> GatewayConfig:
        """Return a configuration of these pools and models, whose names and aliases must be unique."""
        by_model = {model.name: model for model in models}
        by_alias = {alias: model for model in by_model.values() for alias in model.aliases}
        return cls(
            pools=MappingProxyType({pool.name: pool for pool in pools}),
            models=MappingProxyType(by_model),
            by_name=MappingProxyType(by_alias | by_model),
            secret_files=tuple(secret_files),
            sign_in=sign_in or SignInConfig(),
        )
