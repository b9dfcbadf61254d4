"""What an engine of a given kind takes: its endpoints, credentials, and the fields that are the gateway's own.

Privileged engine fields let a caller jump the queue, reach what belongs to another tenant (caches, sessions, adapters),
bring code along, or use more than is reserved and priced: they are dropped from what clients send, for every kind that
knows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import __version__
from gateway.domain.call import Endpoint
from gateway.domain.config import EngineKind, PoolConfig

if TYPE_CHECKING:
    from gateway.domain.call import Fields

_PRIVILEGED: dict[EngineKind, frozenset[str]] = {
    # vllm_xargs: what a plugin of the engine reads, and kv_transfer_params once more.
    EngineKind.VLLM: frozenset(
        {"priority", "cache_salt", "request_id", "session_id"}
        | {"kv_transfer_params", "ec_transfer_params", "vllm_xargs"}
    ),
    # custom_logit_processor is code; lora_path loads what it names; extra_key is a cache_salt.
    EngineKind.SGLANG: frozenset(
        {"priority", "cache_salt", "extra_key", "rid", "session_id", "session_params", "lora_path", "ngram_corpus_id"}
        | {"bootstrap_host", "bootstrap_port", "bootstrap_room", "custom_logit_processor"}
        | {"data_parallel_rank", "routed_dp_rank", "decode_dp_rank", "disagg_prefill_dp_rank"}
    ),
    # A slot holds the cache of whoever used it last, and waits for whoever uses it now; n_cmpl is another `n`.
    EngineKind.LLAMACPP: frozenset({"id_slot", "slot_id", "lora", "n_cmpl"}),
    EngineKind.OPENAI: frozenset({"service_tier"}),
    EngineKind.LITELLM: frozenset({"service_tier"}),
}
_NONE: frozenset[str] = frozenset()

_ANTHROPIC = frozenset({Endpoint.MESSAGES, Endpoint.COUNT_TOKENS})
_NEWER = _ANTHROPIC | {Endpoint.RESPONSES}
"""Endpoints that not all kinds have; what OpenAI's interface had from the start is taken to be everywhere."""
_LACKING: dict[EngineKind, frozenset[Endpoint]] = {
    EngineKind.TGI: _NEWER,
    EngineKind.OLLAMA: frozenset({Endpoint.COUNT_TOKENS}),
    EngineKind.OPENAI: _ANTHROPIC,
    EngineKind.LITELLM: _NEWER,
}


def serves(kind: EngineKind, endpoint: Endpoint) -> bool:
    """Return whether engines of this kind have this endpoint."""
    return kind not in _LACKING or endpoint not in _LACKING[kind]


def request_headers(pool: PoolConfig) -> bytes:
    """Return the header lines of every request to this pool; made once, since credentials are read with the file."""
    lines = [
        "content-type: application/json",
        "accept-encoding: identity",
        f"user-agent: penstock/{__version__}",
    ]
    if pool.api_key is not None:
        lines.append(f"authorization: Bearer {pool.api_key.get_secret_value()}")
    lines.extend(f"{name}: {value}" for name, value in pool.headers.items())
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def drop_privileged(fields: Fields, kind: EngineKind) -> None:
    """Remove, in place, the fields of a body that only the gateway may set on engines of this kind."""
    for name in _PRIVILEGED.get(kind, _NONE) & fields.keys():
        del fields[name]
