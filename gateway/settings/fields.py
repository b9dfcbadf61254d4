"""Process settings that may come from the environment or from `settings:` in penstock.yaml.

Every field states its unit and its bounds: the reference page of the settings is generated from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from gateway.domain.config import Timeouts
from gateway.settings.access import AccessSettings
from gateway.settings.proxies import ProxySettings
from gateway.settings.public import PublicSettings
from gateway.settings.sign_in import OidcSettings
from gateway.settings.webhooks import WebhookSettings

_DAY_S = 86_400.0
_GIB = 2**30
_TIMEOUTS = Timeouts()


def _setting(default: float, unit: str, ge: float, le: float, description: str) -> Any:
    return Field(default, ge=ge, le=le, description=description, json_schema_extra={"unit": unit})


def _port(default: int, description: str) -> Any:
    return _setting(default, "TCP port; 0 takes a free one", 0, 65_535, description)


def _seconds(default: float, description: str, *, ge: float = 0.001, le: float = _DAY_S) -> Any:
    return _setting(default, "seconds", ge, le, description)


def _ms(default: float, description: str, *, ge: float = 1, le: float = 60_000) -> Any:
    return _setting(default, "milliseconds", ge, le, description)


def _count(default: int, unit: str, description: str, *, ge: int = 1, le: int = 10_000_000) -> Any:
    return _setting(default, unit, ge, le, description)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class FileSettings(AccessSettings, OidcSettings, ProxySettings, PublicSettings, WebhookSettings):
    """Settings that are no secrets. Seconds and milliseconds are floats, sizes are whole bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = _port(8080, "Port that the gateway listens on.")
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="Address that the metrics are served on."
    )
    metrics_port: int = _port(9464, "Port that the metrics are served on, apart from the gateway's own.")

    body_bytes_max: int = _count(
        32 * 2**20,
        "bytes",
        "Largest request body; a larger one is answered with 413. Coding agents send long contexts and images.",
        ge=1024,
        le=_GIB,
    )
    header_bytes_max: int = _count(
        32 * 1024, "bytes", "Request line and headers of a request together.", ge=1024, le=2**20
    )
    header_timeout_s: float = _seconds(10, "Within which a request's headers must have arrived.")
    body_timeout_s: float = _seconds(60, "Within which a request's body must have arrived.")
    keep_alive_timeout_s: float = _seconds(
        75, "How long an idle connection stays open; longer than the load balancer in front keeps its own (often 60)."
    )
    stream_keep_alive_s: float = _seconds(
        10, "How often a stream that waits for its first token sends a sign of life, so that no proxy cuts it."
    )
    connections_max: int = _count(8192, "connections", "Client connections open at once.", le=1_000_000)
    requests_in_flight_max: int = _count(
        4096, "requests", "Requests being served at once; above it a request gets 503 at once.", le=1_000_000
    )
    drain_timeout_s: float = _seconds(
        880,
        "How long running streams may finish after SIGTERM: the pod's grace period (15 minutes) less 20 seconds.",
        ge=0,
    )

    redis_timeout_ms: float = _ms(50, "How long one answer of Redis is awaited before limits are enforced locally.")
    redis_away_policy: Literal["local", "deny", "allow"] = Field(
        default="local",
        description=(
            "What limits do while Redis is away: `local` (each replica enforces its share), "
            "`deny` (refuse requests that have limits), `allow` (enforce nothing)."
        ),
    )

    key_lookup_timeout_ms: float = _ms(
        100,
        "How long a key that is known, and due to be verified again, waits for Postgres before it is served as it was.",
    )
    key_first_lookup_timeout_ms: float = _ms(
        1000, "How long a key that this replica does not know waits for Postgres before 503."
    )
    key_cache_ttl_s: float = _seconds(60, "How long a verified key is trusted without asking Postgres again.")
    key_cache_negative_ttl_s: float = _seconds(5, "How long an unknown key stays refused without asking Postgres.")
    key_stale_max_s: float = _seconds(
        900, "How long after its last verification a key is still served while Postgres is away.", ge=0
    )
    key_cache_entries_max: int = _count(100_000, "keys", "Keys remembered by one replica.")

    ledger_group_commit_ms: float = _ms(5, "How long ledger records are gathered before one commit.", ge=0, le=1000)
    ledger_open_hold_ms: float = _ms(
        80,
        "How long Postgres may take to commit a group of ledger records before they go to the spool: what the first "
        "byte to a client waits for, once, when Postgres hangs.",
        ge=0,
    )
    ledger_pending_events_max: int = _count(
        100_000,
        "events",
        "Ledger events in memory: requests being served, and records not yet in Postgres or in the spool. When full, "
        "new requests get 503.",
    )
    spool_dir: Path = Field(
        default=Path(".penstock/spool"),
        description=(
            "Folder for ledger records that Postgres does not take now, made where it is missing. Replicas may share "
            "it: each has a folder of its own in it, and drains those of replicas that have ended. On an `emptyDir` it "
            "survives kill -9 and a container's restart, on a persistent volume the loss of the pod, too."
        ),
    )
    spool_bytes_max: int = _count(
        _GIB,
        "bytes",
        "Size of one replica's spool, about 400 bytes an event. When it is full while Postgres is away, new requests "
        "get 503.",
        ge=4096,
        le=512 * _GIB,
    )

    leader_silence_max_s: float = _seconds(
        10,
        "How long the one replica that has the duties of one alone may be silent before another takes them over.",
        ge=1,
        le=300,
    )
    checkpoint_interval_s: float = _seconds(
        5,
        "How often a replica writes down what its requests have used so far: what is known of them if it dies.",
        ge=0.1,
        le=60,
    )
    reaper_patience_s: float = _seconds(
        60,
        "How long a replica must be silent before another closes its events, with what is known of their use.",
        ge=3,
        le=3600,
    )

    open_retention_days: int = _count(
        7, "days", "How long OPEN records of closed requests are kept; what is not closed stays.", ge=2, le=36_500
    )
    ledger_retention_days: int = _count(
        0,
        "days; 0: for ever",
        "How long events and adjustments are kept, at least 2 days. Sums of whole hours and days outlive them.",
        ge=0,
        le=36_500,
    )
    rollup_hours_retention_days: int = _count(
        0,
        "days; 0: for ever",
        "How long sums by the hour are kept, at least 2 days. Sums of whole days are kept for ever.",
        ge=0,
        le=36_500,
    )
    statement_close_after_h: int = _count(
        24,
        "hours",
        "How long after the end of a month (UTC) the leader closes its statements; what comes later is in the next.",
        ge=1,
        le=480,
    )
    reconcile_interval_s: float = _seconds(
        3600,
        "How often the leader holds the ledger against rollups, replicas and engines; see `penstock ledger verify`.",
        ge=1,
    )
    billing_interval_s: float = _seconds(
        15, "How often a replica reads the billing series of the metrics from the ledger.", ge=0.1, le=3600
    )

    connect_timeout_s: float = _seconds(
        _TIMEOUTS.connect_s, "Connecting to an engine. A pool may set its own (`timeouts.connect_s`)."
    )
    first_byte_timeout_s: float = _seconds(
        _TIMEOUTS.first_byte_s,
        "From sending a request to the first byte of the engine's answer. A pool may set its own "
        "(`timeouts.first_byte_s`).",
    )
    idle_timeout_s: float = _seconds(
        _TIMEOUTS.idle_s,
        "Between two chunks of an engine's answer; engines hold tool calls back. A pool may set its own "
        "(`timeouts.idle_s`).",
    )
    total_timeout_s: float = _seconds(
        _TIMEOUTS.total_s, "A whole request, queueing included. A pool may set its own (`timeouts.total_s`)."
    )

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="Least severe log line that is written."
    )
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = Field(
        default="json", description="One JSON object a line, or lines for people."
    )

    @field_validator("ledger_retention_days", "rollup_hours_retention_days")
    @classmethod
    def _no_single_day(cls, days: int) -> int:
        """Refuse what could drop records of requests that still run."""
        if days == 1:
            raise ValueError("must be 0, which is for ever, or at least 2")
        return days

    @property
    def timeouts(self) -> Timeouts:
        """Upstream timeouts for pools that set none of their own."""
        return Timeouts(
            connect_s=self.connect_timeout_s,
            first_byte_s=self.first_byte_timeout_s,
            idle_s=self.idle_timeout_s,
            total_s=self.total_timeout_s,
        )
