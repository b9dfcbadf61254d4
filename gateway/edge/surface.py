"""The addresses of the data path, and what every answer has: a request id, and an error in its dialect.

The last line of defence: nothing that a client sends makes a traceback or a 500, and a fault of the gateway's own
becomes a 500 with an id that its log knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.domain.call import Endpoint
from gateway.edge.asgi import send_error
from gateway.edge.body import Disconnected
from gateway.edge.completions import Completions, request_headers
from gateway.edge.dialects import ANTHROPIC, OPENAI, RESPONSES
from gateway.edge.errors import render
from gateway.edge.models import ListModels, ShowModel
from gateway.edge.probes import Liveness, Readiness
from gateway.errors import Draining, GatewayError, InternalError, MethodNotAllowed, NotFound, UnsupportedEncoding
from gateway.units import new_event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.connection import ClientConnection
    from gateway.edge.dialects import Dialect
    from gateway.edge.stages import Stages

PREFIXES = ("/v1", "", "/api/v1")
"""The same endpoints under all of these: clients differ in what they take for the base URL."""
_DATA_PATH = ("/v1/", "/api/v1/")
_CONTROL_PLANE = ("/admin/", "/auth/")
_SHOWN_CHARS_MAX = 100

_log = structlog.get_logger("penstock.edge")


class Handler(Protocol):
    """An endpoint: answers, or raises a GatewayError before its head is out."""

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None: ...


class Application(Protocol):
    """An ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Surface:
    """The root ASGI application: the data path by exact address, `fallback` (the control plane) for the rest.

    `pages` answer GET, by exact address, too: what clients and people fetch to begin (`gateway.edge.onboarding`).
    `guard` puts something before each endpoint, where there is any.
    """

    def __init__(
        self,
        stages: Stages,
        readiness: Readiness,
        fallback: Application,
        pages: Mapping[str, Handler],
        guard: Callable[[Handler], Handler] | None = None,
    ) -> None:
        self._stages = stages
        self._fallback = fallback
        self._routes: dict[str, dict[str, Handler]] = {
            "/livez": {"GET": Liveness()},
            "/readyz": {"GET": readiness},
            "/health": {"GET": readiness},
            **{path: {"GET": page} for path, page in pages.items()},
        }
        self._show_model: Handler = ShowModel(stages)
        self._dialects: dict[str, Dialect] = {}
        endpoints = {
            "/chat/completions": Completions(Endpoint.CHAT_COMPLETIONS, stages),
            "/completions": Completions(Endpoint.COMPLETIONS, stages),
            "/embeddings": Completions(Endpoint.EMBEDDINGS, stages),
            "/messages": Completions(Endpoint.MESSAGES, stages, ANTHROPIC),
            "/messages/count_tokens": Completions(Endpoint.COUNT_TOKENS, stages, ANTHROPIC),
            "/responses": Completions(Endpoint.RESPONSES, stages, RESPONSES),
        }
        self._ends = {path: endpoint.dialect for path, endpoint in endpoints.items()}
        models = ListModels(stages)
        for prefix in PREFIXES:
            for path, endpoint in endpoints.items():
                self._routes[prefix + path] = {"POST": endpoint}
                self._dialects[prefix + path] = endpoint.dialect
            self._routes[prefix + "/models"] = {"GET": models}
        if guard is not None:
            self._show_model = guard(self._show_model)
            for methods in self._routes.values():
                methods.update({method: guard(handler) for method, handler in methods.items()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        methods = self._routes.get(path) or self._model_route(path) or self._mistaken(path, scope["method"])
        if methods is None:
            await self._fallback(scope, receive, send)
            return
        event_id = new_event_id()
        # A doubled header is the last one that came, for gateway and log alike.
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            handler = _handler(methods, scope["method"])
            await handler(scope, receive, send, headers, event_id)
        except GatewayError as error:
            self._refused(error, event_id, path)
            dialect = self._dialect_of(path)
            own = request_headers(event_id, dialect)
            if isinstance(error, MethodNotAllowed):
                own.append((b"allow", _allowed(methods).encode()))
            elif isinstance(error, UnsupportedEncoding):
                own.append((b"accept-encoding", b"identity"))
            await send_error(send, error, own, dialect)
        except Disconnected:
            self._stages.metrics.refusals.labels("client_disconnected").inc()
        except asyncio.CancelledError:
            connection = scope.get("penstock.connection")
            if connection is None or not self._stages.draining:
                raise
            _cut(connection, event_id, self._dialects.get(path, OPENAI))
        except Exception:
            _log.exception("request_failed", request_id=str(event_id))
            fault = InternalError("the gateway failed; the request id finds it in its log")
            dialect = self._dialects.get(path, OPENAI)
            await send_error(send, fault, request_headers(event_id, dialect), dialect)

    def _model_route(self, path: str) -> dict[str, Handler] | None:
        for prefix in PREFIXES:
            if path.startswith(start := f"{prefix}/models/") and len(path) > len(start):
                return {"GET": self._show_model}
        return None

    def _mistaken(self, path: str, method: str) -> dict[str, Handler] | None:
        """Return what answers a client of the data path that has a wrong base URL.

        Left to the control plane it would get an error in words that it cannot read, and one about its body where that
        is larger than bodies are there.
        """
        if path.startswith(_CONTROL_PLANE) or not (path.startswith(_DATA_PATH) or path.endswith(tuple(self._ends))):
            return None
        return {"GET" if method == "HEAD" else method: _no_such_address}

    def _dialect_of(self, path: str) -> Dialect:
        """Return the dialect of an endpoint, also of one that was asked for under a wrong base URL."""
        known = self._dialects.get(path)
        if known is not None or self._model_route(path) is not None:
            return known or OPENAI
        return next((dialect for end, dialect in self._ends.items() if path.endswith(end)), OPENAI)

    def _refused(self, error: GatewayError, event_id: UUID, path: str) -> None:
        self._stages.metrics.refusals.labels(error.code).inc()
        said = {"status": error.status, "error": error.code, "retry_after_s": error.retry_after_s}
        _log.info("refused", request_id=str(event_id), path=path[:200], **said)


def _cut(connection: ClientConnection, event_id: UUID, dialect: Dialect) -> None:
    """The replica's time is over: tell a client that has seen nothing yet, break off what has begun.

    Nothing may be awaited here; and the cancellation ends here, for the server would log it as a fault.
    """
    body, own = render(Draining("this replica is shutting down", retry_after_s=1.0), dialect)
    headers = [*own, *request_headers(event_id, dialect), (b"content-length", b"%d" % len(body))]
    if not connection.send_whole(503, headers, body):
        connection.break_off()


async def _no_such_address(
    scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
) -> None:
    raise NotFound(
        f"there is no such address: '{scope['path'][:_SHOWN_CHARS_MAX]}'; for their base URL, clients in OpenAI's"
        " dialect want this gateway's address with /v1, those in Anthropic's without; see /setup"
    )


def _handler(methods: dict[str, Handler], method: str) -> Handler:
    # HEAD is GET to an endpoint; the server leaves the body out.
    handler = methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise MethodNotAllowed(f"use {_allowed(methods)} here")
    return handler


def _allowed(methods: dict[str, Handler]) -> str:
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
