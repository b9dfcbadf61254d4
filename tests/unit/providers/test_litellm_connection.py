"""One exchange through litellm, with a library that answers as it is told to: deadlines, ends, cuts, hang-ups."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from gateway.domain.config import PROVIDER_ADDRESS, EngineKind, PoolConfig, Timeouts
from gateway.domain.upstream import UpstreamRequest
from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.providers.litellm_connection import LitellmConnection
from tests.unit.providers.models import Model, chunk

if TYPE_CHECKING:
    from gateway.domain.upstream import UpstreamResponse

ADDRESS = "http://10.0.0.5:8000/v1"
POOL = PoolConfig(
    "cloud",
    EngineKind.LITELLM,
    (ADDRESS,),
    api_key=SecretStr("secret"),
    headers={"x-team": "a"},
    timeouts=Timeouts(connect_s=0.5),
)
USAGE = Model(prompt_tokens=3, completion_tokens=2)
WHOLE = Model(id="a", model="m", object="chat.completion", choices=[], usage=USAGE)


class Stream:
    """A stream of litellm's: yields chunks, raises exceptions, waits at `...`; what it yielded is in `chunks`."""

    def __init__(self, *script: Any, finish_reason: str | None = "stop") -> None:
        self.script = list(script)
        self.chunks: list[Model] = []
        self.received_finish_reason = finish_reason
        self.intermittent_finish_reason = None
        self.closed = asyncio.Event()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Model:
        if not self.script:
            raise StopAsyncIteration
        step = self.script.pop(0)
        if step is ...:
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Model)
        self.chunks.append(step)
        return step

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed.set()


