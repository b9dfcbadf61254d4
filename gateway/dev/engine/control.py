"""The endpoints around inference that every engine has: health, models, metrics, and what only a simulated one has.

`POST /sim/control` changes the behaviour of the engine, `GET` tells it, `DELETE` goes back to the command line;
`GET /sim/counters` and `GET /sim/state` tell what the engine did.
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
    """POST /sim/control: set options for all later requests, or the next `times`; answers as `ordered` does."""
    engine.ordered.change(decode(body, Control))
    await ordered(engine, b"", send)


async def uncontrol(engine: Engine, _body: bytes, send: Send) -> None:
    """DELETE /sim/control: as the command line says, with nothing pending; answers as `ordered` does."""
    engine.ordered.reset()
    await ordered(engine, b"", send)


async def ordered(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/control: the next request's options, and how many more get what was ordered with `times`."""
    shown = msgspec.to_builtins(engine.ordered.next) | _pending(engine)
    await respond(send, 200, msgspec.json.encode(shown))


async def counters(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/counters: the numbers alone, cheap enough to be asked for often."""
    await respond(send, 200, msgspec.json.encode(engine.counters))


async def state(engine: Engine, _body: bytes, send: Send) -> None:
    """GET /sim/state: the counters, the behaviour and the last requests."""
    shown: dict[str, Any] = msgspec.to_builtins(engine.counters)
    shown |= {"behaviour": engine.ordered.next, "requests": engine.records.shown()}
    await respond(send, 200, msgspec.json.encode(shown | _pending(engine)))


def _pending(engine: Engine) -> dict[str, Any]:
    """Return `times_left`, and in `times_options` what it is that so many requests get (null when none do)."""
    return {"times_left": engine.ordered.times_left, "times_options": engine.ordered.times_options}
