"""An engine behind litellm: takes OpenAI's requests, lets litellm speak the provider's dialect, gives OpenAI's answers.

litellm is pulled, one chunk for each read, so a slow client slows the provider down. Giving a response up closes the
provider's stream, wherever that was read to.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from gateway.domain.config import PROVIDER_ADDRESS
from gateway.errors import GatewayError, InvalidRequest, UpstreamFailed, UpstreamTimeout, reason_of
from gateway.patience import Deadline
from gateway.providers import litellm_answer as answers
from gateway.providers.litellm_errors import ErrorAnswer, translated
from gateway.providers.litellm_library import Library, load
from gateway.providers.litellm_request import TranslatedCall, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.config import PoolConfig
    from gateway.domain.upstream import UpstreamRequest, UpstreamResponse

CLOSE_S_MAX = 5.0
_JSON, _EVENTS = b"application/json", b"text/event-stream"

_log = structlog.get_logger("penstock.litellm")


class LitellmConnection:
    """`UpstreamConnection` to a provider, or to one address of it. Importing litellm begins when this is made."""

    def __init__(self, pool: PoolConfig, endpoint: str, load_library: Callable[[], Library] = load) -> None:
        self._pool = pool
        self._address = None if endpoint == PROVIDER_ADDRESS else endpoint
        self._closing: set[asyncio.Task[None]] = set()
        self._library = asyncio.get_running_loop().create_task(self._load(load_library))

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; see `UpstreamConnection.send`. A whole answer must be there within `first_byte_s`."""
        try:
            call = translate(request.path, request.body)
        except InvalidRequest as refusal:
            return WholeResponse.of(ErrorAnswer(400, refusal.message, code=refusal.code, param=refusal.param))
        try:
            async with Deadline(request.first_byte_s):
                return await self._call(call, request)
        except TimeoutError:
            raise UpstreamTimeout("the provider did not answer in time") from None
        except GatewayError:
            raise
        except Exception as error:  # foreign, of any kind: translated here and nowhere else
            failure = translated(error)
            if isinstance(failure, GatewayError):
                raise failure from error
            return WholeResponse.of(failure)

    async def close(self) -> None:
        """Wait for streams that are being closed. Idle connections are litellm's, and shared with other pools."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_S_MAX)

    def close_soon(self, stream: Any) -> None:
        """Close a stream of litellm's in the background: the provider is hung up on."""
        task = asyncio.get_running_loop().create_task(_close(stream))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _load(self, load_library: Callable[[], Library]) -> Library | None:
        try:
            return await asyncio.to_thread(load_library)
        except Exception as error:  # whatever an import may raise: the pool cannot be served, the others can
            _log.error("litellm_not_loaded", pool=self._pool.name, reason=reason_of(error))
            return None

    async def _call(self, call: TranslatedCall, request: UpstreamRequest) -> UpstreamResponse:
        library = await asyncio.shield(self._library)
        if library is None:
            raise UpstreamFailed("the gateway cannot load litellm")
        answer = await getattr(library, call.function)(**call.arguments, **self._arguments(library, request))
        if call.whole:
            body = answers.whole_events(answer) if call.streamed else answers.whole_json(answer)
            return WholeResponse(200, {b"content-type": _EVENTS if call.streamed else _JSON}, body)
        response = StreamedResponse(self, answer, request.idle_s)
        try:
            # Some providers are asked with the first chunk only: their refusals must still become a status.
            await response.fetch_first()
        except BaseException:
            response.abort()
            raise
        return response

    def _arguments(self, library: Library, request: UpstreamRequest) -> dict[str, Any]:
        """Return what is litellm's own: where and as whom to call, once, without a word to anybody else."""
        key = self._pool.api_key
        silence_s = max(request.first_byte_s, request.idle_s) + 1.0  # the deadlines here come first
        return {
            "api_base": self._address,
            "api_key": key.get_secret_value() if key is not None else None,
            "extra_headers": dict(self._pool.headers) or None,
            "timeout": library.timeout(connect_s=self._pool.timeouts.connect_s, silence_s=silence_s),
            "max_retries": 0,
            "num_retries": 0,
            "no-log": True,
            # It would run tools of litellm's proxy, which is another product.
            "_skip_mcp_handler": True,
        }

    def __repr__(self) -> str:
        return f"LitellmConnection({self._pool.name}, {self._address or 'at the provider'})"


class WholeResponse:
    """A response that is all there; see `gateway.domain.upstream.UpstreamResponse`."""

    __slots__ = ("_body", "complete", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.complete = True
        self._body = body

    @classmethod
    def of(cls, error: ErrorAnswer) -> WholeResponse:
        """Return the response that an error answer is."""
        return cls(error.status, {b"content-type": _JSON} | error.headers, error.body())

    async def read(self) -> bytes:
        """Return the body, then b""."""
        body, self._body = self._body, b""
        return body

    def leave(self) -> None:
        """Nothing is under way."""

    def abort(self) -> None:
        """Nothing is under way."""


class StreamedResponse:
    """A stream of litellm's as events; see `gateway.domain.upstream.UpstreamResponse`."""

    __slots__ = ("_connection", "_first", "_idle_s", "_stream", "complete", "headers", "status")

    def __init__(self, connection: LitellmConnection, stream: Any, idle_s: float) -> None:
        self._connection = connection
        self._stream = stream
        self._idle_s = idle_s
        self._first = b""
        self.status = 200
        self.headers = {b"content-type": _EVENTS}
        self.complete = False

    async def fetch_first(self) -> None:
        """Wait for the first event, so that a refusal is known before the head. Raises what litellm raises."""
        self._first = await self._next()

    async def read(self) -> bytes:
        """Return the next event, b"" after the last."""
        if self._first:
            first, self._first = self._first, b""
            return first
        if self.complete:
            return b""
        try:
            async with Deadline(self._idle_s):
                return await self._next()
        except TimeoutError:
            raise UpstreamTimeout("the provider fell silent") from None
        except GatewayError:
            raise
        except Exception as error:  # foreign, of any kind: translated here and nowhere else
            failure = translated(error)
            if isinstance(failure, GatewayError):
                raise failure from error
            self._end()
            return failure.event()

    def leave(self) -> None:
        """End the stream: litellm has nothing to reuse."""
        self.abort()

    def abort(self) -> None:
        """Hang up on the provider unless the stream has ended."""
        if not self.complete:
            self._end()

    def _end(self) -> None:
        self.complete = True
        self._connection.close_soon(self._stream)

    async def _next(self) -> bytes:
        """Return the next chunk's event; with the last one, or where there is none, the end's."""
        chunk = await anext(self._stream, None)
        if chunk is None:
            self._end()
            return answers.DONE_EVENT
        if answers.has_usage(chunk):
            self._end()  # nothing follows but litellm's own bookkeeping
            return answers.usage_event(chunk, self._stream) + answers.DONE_EVENT
        if answers.is_finished(chunk) and answers.was_cut(self._stream):
            raise UpstreamFailed("the provider ended its stream without finishing the answer")
        return answers.chunk_event(chunk)


async def _close(stream: Any) -> None:
    # It is given up already: there is nobody left to tell what went wrong with it.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S_MAX):
            await stream.aclose()
