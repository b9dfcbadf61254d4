"""Responses that are left to end by themselves: nobody waits for them, and their connection is used again or closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.providers import http_response
from gateway.providers.http_client import HttpUpstream
from tests.support.raw_server import RawServer
from tests.support.upstream import CHUNKED, OK, asking, fetch
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.support.raw_server import RawConnection


async def test_a_late_end_lets_the_connection_be_used_again() -> None:
    end, ended = asyncio.Event(), asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(CHUNKED[:-5])
        await end.wait()
        await connection.send(b"3\r\nabc\r\n" + CHUNKED[-5:])
        ended.set()
        await connection.request()
        await connection.send(OK)
        await connection.hung_up()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert await response.read() == b"ok"
        response.leave()
        response.abort()  # harmless after it
        end.set()
        await ended.wait()
        await wait_until(lambda: response.complete, "the end has come")
        assert await fetch(upstream) == b"ok"
        await upstream.close()
        assert len(server.connections) == 1


async def test_an_end_that_never_comes_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_response, "LEAVE_S", 0.01)
    hung_up = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(CHUNKED[:-5])
        await connection.hung_up()
        hung_up.set()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert await response.read() == b"ok"
        response.leave()
        await hung_up.wait()
        await upstream.close()


async def test_a_response_that_has_ended_is_left_in_peace() -> None:
    async def script(connection: RawConnection) -> None:
        for _ in range(2):
            await connection.request()
            await connection.send(OK)
        await connection.hung_up()

    async with RawServer(script) as server:
        upstream = HttpUpstream(server.url, connect_s=5)
        response = await upstream.send(asking())
        assert await response.read() == b"ok"
        assert response.complete
        response.leave()
        assert await fetch(upstream) == b"ok"
        await upstream.close()
