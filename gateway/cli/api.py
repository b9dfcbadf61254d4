"""The control-plane API as a command calls it, over HTTP or in this process: the same requests, answers and errors.

A POST carries an idempotency key, so that one whose answer was lost is sent again and done once. Every wait is bounded,
and a person is told what is waited for.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import httpx2
import msgspec

from gateway.cli.answers import document_of, error_of, no_document
from gateway.cli.progress import progress
from gateway.errors import GatewayError, InvalidRequest, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AsyncExitStack

    from gateway.cli.place import Place

PREFIX: Final = "/admin/v1/"
PAGE_ROWS = 1000

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 75.0
"""Longer than a statement and the queue before it may take there."""

ATTEMPTS_MAX = 3
RETRY_WAIT_S = 0.5
RETRY_WAIT_S_MAX = 10.0
ANSWER_BYTES_MAX = 512 * 2**20
PATIENCE_S = 1.0
"""How long nothing is said of a wait."""

_NEVER_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.TimeoutException)


@dataclass(frozen=True, slots=True)
class Client:
    """A client that speaks to one place, and what is closed with it."""

    http: httpx2.AsyncClient
    stack: AsyncExitStack

    async def aclose(self) -> None:
        """Hang up."""
        await self.stack.aclose()


class Api:
    """The API at one place. Paths are given in parts, such as `api.get("teams", name)`, below /admin/v1.

    The place is found and connected to at the first call: what is wrong with a call itself is told before.
    """

    def __init__(self, find: Callable[[], Place], connect: Callable[[Place], Coroutine[Any, Any, Client]]) -> None:
        self._find = find
        self._connect = connect
        self._runner = asyncio.Runner()
        self._place: Place | None = None
        self._client: Client | None = None

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._client is not None:
            self._runner.run(self._client.aclose())
        self._runner.close()

    @property
    def place(self) -> Place:
        """Where it is. Raises InvalidRequest, ConfigError."""
        if self._place is None:
            self._place = self._find()
        return self._place

    def get(self, *path: str, **query: object) -> Any:
        """Return one document. A query parameter of None is left out. Raises GatewayError."""
        return self._document("GET", path, query=query)

    def download(self, *path: str, **query: object) -> bytes:
        """Return an answer that is no JSON, as it came. Raises GatewayError."""
        return self._asked("GET", path, query, None)

    def every(self, *path: str, **query: object) -> list[dict[str, Any]]:
        """Return all rows of a list that comes in pages: scripts could not tell that some are missing."""
        rows: list[dict[str, Any]] = []
        after: object = None
        while True:
            page = self.get(*path, **{"limit": PAGE_ROWS} | query, after=after)
            if not isinstance(page.get("data"), list) or (after is not None and page.get("next_after") == after):
                raise no_document(self.place)
            rows += page["data"]
            after = page.get("next_after")
            if after is None:
                return rows

    def post(self, *path: str, body: Mapping[str, object], **query: object) -> Any:
        """Make something and return it; sent again when its answer is lost, and done once. Raises GatewayError."""
        return self._document("POST", path, query=query, body=body)

    def put(self, *path: str, body: Mapping[str, object], **query: object) -> Any:
        """Set something and return it. Raises GatewayError."""
        return self._document("PUT", path, query=query, body=body)

    def patch(self, *path: str, body: Mapping[str, object], **query: object) -> Any:
        """Change something and return it. Raises GatewayError."""
        return self._document("PATCH", path, query=query, body=body)

    def delete(self, *path: str, **query: object) -> Any:
        """Remove something, and return what the gateway tells of it. Raises GatewayError."""
        return self._document("DELETE", path, query=query)

    def _document(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, object],
        body: Mapping[str, object] | None = None,
    ) -> Any:
        answer = self._asked(method, path, query, body)
        if not answer and method == "DELETE":
            return None
        document = document_of(answer, self.place)
        if not isinstance(document, dict):
            raise no_document(self.place)
        return document

    def _asked(
        self, method: str, path: tuple[str, ...], query: Mapping[str, object], body: Mapping[str, object] | None
    ) -> bytes:
        place = self.place
        try:
            return self._runner.run(self._waited_for(self._sent(method, path, query, body)))
        except GatewayError as error:
            if str(place) not in error.message:
                error.add_note(str(place))
            raise

    async def _waited_for(self, asked: Coroutine[Any, Any, bytes]) -> bytes:
        """Await an answer, and tell a person of it when it takes long."""
        task = asyncio.ensure_future(asked)
        try:
            done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
            if not done:
                with progress(f"waiting for {self.place}"):
                    return await task
            return task.result()
        finally:
            task.cancel()

    async def _sent(
        self, method: str, path: tuple[str, ...], query: Mapping[str, object], body: Mapping[str, object] | None
    ) -> bytes:
        """Send a request until it is answered, ATTEMPTS_MAX times at most."""
        if self._client is None:
            self._client = await self._connect(self.place)
        url = PREFIX + "/".join(_segment(part) for part in path)
        headers = {"idempotency-key": secrets.token_urlsafe(24)} if method == "POST" else {}
        request = self._client.http.build_request(
            method,
            url,
            params={name: _parameter(value) for name, value in query.items() if value is not None},
            content=None if body is None else msgspec.json.encode(body),
            headers=headers | ({} if body is None else {"content-type": "application/json"}),
        )
        for attempt in range(1, ATTEMPTS_MAX + 1):
            wait_s = RETRY_WAIT_S * attempt
            try:
                return await self._answered(self._client.http, request)
            except httpx2.TransportError as error:
                repeatable = method in {"GET", "POST"} or isinstance(error, _NEVER_ARRIVED)
                if attempt == ATTEMPTS_MAX or not repeatable or not isinstance(error, (*_NEVER_ARRIVED, *_LOST)):
                    raise self._unreachable(error, in_doubt=not repeatable) from None
            except GatewayError as error:
                if attempt == ATTEMPTS_MAX or error.status != Unavailable.status or error.retry_after_s is None:
                    raise
                wait_s = max(wait_s, min(error.retry_after_s, RETRY_WAIT_S_MAX))
            await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def _answered(self, client: httpx2.AsyncClient, request: httpx2.Request) -> bytes:
        """Return the body of a success. Raises GatewayError for anything else, TransportError."""
        response = await client.send(request, stream=True)
        try:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise GatewayError(f"{self.place} answers with more than {ANSWER_BYTES_MAX:,} bytes")
        finally:
            await response.aclose()
        if response.is_success:
            return bytes(body)
        if response.is_redirect:
            raise GatewayError(f"{self.place} is elsewhere: it redirects, and an admin key does not follow")
        raise error_of(response.status_code, bytes(body), self.place, _retry_after_s(response))

    def _unreachable(self, error: httpx2.TransportError, *, in_doubt: bool) -> Unavailable:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, httpx2.TimeoutException):
            limit_s = CONNECT_TIMEOUT_S if isinstance(error, httpx2.ConnectTimeout) else ANSWER_TIMEOUT_S
            reason = f"no answer within {limit_s:g} s"
        told = "; the change may have been made: look before you repeat it" if in_doubt else ""
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            reason, told = f"its certificate is not trusted ({reason})", "; --ca-file names another authority"
        elif isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) and not told:
            told = "; check its address, and that it runs there"
        return Unavailable(f"cannot reach {self.place}: {reason}{told}")


def client_of(
    transport: httpx2.AsyncBaseTransport | None, base_url: str, headers: Mapping[str, str], **options: Any
) -> httpx2.AsyncClient:
    """Return a client with the bounds of this module; `transport` None: over the network."""
    timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return httpx2.AsyncClient(transport=transport, base_url=base_url, headers=headers, timeout=timeout, **options)


def _segment(part: str) -> str:
    """Return one part of a path as it is sent. Raises InvalidRequest for what cannot be one, NotFound for nothing."""
    if not part:
        raise NotFound("an empty name or id names nothing")
    if "/" in part or part in {".", ".."}:
        raise InvalidRequest("a name with a slash, or of dots, cannot be a part of an address: give the id")
    return quote(part, safe="")


def _parameter(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _retry_after_s(response: httpx2.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
