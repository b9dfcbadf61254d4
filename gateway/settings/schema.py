"""The shape of penstock.yaml as pydantic models: which keys there are, their bounds and their defaults.

What one key alone can tell is checked here; what needs two places of the file (a model's pool exists, names are unique)
is checked in `gateway.settings.references`.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from gateway.domain.config import EngineKind, HealthCheck
from gateway.settings import rates
from gateway.settings.fields import FileSettings
from gateway.settings.sign_in import SignInEntry
from gateway.units import PicoUsd

ENDPOINTS_MAX = 1024
NAMES_MAX = 10_000
HEADERS_MAX = 32
MEDIA_HOSTS_MAX = 100
TOKENS_MAX = 100_000_000
TIMEOUT_S_MAX = 86_400
RATE_MAX = 10**12
CONCURRENT_REQUESTS_MAX = 1_000_000

_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_MEDIA_HOST = re.compile(r"\*|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_CREDENTIAL_HEADERS = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"})
_FRAMING_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te"}
    | {"trailer", "expect", "accept-encoding", "proxy-connection"}
)


def _pool_name(name: str) -> str:
    if not _POOL_NAME.fullmatch(name):
        raise ValueError("names of pools are 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit")
    return name


def _model_name(name: str) -> str:
    if not 1 <= len(name) <= 200 or not name.isascii() or not name.isprintable() or " " in name:
        raise ValueError("names of models are 1 to 200 printable ASCII characters without spaces")
    return name


def _env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        # Not quoted: the likeliest mistake is the credential itself in this place.
        raise ValueError("must be the name of an environment variable, not the credential itself")
    return name


def _header_name(name: str) -> str:
    lowered = name.lower()
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("is not the name of an HTTP header")
    if lowered in _CREDENTIAL_HEADERS:
        raise ValueError("is a credential: use api_key_env or api_key_file instead")
    if lowered in _FRAMING_HEADERS:
        raise ValueError("is set by the gateway itself")
    return lowered


def _header_value(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("must be printable ASCII")
    return value


def _media_host(host: str) -> str:
    lowered = host.lower()
    if not _MEDIA_HOST.fullmatch(lowered):
        raise ValueError("must be a host such as img.example.com, .example.com for all below it, or * for public ones")
    return lowered


def _endpoint(url: str) -> str:
    """Return a base address in one spelling: lower-case scheme and host, no trailing slash."""
    example = "such as http://10.0.0.5:8000"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be an address {example}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, an unclosed bracket
        raise ValueError(f"must be an address {example}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError(f"must be an http:// or https:// address {example}")
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: use api_key_env or api_key_file")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("must not hold a query or a fragment")
    if not _BASE_PATH.fullmatch(parts.path) or ".." in parts.path:
        raise ValueError("may only have a plain base path after the host")
    path = parts.path.rstrip("/")
    if path.endswith(("/completions", "/embeddings", "/models", "/messages", "/responses")):
        raise ValueError("must be the base address alone: the gateway adds /v1/chat/completions and the like")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"


def _health_path(path: str) -> str:
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError("must be a path that starts with /, such as /health")
    return path


def _engines(urls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not urls:
        raise ValueError("must not be empty")
    if info.data.get("engine") is not EngineKind.LITELLM:  # litellm appends what its provider needs, or nothing
        urls = tuple(url.removesuffix("/v1") if urlsplit(url).path.endswith("/v1") else url for url in urls)
    if len(set(urls)) < len(urls):
        raise ValueError("lists the same engine twice")
    return urls


PoolName = Annotated[str, AfterValidator(_pool_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]
EnvName = Annotated[str, AfterValidator(_env_name)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, Field(max_length=4096), AfterValidator(_header_value)]
Endpoint = Annotated[str, Field(max_length=2048), AfterValidator(_endpoint)]
MediaHost = Annotated[str, Field(max_length=253), AfterValidator(_media_host)]
TokenRate = Annotated[PicoUsd, BeforeValidator(rates.per_token)]
RequestRate = Annotated[PicoUsd, BeforeValidator(rates.per_request)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Seconds = Annotated[float, Field(ge=0.001, le=TIMEOUT_S_MAX)]
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX)]
Rate = Annotated[int, Field(ge=1, le=RATE_MAX)]


class Entry(BaseModel):
    """Base of all mappings in the file: unknown keys are errors, and no message shows a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class TimeoutsEntry(Entry):
    """`timeouts:` of a pool, in seconds; what is left out follows the process settings."""

    connect_s: Seconds | None = None
    first_byte_s: Seconds | None = None
    idle_s: Seconds | None = None
    total_s: Seconds | None = None


