"""What a request to an engine looks like: the pool's credentials, and nothing that only the gateway may set."""

from __future__ import annotations

import msgspec
import pytest
from pydantic import SecretStr

from gateway import __version__
from gateway.domain.config import EngineKind, PoolConfig
from gateway.providers.dialect import drop_privileged, request_headers


def test_headers_are_made_once_for_a_pool() -> None:
    pool = PoolConfig("p", EngineKind.OPENAI, (), api_key=SecretStr("s3cret"), headers={"x-tenant": "caf\xe9"})
    assert (
        request_headers(pool)
        == (
            b"content-type: application/json\r\naccept-encoding: identity\r\nuser-agent: penstock/%b\r\n"
            b"authorization: Bearer s3cret\r\nx-tenant: caf\xe9\r\n"
        )
        % __version__.encode()
    )


def test_without_a_credential_none_is_sent() -> None:
    assert b"authorization" not in request_headers(PoolConfig("p", EngineKind.VLLM, ()))


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (EngineKind.VLLM, {"model", "seed", "rid"}),
        (EngineKind.SGLANG, {"model", "seed", "kv_transfer_params", "request_id"}),
        (EngineKind.OPENAI, {"model", "seed", "priority", "cache_salt", "rid", "kv_transfer_params", "request_id"}),
    ],
)
def test_fields_that_jump_the_queue_or_share_a_cache_are_dropped(kind: EngineKind, kept: set[str]) -> None:
    names = ("model", "seed", "priority", "cache_salt", "rid", "kv_transfer_params", "request_id")
    fields = {name: msgspec.Raw(b"1") for name in names}
    drop_privileged(fields, kind)
    assert fields.keys() == kept
