"""What each kind of server has besides inference: its health, its tokenizer, and what it tells of itself.

Only what clients and routers ask for is here; every other path of those servers is a 404.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.dev.engine.core import Engine
from gateway.dev.engine.errors import bad_request
from gateway.dev.engine.http import Send, respond
from gateway.dev.engine.options import Kind
from gateway.dev.engine.prompt import render_chat
from gateway.dev.engine.requests import TokenizeRequest, decode
from gateway.dev.engine.tokenizer import (
    SHOWN_TOKENS_MAX,
    TOKEN_ID_MAX,
    bytes_of_ids,
    count_tokens,
    token_ids,
    token_texts,
)

Around = Callable[[Engine, bytes, Send], Awaitable[None]]
_Ids = Annotated[list[Annotated[int, Meta(ge=0, le=TOKEN_ID_MAX)]], Meta(max_length=SHOWN_TOKENS_MAX)]
# The longest way to write so many: ten digits, a comma and a space, besides the other fields.
_IDS_BYTES_MAX = 12 * SHOWN_TOKENS_MAX + 65_536
# The releases whose behaviour is followed.
VERSIONS: dict[Kind, str] = {"vllm": "0.11.0", "sglang": "0.5.4", "llamacpp": "b6800", "tgi": "3.3.6"}


class DetokenizeRequest(msgspec.Struct):
    """POST /detokenize."""

    tokens: _Ids
    model: str | None = None


class ContentRequest(msgspec.Struct):
    """POST /tokenize of llama.cpp."""

    content: str


class InputsRequest(msgspec.Struct):
    """POST /tokenize of TGI."""

    inputs: str


async def tokenize(engine: Engine, body: bytes, send: Send) -> None:
    """POST /tokenize: the tokens of a prompt, or of messages and tools as the chat template joins them."""
    request = decode(body, TokenizeRequest)
    if request.model is not None:
        engine.check_model(request.model)
    if request.messages:
        data = render_chat(request.messages, request.tools)
    elif request.prompt is not None:
        data = request.prompt.encode()
    else:
        raise bad_request("prompt or messages is missing", param="prompt")
    _check_shown(data)
    answer: dict[str, Any] = {
        "count": count_tokens(data),
        "max_model_len": engine.options.context_tokens,
        "tokens": token_ids(data),
        "token_strs": token_texts(data.decode("utf-8", "replace")) if request.return_token_strs else None,
    }
    await _answer(send, answer)


async def detokenize(engine: Engine, body: bytes, send: Send) -> None:
    """POST /detokenize: the text of tokens, under the name that vLLM (`prompt`) or SGLang (`text`) gives it."""
    text = _text(engine, body)
    await _answer(send, {"prompt" if engine.options.kind == "vllm" else "text": text})


async def version(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /version: the release of vLLM whose behaviour is followed."""
    await _answer(send, {"version": VERSIONS[engine.options.kind]})


async def empty(_engine: Engine, _body: bytes, send: Send) -> None:
    """GET /health_generate, /ping: 200 with no body."""
    await respond(send, 200, b"")