class FakeLibrary:
    """Answers every call with `answer`, raises it when it is an exception, waits when it is None."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.arguments: dict[str, Any] = {}
        self.acompletion = self.atext_completion = self.aembedding = self._call

    def timeout(self, *, connect_s: float, silence_s: float) -> object:
        """Return both."""
        return (connect_s, silence_s)

    async def _call(self, **arguments: Any) -> Any:
        self.arguments = arguments
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def send(
    answer: Any, *, endpoint: str = ADDRESS, first_byte_s: float = 5.0, idle_s: float = 5.0, **fields: Any
) -> tuple[UpstreamResponse, FakeLibrary, LitellmConnection]:
    library = FakeLibrary(answer)
    connection = LitellmConnection(POOL, endpoint, lambda: library)
    body = json.dumps({"model": "openai/m", "messages": []} | fields).encode()
    request = UpstreamRequest(b"POST", "/v1/chat/completions", b"", body, first_byte_s, idle_s)
    return await connection.send(request), library, connection


async def test_a_whole_answer_and_what_litellm_is_told() -> None:
    response, library, connection = await send(WHOLE)
    assert (response.status, response.headers, response.complete) == (200, {b"content-type": b"application/json"}, True)
    assert json.loads(await response.read())["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert await response.read() == b""
    response.abort()
    await connection.close()
    assert library.arguments == {
        "model": "openai/m",
        "messages": [],
        "api_base": ADDRESS,
        "api_key": "secret",
        "extra_headers": {"x-team": "a"},
        "timeout": (0.5, 6.0),
        "max_retries": 0,
        "num_retries": 0,
        "no-log": True,
        "_skip_mcp_handler": True,
    }
    assert "secret" not in repr(connection)


async def test_a_provider_is_called_at_its_own_address() -> None:
    _, library, connection = await send(WHOLE, endpoint=PROVIDER_ADDRESS)
    assert library.arguments["api_base"] is None
    assert "at the provider" in repr(connection)


async def test_a_stream_ends_with_usage_and_done() -> None:
    stream = Stream(chunk("hi"), chunk(finish_reason="stop"), chunk(usage=USAGE))
    response, library, connection = await send(stream, stream=True)
    assert library.arguments["stream_options"] == {"include_usage": True}
    assert response.headers == {b"content-type": b"text/event-stream"}
    pieces = [await response.read() for _ in range(3)]
    assert [piece.count(b"data: ") for piece in pieces] == [1, 1, 2]
    assert b'"content":"hi"' in pieces[0]
    assert b'"choices":[]' in pieces[2]
    assert pieces[2].endswith(b"data: [DONE]\n\n")
    assert response.complete
    assert await response.read() == b""
    await connection.close()
    assert stream.closed.is_set()


async def test_a_stream_may_end_without_usage() -> None:
    response, _, _ = await send(Stream(chunk("hi"), chunk(finish_reason="stop")), stream=True)
    assert [await response.read() for _ in range(4)][2:] == [b"data: [DONE]\n\n", b""]


async def test_choices_that_litellm_cannot_stream_come_as_one_piece() -> None:
    response, library, _ = await send(WHOLE, stream=True, n=2)
    assert "stream" not in library.arguments
    assert response.headers == {b"content-type": b"text/event-stream"}
    assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_a_finish_that_the_provider_never_sent_is_a_failure() -> None:
    stream = Stream(chunk("hi"), chunk(finish_reason="stop"), finish_reason=None)
    response, _, connection = await send(stream, stream=True)
    await response.read()
    with pytest.raises(UpstreamFailed):
        await response.read()
    response.abort()
    await connection.close()
    assert stream.closed.is_set()


async def test_a_field_that_litellm_must_not_see_is_a_bad_request() -> None:
    response, library, _ = await send(WHOLE, api_base="http://10.0.0.1")
    assert response.status == 400
    assert json.loads(await response.read())["error"]["param"] == "api_base"
    assert library.arguments == {}


async def test_a_refusal_keeps_its_status_also_when_it_comes_with_the_first_chunk() -> None:
    refusal = type(
        "RateLimitError", (Exception,), {"status_code": 429, "litellm_response_headers": {"retry-after": "3"}}
    )
    for answer in (refusal("slow down"), Stream(refusal("slow down"))):
        response, _, connection = await send(answer, stream=True)
        assert (response.status, response.headers[b"retry-after"]) == (429, b"3")
        await connection.close()
        assert not isinstance(answer, Stream) or answer.closed.is_set()


async def test_a_refusal_in_mid_stream_is_an_event() -> None:
    stream = Stream(chunk("hi"), type("BadRequestError", (Exception,), {"status_code": 400})("too long"))
    response, _, _ = await send(stream, stream=True)
    await response.read()
    event = json.loads((await response.read()).removeprefix(b"data: "))
    assert event["error"] == {"message": "too long", "type": "invalid_request_error", "param": None, "code": None}
    assert await response.read() == b""


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_a_connection_that_fails(fields: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        await send(ConnectionResetError("peer"), **fields)


async def test_a_stream_that_breaks() -> None:
    response, _, _ = await send(Stream(chunk("hi"), ConnectionResetError("peer")), stream=True)
    await response.read()
    with pytest.raises(UpstreamFailed):
        await response.read()


async def test_nothing_within_the_time_for_the_first_byte() -> None:
    with pytest.raises(UpstreamTimeout):
        await send(None, first_byte_s=0.01)
    stream = Stream(...)
    with pytest.raises(UpstreamTimeout):
        await send(stream, first_byte_s=0.01, stream=True)
    await stream.closed.wait()


async def test_silence_in_mid_stream() -> None:
    stream = Stream(chunk("hi"), ...)
    response, _, _ = await send(stream, stream=True, idle_s=0.01)
    await response.read()
    with pytest.raises(UpstreamTimeout):
        await response.read()
    response.abort()
    response.abort()
    await stream.closed.wait()


async def test_being_cancelled_hangs_up() -> None:
    stream = Stream(chunk("hi"), ...)
    response, _, _ = await send(stream, stream=True)
    await response.read()
    reading = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    response.abort()
    await stream.closed.wait()


async def test_a_library_that_cannot_be_loaded_fails_requests_and_nothing_else() -> None:
    def load() -> FakeLibrary:
        raise ImportError("no module named litellm")

    connection = LitellmConnection(POOL, ADDRESS, load)
    request = UpstreamRequest(b"POST", "/v1/chat/completions", b"", b'{"messages":[]}', 5.0, 5.0)
    with pytest.raises(UpstreamFailed, match="cannot load litellm"):
        await connection.send(request)
    await connection.close()
