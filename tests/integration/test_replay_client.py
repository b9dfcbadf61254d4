"""The HTTP client of a replay on real sockets: connections that were closed, early answers, bodies in pieces."""

from __future__ import annotations

from contextlib import aclosing, suppress

import pytest

from gateway.dev.replay.client import Connection, Target
from gateway.dev.replay.errors import ConnectionLost
from tests.support.raw_server import RawConnection, RawServer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def posted(connection: Connection, body: bytes = b"{}") -> tuple[int, bytes]:
    answer, pieces = await connection.post("/chat/completions", {"x-session-id": "s"}, body)
    async with aclosing(pieces):
        return answer.status, b"".join([piece async for piece in pieces])


async def test_a_connection_is_used_again_and_made_anew_when_it_was_closed() -> None:
    async def twice_then_closed(server: RawConnection) -> None:
        for _ in range(2):
            head = await server.request()
            assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
            assert b"x-session-id: s\r\n" in head
            await server.send(OK)
        server.end()

    async def once(server: RawConnection) -> None:
        await server.request()
        await server.send(OK)

    async with RawServer(twice_then_closed, once) as server:
        connection = Connection(Target.of(f"{server.url}/v1/"))
        assert [await posted(connection) for _ in range(3)] == [(200, b"ok")] * 3
        connection.close()


async def test_a_chunked_body_comes_in_pieces_and_trailing_bytes_do_not_count() -> None:
    async def chunked(server: RawConnection) -> None:
        await server.request()
        await server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Any: Thing\r\n\r\n3\r\nabc\r\n")
        await server.send(b"2\r\nde\r\n0\r\n\r\n")

    async with RawServer(chunked) as server:
        connection = Connection(Target.of(f"{server.url}/v1"))
        answer, pieces = await connection.post("/x", {}, b"{}")
        assert answer.headers["x-any"] == "Thing"
        async with aclosing(pieces):
            assert b"".join([piece async for piece in pieces]) == b"abcde"
        connection.close()


async def test_a_body_may_last_as_long_as_the_connection() -> None:
    async def until_closed(server: RawConnection) -> None:
        await server.request()
        await server.send(b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nab")
        await server.send(b"cd")
        server.end()

    async with RawServer(until_closed) as server:
        assert await posted(Connection(Target.of(f"{server.url}/v1"))) == (200, b"abcd")


async def test_a_refusal_before_the_body_was_read_is_heard() -> None:
    async def early(server: RawConnection) -> None:
        await server.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        await server.hung_up()

    async with RawServer(early) as server:
        connection = Connection(Target.of(f"{server.url}/v1"))
        assert await posted(connection, b" " * 3_000_000) == (413, b"no")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", b"nonsense\r\n\r\n"])
async def test_what_breaks_off_is_lost(said: bytes) -> None:
    async def broken(server: RawConnection) -> None:
        await server.request()
        await server.send(said)
        server.end()

    async with RawServer(broken) as server:
        with pytest.raises(ConnectionLost):
            await posted(Connection(Target.of(f"{server.url}/v1")))


async def test_a_head_without_end_is_no_answer() -> None:
    async def endless(server: RawConnection) -> None:
        await server.request()
        with suppress(ConnectionError):
            while True:
                await server.send(
                    b"HTTP/1.1 200 OK\r\n" if not server.sent_bytes else b"x-more: %b\r\n" % (b"a" * 60_000)
                )

    async with RawServer(endless) as server:
        with pytest.raises(ConnectionLost, match="without end"):
            await posted(Connection(Target.of(f"{server.url}/v1")))


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", "/v1"),
        ("https://gateway.example/api/v1/", "gateway.example:443", "/api/v1"),
        ("http://[::1]:8000", "[::1]:8000", ""),
    ],
)
def test_a_base_url_is_read(url: str, authority: str, path: str) -> None:
    target = Target.of(url)
    assert (target.authority, target.path, target.tls) == (authority, path, url.startswith("https"))
