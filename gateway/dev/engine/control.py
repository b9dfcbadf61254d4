"""The endpoints around inference: health, models, tokenizer, metrics, and what only a simulated engine has.

`POST /sim/control` changes the behaviour of the process, `GET /sim/counters` and `GET /sim/state` tell what it did.
"""

from typing import Any

import msgspec

from gateway.dev.engine.behaviour import Overrides
from gateway.dev.engine.core import Engine
from gateway.dev.engine.errors import bad_request
from gateway.dev.engine.http import Send, respond
from gateway.dev.engine.prompt import render_chat
from gateway.dev.engine.requests import TokenizeRequest, decode
from gateway.dev.engine.tokenizer import count_tokens, token_ids, token_texts


async def health(_engine: Engine, _body: bytes, send: Send) -> None:
    """GET /health: 200 with no body."""
    await respond(send, 200, b"")


async def models(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /v1/models: every name of this engine."""
    first = engine.options.models[0]
    data = [
        {
            "id": name,
            "object": "model",
            "created": engine.started_at,
            "owned_by": "vllm",
            "root": first,
            "parent": None,
            "max_model_len": engine.options.max_model_len,
        }
        for name in engine.options.models
    ]
    await respond(send, 200, msgspec.json.encode({"object": "list", "data": data}))


async def metrics(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /metrics in the text format of Prometheus."""
    await respond(send, 200, engine.metrics.render(), [(b"content-type", engine.metrics.content_type)])


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
    answer: dict[str, Any] = {
        "count": count_tokens(data),
        "max_model_len": engine.options.max_model_len,
        "tokens": token_ids(data),
        "token_strs": token_texts(data.decode("utf-8", "replace")) if request.return_token_strs else None,
    }
    await respond(send, 200, msgspec.json.encode(answer))


async def control(engine: Engine, body: bytes, send: Send) -> None:
    """POST /sim/control: set options for all later requests; answers with all of them."""
    engine.behaviour = decode(body, Overrides).over(engine.behaviour, engine.options.behaviour)
    await respond(send, 200, msgspec.json.encode(engine.behaviour))


async def counters(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/counters: the numbers alone, cheap enough to be asked for often."""
    await respond(send, 200, msgspec.json.encode(engine.counters))


async def state(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/state: the counters, the behaviour and the last requests."""
    shown: dict[str, Any] = msgspec.to_builtins(engine.counters)
    shown |= {"behaviour": engine.behaviour, "requests": engine.records.shown()}
    await respond(send, 200, msgspec.json.encode(shown))
