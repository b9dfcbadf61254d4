"""Answers to clients of HTTP/1.0, which know no chunks: a body goes out as it is and ends with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def leave_unframed(cycle: RequestResponseCycle) -> None:
    """Let the answer go out without chunks and close the connection after it; to be called before it begins.

    Chunks must not be sent to HTTP/1.0 (RFC 9112, 6.1), nor may it be told to continue (RFC 9110, 10.1.1).
    """
    cycle.keep_alive = False
    cycle.waiting_for_100_continue = False
    cycle.chunked_encoding = False
    send = cycle.send

    async def send_unframed(message: Any) -> None:
        cycle.expected_content_length = len(message.get("body", b""))  # what uvicorn checks pieces against
        await send(message)

    cycle.send = send_unframed  # type: ignore[method-assign] # uvicorn has no other place to say this
