"""The outermost layer of the control-plane API, driven as ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from gateway.admin.apply_document import DOCUMENT_BYTES_MAX
from gateway.admin.bounds import BODY_BYTES_MAX, LARGER_BODIES_AT_ONCE_MAX, Bounds

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def serve(bounds: Bounds, messages: list[Message], path: str = "/") -> tuple[int, bytes, dict[bytes, bytes]]:
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await bounds({**SCOPE, "path": path}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body, dict(sent[0]["headers"])


def chunk(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_arrives_whole() -> None:
    status, body, headers = await serve(Bounds(echo), [chunk(b"ab", more=True), chunk(b"", more=True), chunk(b"c")])
    assert (status, body) == (200, b"abc")
    assert headers[b"x-request-id"]
    assert headers[b"cache-control"] == b"no-store"


async def test_a_body_of_the_bound_passes_and_one_byte_more_does_not() -> None:
    whole = b"x" * BODY_BYTES_MAX
    assert (await serve(Bounds(echo), [chunk(whole)]))[0] == 200
    status, body, headers = await serve(Bounds(echo), [chunk(whole, more=True), chunk(b"x", more=True)])
    assert (status, json.loads(body)["code"]) == (413, "request_too_large")
    assert headers[b"x-request-id"]


async def test_a_whole_file_may_be_larger_and_few_such_are_held_at_once() -> None:
    path, larger = "/admin/v1/apply", b"x" * (BODY_BYTES_MAX + 1)
    reading, answer = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        reading.release()
        await answer.wait()
        await echo(scope, receive, send)

    bounds = Bounds(slow)
    held = [asyncio.create_task(serve(bounds, [chunk(larger)], path)) for _ in range(LARGER_BODIES_AT_ONCE_MAX)]
    for _ in held:
        await reading.acquire()
    status, body, headers = await serve(bounds, [chunk(larger)], path)
    assert (status, json.loads(body)["code"], headers[b"retry-after"]) == (503, "unavailable", b"1")
    answer.set()
    assert (await serve(bounds, [chunk(b"x")], path))[0] == 200, "a small one needs no room"
    assert {status for status, _, _ in await asyncio.gather(*held)} == {200}
    whole = b"x" * DOCUMENT_BYTES_MAX
    assert (await serve(bounds, [chunk(whole)], path))[0] == 200, "the room is free again"
    assert (await serve(bounds, [chunk(whole, more=True), chunk(b"x")], path))[0] == 413
    assert (await serve(bounds, [chunk(larger)], "/admin/v1/keys"))[0] == 413


async def test_a_body_that_never_ends_is_408() -> None:
    status, body, _headers = await serve(Bounds(echo, body_timeout_s=0.01), [chunk(b"ab", more=True)])
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")


async def test_a_caller_who_is_gone_ends_the_body() -> None:
    status, body, _headers = await serve(Bounds(echo), [chunk(b"ab", more=True), {"type": "http.disconnect"}])
    assert (status, body) == (200, b"ab")


async def test_a_failure_after_the_answer_began_adds_nothing() -> None:
    async def breaks(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    assert (await serve(Bounds(breaks), [chunk(b"")]))[:2] == (200, b"")


async def test_other_connections_pass_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await Bounds(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
