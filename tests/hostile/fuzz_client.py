"""Sends a fuzzer's cases over raw sockets, and reads what comes as strictly as HTTP allows."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_S_MAX = 30.0
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*\r\n")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)\r\n")


class IllFormed(Exception):
    """What came is no answer of HTTP/1.1."""


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool = False) -> tuple[int, bytes] | None:
    """Read one answer to its end, interim ones before it included; None at the end of the connection.

    Raises:
        IllFormed: it is no HTTP, or ends before its end.
        TimeoutError: it does not come.
    """
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            while True:
                line = await reader.readline()
                if not line:
                    return None
                found = STATUS_LINE.fullmatch(line)
                if found is None:
                    raise IllFormed(repr(line[:200]))
                status, fields = int(found[1]), await _read_fields(reader)
                if status >= 200:
                    # Who could not read a request's first line does not know that HEAD was meant.
                    empty = (is_head and fields.get(b"connection") != b"close") or status in {204, 304}
                    return status, await _read_body(reader, fields, empty=empty, is_head=is_head)
    except asyncio.IncompleteReadError as error:
        raise IllFormed(f"it ends after {error.partial[-200:]!r}") from None
    except ConnectionError:
        return None


async def _read_fields(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    while (line := await reader.readline()) != b"\r\n":
        found = FIELD.fullmatch(line)
        if found is None:
            raise IllFormed(repr(line[:200]))
        fields[found[1].lower()] = found[2]
    return fields


async def _read_body(reader: asyncio.StreamReader, fields: dict[bytes, bytes], *, empty: bool, is_head: bool) -> bytes:
    if empty:
        return b""
    if b"content-length" in fields:
        if b"transfer-encoding" in fields:
            raise IllFormed("a length and chunks")
        size = int(fields[b"content-length"])
        return await reader.read(size) if is_head else await reader.readexactly(size)
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(await reader.readline() or b"-", 16):
            body += await reader.readexactly(size)
            if await reader.readexactly(2) != b"\r\n":
                raise IllFormed("a chunk without its end")
        if await reader.readexactly(2) != b"\r\n":
            raise IllFormed("a last chunk without its end")
        return body
    return await reader.read()


async def exchange(port: int, requests: Sequence[bytes]) -> list[tuple[int, bytes] | None]:
    """Send well-framed requests in one go, and return the answer to each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sending = asyncio.create_task(_send(writer, b"".join(requests)))
        answers = [await read_answer(reader) for _ in requests]
        await sending
        return answers
    finally:
        writer.close()


async def provoke(port: int, sent: bytes) -> list[tuple[int, bytes]]:
    """Send bytes that may be anything, and return every answer until the server closes: its status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sending = asyncio.create_task(_send(writer, sent))
        answers = []
        while (answer := await read_answer(reader, is_head=sent.startswith(b"HEAD "))) is not None:
            answers.append(answer)
        await sending
        return answers
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        return  # refused before all of it was read
