"""Engines that fail: each way has its error and its end, and a connection that may be bad is never used again."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.errors import UpstreamFailed, UpstreamStale, UpstreamTimeout
from gateway.providers.http_client import HttpUpstream
from gateway.providers.http_protocol import HEAD_BYTES_MAX
from gateway.providers.http_response import BUFFER_BYTES_MAX
from tests.support.raw_server import RawServer
from tests.support.upstream import CHUNKED, OK, TO_THE_END, answering, asking, fetch, whole
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.raw_server import RawConnection

SHORT_S = 0.05
RECEIVE_BYTES_MAX = 256 * 1024
"""What an event loop hands over at once, at most."""


def breaking(answer: bytes, how: str) -> Callable[[RawConnection], Awaitable[None]]:
    """Return a script that sends `answer` to its first request and then ends, resets or stays silent."""

    async def script(connection: RawConnection) -> None:
        await connection.request()
        if answer:
            await connection.send(answer)
        if how == "end":
            connection.end()
        elif how == "reset":
            connection.reset()
        else:
            await connection.hung_up()

    return script


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 2", OK[:-1], CHUNKED[:-1], CHUNKED[:-5], b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["nothing", "half a head", "length", "chunked", "last chunk", "interim"],
)
async def test_an_answer_that_breaks_off_is_a_failure(answer: bytes, how: str) -> None:
    async with RawServer(breaking(answer, how)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        with pytest.raises(UpstreamFailed):
            await fetch(upstream)
        await wait_until(lambda: "idle=0, open=0" in repr(upstream), "the connection is gone")


async def test_a_reset_is_no_end_of_a_body_without_a_length() -> None:
    sent = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(TO_THE_END)
        await sent.wait()
        connection.reset()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert await response.read() == b"ok"
        sent.set()
        with pytest.raises(UpstreamFailed):
            await response.read()
        assert not response.complete


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES_MAX,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (HEAD_BYTES_MAX // 20),
    ],
    ids=["another protocol", "header", "chunk", "two lengths", "upgrade", "head too large", "endless interim answers"],
)
async def test_what_is_not_http_is_a_failure_and_hung_up_on(answer: bytes) -> None:
    async with RawServer(breaking(answer, "silent")) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        with pytest.raises(UpstreamFailed):
            await fetch(upstream)
        await wait_until(lambda: "idle=0, open=0" in repr(upstream), "the connection is gone")


async def test_a_kept_connection_that_is_gone_costs_a_new_one_and_no_error() -> None:
    async with RawServer(answering(OK, then_ends=True), answering(OK)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        await fetch(upstream)
        await wait_until(lambda: "open=0" in repr(upstream), "the engine has closed")
        await fetch(upstream)
        await upstream.close()
        assert len(server.connections) == 2


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_kept_connection_that_breaks_under_the_request_is_told_and_the_next_is_new(how: str) -> None:
    """The engine may have closed it at this very moment, or died of the request."""

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK)
        await breaking(b"", how)(connection)

    async with RawServer(script, answering(OK)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert await fetch(upstream) == b"ok"
        with pytest.raises(UpstreamStale):
            await fetch(upstream)
        assert len(server.connections) == 1
        assert await fetch(upstream) == b"ok"
        await upstream.close()


async def test_a_new_connection_that_breaks_is_not_stale() -> None:
    async with RawServer(breaking(b"", "end")) as server:
        with pytest.raises(UpstreamFailed) as caught:
            await fetch(HttpUpstream(server.url, connect_s=5))
        assert not isinstance(caught.value, UpstreamStale)


async def test_a_request_that_was_begun_to_be_answered_is_not_sent_again() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK)
        await breaking(b"HTTP/1.1 200", "end")(connection)

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        await fetch(upstream)
        with pytest.raises(UpstreamFailed):
            await fetch(upstream)
        assert len(server.connections) == 1


@pytest.mark.parametrize("surplus", [b"more", b"HTTP/1.1 200 OK\r\ncontent-le", OK], ids=["garbage", "half", "whole"])
@pytest.mark.parametrize("at_once", [True, False], ids=["with the answer", "later"])
async def test_an_engine_that_speaks_unasked_is_not_trusted_again(surplus: bytes, at_once: bool) -> None:  # noqa: FBT001 - pytest passes by name
    """What comes after an answer would be read as the beginning of the next one, which is somebody else's."""

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK + surplus if at_once else OK)
        if not at_once:
            await connection.send(surplus)
        await connection.hung_up()

    async with RawServer(script, answering(OK.replace(b"ok", b"no"))) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert await fetch(upstream) == b"ok"
        await wait_until(lambda: "open=0" in repr(upstream), "the connection is closed")
        assert await fetch(upstream) == b"no"
        await upstream.close()