class HealthEntry(Entry):
    """`health:` of a pool. `path: null` turns active probes off; left out, it follows the engine kind."""

    path: Annotated[str, Field(max_length=1024), AfterValidator(_health_path)] | None = None
    interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 5.0

    def check(self, engine: EngineKind) -> HealthCheck:
        """Return how engines of this kind are probed."""
        path = self.path if "path" in self.model_fields_set else _HEALTH_PATHS[engine]
        return HealthCheck(path=path, interval_s=self.interval_s)


class PoolEntry(Entry):
    """One pool under `pools:`. Credentials are referred to, never written here.

    `endpoints` may be left out for litellm alone (see `gateway.settings.references`): its providers have addresses.
    """

    engine: EngineKind
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_MAX), AfterValidator(_engines)] = ()
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    api_key_env: EnvName | None = None
    api_key_file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=HEADERS_MAX)] = {}
    timeouts: TimeoutsEntry = TimeoutsEntry()
    health: HealthEntry = HealthEntry()


class PriceEntry(Entry):
    """`price:` of a model, read as USD per million tokens (`request`: USD per request), held as exact pico-USD.

    `cached_input` left out costs what `input` does, `reasoning` what `output` does. `input` and `output` are required,
    so that nothing is free by omission.
    """

    input: TokenRate
    cached_input: TokenRate | None = None
    output: TokenRate
    reasoning: TokenRate | None = None
    request: RequestRate = PicoUsd(0)


class WeightsEntry(Entry):
    """`weights:` of a model: how much a token of each class counts for token limits."""

    input: Weight = 1.0
    cached_input: Weight = 1.0
    output: Weight = 1.0


class LimitsEntry(Entry):
    """`limits:` of a model, over all tenants together. A burst is how much at once, by default one minute's worth."""

    requests_per_minute: Rate | None = None
    requests_burst: Rate | None = None
    tokens_per_minute: Rate | None = None
    tokens_burst: Rate | None = None
    input_tokens_per_minute: Rate | None = None
    input_tokens_burst: Rate | None = None
    output_tokens_per_minute: Rate | None = None
    output_tokens_burst: Rate | None = None
    concurrent_requests: Annotated[int, Field(ge=1, le=CONCURRENT_REQUESTS_MAX)] | None = None


class CapabilitiesEntry(Entry):
    """`capabilities:` of a model, for the model list and generated client configurations."""

    tools: bool = True
    reasoning: bool = False
    images: bool = False


class ModelEntry(Entry):
    """One model under `models:`. `context` and `output` are in tokens.

    `media_hosts` are hosts that addresses of images and other media in prompts may name; left out: `data:` alone.
    """

    pool: PoolName
    fallbacks: Annotated[tuple[PoolName, ...], Field(max_length=16)] = ()
    upstream: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=100)] = ()
    context: Tokens | None = None
    output: Tokens | None = None
    price: PriceEntry | None = None
    weights: WeightsEntry = WeightsEntry()
    limits: LimitsEntry = LimitsEntry()
    capabilities: CapabilitiesEntry = CapabilitiesEntry()
    media_hosts: Annotated[tuple[MediaHost, ...], Field(max_length=MEDIA_HOSTS_MAX)] = ()


class Document(Entry):
    """The whole file."""

    pools: Annotated[dict[PoolName, PoolEntry], Field(min_length=1, max_length=1000)]
    models: Annotated[dict[ModelName, ModelEntry], Field(min_length=1, max_length=NAMES_MAX)]
    sign_in: SignInEntry = SignInEntry()
    settings: FileSettings = FileSettings()


_HEALTH_PATHS: dict[EngineKind, str | None] = {
    EngineKind.VLLM: "/health",
    EngineKind.SGLANG: "/health",
    EngineKind.TGI: "/health",
    EngineKind.LLAMACPP: "/health",
    EngineKind.OLLAMA: "/",
    # Hosted services: a probe would cost money or need a key, so requests alone tell how they are.
    EngineKind.OPENAI: None,
    EngineKind.LITELLM: None,
}
