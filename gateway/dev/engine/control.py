"""The endpoints around inference that every engine has: health, models, metrics, and what only a simulated one has.

`POST /sim/control` changes the behaviour of the engine, `GET /sim/counters` and `GET /sim/state` tell what it did.
"""

from typing import Any

import msgspec

from gateway.dev.engine.behaviour import Control
from gateway.dev.engine.core import Engine
from gateway.dev.engine.http import Send, respond
from gateway.dev.engine.metrics import CONTENT_TYPE, render
from gateway.dev.engine.requests import decode


async def health(_engine: Engine, _body: bytes, send: Send) -> None:
    """GET /health: 200 with no body."""
    await respond(send, 200, b"")


async def models(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /v1/models: every name of this engine, then its LoRAs, whose `parent` is the model they adapt."""
    options = engine.options
    base = {"object": "model", "created": engine.started_at, "owned_by": options.kind}
    first = {"root": options.models[0], "parent": None, "max_model_len": options.context_tokens}
    adapter = {"parent": options.models[0], "max_model_len": None}
    data = [{"id": name, **base, **first} for name in options.models]
    data += [{"id": name, **base, "root": name, **adapter} for name in options.loras]
    await respond(send, 200, msgspec.json.encode({"object": "list", "data": data}))


async def metrics(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /metrics in the text format of Prometheus."""
    await respond(send, 200, render(engine), [(b"content-type", CONTENT_TYPE)])


async def control(engine: Engine, body: bytes, send: Send) -> None:
    """POST /sim/control: set options for all later requests, or the next `times`; answers with the next one's."""
    engine.ordered.change(decode(body, Control))
    await respond(send, 200, msgspec.json.encode(engine.ordered.next))


async def counters(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/counters: the numbers alone, cheap enough to be asked for often."""
    await respond(send, 200, msgspec.json.encode(engine.counters))


async def state(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/state: the counters, the behaviour and the last requests."""
    shown: dict[str, Any] = msgspec.to_builtins(engine.counters)
    shown |= {"behaviour": engine.ordered.next, "requests": engine.records.shown()}
    await respond(send, 200, msgspec.json.encode(shown))