async def test_an_engine_that_does_not_answer_in_time_is_hung_up_on() -> None:
    async with RawServer(breaking(b"", "silent")) as server:
        with pytest.raises(UpstreamTimeout, match="did not answer in time"):
            await HttpUpstream(server.url, connect_s=5).send(asking(first_byte_s=SHORT_S))


async def test_an_engine_that_falls_silent_is_hung_up_on() -> None:
    async with RawServer(breaking(OK[:-1], "silent")) as server:
        response = await HttpUpstream(server.url, connect_s=5).send(asking(idle_s=SHORT_S))
        assert await response.read() == b"o"
        with pytest.raises(UpstreamTimeout, match="fell silent"):
            await response.read()


async def test_a_deadline_is_of_its_own_request() -> None:
    """A kept connection is measured anew: neither too early, by the last request's clock, nor never."""
    async with RawServer(answering(OK, OK[:-1])) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        await fetch(upstream)
        response = await upstream.send(asking(first_byte_s=SHORT_S, idle_s=SHORT_S))
        assert await response.read() == b"o"
        with pytest.raises(UpstreamTimeout):
            await response.read()


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await HttpUpstream(f"http://127.0.0.1:{port}", connect_s=5).send(asking())


async def test_an_engine_that_accepts_nothing_more_costs_only_the_time_to_connect() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = []
        with socket.create_connection(listener.getsockname()) as first:
            queued.append(first)
            with pytest.raises(UpstreamTimeout, match="does not accept"):
                await HttpUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_s=SHORT_S).send(asking())


async def test_a_server_without_tls_is_a_failure() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.send(OK)
        await connection.hung_up()

    async with RawServer(script) as server:
        with pytest.raises(UpstreamFailed):
            await HttpUpstream(server.url.replace("http:", "https:"), connect_s=5).send(asking())


async def test_a_reader_that_does_not_read_stops_the_engine() -> None:
    """What is unread is bounded, however much the engine has to say, and waiting for the reader is no silence."""
    piece, pieces = b"x" * 65_536, 500

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * pieces))
        for _ in range(pieces):
            await connection.send(piece)
        await connection.hung_up()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking(idle_s=SHORT_S))
        await wait_until(lambda: response._buffered_bytes > BUFFER_BYTES_MAX, "the buffer is full")
        held = response._buffered_bytes
        past_idle_s = asyncio.get_running_loop().time() + 2 * SHORT_S
        await wait_until(lambda: asyncio.get_running_loop().time() > past_idle_s, "the time for silence is over")
        assert response._buffered_bytes == held <= BUFFER_BYTES_MAX + RECEIVE_BYTES_MAX
        assert server.connections[0].sent_bytes < len(piece) * pieces
        assert len(await whole(response)) == len(piece) * pieces
        assert response.complete
        await upstream.close()


async def test_an_answer_that_ends_while_nobody_reads_leaves_its_connection_usable() -> None:
    large = b"x" * (BUFFER_BYTES_MAX + 1)
    async with RawServer(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(large), large), OK)
    ) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        await wait_until(lambda: response.complete or response._buffered_bytes > BUFFER_BYTES_MAX, "all has come")
        assert await whole(response) == large
        assert await fetch(upstream) == b"ok"
        await upstream.close()
        assert len(server.connections) == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200"], ids=["before the answer", "in its head"])
async def test_cancelling_a_request_hangs_up(answer: bytes) -> None:
    arrived = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        if answer:
            await connection.send(answer)
        arrived.set()
        await connection.hung_up()

    async with RawServer(script) as server:
        sending = asyncio.ensure_future(HttpUpstream(server.url, connect_s=5).send(asking()))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_giving_an_answer_up_hangs_up() -> None:
    async with RawServer(breaking(OK[:-1], "silent")) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        response.abort()
        response.abort()
        await wait_until(lambda: "idle=0, open=0" in repr(upstream), "the connection is gone")
        assert await response.read() == b"o", "what had come is there"
        with pytest.raises(UpstreamFailed):
            await response.read()
