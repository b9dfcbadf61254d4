"""The outermost layer of the control-plane API: bounded bodies in bounded time, a request id, and never a traceback.

Bodies here are small, so each is read whole before anything looks at it; what is too large or too slow is answered at
once and never parsed.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from gateway.admin.apply_document import DOCUMENT_BYTES_MAX
from gateway.admin.rendering import REQUEST_ID, problem
from gateway.errors import BodyTooLarge, GatewayError, InternalError, RequestTimeout, Unavailable
from gateway.units import new_event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 10.0
LARGER_BODIES_MAX = {"/admin/v1/apply": DOCUMENT_BYTES_MAX}
"""Bytes of a body where one holds many things."""

LARGER_BODIES_AT_ONCE_MAX = 4
"""How many of those are in memory at once: nobody has been recognised while a body is read."""

_log = structlog.get_logger("penstock.admin")


class Bounds:
    """ASGI middleware around an app that may raise anything before it has answered."""

    def __init__(self, app: ASGIApp, *, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._body_timeout_s = body_timeout_s
        self._larger = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of connection pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_event_id())
        scope[REQUEST_ID] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(b"x-request-id", request_id.encode()), (b"cache-control", b"no-store")]  # answers hold keys
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        bytes_max = LARGER_BODIES_MAX.get(scope["path"], BODY_BYTES_MAX)
        try:
            with ExitStack() as held:
                await self._app(scope, await self._read(receive, bytes_max, held), send_with_id)
        except GatewayError as error:
            await problem(error, request_id)(scope, receive, send_with_id)
        except Exception:
            _log.exception("admin request failed", request_id=request_id, method=scope["method"], path=scope["path"])
            if not started:
                fault = InternalError(f"a fault of the gateway; its log tells more under request {request_id}")
                await problem(fault, request_id)(scope, receive, send_with_id)

    async def _read(self, receive: Receive, bytes_max: int, held: ExitStack) -> Receive:
        """Return a `receive` that replays the whole body; `held` has the room that a larger one takes.

        Raises BodyTooLarge, RequestTimeout, Unavailable.
        """
        larger = False
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    body += message.get("body", b"")
                    if len(body) > bytes_max:
                        raise BodyTooLarge(f"the body is larger than {bytes_max} bytes")
                    if len(body) > BODY_BYTES_MAX and not larger:
                        held.enter_context(self._room())
                        larger = True
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._body_timeout_s:g} s") from None
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self._larger >= LARGER_BODIES_AT_ONCE_MAX:
            raise Unavailable("too many large bodies at once", retry_after_s=1.0)
        self._larger += 1
        try:
            yield
        finally:
            self._larger -= 1
