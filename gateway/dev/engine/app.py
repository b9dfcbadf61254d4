"""The ASGI application of one simulated engine: routes, and the one place where errors become answers.

Inference requests are counted, remembered and cancelled when their client hangs up; every one of them ends as finished,
failed or aborted, once.
"""

import logging
from collections.abc import Awaitable, Callable

from gateway.dev.engine import control, kinds, messages
from gateway.dev.engine.behaviour import overrides_of_headers
from gateway.dev.engine.core import Engine
from gateway.dev.engine.embeddings import embeddings
from gateway.dev.engine.errors import Broken, EngineEnd, EngineError, EngineVanished
from gateway.dev.engine.generating import Incoming, chat_completions, completions
from gateway.dev.engine.http import (
    JSON,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    cancelled_by_hang_up,
    read_body,
    reset,
    respond,
    vanish,
)
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.records import Outcome, Record
from gateway.dev.engine.responses import responses

Inference = Callable[[Engine, Incoming, Send], Awaitable[None]]
Around = Callable[[Engine, bytes, Send], Awaitable[None]]

INFERENCE: dict[str, Inference] = {
    "/v1/chat/completions": chat_completions,
    "/v1/completions": completions,
    messages.PATH: messages.messages,
    "/v1/responses": responses,
    "/v1/embeddings": embeddings,
}
AROUND: dict[tuple[str, str], Around] = {
    ("GET", "/health"): control.health,
    ("GET", "/v1/models"): control.models,
    ("GET", "/metrics"): control.metrics,
    ("POST", f"{messages.PATH}/count_tokens"): messages.count_message_tokens,
    ("GET", "/sim/control"): control.ordered,
    ("POST", "/sim/control"): control.control,
    ("DELETE", "/sim/control"): control.uncontrol,
    ("GET", "/sim/counters"): control.counters,
    ("GET", "/sim/state"): control.state,
}
_FINISHED_REASON: dict[Outcome, str] = {"aborted": "abort", "failed": "error"}


class EngineApp:
    """One engine behind one port."""

    def __init__(self, options: EngineOptions) -> None:
        self.engine = Engine(options)
        self._around = AROUND | kinds.AROUND[options.kind]
        self._methods: dict[str, list[str]] = {path: ["POST"] for path in INFERENCE}
        for method, path in self._around:
            self._methods.setdefault(path, []).append(method)
        self._log = logging.getLogger("penstock.engine")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        started = _Started(send)
        try:
            body = await read_body(receive)
            if method == "POST" and path in INFERENCE:
                await self._infer(INFERENCE[path], body, scope, receive, started)
            elif around := self._around.get((method, path)):
                await around(self.engine, body, send)
            else:
                await self._refuse(method, path, send)
        except EngineError as error:
            await respond(started, error.status, error.raw or _body_of(error, path), [JSON, *error.headers()])
        except Broken as broken:
            await _break(broken, scope, started)
        except ClientGone:
            return
        except Exception:
            self._log.exception("the engine failed on %s %s", method, path)
            if started.yet:
                await reset(scope)
            else:
                await respond(started, 500, _body_of(EngineError(500, "the engine failed"), path))

    async def _refuse(self, method: str, path: str, send: Send) -> None:
        """Answer what no endpoint is for: 404, or 405 with the methods that there are."""
        if methods := self._methods.get(path):
            refused = EngineError(405, f"{path} has no {method}: use {' or '.join(methods)}")
            await respond(send, 405, refused.body(), [JSON, (b"allow", ", ".join(methods).encode())])
        else:
            await respond(send, 404, EngineError(404, f"no such endpoint: {method} {path}").body())

    async def _infer(self, endpoint: Inference, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        counters, headers = self.engine.counters, list(scope["headers"])
        record = Record(scope["method"], scope["path"], headers, body)
        counters.received += 1
        self.engine.records.add(record)
        outcome: Outcome = "aborted"
        try:
            request_id = next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), None)
            incoming = Incoming(body, overrides_of_headers(headers), request_id, record)
            async with cancelled_by_hang_up(receive):
                await endpoint(self.engine, incoming, send)
            outcome = "finished"
        except ClientGone:
            raise
        except EngineError as error:
            outcome, record.status = "failed", error.status
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            record.outcome = outcome
            setattr(counters, outcome, getattr(counters, outcome) + 1)
            # What never reached the engine proper (a refusal) is no request to vLLM's counters.
            if record.prompt_tokens and outcome != "finished":
                counters.finished_reasons[_FINISHED_REASON[outcome]] += 1


def _body_of(error: EngineError, path: str) -> bytes:
    """Return an error in the dialect of the endpoint it happened at."""
    return messages.error_body(error) if path.startswith(messages.PATH) else error.body()


async def _break(broken: Broken, scope: Scope, send: Send) -> None:
    """Do to a connection what an unfinished answer asks for."""
    if isinstance(broken, EngineEnd):
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(broken, EngineVanished):
        await vanish(scope)
    else:
        await reset(scope)


class _Started:
    """A `send` that remembers whether an answer was started."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.yet = False

    async def __call__(self, message: Message) -> None:
        self.yet = True
        await self._send(message)