async def sglang_server_info(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /get_server_info: the arguments of the server and what it has room for."""
    options = engine.options
    await _answer(
        send,
        {
            "model_path": options.models[0],
            "served_model_name": options.models[0],
            "context_length": options.context_tokens,
            "max_running_requests": options.max_num_seqs,
            "max_queued_requests": options.max_queued_requests,
            "max_total_num_tokens": options.kv_cache_tokens,
            "disable_radix_cache": not options.prefix_caching,
            "lora_paths": list(options.loras) or None,
            "internal_states": [{"memory_usage": {"token_capacity": options.kv_cache_tokens}}],
            "status": "ready",
            "version": VERSIONS["sglang"],
        },
    )


async def sglang_model_info(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /get_model_info: which model is served."""
    name = engine.options.models[0]
    await _answer(send, {"model_path": name, "tokenizer_path": name, "is_generation": True})


async def llamacpp_health(_engine: Engine, _body: bytes, send: Send) -> None:
    """GET /health: `{"status": "ok"}`."""
    await _answer(send, {"status": "ok"})


async def llamacpp_props(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /props: the server's settings."""
    options = engine.options
    await _answer(
        send,
        {
            "default_generation_settings": {"n_ctx": options.context_tokens},
            "total_slots": options.max_num_seqs,
            "model_alias": options.models[0],
            "model_path": options.models[0],
            "modalities": {"vision": True, "audio": False},
            "build_info": VERSIONS["llamacpp"],
        },
    )


async def llamacpp_slots(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /slots: as many as requests may run at once, and which of them do something."""
    options, running = engine.options, engine.counters.running
    slots = range(options.max_num_seqs)
    context = options.context_tokens
    await _answer(send, [{"id": slot, "n_ctx": context, "is_processing": slot < running} for slot in slots])


async def llamacpp_tokenize(_engine: Engine, body: bytes, send: Send) -> None:
    """POST /tokenize: `{"content"}` to `{"tokens"}`."""
    data = decode(body, ContentRequest).content.encode()
    _check_shown(data)
    await _answer(send, {"tokens": token_ids(data)})


async def llamacpp_detokenize(engine: Engine, body: bytes, send: Send) -> None:
    """POST /detokenize: `{"tokens"}` to `{"content"}`."""
    await _answer(send, {"content": _text(engine, body)})


async def tgi_info(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /info: the model and the server's bounds."""
    options = engine.options
    await _answer(
        send,
        {
            "model_id": options.models[0],
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": options.max_num_seqs + options.max_queued_requests,
            "max_input_tokens": options.context_tokens - 1,
            "max_total_tokens": options.context_tokens,
            "version": VERSIONS["tgi"],
        },
    )


async def tgi_tokenize(_engine: Engine, body: bytes, send: Send) -> None:
    """POST /tokenize: `{"inputs"}` to a list of tokens with their text and where it stands, in characters."""
    inputs = decode(body, InputsRequest).inputs
    shown, start, data = [], 0, inputs.encode()
    _check_shown(data)
    for number, text in zip(token_ids(data), token_texts(inputs), strict=True):
        shown.append({"id": number, "text": text, "start": start, "stop": start + len(text)})
        start += len(text)
    await _answer(send, shown)


AROUND: dict[Kind, dict[tuple[str, str], Around]] = {
    "vllm": {
        ("POST", "/tokenize"): tokenize,
        ("POST", "/detokenize"): detokenize,
        ("GET", "/version"): version,
        ("GET", "/ping"): empty,
    },
    "sglang": {
        ("GET", "/health_generate"): empty,
        ("GET", "/get_server_info"): sglang_server_info,
        ("GET", "/server_info"): sglang_server_info,
        ("GET", "/get_model_info"): sglang_model_info,
        ("GET", "/model_info"): sglang_model_info,
        ("POST", "/tokenize"): tokenize,
        ("POST", "/v1/tokenize"): tokenize,
        ("POST", "/detokenize"): detokenize,
        ("POST", "/v1/detokenize"): detokenize,
    },
    "llamacpp": {
        ("GET", "/health"): llamacpp_health,
        ("GET", "/v1/health"): llamacpp_health,
        ("GET", "/props"): llamacpp_props,
        ("GET", "/slots"): llamacpp_slots,
        ("POST", "/tokenize"): llamacpp_tokenize,
        ("POST", "/detokenize"): llamacpp_detokenize,
    },
    "tgi": {
        ("GET", "/info"): tgi_info,
        ("GET", "/ping"): empty,
        ("POST", "/tokenize"): tgi_tokenize,
    },
}


def _text(engine: Engine, body: bytes) -> str:
    """Return the text of the tokens in `body`, without the zeros that pad the last one."""
    if len(body) > _IDS_BYTES_MAX:
        raise bad_request(f"at most {SHOWN_TOKENS_MAX} tokens", param="tokens")
    request = decode(body, DetokenizeRequest)
    if request.model is not None:
        engine.check_model(request.model)
    return bytes_of_ids(request.tokens).rstrip(b"\0").decode("utf-8", "replace")


def _check_shown(data: bytes) -> None:
    """Raise EngineError 400 when `data` has more tokens than are shown at once: the whole process would wait for it."""
    if (count := count_tokens(data)) > SHOWN_TOKENS_MAX:
        raise bad_request(f"at most {SHOWN_TOKENS_MAX} tokens, not {count}")


async def _answer(send: Send, answer: object) -> None:
    await respond(send, 200, msgspec.json.encode(answer))
