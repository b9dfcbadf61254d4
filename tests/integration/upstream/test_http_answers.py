"""Answers of engines over HTTP/1.1: however a body is framed and cut, it is read; connections are used again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.providers import http_client
from gateway.providers.http_client import HttpUpstream
from tests.support.raw_server import RawServer
from tests.support.upstream import CHUNKED, OK, TO_THE_END, answering, asking, fetch, whole
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.raw_server import RawConnection


async def test_a_request_goes_out_as_it_was_given() -> None:
    seen = []

    async def script(connection: RawConnection) -> None:
        for _ in range(2):
            seen.append(await connection.request())
            await connection.send(OK)
        await connection.hung_up()

    large = b"x" * 5_000_000
    async with RawServer(script) as server:
        upstream = HttpUpstream(f"{server.url}/base/", connect_s=5)
        await fetch(upstream, b'{"a":1}')
        await fetch(upstream, large)
        await upstream.close()
    head = (
        f"POST /base/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\nx-test: 1\r\ncontent-length: "
    ).encode()
    assert seen == [head + b'7\r\n\r\n{"a":1}', head + b"5000000\r\n\r\n" + large]


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        (OK, True),
        (CHUNKED, True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nX-Empty:\r\ncontent-length: 2\r\n\r\nok", True),
    ],
    ids=["length", "chunked", "interim", "close", "1.0", "keep-alive"],
)
async def test_a_connection_is_used_again_where_both_sides_keep_it(answer: bytes, keeps: bool) -> None:  # noqa: FBT001 - pytest passes by name
    scripts = [answering(answer, answer)] if keeps else [answering(answer), answering(answer)]
    async with RawServer(*scripts) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert [await fetch(upstream), await fetch(upstream)] == [b"ok", b"ok"]
        await upstream.close()
        assert len(server.connections) == len(scripts)


@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_may_be_cut_anywhere(answer: bytes) -> None:
    async def script(connection: RawConnection) -> None:
        await connection.request()
        for at in range(len(answer)):
            await connection.send(answer[at : at + 1])
            await asyncio.sleep(0)
        await connection.hung_up()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert b"content-length" in response.headers or response.headers[b"transfer-encoding"] == b"chunked"
        assert await whole(response) == b"ok"
        assert response.complete
        assert await response.read() == b""
        response.abort()
        await upstream.close()


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with RawServer(answering(TO_THE_END, then_ends=True)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert await fetch(upstream) == b"ok"


@pytest.mark.parametrize("status", [204, 304, 404, 500])
async def test_any_status_is_an_answer(status: int) -> None:
    bodiless = b"HTTP/1.1 %d Any\r\n%b\r\n" % (status, b"" if status in (204, 304) else b"content-length: 0\r\n")
    async with RawServer(answering(bodiless, OK)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert (response.status, await whole(response)) == (status, b"")
        assert await fetch(upstream) == b"ok"
        await upstream.close()


async def test_trailers_of_one_answer_are_no_headers_of_the_next() -> None:
    trailed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n"
    async with RawServer(answering(trailed, OK)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert await fetch(upstream) == b"ok"
        response = await upstream.send(asking())
        assert response.headers == {b"content-length": b"2"}
        await upstream.close()


async def test_an_answer_is_read_after_its_connection_went_on_to_another() -> None:
    async with RawServer(answering(OK, OK.replace(b"ok", b"no"))) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        first = await upstream.send(asking())
        await wait_until(lambda: first.complete, "the first answer is there")
        second = await upstream.send(asking())
        assert (await whole(second), await whole(first)) == (b"no", b"ok")
        await upstream.close()
        assert len(server.connections) == 1


async def test_requests_at_once_each_have_a_connection() -> None:
    async with RawServer(*[answering(OK)] * 5) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        assert await asyncio.gather(*(fetch(upstream) for _ in range(5))) == [b"ok"] * 5
        await upstream.close()
        assert "idle=0" in repr(upstream)


async def test_idle_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "IDLE_CONNECTIONS_MAX", 1)
    async with RawServer(*[answering(OK)] * 3) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        await asyncio.gather(*(fetch(upstream) for _ in range(3)))
        await wait_until(lambda: "open=1" in repr(upstream), "all but one are closed")
        assert "idle=1" in repr(upstream)
        await upstream.close()


async def test_a_connection_that_was_idle_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(answering(OK), answering(OK)) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        await fetch(upstream)
        monkeypatch.setattr(http_client, "IDLE_S_MAX", -1.0)
        await fetch(upstream)
        await upstream.close()
        assert len(server.connections) == 2


async def test_a_closed_upstream_keeps_nothing() -> None:
    """One that is no longer configured finishes what runs, and then leaves no connection behind."""
    rest = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK[:-1])
        await rest.wait()
        await connection.send(OK[-1:])
        await connection.hung_up()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        await upstream.close()
        rest.set()
        assert await whole(response) == b"ok"
        await wait_until(lambda: "open=0" in repr(upstream), "its connection is closed")


@pytest.mark.parametrize("url", ["ftp://engine", "engine:8000", "http://", "", "http:engine"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http address"):
        HttpUpstream(url, connect_s=1)
