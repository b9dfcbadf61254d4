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


OF_VLLM = {"priority", "cache_salt", "request_id", "kv_transfer_params", "ec_transfer_params", "vllm_xargs"}
OF_SGLANG = {"rid", "extra_key", "session_params", "lora_path", "custom_logit_processor", "bootstrap_host"} | {
    "data_parallel_rank",
    "routed_dp_rank",
    "decode_dp_rank",
    "disagg_prefill_dp_rank",
}
OF_LLAMACPP = {"id_slot", "lora", "n_cmpl"}
OF_PROVIDERS = {"service_tier"}
ORDINARY = {"model", "messages", "seed", "n", "top_k", "stop", "logit_bias", "chat_template_kwargs"}


@pytest.mark.parametrize(
    ("kind", "dropped"),
    [
        (EngineKind.VLLM, OF_VLLM | {"session_id"}),
        (EngineKind.SGLANG, OF_SGLANG | {"priority", "cache_salt", "session_id"}),
        (EngineKind.LLAMACPP, OF_LLAMACPP),
        (EngineKind.OPENAI, OF_PROVIDERS),
        (EngineKind.LITELLM, OF_PROVIDERS),
        (EngineKind.TGI, set()),
        (EngineKind.OLLAMA, set()),
    ],
)
def test_fields_that_reach_beyond_the_request_are_dropped(kind: EngineKind, dropped: set[str]) -> None:
    names = ORDINARY | OF_VLLM | OF_SGLANG | OF_LLAMACPP | OF_PROVIDERS | {"session_id"}
    fields = {name: msgspec.Raw(b"1") for name in names}
    drop_privileged(fields, kind)
    assert names - fields.keys() == dropped
